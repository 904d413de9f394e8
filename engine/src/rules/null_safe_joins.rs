//! Joins for which NULL equals NULL, apart from all others. The query engine says of a whole join whether its keys are
//! compared with `=` or with IS NOT DISTINCT FROM, makes such joins of the latter, and then takes equalities of WHERE into
//! them, or makes one join of several (DataFusion 55.2, apache/datafusion#21121 and #12403 are of this class): `NULL = NULL`
//! becomes true. Here the condition stays spelled out while plans are changed, and becomes keys after the last change.
//! Always holds: no rule between [`Apart`] and [`Together`] sees a join for which NULL equals NULL, unless its sides have
//! columns of the same name, which only INTERSECT and EXCEPT could have, and those are requalified.

use std::sync::Arc;

use datafusion::common::NullEquality;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator, binary_expr};
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Before all rules: the keys of a join for which NULL equals NULL become its condition.
#[derive(Debug)]
pub(super) struct Apart;

impl OptimizerRule for Apart {
    fn name(&self) -> &'static str {
        "null_safe_joins_apart"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(join) if is_null_safe(&join) && !has_equal_names(&join) => {
                Ok(Transformed::yes(LogicalPlan::Join(spelled_out(join))))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }
}

/// In the place of the rule that makes keys of equalities: keys of `=` alone.
#[derive(Debug)]
pub(super) struct PlainKeys(pub(super) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for PlainKeys {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if join.filter.is_some() && !is_null_safe(join) => {
                let rewritten = self.0.rewrite(plan.clone(), config)?;
                let stays = matches!(&rewritten.data, LogicalPlan::Join(join) if is_null_safe(join));
                Ok(if stays { Transformed::no(plan) } else { rewritten })
            }
            _ => Ok(Transformed::no(plan)),
        }
    }
}

/// After all rules: a join without other keys has those for which NULL equals NULL.
#[derive(Debug)]
pub(super) struct Together;

impl OptimizerRule for Together {
    fn name(&self) -> &'static str {
        "null_safe_joins_together"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if join.on.is_empty() && join.filter.is_some() && !is_null_safe(join) => {
                ExtractEquijoinPredicate::new().rewrite(plan, config)
            }
            _ => Ok(Transformed::no(plan)),
        }
    }
}

fn is_null_safe(join: &Join) -> bool {
    join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty()
}

/// A condition says by name which side a column is of.
fn has_equal_names(join: &Join) -> bool {
    let right = join.right.schema();
    join.left.schema().columns().iter().any(|column| right.has_column(column))
}

fn spelled_out(join: Join) -> Join {
    let same = |(left, right): &(Expr, Expr)| binary_expr(left.clone(), Operator::IsNotDistinctFrom, right.clone());
    let filter = join.on.iter().map(same).chain(join.filter.clone()).reduce(Expr::and);
    Join { on: Vec::new(), filter, null_equality: NullEquality::NullEqualsNothing, ..join }
}
