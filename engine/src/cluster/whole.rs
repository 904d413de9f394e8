//! Rows that one task must have whole. A join that tells of rows without a partner, or of NULLs anywhere, is right only
//! where all rows of its other side are. Upstream drops a plain gathering of partitions when it cuts a plan, as no operator
//! of one process asks for it (apache/datafusion-ballista#2046, #2184); so this node asks, and gives on what it gets.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, PhysicalExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
};

/// See the module. Its input has one partition when it runs.
#[derive(Debug)]
pub(super) struct WholeExec {
    input: Arc<dyn ExecutionPlan>,
}

impl WholeExec {
    /// All rows of `plan` as one partition.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        if plan.is::<WholeExec>() {
            return Arc::clone(plan);
        }
        let input: Arc<dyn ExecutionPlan> = match plan.output_partitioning().partition_count() {
            1 => Arc::clone(plan),
            _ => Arc::new(CoalescePartitionsExec::new(Arc::clone(plan))),
        };
        Arc::new(WholeExec { input })
    }

    /// As it came over the wire.
    pub(super) fn read(input: Arc<dyn ExecutionPlan>) -> Self {
        WholeExec { input }
    }
}

impl DisplayAs for WholeExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WholeExec")
    }
}

impl ExecutionPlan for WholeExec {
    fn name(&self) -> &'static str {
        "WholeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(WholeExec { input })),
            _ => Err(DataFusionError::Internal("rows that are wanted whole have one input".to_string())),
        }
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
        match self.input.output_partitioning().partition_count() {
            1 => self.input.execute(partition, context),
            parts => Err(DataFusionError::Internal(format!("rows that are wanted whole came in {parts} parts"))),
        }
    }
}
