//! Windows whose PARTITION BY or ORDER BY holds what has one value in all rows. Such a key decides nothing. The query engine
//! takes it out of some of its sorts by itself, and where two windows stand on each other, and only one of them has it, the
//! rest of the other's order goes with it: rows come unsorted (DataFusion 55.2). So the key is taken out first.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Sort as SortKey, WindowFunctionParams};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFrameBound, WindowFrameUnits};
use datafusion::optimizer::AnalyzerRule;

use super::kept_names;

/// See the module.
#[derive(Debug)]
pub(super) struct ConstantKeys;

impl AnalyzerRule for ConstantKeys {
    fn name(&self) -> &str {
        "constant_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            // Several in one node are there because they have the same keys, and must keep them.
            LogicalPlan::Window(window) if window.window_expr.len() == 1 => {
                let input = std::sync::Arc::clone(&window.input);
                let node = LogicalPlan::Window(window);
                kept_names::changed(node, |expr| expr.transform_up(|expr| Ok(decided(expr, &input))))
            }
            node => Ok(Transformed::no(node)),
        })
        .data()
    }
}

/// A window without keys that decide nothing.
fn decided(expr: Expr, input: &LogicalPlan) -> Transformed<Expr> {
    let Expr::WindowFunction(mut window) = expr else { return Transformed::no(expr) };
    let params = &mut window.params;
    let before = params.partition_by.len() + params.order_by.len();
    params.partition_by.retain(|key| !is_constant(key, input));
    // Limits in values of the key need it, however constant it is; and so does the end of a frame at the row's peers.
    if !counts_values(params) {
        let keys = std::mem::take(&mut params.order_by);
        let (constant, mut deciding): (Vec<SortKey>, Vec<SortKey>) =
            keys.into_iter().partition(|key| is_constant(&key.expr, input));
        if deciding.is_empty() {
            deciding.extend(constant.into_iter().next());
        }
        params.order_by = deciding;
    }
    let is_changed = params.partition_by.len() + params.order_by.len() != before;
    let expr = Expr::WindowFunction(window);
    if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

/// Whether limits of the frame are counted in values of the ORDER BY key.
fn counts_values(params: &WindowFunctionParams) -> bool {
    use WindowFrameBound::{Following, Preceding};
    let frame = &params.window_frame;
    let is_count = |bound: &WindowFrameBound| match bound {
        Preceding(value) | Following(value) => !value.is_null(),
        WindowFrameBound::CurrentRow => false,
    };
    frame.units == WindowFrameUnits::Range && (is_count(&frame.start_bound) || is_count(&frame.end_bound))
}

/// Whether an expression has one value in all rows of a plan.
fn is_constant(expr: &Expr, plan: &LogicalPlan) -> bool {
    if expr.is_volatile() {
        return false;
    }
    let has_query = expr.exists(|expr| {
        Ok(matches!(
            expr,
            Expr::OuterReferenceColumn(..)
                | Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
        ))
    });
    !has_query.unwrap_or(true)
        && expr
            .column_refs()
            .into_iter()
            .all(|column| plan.schema().maybe_index_of_column(column).is_some_and(|index| has_one_value(plan, index)))
}

/// Whether a column of a plan has one value by the words of the query.
fn has_one_value(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.get(index).is_some_and(|expr| is_constant(unaliased(expr), &projection.input))
        }
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().is_some_and(|input| has_one_value(input, index))
        }
        LogicalPlan::Window(window) => {
            index < window.input.schema().fields().len() && has_one_value(&window.input, index)
        }
        _ => false,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        expr => expr,
    }
}
