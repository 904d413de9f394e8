//! Subqueries where they stand: in the expressions of a plan's node.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use super::{Unnester, is_subquery};

/// Whether a subquery stands in an expression of the node itself.
pub(super) fn holds_subquery(node: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found |= contains_subquery(expr);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Whether a subquery stands in the expression.
pub(super) fn contains_subquery(expr: &Expr) -> bool {
    expr.exists(|inner| Ok(is_subquery(inner))).unwrap_or(false)
}

/// The subquery of an expression that is one.
pub(super) fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

fn subquery_in(expr: &mut Expr) -> Option<&mut Subquery> {
    match expr {
        Expr::ScalarSubquery(subquery)
        | Expr::Exists(Exists { subquery, .. })
        | Expr::InSubquery(InSubquery { subquery, .. })
        | Expr::SetComparison(SetComparison { subquery, .. }) => Some(subquery),
        _ => None,
    }
}

/// The plan under another expression's subquery.
pub(super) fn with_plan(subquery: &Subquery, plan: LogicalPlan) -> Subquery {
    let outer_ref_columns = plan.all_out_ref_exprs();
    Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans.clone() }
}

impl Unnester {
    /// The expression with the subqueries inside its subqueries done.
    pub(super) fn inside(&self, expr: Expr) -> Result<Expr> {
        if !contains_subquery(&expr) {
            return Ok(expr);
        }
        let done = expr.transform_up(|mut inner| {
            let Some(subquery) = subquery_in(&mut inner) else { return Ok(Transformed::no(inner)) };
            let plan = self.plan(LogicalPlan::clone(&subquery.subquery))?;
            *subquery = with_plan(subquery, plan);
            Ok(Transformed::yes(inner))
        })?;
        Ok(done.data)
    }
}
