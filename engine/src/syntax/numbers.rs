//! Numbers that are written out. `0.1` is a DECIMAL (`datafusion.sql_parser.parse_float_as_decimal`); `1e-3`, and a number of
//! more digits than a DECIMAL has, are DOUBLE, as in PostgreSQL, DuckDB and Spark. The planner would make decimals of all.

use datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value, ValueWithSpan};

/// Digits of the longest DECIMAL.
const DIGITS_MAX: usize = 38;

/// What a number means that is DOUBLE by its spelling.
pub(super) fn double(number: &ValueWithSpan) -> Option<Expr> {
    let Value::Number(text, _) = &number.value else { return None };
    let has_exponent = text.contains(['e', 'E']);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !has_exponent && whole.trim_start_matches('0').len() + fraction.len() <= DIGITS_MAX {
        return None;
    }
    let text = Expr::Value(Value::SingleQuotedString(text.clone()).with_span(number.span));
    Some(in_double(text))
}

/// Makes DOUBLE of the numbers in a column of VALUES that has a DOUBLE elsewhere: the planner would take DECIMAL for both.
pub(super) fn settle_columns<'a>(rows: impl Iterator<Item = &'a mut Vec<Expr>>) {
    let mut rows: Vec<&mut Vec<Expr>> = rows.collect();
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    for column in 0..width {
        if !rows.iter().any(|row| row.get(column).is_some_and(is_double)) {
            continue;
        }
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(column)) {
            let number = innermost(cell);
            if matches!(&number, Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) if text.contains('.'))
            {
                let own = std::mem::replace(number, Expr::value(Value::Null));
                *number = in_double(own);
            }
        }
    }
}

/// Whether an expression is a cast to a floating-point type.
fn is_double(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, op: _ } => is_double(inner),
        Expr::Cast { data_type, .. } => matches!(
            data_type,
            DataType::Double(_)
                | DataType::DoublePrecision
                | DataType::Float(_)
                | DataType::Float4
                | DataType::Float8
                | DataType::Float32
                | DataType::Float64
                | DataType::Real
        ),
        _ => false,
    }
}

/// What stands below signs and parentheses.
fn innermost(mut expr: &mut Expr) -> &mut Expr {
    while let Expr::Nested(inner) | Expr::UnaryOp { expr: inner, op: _ } = expr {
        expr = inner;
    }
    expr
}

fn in_double(expr: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(expr),
        data_type: DataType::Double(ExactNumberInfo::None),
        array: false,
        format: None,
    }
}
