//! `file_row_index()` for files other than Parquet: the number of a row in its file, from 0. The query engine has Parquet's
//! reader count and knows of no other (DataFusion 55.2: "is source dependent and cannot be evaluated directly").
//!
//! Where a projection or filters right above a scan ask for it, the scan reads whole files, one in each partition, and the
//! rows of each are counted as they come, before anything leaves some of them out. Whole files mean that a single large one
//! is read by one thread; only who asks pays for that.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::functions::core::file_row_index::FileRowIndexFunc;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

/// The column of numbers; no file has one of this name.
const NUMBER: &str = "__gristmill_file_row_index";

/// See the module.
#[derive(Debug)]
pub(super) struct LineNumbers;

impl PhysicalOptimizerRule for LineNumbers {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| {
            let Some(numbered) = numbered(&node)? else { return Ok(Transformed::no(node)) };
            Ok(Transformed::yes(numbered))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "line_numbers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A projection or a filter with all below it down to the scan, when one of them asks for numbers.
fn numbered(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let mut asked = projection.expr().iter().any(|projected| asks(&projected.expr));
        let Some(input) = with_numbers(projection.input(), &mut asked)? else { return Ok(None) };
        let number = input.schema().fields().len() - 1;
        let expressions: Result<Vec<ProjectionExpr>> = (projection.expr().iter())
            .map(|projected| Ok(ProjectionExpr::new(told(&projected.expr, number)?, projected.alias.clone())))
            .collect();
        return Ok(Some(Arc::new(ProjectionExec::try_new(expressions?, input)?)));
    }
    if !node.is::<FilterExec>() {
        return Ok(None);
    }
    let Some(filter) = with_numbers(node, &mut false)? else { return Ok(None) };
    let schema = node.schema();
    let columns = schema.fields().iter().enumerate().map(|(at, field)| {
        ProjectionExpr::new(Arc::new(Column::new(field.name(), at)) as Arc<dyn PhysicalExpr>, field.name().clone())
    });
    Ok(Some(Arc::new(ProjectionExec::try_new(columns.collect::<Vec<_>>(), filter)?)))
}

/// Filters over a scan, with the rows' numbers as their last column; `None` when nobody asks for them, or when there is no
/// such scan.
fn with_numbers(node: &Arc<dyn ExecutionPlan>, asked: &mut bool) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        *asked |= asks(filter.predicate());
        if filter.projection().is_some() || filter.fetch().is_some() {
            return Ok(None);
        }
        let Some(input) = with_numbers(filter.input(), asked)? else { return Ok(None) };
        let number = input.schema().fields().len() - 1;
        let predicate = told(filter.predicate(), number)?;
        return Ok(Some(Arc::new(FilterExec::try_new(predicate, input)?)));
    }
    let scan = node.downcast_ref::<DataSourceExec>();
    let scan = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    match scan.filter(|scan| *asked && scan.file_source().file_type() != "parquet") {
        Some(scan) => Ok(Some(Arc::new(LineNumbersExec::new(in_whole_files(scan))))),
        None => Ok(None),
    }
}

fn asks(expression: &Arc<dyn PhysicalExpr>) -> bool {
    ScalarFunctionExpr::try_downcast_func::<FileRowIndexFunc>(expression.as_ref()).is_some()
        || expression.children().into_iter().any(asks)
}

/// The expression with the column of numbers in the function's place.
fn told(expression: &Arc<dyn PhysicalExpr>, number: usize) -> Result<Arc<dyn PhysicalExpr>> {
    let told = Arc::clone(expression).transform_up(|part| {
        match ScalarFunctionExpr::try_downcast_func::<FileRowIndexFunc>(part.as_ref()) {
            Some(_) => Ok(Transformed::yes(Arc::new(Column::new(NUMBER, number)) as Arc<dyn PhysicalExpr>)),
            None => Ok(Transformed::no(part)),
        }
    });
    told.data()
}

/// The same files, each whole and in a partition of its own, which nobody cuts or shares any more.
fn in_whole_files(scan: &FileScanConfig) -> Arc<dyn ExecutionPlan> {
    let mut files: Vec<PartitionedFile> = scan.file_groups.iter().flat_map(FileGroup::iter).cloned().collect();
    files.sort_by(|a, b| a.object_meta.location.cmp(&b.object_meta.location));
    files.dedup_by(|a, b| a.object_meta.location == b.object_meta.location);
    let mut whole = scan.clone();
    whole.file_groups = (files.into_iter())
        .map(|mut file| {
            file.range = None;
            FileGroup::new(vec![file])
        })
        .collect();
    whole.preserve_order = true;
    whole.output_partitioning = Some(Partitioning::UnknownPartitioning(whole.file_groups.len()));
    DataSourceExec::from_data_source(whole)
}

/// Counts the rows of each partition.
#[derive(Debug)]
pub(crate) struct LineNumbersExec {
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl LineNumbersExec {
    /// For rows of whole files, one in each partition.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let number = Arc::new(Field::new(NUMBER, DataType::Int64, false));
        let fields: Vec<_> = input.schema().fields().iter().cloned().chain([number]).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.schema().metadata().clone()));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        LineNumbersExec { input, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for LineNumbersExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineNumbersExec")
    }
}

impl ExecutionPlan for LineNumbersExec {
    fn name(&self) -> &'static str {
        "LineNumbersExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("numbers have one input");
        Ok(Arc::new(LineNumbersExec::new(input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = Arc::clone(&self.schema);
        let mut next: i64 = 0;
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            let end = next + batch.num_rows() as i64;
            let numbers = Arc::new(Int64Array::from_iter_values(next..end)) as ArrayRef;
            next = end;
            let columns = batch.columns().iter().cloned().chain([numbers]).collect();
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}
