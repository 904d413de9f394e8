//! Windows whose PARTITION BY or ORDER BY holds a column that has one value, or an expression of which only an earlier stage
//! knows that the rows are sorted by it. One process knows both and leaves the column out of its sorting; the stage that
//! computes the window knows nothing of earlier stages and takes its rows for unsorted. So the rows of such a window are
//! sorted by all of its columns.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, InputOrderMode, ReplaceChildrenOptions,
};

/// The same plan, with rows sorted where a window would not find them so.
pub(super) fn sorted_for_windows(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let Some(order) = wanted(&node) else { return Ok(Transformed::no(node)) };
        let [input] = node.children()[..] else { return Ok(Transformed::no(node)) };
        let below = match input.downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none()) {
            Some(sort) => Arc::clone(sort.input()),
            None => Arc::clone(input),
        };
        let whole =
            input.output_partitioning().partition_count() == 1 && below.output_partitioning().partition_count() > 1;
        let below = if whole { Arc::clone(input) } else { below };
        let sorted = Arc::new(SortExec::new(order, below).with_preserve_partitioning(true));
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(node.replace_children(vec![sorted], options)?))
    })
    .data()
}

/// The order that a window over a constant column relies on.
fn wanted(node: &Arc<dyn ExecutionPlan>) -> Option<LexOrdering> {
    let (window, input) = if let Some(node) = node.downcast_ref::<WindowAggExec>() {
        (node.window_expr().first()?, node.input())
    } else {
        let node = node.downcast_ref::<BoundedWindowAggExec>()?;
        if node.input_order_mode != InputOrderMode::Sorted {
            return None;
        }
        (node.window_expr().first()?, node.input())
    };
    let known = input.equivalence_properties();
    let mut keys = window.partition_by().iter().chain(window.order_by().iter().map(|key| &key.expr));
    let is_doubtful = keys.any(|key| known.is_expr_constant(key).is_some()) || !is_sorted_by_parts(window, input);
    is_doubtful.then(|| order(window)).flatten()
}

/// Whether the rows are sorted by the very keys of PARTITION BY first. That another expression has the same values is known
/// in the stage alone that made it.
fn is_sorted_by_parts(window: &Arc<dyn WindowExpr>, input: &Arc<dyn ExecutionPlan>) -> bool {
    let parts = window.partition_by();
    let Some(order) = input.output_ordering() else { return parts.is_empty() };
    let first: Vec<_> = order.iter().take(parts.len()).map(|key| &key.expr).collect();
    parts.iter().all(|part| first.contains(&part))
}

fn order(window: &Arc<dyn WindowExpr>) -> Option<LexOrdering> {
    let partition = window.partition_by().iter().map(|key| PhysicalSortExpr::new_default(Arc::clone(key)));
    LexOrdering::new(partition.chain(window.order_by().iter().cloned()))
}
