//! A place in a plan that a rule of the query engine cannot get past. Fences are set up before the rule runs and taken away
//! after it; no plan that is executed has one.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};

type Plan = Arc<dyn ExecutionPlan>;

/// Takes all fences away.
pub(super) fn without_fences(plan: Plan) -> Result<Plan> {
    plan.transform_up(|node| match node.downcast_ref::<Fence>() {
        Some(fence) => Ok(Transformed::yes(Arc::clone(&fence.input))),
        None => Ok(Transformed::no(node)),
    })
    .data()
}

/// Gives the rows of its input. It does not claim to keep their order, although it does: that is what sorts go by.
#[derive(Debug)]
pub(super) struct Fence {
    input: Plan,
}

impl Fence {
    pub(super) fn on(input: Plan) -> Self {
        Fence { input }
    }
}

impl DisplayAs for Fence {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence")
    }
}

impl ExecutionPlan for Fence {
    fn name(&self) -> &'static str {
        "Fence"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Plan> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Plan>) -> Result<Plan> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn replace_children(self: Arc<Self>, mut children: Vec<Plan>, _options: ReplaceChildrenOptions) -> Result<Plan> {
        Ok(Arc::new(Fence { input: children.swap_remove(0) }))
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        Err(DataFusionError::Internal("a fence is left in a plan".to_string()))
    }
}
