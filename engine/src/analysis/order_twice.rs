//! ORDER BY of an aggregate, and of DISTINCT ON, that names a key twice. The second time changes nothing, and the query
//! engine, which drops it from one of two lists that it compares, panics (DataFusion 55.2, `first_last.rs`).

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use super::kept_names;

/// See the module.
#[derive(Debug)]
pub(super) struct OrderTwice;

impl AnalyzerRule for OrderTwice {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(mended).map(|done| done.data)
    }

    fn name(&self) -> &'static str {
        "order_twice"
    }
}

fn mended(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            let changed = on.sort_expr.as_mut().is_some_and(once);
            let plan = LogicalPlan::Distinct(Distinct::On(on));
            Ok(if changed { Transformed::yes(plan) } else { Transformed::no(plan) })
        }
        LogicalPlan::Aggregate(_) if orders_twice(&plan)? => kept_names::changed(plan, |expr| {
            expr.transform_up(|mut expr| {
                let changed = match &mut expr {
                    Expr::AggregateFunction(call) => once(&mut call.params.order_by),
                    _ => false,
                };
                Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
            })
        }),
        plan => Ok(Transformed::no(plan)),
    }
}

fn orders_twice(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= matches!(expr, Expr::AggregateFunction(call) if once(&mut call.params.order_by.clone()));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

/// Keeps each key's first place; tells whether there was another.
fn once(keys: &mut Vec<Sort>) -> bool {
    let before = keys.len();
    let mut kept: Vec<Sort> = Vec::with_capacity(before);
    for key in keys.drain(..) {
        if !kept.iter().any(|known| known.expr == key.expr) {
            kept.push(key);
        }
    }
    *keys = kept;
    keys.len() < before
}
