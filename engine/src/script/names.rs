//! Names for columns that the user gave none: their own SQL text. (The query engine would call `avg(delay)` of a file
//! `avg(data/flights.parquet.delay)` and `1 + 1` `Int64(1) + Int64(1)`.)

use std::collections::HashSet;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, Spanned, Statement};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::field_access::has_field_behind_bracket;

/// Two columns that would have one name, where there is no place for both.
#[derive(Debug)]
pub(crate) struct SameName {
    pub(crate) name: String,
    /// Of the second one.
    pub(crate) place: Location,
}

/// Names the columns of the outermost select list of a query, a view, a table made from a query, or an EXPLAIN of them.
///
/// # Errors
/// Two columns of one name in a view or a table. A result may have such.
pub(crate) fn name_columns(statement: &mut SqlStatement) -> Result<(), SameName> {
    match statement {
        SqlStatement::Statement(statement) => match statement.as_mut() {
            Statement::Query(query) => {
                if let Some(select) = of_query(query) {
                    twins::mark(select);
                }
                Ok(())
            }
            Statement::CreateView(view) if view.columns.is_empty() => unique(of_query(&mut view.query)),
            // Its columns have other names in the end.
            Statement::CreateView(view) => {
                if let Some(select) = of_query(&mut view.query) {
                    twins::mark(select);
                }
                Ok(())
            }
            Statement::CreateTable(table) => table.query.iter_mut().try_for_each(|query| unique(of_query(query))),
            _ => Ok(()),
        },
        SqlStatement::Explain(explain) => name_columns(&mut explain.statement),
        _ => Ok(()),
    }
}

/// Gives the SELECT that names the columns.
fn of_query(query: &mut Query) -> Option<&mut Select> {
    let mut body = query.body.as_mut();
    loop {
        match body {
            // The first branch of a UNION names the columns.
            SetExpr::SetOperation { left, .. } => body = left.as_mut(),
            SetExpr::Query(inner) => body = inner.body.as_mut(),
            SetExpr::Select(select) => {
                select.projection.iter_mut().for_each(name);
                return Some(select);
            }
            _ => return None,
        }
    }
}

fn name(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    if has_name(expr) {
        return;
    }
    let alias = Ident::with_quote('"', expr.to_string());
    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
}

/// Whether an expression of a select list is called something without being told so.
pub(crate) fn has_name(expr: &Expr) -> bool {
    match expr {
        // A query in parentheses is called as its own column, which ORDER BY may name.
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => true,
        Expr::CompoundFieldAccess { .. } => !has_field_behind_bracket(expr),
        // A struct that is unnested becomes several columns, with names of their own.
        Expr::Function(call) => call.name.to_string().eq_ignore_ascii_case("unnest"),
        _ => false,
    }
}

/// The name of a column as SQL folds it, when the list says it.
fn named(item: &SelectItem) -> Option<String> {
    let ident = match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) | SelectItem::ExprWithAlias { alias: ident, .. } => ident,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last()?,
        _ => return None,
    };
    Some(if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() })
}

fn unique(select: Option<&mut Select>) -> Result<(), SameName> {
    let mut seen = HashSet::new();
    for item in select.into_iter().flat_map(|select| &select.projection) {
        if let Some(name) = named(item)
            && !seen.insert(name.clone())
        {
            return Err(SameName { name, place: item.span().start });
        }
    }
    Ok(())
}

/// Columns of one name in a result. The query engine's plans cannot have them, so all but the first are marked in the
/// statement, and get their name back above the plan, each as the column of a table of its own.
pub(crate) mod twins {
    use std::collections::HashSet;
    use std::sync::Arc;

