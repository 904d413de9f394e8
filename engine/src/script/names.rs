//! Names for columns that the user gave none: their own SQL text. (The query engine would call `avg(delay)` of a file
//! `avg(data/flights.parquet.delay)` and `1 + 1` `Int64(1) + Int64(1)`.)

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Statement};

use super::field_access::has_field_behind_bracket;

/// Names the columns of the outermost select list of a query, a view, a table made from a query, or an EXPLAIN of them.
pub(crate) fn name_columns(statement: &mut SqlStatement) {
    match statement {
        SqlStatement::Statement(statement) => match statement.as_mut() {
            Statement::Query(query) => of_query(query),
            Statement::CreateView(view) => of_query(&mut view.query),
            Statement::CreateTable(table) => table.query.iter_mut().for_each(|query| of_query(query)),
            _ => {}
        },
        SqlStatement::Explain(explain) => name_columns(&mut explain.statement),
        _ => {}
    }
}

fn of_query(query: &mut Query) {
    let mut body = query.body.as_mut();
    loop {
        match body {
            // The first branch of a UNION names the columns.
            SetExpr::SetOperation { left, .. } => body = left.as_mut(),
            SetExpr::Query(inner) => body = inner.body.as_mut(),
            SetExpr::Select(select) => return select.projection.iter_mut().for_each(name),
            _ => return,
        }
    }
}

fn name(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let has_name = match expr {
        // A query in parentheses is called as its own column, which ORDER BY may name.
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => true,
        Expr::CompoundFieldAccess { .. } => !has_field_behind_bracket(expr),
        // A struct that is unnested becomes several columns, with names of their own.
        Expr::Function(call) => call.name.to_string().eq_ignore_ascii_case("unnest"),
        _ => false,
    };
    if has_name {
        return;
    }
    let alias = Ident::with_quote('"', expr.to_string());
    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn expressions_are_called_what_they_are() {
        for (text, expected) in [
            (
                "SELECT a, t.b, *, 1+1, avg( x ) FROM t",
                "SELECT a, t.b, *, 1 + 1 AS \"1 + 1\", avg(x) AS \"avg(x)\" FROM t",
            ),
            ("SELECT t.a[1], a[1].b FROM t", "SELECT t.a[1], a[1].b AS \"a[1].b\" FROM t"),
            ("SELECT a + 1 AS b FROM t", "SELECT a + 1 AS b FROM t"),
            ("SELECT unnest(a) FROM t", "SELECT unnest(a) FROM t"),
            ("SELECT 1+1 UNION SELECT 2+2", "SELECT 1 + 1 AS \"1 + 1\" UNION SELECT 2 + 2"),
            ("SELECT * FROM (SELECT 1+1)", "SELECT * FROM (SELECT 1 + 1)"),
        ] {
            let mut statement = DFParser::parse_sql(text).unwrap().remove(0).unwrap();
            name_columns(&mut statement);
            assert_eq!(statement.to_string(), expected);
        }
    }
}
