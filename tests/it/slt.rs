//! Runs `tests/slt/**/*.slt`: SQL that goes in, rows that come out. Each file is a test of its own, named by runner and
//! file: `slt::local::sql_copy` in this process, `slt::cluster::sql_copy` on a cluster of two executors. The answers are
//! the same.
//!
//! A record is a script for a session that lives as long as its file; the rows of its last SELECT are its result.
//! `__TEST_DIR__` stands for a directory that is the file's own. To write the results of a run into a file instead of
//! comparing them, set `SLT_COMPLETE=1` and read the difference.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use engine::{Options, RunSettings, Script, Session};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

use crate::cluster_process;

/// Where a file's plans are executed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Local,
    Cluster,
}

impl Place {
    /// As `skipif` and `onlyif` in the files name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::Local => "local",
            Place::Cluster => "cluster",
        }
    }
}

/// One session as the program builds it, over local files and with the models of a warehouse of its own.
pub(crate) struct Subject {
    place: Place,
    session: Session,
    directory: Arc<tempfile::TempDir>,
}

impl Subject {
    async fn new(place: Place, directory: Arc<tempfile::TempDir>) -> Result<Self, engine::Error> {
        Self::with(place, directory, |options| options).await
    }

    /// With other options than the usual ones.
    pub(crate) async fn with(
        place: Place,
        directory: Arc<tempfile::TempDir>,
        change: impl FnOnce(Options) -> Options,
    ) -> Result<Self, engine::Error> {
        let options = change(Options {
            threads: 2,
            warehouse: directory.path().join("warehouse").to_string_lossy().into_owned(),
            ..Options::default()
        });
        let session = match place {
            Place::Local => gristmill::session(options)?,
            Place::Cluster => {
                let address = cluster_process::shared().address().clone();
                gristmill::cluster_session(Options { cluster: Some(address), ..options }).await?
            }
        };
        Ok(Subject { place, session, directory })
    }
}

/// The error as the user reads it, with what to do about it, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Told(String);

impl From<engine::Error> for Told {
    fn from(error: engine::Error) -> Self {
        match error.innermost() {
            engine::Error::Invalid { hint: Some(hint), .. } => Told(format!("{error}; {hint}")),
            _ => Told(error.to_string()),
        }
    }
}

#[async_trait]
impl AsyncDB for Subject {
    type Error = Told;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Told> {
        let sql = sql.replace("__TEST_DIR__", &self.directory.path().to_string_lossy());
        let script = Script::parse("record", sql.as_str())?;
        let results = Arc::new(engine::Collected::default());
        let settings = RunSettings { results: Arc::clone(&results) as _, ..RunSettings::default() };
        self.session.run_script(&script, &settings).await?;
        match results.take().pop() {
            Some(batches) => rows(&batches),
            None => Ok(DBOutput::StatementComplete(0)),
        }
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.place.name()
    }
}

/// Rows as text: NULL, `(empty)` for an empty string, everything else as arrow displays it.
fn rows(batches: &[RecordBatch]) -> Result<DBOutput<DefaultColumnType>, Told> {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = (batch.columns().iter())
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()
            .map_err(|error| Told(error.to_string()))?;
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayFormatter<'_>| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".to_string(),
                text => text,
            };
            rows.push(columns.iter().map(cell).collect());
        }
    }
    let types = vec![DefaultColumnType::Any; batches.first().map_or(0, RecordBatch::num_columns)];
    Ok(DBOutput::Rows { types, rows })
}

fn run(place: Place, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(file);
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut runner = Runner::new(|| {
        let directory = Arc::clone(&directory);
        async move { Subject::new(place, directory).await.map_err(Told::from) }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if std::env::var_os("SLT_COMPLETE").is_some() {
            let validator = sqllogictest::default_validator;
            let columns = sqllogictest::default_column_validator;
            runner.update_test_file(&path, " ", validator, sqllogictest::default_normalizer, columns).await.unwrap();
        } else if let Err(error) = runner.run_file_async(&path).await {
            panic!("{}", error.display(false));
        }
    });
}

macro_rules! files {
    ($($name:ident: $file:literal,)*) => {
        pub(crate) const FILES: &[&str] = &[$($file),*];
        mod local { $( #[test] fn $name() { super::run(super::Place::Local, $file); } )* }
        mod cluster { $( #[test] fn $name() { super::run(super::Place::Cluster, $file); } )* }
    };
}

files! {
    sql_types: "sql/types.slt",
    sql_subqueries: "sql/subqueries.slt",
    sql_changed_rows: "sql/changed_rows.slt",
    sql_parameters: "sql/parameters.slt",
    sql_assertions: "sql/assertions.slt",
    sql_external_tables: "sql/external_tables.slt",
    sql_views_and_tables: "sql/views_and_tables.slt",
    sql_copy: "sql/copy.slt",
    sql_delta: "sql/delta.slt",
    sql_joins_of_equal_names: "sql/joins_of_equal_names.slt",
    sql_null_safe_joins: "sql/null_safe_joins.slt",
    sql_joins_that_sort: "sql/joins_that_sort.slt",
    sql_using_joins: "sql/using_joins.slt",
    sql_set_operations: "sql/set_operations.slt",
    sql_mixed_numbers: "sql/mixed_numbers.slt",
    sql_limits_in_subqueries: "sql/limits_in_subqueries.slt",
    sql_nullable_columns: "sql/nullable_columns.slt",
    sql_ordered_aggregates: "sql/ordered_aggregates.slt",
    sql_nulls_in_frames_and_partitions: "sql/nulls_in_frames_and_partitions.slt",
    sql_clauses: "sql/clauses.slt",
    sql_keys: "sql/keys.slt",
    sql_names: "sql/names.slt",
    sql_readings: "sql/readings.slt",
    sql_sampling: "sql/sampling.slt",
    sql_overflow: "sql/overflow.slt",
    sql_decimals: "sql/decimals.slt",
    sql_floats: "sql/floats.slt",
    sql_intervals: "sql/intervals.slt",
    sql_far_dates: "sql/far_dates.slt",
    sql_row_order: "sql/row_order.slt",
    sql_file_row_index: "sql/file_row_index.slt",
    sql_tables_stay_readable: "sql/tables_stay_readable.slt",
    sql_splitting: "sql/splitting.slt",
    sql_parquet_options: "sql/parquet_options.slt",
    ml_statements: "ml/statements.slt",
    ml_relations: "ml/relations.slt",
    ml_transform: "ml/transform.slt",
    ml_automatic: "ml/automatic.slt",
    ml_splits: "ml/splits.slt",
    ml_options: "ml/options.slt",
    ml_p_values: "ml/p_values.slt",
    ml_bags: "ml/bags.slt",
    ml_bigquery: "ml/bigquery.slt",
    ml_categories: "ml/categories.slt",
    ml_copies: "ml/copies.slt",
    ml_defaults: "ml/defaults.slt",
    ml_label_in_transform: "ml/label_in_transform.slt",
    ml_offsets: "ml/offsets.slt",
    ml_properties: "ml/properties.slt",
    ml_publication: "ml/publication.slt",
    ml_transform_sql: "ml/transform_sql.slt",
    ml_unscaled: "ml/unscaled.slt",
    ml_weights: "ml/weights.slt",
}

#[test]
fn every_file_is_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    for directory in ["sql", "ml"] {
        for entry in std::fs::read_dir(root.join(directory)).unwrap().flatten() {
            let file = format!("{directory}/{}", entry.file_name().to_string_lossy());
            assert!(FILES.contains(&file.as_str()), "{file} is not in the list of files");
        }
    }
}