    use arrow::datatypes::FieldRef;
    use datafusion::common::{Column, TableReference};
    use datafusion::error::Result as PlanResult;
    use datafusion::logical_expr::expr::Alias;
    use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, Projection};
    use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, SelectItem, SetExpr};

    use super::named;
    use crate::error::{Error, Result};

    /// Follows the name, once for each column of the same name before; it takes no room where a plan is shown.
    const MARK: char = '\u{200b}';

    /// Marks the columns whose names have been taken.
    pub(super) fn mark(select: &mut Select) {
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        let with_wildcard = select.projection.iter().any(is_wildcard);
        let mut seen = HashSet::new();
        for item in &mut select.projection {
            let Some(name) = named(item).or_else(|| of_subquery(item)) else { continue };
            let is_column = matches!(item, SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_)));
            let mut unique = name;
            while seen.contains(&unique) || (with_wildcard && is_column && !unique.ends_with(MARK)) {
                unique.push(MARK);
            }
            if unique.ends_with(MARK) {
                let alias = Ident::with_quote('"', unique.clone());
                let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            seen.insert(unique);
        }
    }

    /// A query in parentheses is called as its own column.
    fn of_subquery(item: &SelectItem) -> Option<String> {
        let SelectItem::UnnamedExpr(Expr::Subquery(query)) = item else { return None };
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        let first = select.projection.first()?;
        named(first).or_else(|| match first {
            SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
            _ => None,
        })
    }

    fn unmarked(name: &str) -> &str {
        name.trim_end_matches(MARK)
    }

    /// Gives the columns of a result their names back.
    pub(crate) fn restore(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
        let fields = plan.schema().fields();
        if !fields.iter().any(|field| field.name().ends_with(MARK)) {
            return Ok(plan);
        }
        let is_twin = |name: &str| fields.iter().filter(|field| unmarked(field.name()) == unmarked(name)).count() > 1;
        let column = |(index, field): (usize, (Option<&TableReference>, &FieldRef))| {
            let name = field.1.name().clone();
            let expr = PlanExpr::Column(Column::from(field));
            let twin = is_twin(&name);
            if !name.ends_with(MARK) && (!twin || field.0.is_some()) {
                return expr;
            }
            let table = twin.then(|| TableReference::bare(format!("column {}", index + 1)));
            PlanExpr::Alias(Alias::new(expr, table, unmarked(&name)))
        };
        let columns = plan.schema().iter().enumerate().map(column).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
    }

    /// The same, where the columns become those of a file or a model.
    ///
    /// # Errors
    /// Two columns of one name.
    pub(crate) fn restore_unique(plan: LogicalPlan) -> Result<LogicalPlan> {
        let mut seen = HashSet::new();
        let marked = plan.schema().fields().iter().any(|field| field.name().ends_with(MARK));
        let twin = plan.schema().fields().iter().find(|field| !seen.insert(unmarked(field.name())));
        match twin.filter(|_| marked) {
            Some(field) => Err(Error::invalid(format!("two columns are named `{}`", unmarked(field.name())))
                .with_hint("give one of them another name with AS")),
            None => Ok(restore(plan)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn expressions_are_called_what_they_are() {
        for (text, expected) in [
            ("SELECT a, t.b, 1+1, avg( x ) FROM t", "SELECT a, t.b, 1 + 1 AS \"1 + 1\", avg(x) AS \"avg(x)\" FROM t"),
            ("SELECT t.a[1], a[1].b FROM t", "SELECT t.a[1], a[1].b AS \"a[1].b\" FROM t"),
            ("SELECT a + 1 AS b FROM t", "SELECT a + 1 AS b FROM t"),
            ("SELECT unnest(a) FROM t", "SELECT unnest(a) FROM t"),
            ("SELECT 1+1 UNION SELECT 2+2", "SELECT 1 + 1 AS \"1 + 1\" UNION SELECT 2 + 2"),
            ("SELECT * FROM (SELECT 1+1)", "SELECT * FROM (SELECT 1 + 1)"),
            ("SELECT 1, 1 AS x, 2 AS x", "SELECT 1 AS \"1\", 1 AS x, 2 AS \"x\u{200b}\""),
        ] {
            let mut statement = DFParser::parse_sql(text).unwrap().remove(0).unwrap();
            name_columns(&mut statement).unwrap();
            assert_eq!(statement.to_string(), expected);
        }
    }
}
