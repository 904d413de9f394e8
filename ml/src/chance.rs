//! What in a query leaves its rows or their values to chance: a model of such a query has other bytes when it is trained
//! again on the same data.
//!
//! In one process the rows of files have an order wherever a query asks for none (`engine` sees to it), so LIMIT and
//! windows that neither partition nor order are determined there. On a cluster they are not.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, WindowFrameBound, WindowFrameUnits};
use engine::Result;

/// Functions whose value is the time at which they are called.
const OF_THE_HOUR: &[&str] = &["now", "current_timestamp", "current_date", "current_time", "today"];
/// Aggregates whose value depends on the order in which they see the rows.
const OF_THE_ORDER: &[&str] =
    &["first_value", "last_value", "nth_value", "any_value", "array_agg", "string_agg", "listagg", "group_concat"];
/// Window functions that see peers only: without ORDER BY all rows are peers.
const OF_PEERS: &[&str] = &["rank", "dense_rank", "percent_rank", "cume_dist"];
/// Window functions that go by the place of a row.
const OF_THE_PLACE: &[&str] = &["row_number", "ntile", "lag", "lead"];

/// One thing that is left to chance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Chance {
    /// What the query does.
    what: String,
    /// What is not determined then.
    therefore: &'static str,
    /// Whether it is determined in one process.
    on_a_cluster_only: bool,
}

impl Chance {
    /// As a reason why a model came out otherwise.
    pub(crate) fn reason(&self) -> String {
        let place = if self.on_a_cluster_only { " on a cluster" } else { "" };
        format!("the training query {}: {}{place}", self.what, self.therefore)
    }

    /// Whether it is so where the query is executed now.
    pub(crate) fn is_met(&self, on_a_cluster: bool) -> bool {
        on_a_cluster || !self.on_a_cluster_only
    }
}

/// Everything in a query that is left to chance.
///
/// # Errors
/// None that is expected.
pub(crate) fn chances(plan: &LogicalPlan) -> Result<Vec<Chance>> {
    let mut chances = Vec::new();
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Limit(limit) if !is_ordered(&limit.input) => {
                let rows = "which rows it gives is not determined";
                chances.push(chance("has LIMIT without ORDER BY", rows, keeps_order(&limit.input)));
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) if distinct.sort_expr.is_none() => {
                let rows = "which row of each it gives is not determined";
                chances.push(chance("has DISTINCT ON without ORDER BY", rows, false));
            }
            _ => {}
        }
        let in_order = node.inputs().into_iter().all(|input| keeps_order(input) || is_ordered(input));
        for expression in node.expressions() {
            expression.apply(|part| {
                chances.extend(of_expression(part, in_order));
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    chances.sort();
    chances.dedup();
    Ok(chances)
}

fn chance(what: impl Into<String>, therefore: &'static str, on_a_cluster_only: bool) -> Chance {
    Chance { what: what.into(), therefore, on_a_cluster_only }
}

fn of_expression(part: &Expr, in_order: bool) -> Option<Chance> {
    match part {
        Expr::ScalarFunction(call) if part.is_volatile_node() || OF_THE_HOUR.contains(&call.name()) => {
            Some(chance(format!("calls {}()", call.name()), "it gives other values each time", false))
        }
        Expr::AggregateFunction(call)
            if call.params.order_by.is_empty() && OF_THE_ORDER.contains(&call.func.name()) =>
        {
            let what = format!("has {}() without ORDER BY in it", call.func.name());
            Some(chance(what, "in which order it sees the rows is not determined", false))
        }
        Expr::WindowFunction(window) if goes_by_order(window) => {
            let what = format!("has {}() OVER without ORDER BY", window.fun.name());
            let in_order = in_order && window.params.partition_by.is_empty();
            Some(chance(what, "which row gets which value is not determined", in_order))
        }
        _ => None,
    }
}

/// Whether a window's values depend on an order that nothing gives it.
fn goes_by_order(window: &WindowFunction) -> bool {
    let (name, params) = (window.fun.name().to_lowercase(), &window.params);
    if !params.order_by.is_empty() || OF_PEERS.contains(&name.as_str()) {
        return false;
    }
    let frame = &params.window_frame;
    let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    let counts_rows = frame.units == WindowFrameUnits::Rows
        && !(is_whole && matches!(frame.end_bound, WindowFrameBound::Following(_)));
    OF_THE_PLACE.contains(&name.as_str()) || OF_THE_ORDER.contains(&name.as_str()) || counts_rows
}

/// The rows have the order of an ORDER BY.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Limit(_) | LogicalPlan::Filter(_) => {
            plan.inputs().first().is_some_and(|input| is_ordered(input))
        }
        _ => false,
    }
}

