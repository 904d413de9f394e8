//! `(x, y) IN (SELECT a, b ...)`: rows compared with rows of a query. The query engine compares single values only, so the statement is
//! put into words that it has:
//!
//! ```text
//! CASE WHEN EXISTS (SELECT 1 FROM (SELECT a, b ...) AS r (r1, r2) WHERE r1 = x AND r2 = y) THEN true
//!      WHEN EXISTS (SELECT 1 FROM (SELECT a, b ...) AS r (r1, r2) WHERE (r1 = x AND r2 = y) IS NULL) THEN NULL
//!      ELSE false END
//! ```
//! Where NULL is as good as false, the first EXISTS is enough, and for NOT IN one that asks whether the comparison is not
//! false.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Ident, Query, Select, SelectItem, SetExpr, TableFactor, UnaryOperator, Value,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

use super::row_pairs;
use crate::error::{Error, Result};

/// Rewrites every such comparison in the statement.
///
/// # Errors
/// Two rows that have not as many values.
pub(crate) fn resolve_in(statement: &mut SqlStatement) -> Result<()> {
    match statement {
        SqlStatement::Statement(statement) => match VisitMut::visit(statement.as_mut(), &mut Rows { made: 0 }) {
            ControlFlow::Break(lengths) => Err(lengths),
            ControlFlow::Continue(()) => Ok(()),
        },
        SqlStatement::Explain(explain) => resolve_in(&mut explain.statement),
        _ => Ok(()),
    }
}

struct Rows {
    made: usize,
}

impl VisitorMut for Rows {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if let Some(condition) = &mut select.selection {
            self.condition(condition);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Some(rows) = self.taken(expr) {
            *expr = rows.value().expect("the words are SQL");
        } else if let Some((one, other)) = row_pairs::unlike(expr) {
            let error = Error::invalid(format!("a row of {one} values is compared with one of {other}: {expr}"));
            return ControlFlow::Break(error);
        } else if let Some(pairs) = row_pairs::single(expr) {
            *expr = pairs;
        }
        ControlFlow::Continue(())
    }
}

impl Rows {
    /// A condition of which only the truth is asked.
    fn condition(&mut self, expr: &mut Expr) {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.condition(left);
                self.condition(right);
            }
            Expr::Nested(inner) => self.condition(inner),
            expr => {
                if let Some(rows) = self.taken(expr) {
                    *expr = rows.truth().expect("the words are SQL");
                }
            }
        }
    }

    /// The comparison, when the expression is one of rows.
    fn taken(&mut self, expr: &mut Expr) -> Option<Comparison> {
        let Expr::InSubquery { expr: left, subquery, negated } = expr else { return None };
        let values = values_of(left)?.to_vec();
        self.made += 1;
        let names = (1..=values.len()).map(|index| Ident::new(format!("__row{}_{index}", self.made))).collect();
        let mut query = subquery.clone();
        name_columns(&mut query, self.made);
        Some(Comparison { number: self.made, values, names, query, negated: *negated })
    }
}

pub(super) fn values_of(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(values) if values.len() > 1 => Some(values),
        Expr::Nested(inner) => values_of(inner),
        _ => None,
    }
}

/// Gives the columns names of their own: of `SELECT a, a` both would have one.
fn name_columns(query: &mut Query, number: usize) {
    if query.order_by.is_some() {
        return;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    for (index, item) in select.projection.iter_mut().enumerate() {
        if let SelectItem::UnnamedExpr(expr) = item {
            let alias = Ident::new(format!("__value{number}_{index}"));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// A row that is looked for among the rows of a query.
struct Comparison {
    number: usize,
    values: Vec<Expr>,
    names: Vec<Ident>,
    query: Box<Query>,
    negated: bool,
}

impl Comparison {
    fn value(&self) -> std::result::Result<Expr, ParserError> {
        let when = |condition, result| CaseWhen { condition, result };
        let case = Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![
                when(self.exists(self.equal())?, boolean(!self.negated)),
                when(
                    self.exists(Expr::IsNull(Box::new(Expr::Nested(Box::new(self.equal())))))?,
                    Expr::value(Value::Null),
                ),
            ],
            else_result: Some(Box::new(boolean(self.negated))),
        };
        Ok(Expr::Nested(Box::new(case)))
    }

    fn truth(&self) -> std::result::Result<Expr, ParserError> {
        if !self.negated {
            return self.exists(self.equal());
        }
        let possible = Expr::IsNotFalse(Box::new(Expr::Nested(Box::new(self.equal()))));
        Ok(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(self.exists(possible)?) })
    }

    /// Whether a row of the query fulfils the condition.
    fn exists(&self, condition: Expr) -> std::result::Result<Expr, ParserError> {
        let names: Vec<String> = self.names.iter().map(|name| name.value.clone()).collect();
        let text =
            format!("EXISTS (SELECT 1 FROM (SELECT 1) AS __row{} ({}) WHERE true)", self.number, names.join(", "));
        let mut exists = Parser::new(&GenericDialect {}).try_with_sql(&text)?.parse_expr()?;
        if let Expr::Exists { subquery, .. } = &mut exists
            && let SetExpr::Select(select) = subquery.body.as_mut()
        {
            select.selection = Some(condition);
            if let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation)
            {
                subquery.clone_from(&self.query);
            }
        }
        Ok(exists)
    }

    fn equal(&self) -> Expr {
        let mut pairs = self.names.iter().zip(&self.values).map(|(name, value)| Expr::BinaryOp {
            left: Box::new(Expr::Identifier(name.clone())),
            op: BinaryOperator::Eq,
            right: Box::new(Expr::Nested(Box::new(value.clone()))),
        });
        let first = pairs.next().unwrap_or_else(nothing);
        pairs.fold(first, |left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        })
    }
}

fn boolean(value: bool) -> Expr {
    Expr::value(Value::Boolean(value))
}

fn nothing() -> Expr {
    Expr::value(Value::Null)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn rows_are_compared_value_by_value() {
        for (text, expected) in [
            (
                "SELECT 1 FROM t WHERE (x, y) IN (SELECT a, b FROM u) AND z",
                "SELECT 1 FROM t WHERE EXISTS (SELECT 1 FROM (SELECT a AS __value1_0, b AS __value1_1 FROM u) AS __row1 \
                 (__row1_1, __row1_2) \
                 WHERE __row1_1 = (x) AND __row1_2 = (y)) AND z",
            ),
            ("SELECT x IN (SELECT a FROM u) FROM t", "SELECT x IN (SELECT a FROM u) FROM t"),
            ("SELECT (1, 2) IN ((1, 2))", "SELECT (1 = 1 AND 2 = 2)"),
        ] {
            let mut statement = DFParser::parse_sql(text).unwrap().remove(0).unwrap();
            resolve_in(&mut statement).unwrap();
            assert_eq!(statement.to_string(), expected);
        }
    }
}
