//! Windows whose frame ends some values before the row (`RANGE BETWEEN ... AND 1 PRECEDING`) over rows that are ordered by a
//! column with NULL. The frame of a row without a value is all rows without one, and the query engine's operator that gives
//! rows as they come takes such a frame to be complete when the row is there (DataFusion 55.2): rows of a later batch are not
//! counted. The operator that looks at a partition as a whole has them all.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{WindowFrameBound, WindowFrameUnits};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};

/// See the module. It runs when sorts are in their places, which also chooses between the operators.
#[derive(Debug)]
pub(super) struct NullPeers;

impl PhysicalOptimizerRule for NullPeers {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(window) = node.downcast_ref::<BoundedWindowAggExec>() else { return Ok(Transformed::no(node)) };
            let schema = window.input().schema();
            let can_be_null = |key: &PhysicalSortExpr| key.expr.nullable(&schema).unwrap_or(true);
            let ends_early = |expr: &Arc<dyn WindowExpr>| {
                expr.get_window_frame().units == WindowFrameUnits::Range
                    && matches!(expr.get_window_frame().end_bound, WindowFrameBound::Preceding(_))
                    && expr.order_by().iter().any(can_be_null)
            };
            Ok(match window.window_expr().iter().any(ends_early) {
                true => Transformed::yes(whole(window)?),
                false => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "null_peers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same window, a partition at a time.
fn whole(window: &BoundedWindowAggExec) -> Result<Arc<dyn ExecutionPlan>> {
    let mut input = Arc::clone(window.input());
    let first = &window.window_expr()[0];
    if window.input_order_mode != InputOrderMode::Sorted {
        let partition = first.partition_by().iter().map(|key| PhysicalSortExpr::new_default(Arc::clone(key)));
        if let Some(order) = LexOrdering::new(partition.chain(first.order_by().iter().cloned())) {
            input = Arc::new(SortExec::new(order, input).with_preserve_partitioning(true));
        }
    }
    let by_partition = !first.partition_by().is_empty();
    Ok(Arc::new(WindowAggExec::try_new(window.window_expr().to_vec(), input, by_partition)?))
}
