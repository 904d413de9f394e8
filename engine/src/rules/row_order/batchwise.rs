//! Projections and filters over one partition, on all cores and in order: each batch is a task, and results are taken in the
//! order of the batches. Stands where the query engine deals batches out in turn, which loses their order.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, future};

/// See the module.
#[derive(Debug)]
pub(super) struct Batchwise {
    input: Arc<dyn ExecutionPlan>,
    /// From the one that the input's batches go into. Their own inputs are not executed.
    steps: Arc<Vec<Arc<dyn ExecutionPlan>>>,
    /// Batches that are worked on at once.
    at_once: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// Whether a node can be a step.
pub(super) fn is_step(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<ProjectionExec>() || plan.downcast_ref::<FilterExec>().is_some_and(|filter| filter.fetch().is_none())
}

impl Batchwise {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, steps: Arc<Vec<Arc<dyn ExecutionPlan>>>, at_once: usize) -> Self {
        let schema = steps.last().map_or_else(|| input.schema(), |step| step.schema());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Batchwise { input, steps, at_once, properties: Arc::new(properties), metrics }
    }
}

/// A batch after one of the steps.
fn done(step: &Arc<dyn ExecutionPlan>, batch: RecordBatch) -> Result<RecordBatch> {
    if let Some(projection) = step.downcast_ref::<ProjectionExec>() {
        let rows = batch.num_rows();
        let values = projection.expr().iter().map(|projected| projected.expr.evaluate(&batch)?.into_array(rows));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        return Ok(RecordBatch::try_new_with_options(step.schema(), values.collect::<Result<_>>()?, &options)?);
    }
    let Some(filter) = step.downcast_ref::<FilterExec>() else {
        return Err(DataFusionError::Internal(format!("{} is no step of a batch", step.name())));
    };
    let kept = filter.predicate().evaluate(&batch)?.into_array(batch.num_rows())?;
    let kept: &BooleanArray = as_boolean_array(&kept)?;
    let batch = if kept.null_count() == 0 && kept.true_count() == batch.num_rows() {
        batch
    } else {
        filter_record_batch(&batch, kept)?
    };
    match filter.projection() {
        Some(columns) => Ok(batch.project(columns)?),
        None => Ok(batch),
    }
}

impl DisplayAs for Batchwise {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batchwise: ")?;
        for (at, step) in self.steps.iter().rev().enumerate() {
            f.write_str(if at == 0 { "" } else { ", then " })?;
            step.fmt_as(kind, f)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for Batchwise {
    fn name(&self) -> &'static str {
        "Batchwise"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("batches have one source");
        Ok(Arc::new(Batchwise::new(input, Arc::clone(&self.steps), self.at_once)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for step in self.steps.iter() {
            if step.apply_expressions(visit)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (steps, schema) = (Arc::clone(&self.steps), self.schema());
        let tasks = self.input.execute(partition, context)?.map(move |batch| {
            let steps = Arc::clone(&steps);
            async move {
                let batch = batch?;
                let task =
                    SpawnedTask::spawn(async move { steps.iter().try_fold(batch, |batch, step| done(step, batch)) });
                task.join_unwind().await.map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
            }
        });
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = tasks.buffered(self.at_once).try_filter(move |batch| {
            metrics.record_output(batch.num_rows());
            future::ready(batch.num_rows() > 0)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
