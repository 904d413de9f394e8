//! The condition of a sort-merge join names columns of its sides by their places. The rule that moves projections below joins
//! gives the sides other columns and leaves the condition as it is (DataFusion 55.2): it compares what it should not, or asks
//! for a column that is not there. So no projection gets past such a join; a [`Fence`] stands on it while that rule runs.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::SortMergeJoinExec;

use super::fence::{Fence, without_fences};

/// The rule of the query engine that moves projections.
pub(super) const MOVES_PROJECTIONS: &str = "ProjectionPushdown";

/// See the module: in the place of that rule.
#[derive(Debug)]
pub(super) struct ConditionsStay(pub(super) Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for ConditionsStay {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let fenced = plan.transform_up(|node| {
            let has_condition = node.downcast_ref::<SortMergeJoinExec>().is_some_and(|join| join.filter().is_some());
            Ok(match has_condition {
                true => Transformed::yes(Arc::new(Fence::on(node)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(node),
            })
        })?;
        let moved = self.0.optimize(fenced.data, config)?;
        if fenced.transformed { without_fences(moved) } else { Ok(moved) }
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        true
    }
}
