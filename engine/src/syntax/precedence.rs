//! How strongly IS [NOT] DISTINCT FROM binds. The parser reads its right side as a whole expression, so that
//! `a IS DISTINCT FROM b AND c` becomes `a IS DISTINCT FROM (b AND c)`; SQL means `(a IS DISTINCT FROM b) AND c`.
//!
//! What the parser made of AND, OR, NOT and IS is laid out in the order in which it was written, and put together again by
//! precedence: OR < AND < NOT < IS. What stands in parentheses stays as it is.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Whether the expression is AND, OR, NOT or IS over others.
pub(super) fn is_boolean(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::And | BinaryOperator::Or),
        Expr::UnaryOp { op, .. } => matches!(op, UnaryOperator::Not),
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => true,
        other => postfix(other).is_some(),
    }
}

/// Puts the expression together anew when it holds an IS DISTINCT FROM that took too much.
pub(super) fn settle(expr: &mut Expr) {
    if !takes_too_much(expr) {
        return;
    }
    let whole = std::mem::replace(expr, nothing());
    let mut items = written(whole);
    items.reverse();
    *expr = Reader { items }.or();
}

/// Whether an IS DISTINCT FROM below, with nothing but AND, OR, NOT and IS between, has one of them on its right.
fn takes_too_much(expr: &Expr) -> bool {
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                if is_boolean(right) {
                    return true;
                }
                open.push(left);
            }
            Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
                open.extend([left.as_ref(), right.as_ref()]);
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => open.push(expr),
            other => open.extend(postfix(other).map(|(_, inner)| inner)),
        }
    }
    false
}

/// One word, or an operand, of the expression as it was written.
#[allow(clippy::large_enum_variant, reason = "most items are operands")]
enum Item {
    Operand(Expr),
    And,
    Or,
    Not,
    Postfix(fn(Box<Expr>) -> Expr),
    Infix(fn(Box<Expr>, Box<Expr>) -> Expr),
}

fn written(expr: Expr) -> Vec<Item> {
    enum Open {
        Expr(Expr),
        Done(Item),
    }
    let mut open = vec![Open::Expr(expr)];
    let mut items = Vec::new();
    while let Some(next) = open.pop() {
        let mut expr = match next {
            Open::Done(item) => {
                items.push(item);
                continue;
            }
            Open::Expr(expr) => expr,
        };
        if let Some((make, _)) = postfix(&expr) {
            let inner = postfix_mut(&mut expr).map_or_else(nothing, |inner| std::mem::replace(inner, nothing()));
            open.extend([Open::Done(Item::Postfix(make)), Open::Expr(inner)]);
            continue;
        }
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.extend([Open::Expr(*right), Open::Done(Item::And), Open::Expr(*left)]);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
                open.extend([Open::Expr(*right), Open::Done(Item::Or), Open::Expr(*left)]);
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                items.push(Item::Not);
                open.push(Open::Expr(*expr));
            }
            Expr::IsDistinctFrom(left, right) => {
                open.extend([Open::Expr(*right), Open::Done(Item::Infix(Expr::IsDistinctFrom)), Open::Expr(*left)]);
            }
            Expr::IsNotDistinctFrom(left, right) => {
                open.extend([Open::Expr(*right), Open::Done(Item::Infix(Expr::IsNotDistinctFrom)), Open::Expr(*left)]);
            }
            operand => items.push(Item::Operand(operand)),
        }
    }
    items
}

/// Reads items from the end of a list.
struct Reader {
    items: Vec<Item>,
}

impl Reader {
    fn or(&mut self) -> Expr {
        let mut left = self.and();
        while let Some(Item::Or) = self.items.last() {
            self.items.pop();
            left = binary(left, BinaryOperator::Or, self.and());
        }
        left
    }

    fn and(&mut self) -> Expr {
        let mut left = self.not();
        while let Some(Item::And) = self.items.last() {
            self.items.pop();
            left = binary(left, BinaryOperator::And, self.not());
        }
        left
    }

