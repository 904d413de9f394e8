//! A change of a Delta table: the sink writes Parquet files into the table's directory, where nobody sees them because
//! the log does not name them; then one commit names them all. What a failed change has written is removed again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{
    Action, Add, Metadata, Protocol, StructType, Transaction, Version, contains_timestampntz, new_metadata,
};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use storage::{CommitMode, Location, WrittenFile};
use uuid::Uuid;

use super::log::Log;
use super::{columns, features, statistics};
use crate::error::{Error, Result};
use crate::sink::partition::{NULL_DIRECTORY, unescaped};

/// Commits of other writers that one of ours may meet before it gives up.
const TRIES: usize = 100;
/// Footers that are read at a time.
const FOOTERS: usize = 16;
/// Under this name a commit tells what it wrote.
const INFO: &str = "gristmill";

/// What a change wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The change's id, which no other commit has.
    id: String,
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// A change that is begun, or that an earlier run of the same job has made.
pub(crate) enum Begun {
    New(Box<Change>),
    Done(Written),
}

/// See the module.
pub(crate) struct Change {
    log: Log,
    /// The table before; `None` when there is none.
    base: Option<DeltaTableState>,
    mode: CommitMode,
    columns: SchemaRef,
    partition_by: Vec<String>,
    id: String,
    /// Names the statement of a job that must not be done twice.
    key: Option<String>,
}

impl Change {
    /// Begins to write rows of these columns. `key`, when given, is the change's name for all time.
    ///
    /// # Errors
    /// A table that is there and should not be, or that cannot be written to; columns that do not fit.
    pub(crate) async fn begin(
        log: Log,
        rows: &DFSchema,
        mode: CommitMode,
        partition_by: Vec<String>,
        key: Option<String>,
    ) -> Result<Begun> {
        log.must_create_once().await?;
        let base = log.newest().await?;
        if let (Some(state), Some(key)) = (&base, &key) {
            let store = log.store();
            let known = state.transaction_version(store.as_ref(), key).await.map_err(|error| log.failed(&error))?;
            if known.is_some() {
                let found = said_before(&log, key, state.version()).await?;
                return Ok(Begun::Done(found.unwrap_or(Written { id: String::new(), files: 0, rows: 0, bytes: 0 })));
            }
        }
        let id = Uuid::new_v4().simple().to_string();
        let mut change = Change { log, base, mode, columns: Arc::new(Schema::empty()), partition_by, id, key };
        change.settle(rows).await?;
        Ok(Begun::New(Box::new(change)))
    }

    /// Settles the table's columns and partitions, as they will be.
    async fn settle(&mut self, rows: &DFSchema) -> Result<()> {
        let location = self.log.location().clone();
        if let Some(state) = &self.base {
            if self.mode == CommitMode::ErrorIfExists {
                return Err(self.exists());
            }
            features::check_writable(&location, state)?;
            let known = state.metadata().partition_columns().to_vec();
            let keeps = self.mode != CommitMode::Overwrite;
            if self.partition_by.is_empty()
                && (keeps || known.iter().all(|name| rows.has_column_with_unqualified_name(name)))
            {
                self.partition_by = known;
            } else if keeps && self.partition_by != known {
                let list = |names: &[String]| if names.is_empty() { "nothing".to_string() } else { names.join(", ") };
                return Err(Error::invalid(format!(
                    "{location}: the table is partitioned by {}, not by {}",
                    list(&known),
                    list(&self.partition_by)
                )));
            }
            self.columns = if keeps { state.snapshot().arrow_schema() } else { columns::of_query(rows)? };
        } else {
            self.must_not_be_a_table_of_files().await?;
            self.columns = columns::of_query(rows)?;
        }
        for name in &self.partition_by {
            let kind = self.columns.field_with_name(name).map(Field::data_type);
            if let Some(kind) = kind.ok().filter(|kind| !columns::may_partition(kind)) {
                return Err(Error::invalid(format!(
                    "PARTITIONED BY: column `{name}` is {kind}; a Delta table is partitioned by whole numbers, texts, \
                     days or booleans"
                )));
            }
        }
        Ok(())
    }

    /// A directory that COPY wrote as plain files has a manifest, which a log beside it would contradict.
    async fn must_not_be_a_table_of_files(&self) -> Result<()> {
        let location = self.log.location();
        let manifests = self.log.files().list_with_delimiter(Some(&storage::manifest::META.into())).await;
        let manifests = manifests.map_err(|error| storage::Error::at(location, error))?;
        let is_manifest =
            |object: &ObjectMeta| object.location.filename().is_some_and(|name| name.starts_with("manifest-"));
        if manifests.objects.iter().any(is_manifest) {
            return Err(Error::invalid(format!("{location}: is a table of plain files, not a Delta table"))
                .with_hint("write into another directory"));
        }
        Ok(())
    }

