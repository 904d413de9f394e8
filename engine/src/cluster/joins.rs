//! Joins that one process may run in a way in which several may not.
//!
//! A join that collects its left side shares, between the partitions of the right side, which rows of the left have found
//! a partner. Tasks of different processes share nothing: each would give the unmatched rows again. Upstream mends some of
//! these plans when it cuts them, but by then the operators above were chosen for another number of partitions, and both
//! sides are shuffled that one of them need not be. So the mode of each hash join is decided here, while the plan is made,
//! by upstream's own measure: it finds nothing to mend.

use std::sync::Arc;

use ballista_core::config::BallistaConfig;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::order::sorted_after_exchanges;
use super::whole::WholeExec;
use super::windows::sorted_for_windows;
use crate::rules::DECIDES_SIDES;

/// Plans a query so that it can be cut into tasks: its joins, and what relies on the order of rows.
///
/// # Errors
/// Whatever planning finds.
pub(crate) async fn plan_for_tasks(state: &SessionState, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    let mut rules = state.physical_optimizers().to_vec();
    let after = rules.iter().position(|rule| rule.name() == DECIDES_SIDES);
    rules.insert(after.map_or(0, |after| after + 1), Arc::new(TaskJoins));
    let state = SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build();
    let plan = sorted_after_exchanges(Box::pin(state.create_physical_plan(plan)).await?)?;
    sorted_for_windows(gather_right_sides(plan)?)
}

/// Decides for each hash join whether every task has all of one side, or both sides are partitioned by the keys.
#[derive(Debug)]
struct TaskJoins;

impl PhysicalOptimizerRule for TaskJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let limit = config.extensions.get::<BallistaConfig>().map_or(0, BallistaConfig::broadcast_join_threshold_bytes);
        plan.transform_up(|node| match node.downcast_ref::<HashJoinExec>() {
            // One that must know of every null is run by one task.
            Some(join) if !join.null_aware => Ok(Transformed::yes(decided(join, limit)?)),
            _ => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "task_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same join in the mode that tasks can run it in.
fn decided(join: &HashJoinExec, limit: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let kind = *join.join_type();
    let small = |side: &Arc<dyn ExecutionPlan>| bytes(side).filter(|bytes| *bytes < limit);
    let left = small(join.left()).filter(|_| is_driven_by_right(kind));
    let right = small(join.right()).filter(|_| kind.supports_swap() && is_driven_by_right(kind.swap()));
    // Which side is smaller was seen to already, and turning a join round changes the order of its rows.
    match (left, right) {
        (Some(_), _) => join.builder().with_partition_mode(PartitionMode::CollectLeft).build_exec(),
        (None, Some(_)) => join.swap_inputs(PartitionMode::CollectLeft),
        (None, None) => join.builder().with_partition_mode(PartitionMode::Partitioned).build_exec(),
    }
}

/// What a side is taken to have, as upstream counts it when it cuts a plan; `None` when nobody knows.
fn bytes(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let statistics = StatisticsContext::default().compute(plan.as_ref(), &StatisticsArgs::default()).ok()?;
    if let Some(bytes) = statistics.total_byte_size.get_value().filter(|bytes| **bytes > 0) {
        return Some(*bytes);
    }
    let rows = statistics.num_rows.get_value().filter(|rows| **rows > 0)?;
    let row: usize = plan.schema().fields().iter().map(|field| width(field.data_type())).sum();
    Some(rows.saturating_mul(row.max(8)))
}

fn width(kind: &DataType) -> usize {
    match kind {
        DataType::Boolean => 1,
        kind if kind.is_integer() => kind.primitive_width().unwrap_or(8),
        DataType::Float32 | DataType::Date32 => 4,
        DataType::Float64 | DataType::Date64 => 8,
        DataType::Decimal128(..) => 16,
        _ => 32,
    }
}

/// Whether the join gives rows only for rows of its right side.
pub(super) fn is_driven_by_right(kind: JoinType) -> bool {
    matches!(kind, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark)
}

/// A join that tells of rows of its left side without a partner, or of NULLs anywhere on its right side, and is not
/// partitioned by keys, sees all of its right side in one task.
fn gather_right_sides(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        let sides = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            (!is_driven_by_right(*join.join_type())).then(|| (join.left(), join.right()))
        } else {
            node.downcast_ref::<HashJoinExec>().filter(|join| join.null_aware).map(|join| (join.left(), join.right()))
        };
        let Some((left, right)) = sides else { return Ok(Transformed::no(node)) };
        let sides = vec![Arc::clone(left), WholeExec::of(right)];
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(Arc::clone(&node).replace_children(sides, options)?))
    })
    .data()
}
