//! Groups that a query asks for twice are made once. What WITH names is put in wherever it is mentioned, so its rows are
//! read and grouped again for each mention; a table of groups is small beside the rows that it is made of, so it is kept
//! until all have read it. Only where memory has no limit: kept rows cannot spill.

mod exec;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion_proto::physical_plan::{AsExecutionPlan, DefaultPhysicalExtensionCodec};
use datafusion_proto::protobuf::PhysicalPlanNode;

use crate::memory::FairPool;
pub(crate) use exec::is_repeated;
use exec::{Kept, SharedExec};

/// See the module.
#[derive(Debug)]
pub(super) struct SharedGroups {
    memory: Arc<FairPool>,
}

impl SharedGroups {
    pub(super) fn new(memory: Arc<FairPool>) -> Self {
        SharedGroups { memory }
    }
}

impl PhysicalOptimizerRule for SharedGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        if self.memory.limit().is_some() {
            return Ok(plan);
        }
        let shared = repeated(&groups(&plan)?)?;
        if shared.is_empty() { Ok(plan) } else { sharing(plan, &shared) }
    }

    fn name(&self) -> &'static str {
        "shared_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What there is more than once, by its meaning. Nearly no query has columns of the same names twice, so nearly nothing is
/// compared.
fn repeated(groups: &[Arc<dyn ExecutionPlan>]) -> Result<Vec<(Vec<u8>, Arc<Kept>)>> {
    let mut once: Vec<Vec<u8>> = Vec::new();
    let mut repeated: Vec<(Vec<u8>, Arc<Kept>)> = Vec::new();
    for group in groups {
        let alike = groups.iter().filter(|other| other.schema() == group.schema()).count();
        let Some(meaning) = (if alike > 1 { meaning(group)? } else { None }) else { continue };
        if !once.contains(&meaning) {
            once.push(meaning);
        } else if !repeated.iter().any(|(known, _)| *known == meaning) {
            repeated.push((meaning, Arc::default()));
        }
    }
    Ok(repeated)
}

/// The aggregates of a plan that give whole groups.
fn groups(plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if gives_groups(node) {
            found.push(Arc::clone(node));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn gives_groups(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| {
        let is_whole = !matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::PartialReduce);
        is_whole && !aggregate.group_expr().is_empty()
    })
}

/// What a plan is, to the last option of its files, as another process would be told. `None` when it cannot be told, or
/// when it may give something else each time.
fn meaning(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Vec<u8>>> {
    let mut varies = false;
    plan.apply(|node| {
        node.apply_expressions(&mut |expression| {
            varies |= is_volatile(expression);
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let node = PhysicalPlanNode::try_from_physical_plan(Arc::clone(plan), &DefaultPhysicalExtensionCodec {});
    let mut bytes = Vec::new();
    match node {
        Ok(node) if !varies => {
            node.try_encode(&mut bytes)?;
            Ok(Some(bytes))
        }
        _ => Ok(None),
    }
}

/// The plan with each of these made once. Whoever is larger is looked at first, and what lies below it is its own.
fn sharing(plan: Arc<dyn ExecutionPlan>, shared: &[(Vec<u8>, Arc<Kept>)]) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_down(|node| {
        if !gives_groups(&node) {
            return Ok(Transformed::no(node));
        }
        let Some(meaning) = meaning(&node)? else { return Ok(Transformed::no(node)) };
        Ok(match shared.iter().find(|(known, _)| *known == meaning) {
            Some((_, kept)) => {
                let node = Arc::new(SharedExec::new(node, Arc::clone(kept)));
                Transformed::new(node, true, TreeNodeRecursion::Jump)
            }
            None => Transformed::no(node),
        })
    })
    .data()
}