    fn exists(&self) -> Error {
        let version = self.base.as_ref().map_or(0, DeltaTableState::version);
        Error::invalid(format!(
            "{}: a Delta table exists already (version {version}); MODE OVERWRITE replaces its rows, APPEND adds to them",
            self.log.location()
        ))
    }

    /// The table's directory, into which files are written.
    pub(crate) fn location(&self) -> &Location {
        self.log.location()
    }

    /// Part of the name of every file that is written.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn partition_by(&self) -> &[String] {
        &self.partition_by
    }

    /// The plan with the table's columns.
    ///
    /// # Errors
    /// A column that the table does not have, or has with another type.
    pub(crate) fn fitted(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let named = |error: Error| match error {
            Error::Invalid { message, offset, hint } => {
                Error::Invalid { message: format!("{}: {message}", self.log.location()), offset, hint }
            }
            other => other,
        };
        columns::fitted(plan, &self.columns).map_err(named)
    }

    /// Commits the files. On an error nothing of the change is left, unless it cannot be told whether it was committed.
    ///
    /// # Errors
    /// Another writer's commit that this one contradicts; a store that fails.
    pub(crate) async fn publish(mut self, session: &SessionState, files: Vec<WrittenFile>) -> Result<Written> {
        let (files, empty): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.rows > 0);
        self.remove(empty.into_iter().map(|file| file.path).collect()).await;
        let written = Written {
            id: self.id.clone(),
            files: files.len() as u64,
            rows: files.iter().map(|file| file.rows).sum(),
            bytes: files.iter().map(|file| file.bytes).sum(),
        };
        let adds = match self.adds(session, &files).await {
            Ok(adds) => adds,
            Err(error) => {
                self.abort().await;
                return Err(error);
            }
        };
        loop {
            let Err(error) = self.commit(&adds, &written).await else { return Ok(written) };
            let begun = self.base.as_ref().map_or(0, |state| state.version() + 1);
            match said_since(&self.log, &self.id, begun).await {
                // It was committed, and what comes after a commit (a checkpoint of the log) failed.
                Ok(Some(_)) => {
                    tracing::warn!(location = %self.log.location(), %error, "committed, but not tidied up after");
                    return Ok(written);
                }
                Ok(None) => {}
                Err(unknown) => {
                    tracing::warn!(location = %self.log.location(), %unknown, "the files of a change are left");
                    return Err(error);
                }
            }
            if !self.meets_new_table().await? {
                self.abort().await;
                return Err(if self.base.is_some() && self.mode == CommitMode::ErrorIfExists {
                    self.exists()
                } else {
                    error
                });
            }
        }
    }

    /// Whether another writer has made the table meanwhile, and this change may go on on top of it.
    async fn meets_new_table(&mut self) -> Result<bool> {
        if self.base.is_some() {
            return Ok(false);
        }
        self.base = self.log.newest().await?;
        let Some(state) = &self.base else { return Ok(false) };
        let same = alike(&state.snapshot().arrow_schema(), &self.columns)
            && state.metadata().partition_columns() == self.partition_by.as_slice();
        Ok(self.mode != CommitMode::ErrorIfExists && same)
    }

    async fn commit(&self, adds: &[Add], written: &Written) -> Result<()> {
        let mut actions = self.table_actions()?;
        actions.extend(self.removed(adds));
        actions.extend(adds.iter().cloned().map(Action::Add));
        let mode = match self.mode {
            CommitMode::Append => SaveMode::Append,
            CommitMode::ErrorIfExists => SaveMode::ErrorIfExists,
            CommitMode::Overwrite | CommitMode::OverwritePartitions => SaveMode::Overwrite,
        };
        let partition_by = (!self.partition_by.is_empty()).then(|| self.partition_by.clone());
        let operation = DeltaOperation::Write { mode, partition_by, predicate: None };
        let mut properties = CommitProperties::default()
            .with_metadata([(INFO.to_string(), json!(written))])
            // Only the first writer makes the table; who comes second looks at what was made.
            .with_max_retries(if self.base.is_some() { TRIES } else { 0 });
        if let Some(key) = &self.key {
            properties = properties.with_application_transaction(Transaction::new(key, 1));
        }
        let base = self.base.as_ref().map(|state| state as &dyn TableReference);
        let commit = CommitBuilder::from(properties).with_actions(actions).build(base, self.log.store(), operation);
        commit.await.map(|_| ()).map_err(|error| self.log.failed(&error))
    }

    /// What says which columns the table has, where this change makes or changes them.
    fn table_actions(&self) -> Result<Vec<Action>> {
        let damaged = |error: String| Error::invalid(format!("{}: {error}", self.log.location()));
        let schema: StructType = self.columns.as_ref().try_into_kernel().map_err(|error| damaged(error.to_string()))?;
        let without_zone = contains_timestampntz(schema.fields());
        let Some(state) = &self.base else {
            let protocol = if without_zone {
                json!({"minReaderVersion": 3, "minWriterVersion": 7,
                       "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"]})
            } else {
                json!({"minReaderVersion": 1, "minWriterVersion": 2})
            };
            let protocol: Protocol = serde_json::from_value(protocol).map_err(|error| damaged(error.to_string()))?;
            let metadata = new_metadata(&schema, &self.partition_by, HashMap::<String, String>::new())
                .map_err(|error| damaged(error.to_string()))?;
            return Ok(vec![Action::Protocol(protocol), Action::Metadata(metadata)]);
        };
        let before = state.metadata();
        if alike(&state.snapshot().arrow_schema(), &self.columns)
            && before.partition_columns() == self.partition_by.as_slice()
        {
            return Ok(Vec::new());
        }
        let json = |error: serde_json::Error| damaged(error.to_string());
        if without_zone && !serde_json::to_string(state.protocol()).map_err(json)?.contains("timestampNtz") {
            return Err(Error::invalid(format!(
                "{}: the table was made without times without a zone (timestampNtz), and gets such a column",
                self.log.location()
            )));
        }
        let mut metadata = serde_json::to_value(before).map_err(json)?;
        metadata["schemaString"] = json!(serde_json::to_string(&schema).map_err(json)?);
        metadata["partitionColumns"] = json!(self.partition_by);
        let metadata: Metadata = serde_json::from_value(metadata).map_err(json)?;
        Ok(vec![Action::Metadata(metadata)])
    }

    /// The files that the change replaces.
    fn removed(&self, adds: &[Add]) -> Vec<Action> {
        let Some(state) = &self.base else { return Vec::new() };
        let values = |map: &HashMap<String, Option<String>>| -> BTreeSet<(String, Option<String>)> {
            map.iter().map(|(name, value)| (name.clone(), value.clone().filter(|text| !text.is_empty()))).collect()
        };
        let partitions: HashSet<_> = adds.iter().map(|add| values(&add.partition_values)).collect();
        let is_replaced = |map: &HashMap<String, Option<String>>| match self.mode {
            CommitMode::Append | CommitMode::ErrorIfExists => false,
            CommitMode::Overwrite => true,
            CommitMode::OverwritePartitions => partitions.contains(&values(map)),
        };
        let files = state.log_data();
        let replaced = files.iter().filter(|file| is_replaced(&file.partition_values_map()));
        replaced.map(|file| Action::Remove(file.remove_action(true))).collect()
    }

    async fn adds(&self, session: &SessionState, files: &[WrittenFile]) -> Result<Vec<Add>> {
        let is_stored = |field: &&Arc<Field>| !self.partition_by.contains(field.name());
        let stored: Vec<_> = self.columns.fields().iter().filter(is_stored).cloned().collect();
        let stored: SchemaRef = Arc::new(Schema::new(stored));
        let format = ParquetFormat::new().with_options(session.default_table_options().parquet);
        let adds: Vec<_> = files.iter().map(|file| self.add(session, &format, &stored, file).boxed()).collect();
        futures::stream::iter(adds).buffered(FOOTERS).try_collect().await
    }

    async fn add(
        &self,
        session: &SessionState,
        format: &ParquetFormat,
        stored: &SchemaRef,
        file: &WrittenFile,
    ) -> Result<Add> {
        let path = self.in_table(&file.path);
        let object = self.log.files().head(&path).await.map_err(|error| storage::Error::at(&file.path, error))?;
        // A store below a prefix lists names without it, and answers this with it.
        let object = ObjectMeta { location: path.clone(), ..object };
        let footer = format.infer_stats(session, self.log.files(), Arc::clone(stored), &object).await?;
        Ok(Add {
            path: path.to_string(),
            partition_values: partition_values(&file.relative),
            size: file.bytes as i64,
            modification_time: object.last_modified.timestamp_millis(),
            data_change: true,
            stats: Some(statistics::of_file(file.rows, &footer, stored)),
            ..Add::default()
        })
    }

    /// Removes what was written; the tasks that wrote it have stopped.
    pub(crate) async fn abort(&self) {
        let listed: Result<Vec<ObjectMeta>, _> = self.log.files().list(None).try_collect().await;
        let ours = |object: &ObjectMeta| object.location.filename().is_some_and(|name| name.contains(&self.id));
        match listed {
            Ok(objects) => {
                let ours = objects.into_iter().filter(ours);
                let paths = ours.map(|object| self.log.location().join(object.location.as_ref())).collect();
                self.remove(paths).await;
            }
            Err(error) => {
                tracing::warn!(location = %self.log.location(), %error, "files of a change that failed are left");
            }
        }
    }

    /// A file's path in the table's store.
    fn in_table(&self, file: &Location) -> Path {
        let names = file.path().prefix_match(self.log.location().path());
        names.map(Iterator::collect).unwrap_or_else(|| file.path().clone())
    }

    async fn remove(&self, files: Vec<Location>) {
        for file in files {
            if let Err(error) = self.log.files().delete(&self.in_table(&file)).await {
                tracing::warn!(%file, %error, "a file that no version of the table names is left");
            }
        }
    }
}

