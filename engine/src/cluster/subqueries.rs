//! Subqueries that stand for one value, such as `x > (SELECT max(y) FROM t)`. One process computes the value first and
//! sees that it is one. Between processes the subquery becomes a join, which is right only when it cannot give several
//! rows: a plan in which it may is executed in the driver, so that the mistake is found there as everywhere.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::analysis::gives_one_row_at_most;

/// What the values of a plan's subqueries ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarSubqueries {
    /// There are none.
    None,
    /// Each gives one row at most.
    Single,
    /// One may give several.
    Several,
}

/// Looks at the subqueries that do not depend on the rows around them.
///
/// # Errors
/// None of its own.
pub(crate) fn scalar_subqueries(plan: &LogicalPlan) -> Result<ScalarSubqueries> {
    let mut found = ScalarSubqueries::None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|inner| {
                if let Expr::ScalarSubquery(subquery) = inner
                    && subquery.outer_ref_columns.is_empty()
                {
                    let single = gives_one_row_at_most(&subquery.subquery);
                    found = match (found, single) {
                        (ScalarSubqueries::Several, _) | (_, false) => ScalarSubqueries::Several,
                        _ => ScalarSubqueries::Single,
                    };
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// A state whose plans compute the values of subqueries first, which only one process can.
pub(crate) fn values_first(state: &SessionState) -> SessionState {
    let mut state = state.clone();
    state.config_mut().options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = true;
    state
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn it_is_known_which_subqueries_give_one_row() {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t AS SELECT 1 AS a UNION ALL SELECT 2").await.unwrap().collect().await.unwrap();
        for (query, expected) in [
            ("SELECT a FROM t WHERE a IN (SELECT a FROM t)", ScalarSubqueries::None),
            ("SELECT (SELECT max(a) FROM t)", ScalarSubqueries::Single),
            ("SELECT a FROM t WHERE a > (SELECT a FROM t LIMIT 1)", ScalarSubqueries::Single),
            ("SELECT (SELECT a FROM t)", ScalarSubqueries::Several),
            ("SELECT (SELECT count(*) FROM t), (SELECT DISTINCT a FROM t)", ScalarSubqueries::Several),
            ("SELECT a FROM (SELECT a FROM t WHERE a = (SELECT a FROM t)) AS u", ScalarSubqueries::Several),
        ] {
            let plan = context.sql(query).await.unwrap().into_parts().1;
            assert_eq!(scalar_subqueries(&plan).unwrap(), expected, "{query}");
        }
    }
}
