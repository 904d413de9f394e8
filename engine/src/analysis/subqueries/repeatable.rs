//! Whether a plan gives the same rows when it is computed twice in one statement.

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::logical_expr::WindowFunctionDefinition;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, FetchType, LogicalPlan, Window, WindowFrameUnits,
};

use super::single::gives_one_row_at_most;

/// See the module. Which rows a LIMIT takes, and which of equal rows comes first, is left to chance.
pub(super) fn is_repeatable(plan: &LogicalPlan) -> Result<bool> {
    let mut repeatable = true;
    plan.apply_with_subqueries(|node| {
        repeatable &= is_fixed(node)?;
        Ok(if repeatable { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(repeatable)
}

fn is_fixed(node: &LogicalPlan) -> Result<bool> {
    let mut volatile = false;
    node.apply_expressions(|expr| {
        volatile |= expr.is_volatile();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(!volatile
        && match node {
            LogicalPlan::Limit(limit) => {
                matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0))))
                    || gives_one_row_at_most(&limit.input)
                    || is_ordered_whole(&limit.input)
            }
            LogicalPlan::Distinct(Distinct::On(_)) | LogicalPlan::Extension(_) => false,
            LogicalPlan::Sort(sort) => sort.fetch.is_none(),
            LogicalPlan::Window(window) => window.window_expr.iter().all(|expr| is_fixed_window(expr, window)),
            LogicalPlan::Aggregate(aggregate) => {
                aggregate.aggr_expr.iter().all(|expr| is_fixed_aggregate(expr, aggregate))
            }
            _ => true,
        })
}

/// Whether rows that come in any order are equal in all of their columns.
fn is_ordered_whole(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Sort(sort) = plan else { return false };
    let by = |column: &Column| sort.expr.iter().any(|key| matches!(&key.expr, Expr::Column(known) if known == column));
    sort.fetch.is_none() && sort.input.schema().columns().iter().all(by)
}

/// Functions that do not see in which order equal rows come.
fn is_fixed_window(expr: &Expr, window: &Window) -> bool {
    let Expr::WindowFunction(function) = expr.clone().unalias() else { return false };
    let ranks = ["rank", "dense_rank", "percent_rank", "cume_dist"];
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(known) => ranks.contains(&known.name()),
        WindowFunctionDefinition::AggregateUDF(known) => {
            let frame = &function.params.window_frame;
            let whole = function.params.order_by.is_empty() || frame.units == WindowFrameUnits::Range;
            whole
                && folds_in_any_order(known.name())
                && function.params.args.iter().all(|arg| is_exact(arg, &window.input))
        }
    }
}

fn is_fixed_aggregate(expr: &Expr, aggregate: &Aggregate) -> bool {
    let Expr::AggregateFunction(function) = expr.clone().unalias() else { return false };
    let name = function.func.name();
    let extreme = ["min", "max", "count"].contains(&name);
    folds_in_any_order(name) && (extreme || function.params.args.iter().all(|arg| is_exact(arg, &aggregate.input)))
}

fn folds_in_any_order(aggregate: &str) -> bool {
    ["count", "sum", "min", "max", "avg", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor", "median", "grouping"]
        .contains(&aggregate)
}

/// Sums of floating-point numbers depend on their order in the last digit.
fn is_exact(arg: &Expr, input: &LogicalPlan) -> bool {
    arg.get_type(input.schema())
        .is_ok_and(|kind| !matches!(kind, DataType::Float16 | DataType::Float32 | DataType::Float64))
}
