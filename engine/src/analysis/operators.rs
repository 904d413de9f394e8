//! Operators whose type is another than the query engine's, which drops a part of what they are given or knows no common type:
//!
//! * a date plus or minus an interval is a timestamp unless the interval is written out and has whole days and months only;
//! * times of different resolutions are compared in nanoseconds;
//! * the quotient of decimals has the digits of `functions/quotient.rs`.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::{Expr, ExprSchemable, cast};

use crate::functions::quotient;

/// See the module.
#[derive(Debug)]
pub(crate) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, raw: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(PlannerResult::Original(match raw.op {
            BinaryOperator::Plus | BinaryOperator::Minus => with_hours(raw, schema),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => times(raw, schema),
            BinaryOperator::Divide => return Ok(quotient(raw, schema)),
            _ => raw,
        }))
    }
}

/// A division of decimals.
fn quotient(raw: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
    let data_type = |expr: &Expr| expr.get_type(schema).ok();
    if is_written_out(&raw.left) && !is_decimal(&raw.right, schema)
        || is_written_out(&raw.right) && !is_decimal(&raw.left, schema)
    {
        let RawBinaryExpr { op, left, right } = raw;
        return PlannerResult::Original(RawBinaryExpr { op, left: as_double(left), right: as_double(right) });
    }
    match (data_type(&raw.right), data_type(&raw.left)) {
        (Some(divisor), Some(dividend)) if quotient::divides(&dividend, &divisor) => {
            let arguments = vec![whole_literal(raw.left), whole_literal(raw.right)];
            let call = ScalarFunction::new_udf(quotient::function(), arguments);
            PlannerResult::Planned(Expr::ScalarFunction(call))
        }
        _ => PlannerResult::Original(raw),
    }
}

/// Whether this is a decimal that is written out: what no column declares as one is divided as DOUBLE.
fn is_written_out(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Decimal128(Some(_), ..), _))
}

/// Whether this has the type DECIMAL otherwise than by being written out.
fn is_decimal(expr: &Expr, schema: &DFSchema) -> bool {
    !is_written_out(expr) && expr.get_type(schema).is_ok_and(|data_type| data_type.is_decimal())
}

/// The nearest DOUBLE to a decimal that is written out.
fn as_double(expr: Expr) -> Expr {
    match &expr {
        Expr::Literal(value @ ScalarValue::Decimal128(Some(_), ..), metadata) => match value.to_string().parse::<f64>()
        {
            Ok(number) => Expr::Literal(ScalarValue::from(number), metadata.clone()),
            Err(_) => expr,
        },
        _ => expr,
    }
}

/// A whole number that is written out as the decimal of its own digits: `x / 2` is not a division by a BIGINT.
fn whole_literal(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => {
            let digits = value.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
            Expr::Literal(ScalarValue::Decimal128(Some(value.into()), digits as u8, 0), metadata)
        }
        expr => expr,
    }
}

/// A timestamp that holds every date.
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// In a chain of operators the left side is deep and the right side shallow: the right one is looked at first.
fn with_hours(raw: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    let RawBinaryExpr { op, left, right } = raw;
    let data_type = |expr: &Expr| expr.get_type(schema).ok();
    let is_date = |expr: &Expr| matches!(data_type(expr), Some(DataType::Date32 | DataType::Date64));
    let is_interval = |expr: &Expr| matches!(data_type(expr), Some(DataType::Interval(_)));
    if has_hours(&right) && is_interval(&right) && is_date(&left) {
        return RawBinaryExpr { op, left: cast(left, TIMESTAMP), right };
    }
    if op == BinaryOperator::Plus && has_hours(&left) && is_date(&right) && is_interval(&left) {
        return RawBinaryExpr { op, left, right: cast(right, TIMESTAMP) };
    }
    RawBinaryExpr { op, left, right }
}

/// Whether an interval may have a part of a day.
fn has_hours(interval: &Expr) -> bool {
    match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => interval.nanoseconds != 0,
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => interval.milliseconds != 0,
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => false,
        _ => true,
    }
}

fn times(raw: RawBinaryExpr, schema: &DFSchema) -> RawBinaryExpr {
    let RawBinaryExpr { op, left, right } = raw;
    let time = |expr: &Expr| {
        expr.get_type(schema).ok().filter(|data_type| matches!(data_type, DataType::Time32(_) | DataType::Time64(_)))
    };
    match time(&right).and_then(|right| Some((time(&left)?, right))) {
        Some((left_type, right_type)) if left_type != right_type => {
            let finest = DataType::Time64(TimeUnit::Nanosecond);
            RawBinaryExpr { op, left: cast(left, finest.clone()), right: cast(right, finest) }
        }
        _ => RawBinaryExpr { op, left, right },
    }
}
