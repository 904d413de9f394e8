//! Casts to timestamps that end a statement on good values:
//!
//! * A comparison of a date, or of a coarse timestamp, with a timestamp in nanoseconds casts the one to the other, and most
//!   dates are none in nanoseconds. Both are compared in microseconds when both were coarse; otherwise what is beyond the
//!   range is pinned to its end.
//! * A local time that a change of clocks repeats or skips has no instant to the query engine; it is standard time
//!   (`functions/instants/zones.rs`).
//!
//! And one that gives wrong values: a number may count seconds, milliseconds, microseconds or nanoseconds, and no cast says
//! which. PostgreSQL and DuckDB refuse it, too.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, TryCast, cast};
use datafusion::optimizer::AnalyzerRule;

use super::{is_comparison, kept_names, schema_of_inputs};
use crate::functions::instants;

/// See the module.
#[derive(Debug)]
pub(super) struct Timestamps;

impl AnalyzerRule for Timestamps {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(mended).map(|done| done.data)
    }

    fn name(&self) -> &'static str {
        "timestamps"
    }
}

fn mended(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_casts(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let schema = schema_of_inputs(&plan)?;
    kept_names::changed(plan, |expr| expr.transform_up(|expr| expression(expr, &schema)))
}

fn has_casts(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= match expr {
                Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => {
                    matches!(field.data_type(), DataType::Timestamp(..) | DataType::Time64(_))
                }
                _ => false,
            };
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

fn expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
            if counts_nothing(&expr, field.data_type(), schema) =>
        {
            return plan_err!(
                "a number cannot be cast to {}: to_timestamp_seconds, to_timestamp_millis, to_timestamp_micros and \
                 to_timestamp_nanos say what it counts",
                if matches!(field.data_type(), DataType::Time64(_)) { "TIME" } else { "TIMESTAMP" }
            );
        }
        Expr::Cast(Cast { expr, field }) => match at_zone(&expr, field.data_type(), schema) {
            Some(target) => Transformed::yes(zoned(*expr, target, false)),
            None => Transformed::no(Expr::Cast(Cast { expr, field })),
        },
        Expr::TryCast(TryCast { expr, field }) => match at_zone(&expr, field.data_type(), schema) {
            Some(target) => Transformed::yes(zoned(*expr, target, true)),
            None => Transformed::no(Expr::TryCast(TryCast { expr, field })),
        },
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let sides = compared(vec![*left, *right], schema)?;
            sides.update_data(|sides| {
                let [left, right] = <[Expr; 2]>::try_from(sides).expect("two sides stay two").map(Box::new);
                Expr::BinaryExpr(BinaryExpr { left, op, right })
            })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let parts = compared(vec![*expr, *low, *high], schema)?;
            parts.update_data(|parts| {
                let [expr, low, high] = <[Expr; 3]>::try_from(parts).expect("three parts stay three").map(Box::new);
                Expr::Between(Between { expr, negated, low, high })
            })
        }
        Expr::InList(InList { expr, mut list, negated }) if is_widened(&expr) || list.iter().any(is_widened) => {
            list.insert(0, *expr);
            let parts = compared(list, schema)?;
            parts.update_data(|mut parts| {
                let expr = Box::new(parts.remove(0));
                Expr::InList(InList { expr, list: parts, negated })
            })
        }
        expr => Transformed::no(expr),
    })
}

/// Whether a number becomes a time of which nobody has said the unit.
fn counts_nothing(operand: &Expr, target: &DataType, schema: &DFSchema) -> bool {
    matches!(target, DataType::Timestamp(TimeUnit::Microsecond, None) | DataType::Time64(TimeUnit::Microsecond))
        && operand.get_type(schema).is_ok_and(|kind| kind.is_numeric())
}

/// The target of a cast from local time to a zone whose clocks change.
fn at_zone(local: &Expr, target: &DataType, schema: &DFSchema) -> Option<ScalarValue> {
    let DataType::Timestamp(_, Some(zone)) = target else { return None };
    if zone.starts_with(['+', '-']) || matches!(zone.as_ref(), "UTC" | "Z" | "Etc/UTC" | "GMT") {
        return None;
    }
    let is_local = match local.get_type(schema).ok()? {
        DataType::Timestamp(_, zone) => zone.is_none(),
        data_type => data_type.is_string() || matches!(data_type, DataType::Date32 | DataType::Date64),
    };
    is_local.then(|| ScalarValue::try_from(target).ok()).flatten()
}

fn zoned(local: Expr, target: ScalarValue, tries: bool) -> Expr {
    let arguments = vec![local, Expr::Literal(target, None)];
    Expr::ScalarFunction(ScalarFunction { func: instants::at_zone(tries), args: arguments })
}

/// Whether an expression is a cast to nanoseconds.
fn is_widened(expr: &Expr) -> bool {
    matches!(expr, Expr::Cast(Cast { field, .. })
        if matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)))
}

/// Expressions that are compared with each other, all of one type.
fn compared(exprs: Vec<Expr>, schema: &DFSchema) -> Result<Transformed<Vec<Expr>>> {
    if !exprs.iter().any(is_widened) {
        return Ok(Transformed::no(exprs));
    }
    let coarse: Vec<Option<DataType>> = exprs.iter().map(|expr| coarse(expr, schema)).collect();
    if coarse.iter().all(Option::is_none) {
        return Ok(Transformed::no(exprs));
    }
    if coarse.iter().all(Option::is_some) {
        let unit = |expr: Expr| match expr {
            Expr::Cast(Cast { expr, field }) => match field.data_type() {
                DataType::Timestamp(_, zone) => cast(*expr, DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
                _ => Expr::Cast(Cast { expr, field }),
            },
            expr => expr,
        };
        return Ok(Transformed::yes(exprs.into_iter().map(unit).collect()));
    }
    let clamped = exprs.into_iter().zip(coarse).map(|(expr, coarse)| match (expr, coarse) {
        (Expr::Cast(Cast { expr, .. }), Some(_)) => {
            Expr::ScalarFunction(ScalarFunction { func: instants::clamped(), args: vec![*expr] })
        }
        (expr, _) => expr,
    });
    Ok(Transformed::yes(clamped.collect()))
}

/// The type that a cast to nanoseconds widens: a date or a timestamp in the same zone. A column of timestamps that is cast
/// stays cast: the query engine takes the cast over to a literal on the other side.
fn coarse(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    let Expr::Cast(Cast { expr, field }) = expr else { return None };
    let DataType::Timestamp(TimeUnit::Nanosecond, target) = field.data_type() else { return None };
    let data_type = expr.get_type(schema).ok()?;
    let is_coarse = match &data_type {
        DataType::Date32 | DataType::Date64 => target.is_none(),
        DataType::Timestamp(unit, zone) => *unit != TimeUnit::Nanosecond && same_zone(zone.as_ref(), target.as_ref()),
        _ => false,
    };
    is_coarse.then_some(data_type)
}

fn same_zone(one: Option<&Arc<str>>, other: Option<&Arc<str>>) -> bool {
    one == other
}
