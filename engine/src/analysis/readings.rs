//! Texts that a cast would read as something else without a word. A text that becomes a list is one element to the query
//! engine, whatever brackets it has, and is refused; a number without a unit that becomes an interval is months to it, and
//! seconds here, as in `INTERVAL '47.5'`.

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::regex::expr_fn::regexp_replace;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

use super::schema_of_inputs;
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(super) struct Readings;

impl AnalyzerRule for Readings {
    fn name(&self) -> &str {
        "readings"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_such(&plan)? {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(|node| {
            let schema = schema_of_inputs(&node)?;
            node.map_expressions(|expr| expr.transform_up(|expr| read(expr, &schema)))
        })
        .data()
    }
}

/// Whether there is any cast to look at.
fn has_such(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found |= target(expr).is_some_and(|target| is_interval(target) || is_nested(target));
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

fn target(expr: &Expr) -> Option<&DataType> {
    match expr {
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => Some(field.data_type()),
        _ => None,
    }
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime | IntervalUnit::YearMonth)
    )
}

fn is_nested(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(_, _)
            | DataType::Map(_, _)
            | DataType::Struct(_)
    )
}

fn read(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Some(target) = target(&expr).filter(|target| is_interval(target) || is_nested(target)) else {
        return Ok(Transformed::no(expr));
    };
    let (Expr::Cast(Cast { expr: inner, .. }) | Expr::TryCast(TryCast { expr: inner, .. })) = &expr else {
        return Ok(Transformed::no(expr));
    };
    let Ok(given) = inner.get_type(schema) else { return Ok(Transformed::no(expr)) };
    if !is_text(&given) || matches!(inner.as_ref(), Expr::Literal(value, _) if value.is_null()) {
        return Ok(Transformed::no(expr));
    }
    if is_nested(target) {
        let error = Error::invalid(format!("a text cannot be cast to {target}: it would become one element"))
            .with_hint("string_to_array(text, ',') cuts a text, and [a, b] makes a list");
        return Err(DataFusionError::External(Box::new(error)));
    }
    let seconds = match inner.as_ref() {
        Expr::Literal(value, metadata) => match value.try_as_str().flatten() {
            Some(text) if is_number(text) => {
                Expr::Literal(ScalarValue::from(format!("{} seconds", text.trim())), metadata.clone())
            }
            _ => return Ok(Transformed::no(expr)),
        },
        Expr::ScalarFunction(call) if call.name() == "regexp_replace" => return Ok(Transformed::no(expr)),
        _ => {
            let text = Expr::Cast(Cast::new(inner.clone(), DataType::Utf8));
            regexp_replace(text, lit(r"^\s*([-+]?[0-9]*\.?[0-9]+)\s*$"), lit(r"\1 seconds"), None)
        }
    };
    Ok(Transformed::yes(match expr {
        Expr::TryCast(TryCast { field, .. }) => Expr::TryCast(TryCast::new_from_field(Box::new(seconds), field)),
        Expr::Cast(Cast { field, .. }) => Expr::Cast(Cast::new_from_field(Box::new(seconds), field)),
        other => other,
    }))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => value.is_string(),
        other => other.is_string(),
    }
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<f64>().is_ok_and(f64::is_finite)
}