    fn not(&mut self) -> Expr {
        let mut negations = 0;
        while let Some(Item::Not) = self.items.last() {
            self.items.pop();
            negations += 1;
        }
        let inner = self.is();
        (0..negations).fold(inner, |expr, _| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) })
    }

    fn is(&mut self) -> Expr {
        let mut left = self.operand();
        loop {
            left = match self.items.pop() {
                Some(Item::Postfix(make)) => make(Box::new(left)),
                Some(Item::Infix(make)) => {
                    let right = match self.items.last() {
                        Some(Item::Not) => self.not(),
                        _ => self.operand(),
                    };
                    make(Box::new(left), Box::new(right))
                }
                Some(other) => {
                    self.items.push(other);
                    return left;
                }
                None => return left,
            };
        }
    }

    fn operand(&mut self) -> Expr {
        match self.items.pop() {
            Some(Item::Operand(operand)) => operand,
            _ => unreachable!("an operand stands between two operators"),
        }
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// What follows its operand, and the operand.
fn postfix(expr: &Expr) -> Option<(fn(Box<Expr>) -> Expr, &Expr)> {
    Some(match expr {
        Expr::IsNull(inner) => (Expr::IsNull, inner),
        Expr::IsNotNull(inner) => (Expr::IsNotNull, inner),
        Expr::IsTrue(inner) => (Expr::IsTrue, inner),
        Expr::IsNotTrue(inner) => (Expr::IsNotTrue, inner),
        Expr::IsFalse(inner) => (Expr::IsFalse, inner),
        Expr::IsNotFalse(inner) => (Expr::IsNotFalse, inner),
        Expr::IsUnknown(inner) => (Expr::IsUnknown, inner),
        Expr::IsNotUnknown(inner) => (Expr::IsNotUnknown, inner),
        _ => return None,
    })
}

fn postfix_mut(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotUnknown(inner) => Some(inner),
        _ => None,
    }
}

fn nothing() -> Expr {
    Expr::value(Value::Null)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn parse(text: &str) -> Expr {
        Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap()
    }

    /// The expression without its places.
    fn shape(expr: &Expr) -> String {
        let place = regex::Regex::new(r"Location\(\d+,\d+\)").unwrap();
        place.replace_all(&format!("{expr:?}"), "").into_owned()
    }

    #[test]
    fn it_binds_stronger_than_not_and_or() {
        for (text, expected) in [
            ("a IS DISTINCT FROM b AND c", "(a IS DISTINCT FROM b) AND c"),
            ("a IS NOT DISTINCT FROM b OR c AND d", "(a IS NOT DISTINCT FROM b) OR (c AND d)"),
            ("NOT a IS DISTINCT FROM b AND c", "(NOT (a IS DISTINCT FROM b)) AND c"),
            ("x AND a IS DISTINCT FROM b OR c", "(x AND (a IS DISTINCT FROM b)) OR c"),
            ("a IS DISTINCT FROM b IS NULL", "(a IS DISTINCT FROM b) IS NULL"),
            ("a IS DISTINCT FROM b = c AND d", "(a IS DISTINCT FROM b = c) AND d"),
            ("a IS DISTINCT FROM NOT b AND c", "(a IS DISTINCT FROM NOT b) AND c"),
            (
                "a IS DISTINCT FROM b AND c IS DISTINCT FROM d AND e",
                "((a IS DISTINCT FROM b) AND (c IS DISTINCT FROM d)) AND e",
            ),
        ] {
            let mut given = parse(text);
            settle(&mut given);
            let mut wanted = parse(expected);
            without_parentheses(&mut wanted);
            without_parentheses(&mut given);
            assert_eq!(shape(&given), shape(&wanted), "{text}");
        }
    }

    #[test]
    fn parentheses_stay() {
        for text in ["a IS DISTINCT FROM (b AND c)", "(a IS DISTINCT FROM b) AND c", "a AND b OR NOT c IS NULL"] {
            let mut given = parse(text);
            settle(&mut given);
            assert_eq!(format!("{given:?}"), format!("{:?}", parse(text)), "{text}");
        }
    }

    fn without_parentheses(expr: &mut Expr) {
        use datafusion::sql::sqlparser::ast::{VisitMut, VisitorMut};
        use std::ops::ControlFlow;
        struct Strip;
        impl VisitorMut for Strip {
            type Break = ();
            fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
                if let Expr::Nested(inner) = expr {
                    *expr = std::mem::replace(inner, nothing());
                }
                ControlFlow::Continue(())
            }
        }
        let _ = expr.visit(&mut Strip);
    }
}