/// What the newest commit up to `newest` that holds this key says of itself; `None` when it is so old that the log was
/// cleaned up since: then a checkpoint has its actions, and nobody its words.
async fn said_before(log: &Log, key: &str, newest: Version) -> Result<Option<Written>> {
    // With its quotes, or the key of statement 1 would be found in that of statement 10.
    let key = json!(key).to_string();
    for version in (0..=newest).rev() {
        match log.commit(version).await? {
            Some(commit) if commit.contains(&key) => return Ok(said(&commit)),
            Some(_) => {}
            None => break,
        }
    }
    Ok(None)
}

/// What the commit with this id says of itself, when it is one of those from `begun` on.
async fn said_since(log: &Log, id: &str, begun: Version) -> Result<Option<Written>> {
    let mut version = begun;
    while let Some(commit) = log.commit(version).await? {
        if commit.contains(id) {
            return Ok(said(&commit));
        }
        version += 1;
    }
    Ok(None)
}

fn said(commit: &str) -> Option<Written> {
    let actions = commit.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    actions.filter_map(|action| serde_json::from_value(action["commitInfo"][INFO].clone()).ok()).next_back()
}

/// The same names and types in the same order.
fn alike(left: &Schema, right: &Schema) -> bool {
    left.fields().len() == right.fields().len()
        && (left.fields().iter().zip(right.fields()))
            .all(|(left, right)| left.name() == right.name() && left.data_type().equals_datatype(right.data_type()))
}

