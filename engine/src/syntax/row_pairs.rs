//! Rows of values compared with each other, value by value, as the SQL standard has it (ISO/IEC 9075-2, 8.2):
//!
//! ```text
//! (a, b) = (c, d)                a = c AND b = d
//! (a, b) <> (c, d)               a <> c OR b <> d
//! (a, b) < (c, d)                a < c OR a = c AND b < d
//! (a, b) IN ((c, d), (e, f))     a = c AND b = d OR a = e AND b = f
//! ```
//! The query engine takes rows of columns and literals alone, and compares those as values of their own.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

use super::row_values::values_of;

/// The same comparison in words of single values; none when it is not one of rows of the same length.
pub(super) fn single(expr: &Expr) -> Option<Expr> {
    let single = match expr {
        Expr::BinaryOp { left, op, right } => compared(values_of(left)?, op, values_of(right)?)?,
        Expr::IsDistinctFrom(left, right) => distinct(values_of(left)?, values_of(right)?, true)?,
        Expr::IsNotDistinctFrom(left, right) => distinct(values_of(left)?, values_of(right)?, false)?,
        Expr::InList { expr: row, list, negated } => {
            let row = values_of(row)?;
            let equal = |other| compared(row, &BinaryOperator::Eq, values_of(other)?);
            let any = joined(&BinaryOperator::Or, list.iter().map(equal).collect::<Option<Vec<_>>>()?)?;
            if *negated {
                Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(any))) }
            } else {
                any
            }
        }
        _ => return None,
    };
    Some(Expr::Nested(Box::new(single)))
}

/// The lengths of two rows that are compared and have not as many values.
pub(super) fn unlike(expr: &Expr) -> Option<(usize, usize)> {
    let sides: Vec<(&Expr, &Expr)> = match expr {
        Expr::BinaryOp { left, op: _, right }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right) => vec![(left.as_ref(), right.as_ref())],
        Expr::InList { expr: row, list, negated: _ } => list.iter().map(|other| (row.as_ref(), other)).collect(),
        _ => return None,
    };
    let mut lengths =
        sides.into_iter().filter_map(|(one, other)| Some((values_of(one)?.len(), values_of(other)?.len())));
    lengths.find(|(one, other)| one != other)
}

fn compared(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let pairs = pairs(left, right)?;
    let each = |op: &BinaryOperator| pairs.iter().map(|(left, right)| binary(left, op, right)).collect();
    match op {
        Eq => joined(&And, each(&Eq)),
        NotEq => joined(&Or, each(&NotEq)),
        Lt | LtEq => in_order(&pairs, &Lt, op),
        Gt | GtEq => in_order(&pairs, &Gt, op),
        _ => None,
    }
}

/// The first pair that differs decides; the last one by `last`.
fn in_order(pairs: &[(&Expr, &Expr)], strictly: &BinaryOperator, last: &BinaryOperator) -> Option<Expr> {
    let ((left, right), rest) = pairs.split_first()?;
    if rest.is_empty() {
        return Some(binary(left, last, right));
    }
    let equal = binary(left, &BinaryOperator::Eq, right);
    let behind = Expr::Nested(Box::new(in_order(rest, strictly, last)?));
    let later = joined(&BinaryOperator::And, vec![equal, behind])?;
    joined(&BinaryOperator::Or, vec![binary(left, strictly, right), later])
}

fn distinct(left: &[Expr], right: &[Expr], is_distinct: bool) -> Option<Expr> {
    let pairs = pairs(left, right)?.into_iter().map(|(left, right)| {
        let (left, right) = (nested(left), nested(right));
        let pair = if is_distinct { Expr::IsDistinctFrom(left, right) } else { Expr::IsNotDistinctFrom(left, right) };
        Expr::Nested(Box::new(pair))
    });
    joined(if is_distinct { &BinaryOperator::Or } else { &BinaryOperator::And }, pairs.collect())
}

fn pairs<'a>(left: &'a [Expr], right: &'a [Expr]) -> Option<Vec<(&'a Expr, &'a Expr)>> {
    (left.len() == right.len()).then(|| left.iter().zip(right).collect())
}

fn binary(left: &Expr, op: &BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: nested(left), op: op.clone(), right: nested(right) }
}

/// The parts as one expression that is no deeper than it must be: a list can have thousands of rows.
fn joined(op: &BinaryOperator, mut parts: Vec<Expr>) -> Option<Expr> {
    if parts.len() < 2 {
        return parts.pop();
    }
    let later = parts.split_off(parts.len() / 2);
    let (left, right) = (joined(op, parts)?, joined(op, later)?);
    Some(Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) })
}

fn nested(expr: &Expr) -> Box<Expr> {
    Box::new(match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) => expr.clone(),
        other => Expr::Nested(Box::new(other.clone())),
    })
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::single;

    #[test]
    fn rows_are_compared_value_by_value() {
        for (text, expected) in [
            ("(a, 1) = (b, c + 1)", Some("(a = b AND 1 = (c + 1))")),
            ("(a, 1) <> (b, c)", Some("(a <> b OR 1 <> c)")),
            ("(a, b, c) < (1, 2, 3)", Some("(a < 1 OR a = 1 AND (b < 2 OR b = 2 AND (c < 3)))")),
            ("(a, b) >= (1, 2)", Some("(a > 1 OR a = 1 AND (b >= 2))")),
            ("(a, b) IN ((1, 2), (c, d))", Some("(a = 1 AND b = 2 OR a = c AND b = d)")),
            ("(a, b) NOT IN ((1, 2))", Some("(NOT (a = 1 AND b = 2))")),
            ("(a, b) IS DISTINCT FROM (1, 2)", Some("((a IS DISTINCT FROM 1) OR (b IS DISTINCT FROM 2))")),
            ("(a, b) = (1, 2, 3)", None),
            ("(a) = (1)", None),
            ("(a, b) IN ((1, 2), 3)", None),
        ] {
            let expr = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            assert_eq!(single(&expr).map(|expr| expr.to_string()).as_deref(), expected, "{text}");
        }
    }
}
