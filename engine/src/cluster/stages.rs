//! How the scheduler would cut a plan, tried before it is handed over: a plan that upstream's planner refuses, or cuts so
//! that a task no longer has whole what it must have whole, is run in the driver instead.

use std::sync::Arc;

use ballista_core::JobId;
use ballista_scheduler::planner::{DefaultDistributedPlanner, DistributedPlanner};
use datafusion::common::config::ConfigOptions;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::joins::is_driven_by_right;
use super::whole::WholeExec;

/// Why the plan cannot be cut into stages; `None` when it can.
pub(crate) fn cuts_badly(plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Option<String> {
    let job = JobId::from("tried".to_string());
    match DefaultDistributedPlanner::new().plan_query_stages(&job, plan, config) {
        Ok(stages) => {
            let torn = stages.iter().flat_map(|stage| stage.children()).find_map(torn);
            torn.map(|operator| format!("{operator} must see all rows of one side"))
        }
        Err(error) => {
            tracing::debug!(%error, "the plan is not cut");
            Some("it cannot be cut into stages".to_string())
        }
    }
}

/// The first operator that would see a part of what it must see whole.
fn torn(node: &Arc<dyn ExecutionPlan>) -> Option<&str> {
    let apart = |side: &Arc<dyn ExecutionPlan>| side.output_partitioning().partition_count() > 1;
    let is_torn = if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        apart(join.left()) || (apart(join.right()) && !is_driven_by_right(*join.join_type()))
    } else if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let collected = *join.partition_mode() == PartitionMode::CollectLeft;
        collected && apart(join.right()) && (join.null_aware || !is_driven_by_right(*join.join_type()))
    } else {
        node.is::<WholeExec>() && apart(node.children().first()?)
    };
    if is_torn {
        return Some(node.name());
    }
    node.children().into_iter().find_map(torn)
}
