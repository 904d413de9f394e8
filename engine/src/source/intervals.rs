//! Parquet's type INTERVAL holds months, days and milliseconds. Its reader gives either the months or the rest, the rest
//! unless the file says that an Arrow program has written it as something else: months would be lost. Such columns are marked
//! where the files' columns are found, and [`Unreadable`] refuses the plans that read them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::ARROW_SCHEMA_META_KEY;

/// The mark in a field's metadata.
const MARK: &str = "gristmill.months_are_lost";

/// The columns of a Parquet file, those marked whose months the reader would lose.
pub(super) async fn marked(schema: SchemaRef, store: &Arc<dyn ObjectStore>, file: &ObjectMeta) -> Result<SchemaRef> {
    if !schema.fields().iter().any(|field| holds_interval(field.data_type())) || is_of_arrow(store, file).await? {
        return Ok(schema);
    }
    let fields = schema.fields().iter().map(|field| match holds_interval(field.data_type()) {
        true => {
            let mut metadata = field.metadata().clone();
            metadata.insert(MARK.to_string(), "true".to_string());
            Arc::new(Field::clone(field).with_metadata(metadata))
        }
        false => Arc::clone(field),
    });
    Ok(Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())))
}

/// Whether the file says what its types are to Arrow.
async fn is_of_arrow(store: &Arc<dyn ObjectStore>, file: &ObjectMeta) -> Result<bool> {
    let metadata = DFParquetMetadata::new(store.as_ref(), file).fetch_metadata().await?;
    let said = metadata.file_metadata().key_value_metadata();
    Ok(said.is_some_and(|said| said.iter().any(|entry| entry.key == ARROW_SCHEMA_META_KEY)))
}

fn holds_interval(data_type: &DataType) -> bool {
    match data_type {
        DataType::Interval(IntervalUnit::DayTime) => true,
        DataType::Struct(fields) => fields.iter().any(|field| holds_interval(field.data_type())),
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
            holds_interval(field.data_type())
        }
        _ => false,
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Unreadable;

impl OptimizerRule for Unreadable {
    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        // The columns that a scan reads are settled: this rule comes after the one that leaves the others out.
        if let LogicalPlan::TableScan(scan) = &plan
            && let Some(field) = scan.projected_schema.fields().iter().find(|field| field.metadata().contains_key(MARK))
        {
            return Err(DataFusionError::Plan(format!(
                "column `{}` is an INTERVAL of Parquet, which cannot be read: its months would be lost",
                field.name()
            )));
        }
        Ok(Transformed::no(plan))
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn name(&self) -> &'static str {
        "unreadable"
    }
}
