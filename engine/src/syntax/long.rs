//! Long expressions. `a OR b OR c ...` is read as a ladder with a rung for each term, and everything that walks it goes down
//! all rungs: planner and optimizer look up a type at each of them by going down the rest, so time grows with the square of
//! the terms, and the stack with their number. AND, OR and `||` may be grouped in any way, so long ladders become bushes.
//! Sums may not (they overflow and round in their order), nor may casts of casts: their length has a bound.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, Value, VisitMut, VisitorMut};

use crate::error::{Error, Result};
use crate::script::tokens::offset_of;
use crate::work::is_roomy;

/// Ladders of as many terms are left as they are.
const SHORT: usize = 32;
/// How many levels an expression may have, one within the other; and on a thread of somebody else's, which may be small.
const LEVELS_MAX: usize = 4_000;
const LEVELS_MAX_ELSEWHERE: usize = 500;

/// Looks how deep the expressions of the statement `text` are, long conditions aside, before anything else goes down them.
///
/// # Errors
/// An expression of too many levels; its place.
pub(crate) fn measure(statement: &mut SqlStatement, text: &str) -> Result<()> {
    walk(statement, text, false)
}

/// Rewrites every long condition of the statement `text`. Whoever looks how its terms are grouped has done so before.
///
/// # Errors
/// As [`measure`].
pub(crate) fn balance(statement: &mut SqlStatement, text: &str) -> Result<()> {
    walk(statement, text, true)
}

fn walk(statement: &mut SqlStatement, text: &str, rewrites: bool) -> Result<()> {
    let most = if is_roomy() { LEVELS_MAX } else { LEVELS_MAX_ELSEWHERE };
    let mut ladders = Ladders { text, levels: 0, most, rewrites };
    let walked = match statement {
        SqlStatement::Statement(statement) => statement.visit(&mut ladders),
        SqlStatement::Explain(explain) => return walk(&mut explain.statement, text, rewrites),
        _ => return Ok(()),
    };
    match walked {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Ladders<'a> {
    text: &'a str,
    levels: usize,
    most: usize,
    rewrites: bool,
}

impl VisitorMut for Ladders<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.levels += usize::from(self.counts(expr));
        if self.levels > self.most {
            return ControlFlow::Break(self.too_deep(expr));
        }
        if let Expr::BinaryOp { op, .. } = &*expr
            && self.rewrites
            && is_groupable(op)
        {
            let op = op.clone();
            if terms(expr, &op) > SHORT {
                let whole = std::mem::replace(expr, Expr::value(Value::Null));
                *expr = bush(taken_apart(whole, &op), &op);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.levels -= usize::from(self.counts(expr));
        ControlFlow::Continue(())
    }
}

impl Ladders<'_> {
    /// A rung of a ladder that is going to be a bush is no level.
    fn counts(&self, expr: &Expr) -> bool {
        self.rewrites || !matches!(expr, Expr::BinaryOp { op, .. } if is_groupable(op))
    }

    fn too_deep(&self, expr: &Expr) -> Error {
        let mut first = expr;
        while let Expr::BinaryOp { left, .. } = first {
            first = left;
        }
        let error = Error::invalid(format!("the expression has more than {} levels, one within the other", self.most))
            .with_hint("sum parts of it in a subquery first");
        match first {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) => {
                error.at_offset(offset_of(self.text, first.span().start))
            }
            _ => error.at_offset(0),
        }
    }
}

fn is_groupable(op: &BinaryOperator) -> bool {
    matches!(op, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::StringConcat)
}

/// How many terms the ladder has.
fn terms(expr: &Expr, op: &BinaryOperator) -> usize {
    let (mut count, mut rest) = (1, expr);
    while let Expr::BinaryOp { left, op: own, .. } = rest
        && own == op
    {
        count += 1;
        rest = left;
    }
    count
}

/// The terms of the ladder in their order.
fn taken_apart(expr: Expr, op: &BinaryOperator) -> Vec<Expr> {
    let (mut terms, mut rest) = (Vec::new(), expr);
    loop {
        match rest {
            Expr::BinaryOp { left, op: own, right } if own == *op => {
                terms.push(*right);
                rest = *left;
            }
            first => {
                terms.push(first);
                terms.reverse();
                return terms;
            }
        }
    }
}

/// The same terms in the same order, as few levels above each as can be.
fn bush(mut terms: Vec<Expr>, op: &BinaryOperator) -> Expr {
    while terms.len() > 1 {
        let mut pairs = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        terms = pairs;
    }
    terms.pop().unwrap_or_else(|| Expr::value(Value::Null))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    fn parsed(text: &str) -> SqlStatement {
        DFParser::parse_sql(text).unwrap().remove(0).unwrap()
    }

    #[test]
    fn long_conditions_read_the_same() {
        let long = |term: &str, between: &str| vec![term; 100].join(between);
        for text in [
            format!("SELECT * FROM t WHERE {}", long("a = 1", " OR ")),
            format!("SELECT * FROM t WHERE {} AND b OR {}", long("a", " AND "), long("(a OR b)", " OR ")),
            format!("SELECT {} FROM t", long("a", " || ")),
            format!("SELECT {} FROM t", long("a", " + ")),
            "SELECT * FROM t WHERE a OR b OR c".to_string(),
        ] {
            let mut statement = parsed(&text);
            balance(&mut statement, &text).unwrap();
            assert_eq!(statement.to_string(), parsed(&text).to_string());
        }
    }

    #[test]
    fn what_must_stay_a_ladder_has_a_bound() {
        let sum = |terms: usize| format!("SELECT {} FROM t", vec!["abc"; terms].join(" + "));
        balance(&mut parsed(&sum(LEVELS_MAX_ELSEWHERE)), "").unwrap();
        let text = sum(LEVELS_MAX_ELSEWHERE + 2);
        let error = balance(&mut parsed(&text), &text).unwrap_err();
        assert_eq!(error.offset(), Some(7), "{error}");
    }
}
