//! A Delta table as a table of the query engine. Its snapshot is resolved when a query is planned, on the driver: what
//! goes into the plan is a scan of Parquet files with their partition values, as any runner executes it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::scalar::ScalarValue;
use deltalake_core::kernel::{LogicalFileView, Version};
use object_store::ObjectMeta;
use storage::{Location, Stores};

use super::log::{Log, below};
use super::pruning::{FileFacts, Files};
use crate::error::{Error, Result, near};

/// See the module.
pub(crate) struct DeltaTable {
    log: Log,
    /// The version to read; the newest one at each query when absent.
    version: Option<Version>,
    schema: SchemaRef,
    partition_by: Vec<String>,
}

impl DeltaTable {
    /// Opens the table at a directory. The one option is `version`.
    ///
    /// # Errors
    /// No table or no such version there, an option that does not exist, a table that cannot be read.
    pub(crate) async fn open(stores: &Stores, location: &Location, options: &HashMap<String, String>) -> Result<Self> {
        let version = version(options)?;
        let log = Log::open(stores, location)?;
        let state = log.snapshot(version).await?;
        let partition_by = state.metadata().partition_columns().to_vec();
        let schema = state.snapshot().arrow_schema();
        Ok(DeltaTable { log, version, schema, partition_by })
    }

    /// Its directory.
    pub(crate) fn location(&self) -> &Location {
        self.log.location()
    }

    /// The version that it is held at.
    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// The same table as it was at a version.
    ///
    /// # Errors
    /// No such version, or one that cannot be read.
    pub(crate) async fn at_version(&self, version: Version) -> Result<Self> {
        let state = self.log.snapshot(Some(version)).await?;
        let partition_by = state.metadata().partition_columns().to_vec();
        let schema = state.snapshot().arrow_schema();
        Ok(DeltaTable { log: self.log.clone(), version: Some(version), schema, partition_by })
    }

    /// The same table as it was at a time, in milliseconds since 1970.
    ///
    /// # Errors
    /// A time before the first version that the log still has.
    pub(crate) async fn at_time(&self, time_ms: i64) -> Result<Self> {
        self.at_version(self.log.version_at(time_ms).await?).await
    }

    /// A table that is held at a version cannot be written to.
    pub(crate) fn is_held(&self) -> bool {
        self.version.is_some()
    }

    /// The columns as a scan of files has them: those in the files, then those of partitions.
    fn scanned(&self) -> TableSchema {
        let is_partition = |field: &FieldRef| self.partition_by.contains(field.name());
        let stored: Vec<FieldRef> = self.schema.fields().iter().filter(|field| !is_partition(field)).cloned().collect();
        let partitions = self.partition_by.iter().filter_map(|name| self.schema.field_with_name(name).ok());
        let partitions: Vec<FieldRef> = partitions.cloned().map(Arc::new).collect();
        TableSchema::builder(Arc::new(Schema::new(stored))).with_table_partition_cols(partitions).build()
    }

    /// Which files may hold rows that pass the filters, by what the log says of them.
    fn kept(&self, state: &dyn CatalogSession, facts: Vec<FileFacts>, filters: &[Expr]) -> PlanResult<Vec<bool>> {
        let files = Files { columns: &self.schema, partition_by: &self.partition_by, facts };
        let all = || vec![true; files.facts.len()];
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(all()) };
        let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
        let Ok(filter) = state.create_physical_expr(filter, &schema) else { return Ok(all()) };
        let pruning = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema)).try_build(filter);
        // Leaving files out only saves time: filters are applied to the rows in any case.
        let kept = pruning.and_then(|pruning| pruning.prune(&files));
        Ok(kept.unwrap_or_else(|_| all()))
    }

    fn file(&self, view: &LogicalFileView) -> Result<PartitionedFile> {
        let location = self.log.location();
        if view.path().contains("://") {
            return Err(Error::invalid(format!("{location}: {} lies outside of the table's directory", view.path())));
        }
        let damaged = |what: String| Error::invalid(format!("{location}: the log's entry of {}: {what}", view.path()));
        let texts = view.partition_values_map();
        let mut values = Vec::with_capacity(self.partition_by.len());
        for name in &self.partition_by {
            let kind = self.schema.field_with_name(name).map_err(DataFusionError::from)?.data_type();
            let text = texts.get(name).cloned().flatten().filter(|text| !text.is_empty());
            let value = match text {
                Some(text) => ScalarValue::try_from_string(text, kind),
                None => ScalarValue::try_from(kind),
            };
            values.push(value.map_err(|error| damaged(error.strip_backtrace()))?);
        }
        let object = ObjectMeta {
            location: below(location, &view.object_store_path()).path().clone(),
            last_modified: view.modification_datetime().map_err(|error| damaged(error.to_string()))?,
            size: u64::try_from(view.size()).map_err(|error| damaged(error.to_string()))?,
            e_tag: None,
            version: None,
        };
        Ok(PartitionedFile::new_from_meta(object).with_partition_values(values))
    }
}

fn version(options: &HashMap<String, String>) -> Result<Option<Version>> {
    let mut version = None;
    for (key, value) in options {
        let lower = key.to_lowercase();
        let name = lower.strip_prefix("format.").unwrap_or(&lower);
        if name != "version" {
            let error = Error::invalid(format!("DELTA has no option `{name}`"));
            return Err(match near(name, ["version"]) {
                Some(known) => error.with_hint(format!("did you mean `{known}`?")),
                None => error.with_hint("its option is version"),
            });
        }
        let wrong = |_| Error::invalid(format!("version is `{value}`, expected a whole number from 0 on"));
        version = Some(value.parse().map_err(wrong)?);
    }
    Ok(version)
}

impl fmt::Debug for DeltaTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeltaTable").field("location", self.log.location()).field("version", &self.version).finish()
    }
}

#[async_trait]
impl TableProvider for DeltaTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn CatalogSession,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let snapshot = self.log.snapshot(self.version).await.map_err(external)?;
        let scanned = self.scanned();
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());

        let (mut listed, mut facts) = (Vec::new(), Vec::new());
        for view in snapshot.log_data().iter() {
            let file = self.file(&view).map_err(external)?;
            let stats = view.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let rows = view.num_records();
            facts.push(FileFacts {
                partition: file.partition_values.clone(),
                rows: rows.map(|rows| rows as u64),
                stats,
            });
            listed.push((file, rows));
        }
        let mut files = Vec::new();
        let mut rows = Some(0);
        for ((file, more), _) in listed.into_iter().zip(self.kept(state, facts, filters)?).filter(|(_, kept)| *kept) {
            rows = rows.zip(more).map(|(rows, more)| rows + more);
            files.push(file);
        }
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?))));
        }
        let mut statistics = Statistics::new_unknown(scanned.table_schema());
        statistics.num_rows = rows.map_or(Precision::Absent, Precision::Exact);

        let order = |index: &usize| scanned.table_schema().index_of(self.schema.field(*index).name());
        let wanted = wanted.iter().map(order).collect::<Result<Vec<_>, _>>()?;
        let format = ParquetFormat::new().with_options(state.default_table_options().parquet);
        let place = ObjectStoreUrl::parse(self.log.location().store_url())?;
        let config = FileScanConfigBuilder::new(place, format.file_source(scanned))
            .with_file_groups(FileGroup::new(files).split_files(state.config().target_partitions()))
            .with_statistics(statistics)
            .with_projection_indices(Some(wanted))?
            .with_limit(limit)
            .build();
        format.create_physical_plan(state, config).await
    }
}
