//! Joins that one process may run in a way in which several may not.
//!
//! A join that collects its left side shares, between the partitions of the right side, which rows of the left have found
//! a partner. Tasks of different processes share nothing: each would give the unmatched rows again. Upstream mends some of
//! these plans when it cuts them, but by then the operators above were chosen for another number of partitions.

use std::sync::Arc;

use ballista_core::config::BallistaConfig;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions,
};

/// Plans a query so that its joins can be cut into tasks.
///
/// # Errors
/// Whatever planning finds.
pub(crate) async fn plan_for_tasks(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let physical = Box::pin(state.create_physical_plan(plan)).await?;
    if collected_joins_hold(&physical)? {
        return gather_right_sides(physical);
    }
    // Planned again with both sides of every hash join partitioned by its keys, which is right for any kind of join.
    let mut state = state.clone();
    let optimizer = &mut state.config_mut().options_mut().optimizer;
    optimizer.hash_join_single_partition_threshold = 0;
    optimizer.hash_join_single_partition_threshold_rows = 0;
    gather_right_sides(Box::pin(state.create_physical_plan(plan)).await?)
}

/// Whether the join gives rows only for rows of its right side.
fn is_driven_by_right(kind: JoinType) -> bool {
    matches!(kind, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark)
}

/// Whether every hash join that collects its left side may, and will, be executed so.
fn collected_joins_hold(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let limit = BallistaConfig::default().broadcast_join_threshold_bytes();
    let mut hold = true;
    plan.apply(|node| {
        if let Some(join) = node.downcast_ref::<HashJoinExec>()
            && *join.partition_mode() == PartitionMode::CollectLeft
            && !(is_driven_by_right(*join.join_type()) && is_known_small(join.left(), limit))
        {
            hold = false;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(hold)
}

fn is_known_small(plan: &Arc<dyn ExecutionPlan>, limit: usize) -> bool {
    let Ok(statistics) = StatisticsContext::default().compute(plan.as_ref(), &StatisticsArgs::default()) else {
        return false;
    };
    statistics.total_byte_size.get_value().is_some_and(|bytes| (1..limit).contains(bytes))
}

/// A nested-loop join that gives rows of its left side reads all of its right side in one task.
fn gather_right_sides(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let gathered = plan.transform_up(|node| {
        let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else { return Ok(Transformed::no(node)) };
        if is_driven_by_right(*join.join_type()) || join.right().output_partitioning().partition_count() == 1 {
            return Ok(Transformed::no(node));
        }
        let right = Arc::new(CoalescePartitionsExec::new(Arc::clone(join.right())));
        let left = Arc::clone(join.left());
        Ok(Transformed::yes(
            node.replace_children(vec![left, right], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?,
        ))
    })?;
    Ok(gathered.data)
}