/// In one process the rows have the order of the files, or of the tables in memory, that they come from.
fn keeps_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Window(window) => {
            let is_plain = |expression: &Expr| match expression.clone().unalias() {
                Expr::WindowFunction(window) => {
                    window.params.partition_by.is_empty() && window.params.order_by.is_empty()
                }
                _ => false,
            };
            window.window_expr.iter().all(is_plain) && keeps_order(&window.input)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Unnest(_)
        | LogicalPlan::Union(_) => plan.inputs().into_iter().all(keeps_order),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn found(query: &str, on_a_cluster: bool) -> Vec<String> {
        let context = SessionContext::new();
        for view in [
            "CREATE VIEW some AS SELECT value FROM generate_series(1, 9) LIMIT 3",
            "CREATE VIEW first AS SELECT value FROM generate_series(1, 9) ORDER BY value LIMIT 3",
            "CREATE VIEW groups AS SELECT value % 3 AS value FROM generate_series(1, 9) GROUP BY 1",
        ] {
            context.sql(view).await.unwrap();
        }
        let frame = context.sql(query).await.unwrap();
        let found = chances(frame.logical_plan()).unwrap();
        found.iter().filter(|chance| chance.is_met(on_a_cluster)).map(Chance::reason).collect()
    }

    #[tokio::test]
    async fn what_is_left_to_chance_is_named_and_nothing_else() {
        for (query, here, there) in [
            ("SELECT value FROM generate_series(1, 9)", &[][..], &[][..]),
            ("SELECT * FROM first", &[], &[]),
            ("SELECT value + 1 FROM (SELECT value FROM first ORDER BY 1) LIMIT 2", &[], &[]),
            ("SELECT value FROM first LIMIT 2", &[], &[]),
            ("SELECT value FROM generate_series(1, 9) LIMIT 2", &[], &["LIMIT"]),
            ("SELECT count(*) FROM some", &[], &["LIMIT"]),
            ("SELECT value FROM groups LIMIT 2", &["LIMIT"], &["LIMIT"]),
            ("SELECT value FROM first WHERE value IN (SELECT value FROM some)", &[], &["LIMIT"]),
            ("SELECT value, random() AS r FROM some", &["random()"], &["random()", "LIMIT"]),
            ("SELECT value, now() AS r FROM first", &["now()"], &["now()"]),
            ("SELECT row_number() OVER () AS n FROM generate_series(1, 9)", &[], &["row_number()"]),
            ("SELECT row_number() OVER () AS n FROM groups", &["row_number()"], &["row_number()"]),
            ("SELECT row_number() OVER (ORDER BY value) AS n FROM groups", &[], &[]),
            ("SELECT lag(value) OVER (PARTITION BY value % 2) AS n FROM generate_series(1, 9)", &["lag()"], &["lag()"]),
            ("SELECT sum(value) OVER () AS n, rank() OVER () AS r FROM groups", &[], &[]),
            (
                "SELECT sum(value) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS n FROM groups",
                &["sum()"],
                &["sum()"],
            ),
            ("SELECT first_value(value) AS f FROM groups", &["first_value()"], &["first_value()"]),
            ("SELECT first_value(value ORDER BY value) AS f FROM groups", &[], &[]),
            ("SELECT array_agg(value) AS f FROM groups", &["array_agg()"], &["array_agg()"]),
        ] {
            for (expected, on_a_cluster) in [(here, false), (there, true)] {
                let found = found(query, on_a_cluster).await;
                assert_eq!(found.len(), expected.len(), "{query}: {found:?}");
                for (sentence, word) in found.iter().zip(expected) {
                    assert!(sentence.contains(word), "{query}: {sentence}");
                }
            }
        }
    }
}
