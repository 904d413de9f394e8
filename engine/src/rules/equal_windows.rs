//! Windows that stand on each other and ask for the same. `sum(x) OVER (ORDER BY k AND true)` and `sum(x) OVER (ORDER BY k)`
//! are one once they are simplified; the query engine then takes the window for a common part of both and puts it below
//! them, into a projection, which cannot compute it (DataFusion 55.2). So it is asked for once, and the second column is the
//! first one's.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Window};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// See the module.
#[derive(Debug)]
pub(super) struct EqualWindows;

impl OptimizerRule for EqualWindows {
    fn name(&self) -> &'static str {
        "equal_windows"
    }

    /// The uppermost of windows that stand on each other is met first.
    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Window(top) = &plan else { return Ok(Transformed::no(plan)) };
        let windows = on_each_other(top);
        let twins = twins(&windows);
        if twins.is_empty() {
            return Ok(Transformed::no(plan));
        }
        Ok(Transformed::yes(without(&windows, &twins, &plan)?))
    }
}

/// The window and those directly below it, the lowest first.
fn on_each_other(top: &Window) -> Vec<&Window> {
    let mut windows = vec![top];
    while let Some(LogicalPlan::Window(below)) = windows.last().map(|window| window.input.as_ref()) {
        windows.push(below);
    }
    windows.reverse();
    windows
}

/// Columns that are the same as one before, with that one.
fn twins(windows: &[&Window]) -> HashMap<Column, Column> {
    let mut seen: HashMap<Expr, Column> = HashMap::new();
    let mut twins = HashMap::new();
    let exprs = || windows.iter().flat_map(|window| &window.window_expr);
    for expr in exprs() {
        let column = column_of(expr);
        if expr.is_volatile() || exprs().any(|other| other.column_refs().contains(&column)) {
            continue;
        }
        match seen.get(&expr.clone().unalias()) {
            Some(first) => twins.insert(column, first.clone()),
            None => {
                seen.insert(expr.clone().unalias(), column);
                None
            }
        };
    }
    twins
}

/// What an expression of a window is called above it.
fn column_of(expr: &Expr) -> Column {
    let (table, name) = expr.qualified_name();
    Column::new(table, name)
}

/// The windows without these columns, below a projection that has them.
fn without(windows: &[&Window], twins: &HashMap<Column, Column>, plan: &LogicalPlan) -> Result<LogicalPlan> {
    let Some(lowest) = windows.first() else { return Ok(plan.clone()) };
    let mut below = Arc::clone(&lowest.input);
    for window in windows {
        let kept = window.window_expr.iter().filter(|expr| !twins.contains_key(&column_of(expr)));
        let kept: Vec<Expr> = kept.cloned().collect();
        if !kept.is_empty() {
            below = Arc::new(LogicalPlan::Window(Window::try_new(kept, below)?));
        }
    }
    let columns = plan.schema().iter().map(|(table, field)| {
        let column = Column::new(table.cloned(), field.name());
        match twins.get(&column) {
            Some(first) => Expr::Column(first.clone()).alias_qualified(table.cloned(), field.name()),
            None => Expr::Column(column),
        }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), below)?))
}
