//! A LIMIT below an ORDER BY is taken before rows are sorted. The query engine's rule that puts sorts in their places moves
//! them below limits (DataFusion 55.2): an OFFSET is then taken off twice, all rows are sorted where a few were asked for, and
//! a recursion that only the limit ends never ends. So while that rule runs, a [`Fence`] stands on every limit below
//! something that wants an order, and no sort gets past it. Afterwards plans are without fences.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::output_requirements::OutputRequirementExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;

use super::fence::{Fence, without_fences};

type Plan = Arc<dyn ExecutionPlan>;

/// The rule of the query engine that puts sorts in their places.
pub(super) const PLACES_SORTS: &str = "EnsureRequirements";

/// See the module: in the place of that rule.
#[derive(Debug)]
pub(super) struct LimitsStay(pub(super) Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for LimitsStay {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        let mut fences = 0;
        let fenced = fenced(&plan, false, &mut fences)?;
        let placed = self.0.optimize(fenced, config)?;
        if fences == 0 {
            return Ok(placed);
        }
        without_fences(placed)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with fences on limits, if something above wants an order.
fn fenced(node: &Plan, wanted: bool, fences: &mut usize) -> Result<Plan> {
    // What the whole query is to give is asked for by a sort, too, wherever that is.
    let wants = || !node.is::<OutputRequirementExec>() && node.required_input_ordering().iter().any(Option::is_some);
    let below = wanted || node.is::<SortExec>() || wants();
    let children = node.children().into_iter().map(|child| fenced(child, below, fences)).collect::<Result<_>>()?;
    let node = replace_children_if_necessary(Arc::clone(node), children)?;
    if wanted && (node.is::<GlobalLimitExec>() || node.is::<LocalLimitExec>()) {
        *fences += 1;
        return Ok(Arc::new(Fence::on(node)));
    }
    Ok(node)
}
