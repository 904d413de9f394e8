//! Groups that are made before rows are dealt out by their keys are made of some rows at a time. The query engine keeps all
//! groups of a partition until its rows have ended (DataFusion 55.2): where there are many, two tables of them are in memory
//! at once, and neither fits into a cache. Rows that lie together have their groups together, too, and the table of some
//! hundred thousand rows is as good as one of all. Where rows of a group lie far apart, more at a time make fewer groups,
//! and pieces grow for as long as they do.

mod exec;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::{ExecutionPlan, InputOrderMode};

use exec::PiecesExec;

/// See the module.
#[derive(Debug)]
pub(super) struct Pieces;

impl PhysicalOptimizerRule for Pieces {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            Ok(match node.downcast_ref::<AggregateExec>().is_some_and(is_divisible) {
                true => Transformed::yes(Arc::new(PiecesExec::new(node))),
                false => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "pieces"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether all groups of a partition are kept until its rows have ended, and another aggregate takes them together.
fn is_divisible(aggregate: &AggregateExec) -> bool {
    matches!(aggregate.mode(), AggregateMode::Partial)
        && !aggregate.group_expr().is_empty()
        && aggregate.group_expr().is_single()
        && aggregate.limit_options().is_none()
        && matches!(aggregate.input_order_mode(), InputOrderMode::Linear)
}
