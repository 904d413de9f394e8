//! Expressions of a node that are changed and keep their names, so that the node's columns are called what they were. In a
//! grouping set each expression has a name of its own; the set itself can have none, and is no set when it gets one.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The same node over expressions that `change` has changed.
pub(super) fn changed(
    node: LogicalPlan,
    change: impl Fn(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    let under_its_name = |expr: Expr| {
        let name = names.save(&expr);
        Ok(change(expr)?.update_data(|expr| name.restore(expr)))
    };
    node.map_expressions(|expr| match expr {
        Expr::GroupingSet(_) => expr.map_children(&under_its_name),
        expr => under_its_name(expr),
    })
}