/// `year=2013/origin=a%2Fb` as the log says it: names and texts, and nothing for NULL.
fn partition_values(directory: &str) -> HashMap<String, Option<String>> {
    let pairs = directory.split('/').filter_map(|part| part.split_once('='));
    pairs.map(|(name, value)| (unescaped(name), (value != NULL_DIRECTORY).then(|| unescaped(value)))).collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use datafusion::prelude::SessionContext;
    use storage::Stores;

    use super::*;

    #[test]
    fn directories_are_values() {
        let values = |directory| {
            let mut values: Vec<_> = partition_values(directory).into_iter().collect();
            values.sort();
            values
        };
        assert_eq!(values(""), []);
        let expected = [("m".to_string(), None), ("o".to_string(), Some("a/b é%".to_string()))];
        assert_eq!(values("o=a%2Fb é%25/m=__HIVE_DEFAULT_PARTITION__"), expected);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_change_is_known_again_after_the_log_was_cleaned_up() {
        let directory = tempfile::tempdir().unwrap();
        let (stores, session) = (Stores::new(), SessionContext::new().state());
        let place = Location::parse(&format!("{}/", directory.path().display())).unwrap();
        let log = || Log::open(&stores, &place).unwrap();
        let rows = DFSchema::try_from(Schema::new(vec![Field::new("a", DataType::Int64, true)])).unwrap();
        let begin = |key: &str| Change::begin(log(), &rows, CommitMode::Append, vec![], Some(key.to_string()));
        let mut written = Vec::new();
        for key in ["job/1", "job/10", "job/2"] {
            let Begun::New(change) = begin(key).await.unwrap() else { panic!("{key} is new") };
            written.push(change.publish(&session, vec![]).await.unwrap());
        }
        let Begun::Done(known) = begin("job/1").await.unwrap() else { panic!("job/1 is done") };
        assert_eq!(known, written[0]);

        let mut table = deltalake_core::DeltaTable::new(log().store());
        table.load().await.unwrap();
        deltalake_core::protocol::checkpoints::create_checkpoint(&table, None).await.unwrap();
        for version in 0..2 {
            std::fs::remove_file(directory.path().join(format!("_delta_log/{version:020}.json"))).unwrap();
        }
        for (key, expected) in [("job/2", Some(&written[2])), ("job/1", None)] {
            let Begun::Done(known) = begin(key).await.unwrap() else { panic!("{key} is done") };
            assert!(expected.is_none_or(|expected| known == *expected), "{key}: {known:?}");
        }
        let Begun::New(change) = begin("job/3").await.unwrap() else { panic!("job/3 is new") };
        change.publish(&session, vec![]).await.unwrap();
        assert_eq!(log().newest().await.unwrap().unwrap().version(), 3);
        let error = log().snapshot(Some(9)).await.unwrap_err().to_string();
        assert!(error.ends_with("there is no version 9; the newest is 3"), "{error}");
    }
}
