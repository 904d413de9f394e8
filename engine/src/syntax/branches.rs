//! Branches of set operations. The query engine calls the expressions of a later branch as the first one's columns are called
//! (DataFusion 55.2), so that `SELECT k, n FROM t UNION ALL SELECT n, sum(k) FROM t GROUP BY n` has two columns `n`. Here each
//! has a name of its own first, which nobody sees: the first branch names the columns.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{Ident, Query, SelectItem, SetExpr, SetQuantifier, VisitMut, VisitorMut};

use crate::script::names::has_name;

/// Names the expressions of later branches.
pub(crate) fn name_expressions(statement: &mut SqlStatement) {
    match statement {
        SqlStatement::Statement(statement) => {
            let _ = VisitMut::visit(statement.as_mut(), &mut Branches);
        }
        SqlStatement::Explain(explain) => name_expressions(&mut explain.statement),
        _ => {}
    }
}

struct Branches;

impl VisitorMut for Branches {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        later_branches(&mut query.body);
        ControlFlow::Continue(())
    }
}

/// Chains of set operations are deep on their left.
fn later_branches(body: &mut SetExpr) {
    let mut body = body;
    while let SetExpr::SetOperation { left, right, set_quantifier, .. } = body {
        use SetQuantifier::{AllByName, ByName, DistinctByName};
        if !matches!(set_quantifier, AllByName | ByName | DistinctByName) {
            name(right);
        }
        later_branches(right);
        body = left;
    }
}

fn name(branch: &mut SetExpr) {
    match branch {
        SetExpr::Select(select) => {
            for (index, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !has_name(expr)
                {
                    let alias = Ident::with_quote('"', format!("{expr}, column {}", index + 1));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        SetExpr::Query(query) => name(&mut query.body),
        SetExpr::SetOperation { left, .. } => name(left),
        _ => {}
    }
}
