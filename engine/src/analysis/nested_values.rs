//! `<`, `<=`, `>`, `>=` and BETWEEN of lists and structs, by the order of `functions/nested_order`.

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use super::{kept_names, schema_of_inputs};
use crate::functions::nested_order;

/// See the module.
#[derive(Debug)]
pub(super) struct NestedValues;

impl AnalyzerRule for NestedValues {
    fn name(&self) -> &str {
        "nested_values"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| {
            if !compares(&node)? {
                return Ok(Transformed::no(node));
            }
            let schema = schema_of_inputs(&node)?;
            kept_names::changed(node, |expr| expr.transform_up(|expr| Ok(in_order(expr, &schema))))
        })
        .data()
    }
}

fn is_order(op: Operator) -> bool {
    matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq)
}

/// Whether a node has such a comparison, of whatever types.
fn compares(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|expr| {
            Ok(matches!(expr, Expr::Between(_)) || matches!(expr, Expr::BinaryExpr(binary) if is_order(binary.op)))
        })?;
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn in_order(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is_nested = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| nested_order::is_nested(&data_type));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_order(op) && is_nested(&left) && is_nested(&right) => {
            Transformed::yes(compared(*left, op, *right))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_nested(&expr) => {
            let (lower, upper) = if negated { (Operator::Lt, Operator::Gt) } else { (Operator::GtEq, Operator::LtEq) };
            let (from, to) = (compared(expr.as_ref().clone(), lower, *low), compared(*expr, upper, *high));
            Transformed::yes(if negated { from.or(to) } else { from.and(to) })
        }
        expr => Transformed::no(expr),
    }
}

fn compared(left: Expr, op: Operator, right: Expr) -> Expr {
    let order = ScalarFunction::new_udf(nested_order::function(), vec![left, right]);
    Expr::BinaryExpr(BinaryExpr { left: Box::new(Expr::ScalarFunction(order)), op, right: Box::new(lit(0_i8)) })
}
