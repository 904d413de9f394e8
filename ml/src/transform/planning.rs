//! Plans the SQL expressions of a transform, always in the same way: as a SELECT reads them, with the settings that a
//! session begins with, so that an expression means the same in the session that trained a model and in a server that
//! loads it. A transform of format 1 was planned without the rules of our own; it still is.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, SchemaError};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use engine::expression::Expressions;
use engine::{Error, Result, near};

static PLANNER: LazyLock<Expressions> = LazyLock::new(|| {
    Expressions::new(crate::function::scalar_functions()).expect("the functions of this crate have names of their own")
});

/// For transforms of format 1.
static FIRST_PLANNER: LazyLock<SessionState> = LazyLock::new(|| {
    let context = SessionContext::new();
    for function in crate::function::scalar_functions() {
        context.register_udf(function.as_ref().clone());
    }
    context.state()
});

/// What an expression's text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As in a SELECT.
    Sql,
    /// As transforms of format 1 were planned.
    First,
}

/// Plans the SQL expression `text` over `columns`; its types are settled.
///
/// # Errors
/// Unknown columns and functions (with the near name), wrong types, and whatever does not depend on the row alone:
/// aggregates, window functions, subqueries, `random()`, `now()`.
pub(crate) fn plan(text: &str, columns: &Schema) -> Result<Expr> {
    let explained = |error| explain(error, text, columns);
    let expr = PLANNER.plan(text, columns).map_err(explained)?;
    refuse_what_is_no_function_of_the_row(&expr, text)?;
    let read = read_by(&expr, columns);
    PLANNER.settled(expr, &read).map_err(explained)
}

/// The physical expression of a planned one, over batches of `columns`. It has been tried on no rows: what only fails when it
/// runs, whatever the data, fails here.
///
/// # Errors
/// Types that do not fit.
pub(crate) fn physical(expr: Expr, text: &str, columns: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let explained = |error| explain(error, text, columns);
    let physical = PLANNER.physical(expr, columns).map_err(explained)?;
    let no_rows = RecordBatch::new_empty(Arc::new(columns.clone()));
    physical.evaluate(&no_rows).map_err(|error| explained(error.into()))?;
    Ok(physical)
}

/// [`plan`] and [`physical`] in one, over those of `columns` that the expression reads; these come with it.
///
/// # Errors
/// As those.
pub(crate) fn compiled(text: &str, columns: &Schema, reading: Reading) -> Result<(Arc<dyn PhysicalExpr>, Schema)> {
    match reading {
        Reading::Sql => {
            let expr = plan(text, columns)?;
            let read = read_by(&expr, columns);
            Ok((physical(expr, text, &read)?, read))
        }
        Reading::First => {
            let explained = |error: DataFusionError| explain(error.into(), text, columns);
            let schema = DFSchema::try_from(columns.clone())?;
            let expr = FIRST_PLANNER.create_logical_expr(text, &schema).map_err(explained)?.unalias_nested().data;
            let read = read_by(&expr, columns);
            let schema = DFSchema::try_from(read.clone())?;
            Ok((FIRST_PLANNER.create_physical_expr(expr, &schema).map_err(explained)?, read))
        }
    }
}

/// The columns that `expr` reads, ascending by name.
pub(crate) fn read_by(expr: &Expr, columns: &Schema) -> Schema {
    let names = columns_of(expr);
    Schema::new(names.iter().filter_map(|name| columns.field_with_name(name).ok().cloned()).collect::<Vec<_>>())
}

/// Names of the columns that `expr` reads.
pub(crate) fn columns_of(expr: &Expr) -> BTreeSet<String> {
    expr.column_refs().into_iter().map(|column| column.name.clone()).collect()
}

/// A column by name, without qualifier.
pub(crate) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The engine's message in one line, without its decoration.
pub(crate) fn plain(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = [
        "Error during planning: ",
        "Arrow error: ",
        "Execution error: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "SQL error: ",
        "Internal error: ",
        "External error: ",
    ]
    .iter()
    .fold(text, |text, prefix| text.replacen(prefix, "", 1));
    let text = text.split(", errors: ").next().unwrap_or_default();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.next_back() {
        // What a parser of something else has drawn stands between.
        Some(last) if first.ends_with(':') => format!("{first} {}", last.trim_start_matches("error: ")),
        _ => first.to_owned(),
    }
}

fn explain(error: Error, text: &str, columns: &Schema) -> Error {
    let error = match error {
        Error::Query(error) => {
            if let DataFusionError::SchemaError(inner, _) = error.find_root()
                && let SchemaError::FieldNotFound { field, .. } = inner.as_ref()
            {
                return unknown_column(&field.flat_name(), columns);
            }
            PLANNER.explain(error, text)
        }
        error => error,
    };
    let (what, told) = match &error {
        Error::Query(error) => (plain(error), None),
        Error::Invalid { message, hint, .. } => (message.clone(), hint.clone()),
        other => (other.to_string(), None),
    };
    let error = Error::invalid(format!("TRANSFORM: `{text}`: {what}"));
    told.into_iter().fold(error, Error::with_hint)
}

/// A column that the training query does not have.
pub(crate) fn unknown_column(name: &str, columns: &Schema) -> Error {
    let names = || columns.fields().iter().map(|f| f.name().as_str()).filter(|name| !super::steps::is_internal(name));
    let error = Error::invalid(format!("TRANSFORM: the training query has no column `{name}`"));
    match near(name, names()) {
        Some(known) => error.with_hint(format!("did you mean `{known}`?")),
        None => error.with_hint(format!("its columns are {}", names().collect::<Vec<_>>().join(", "))),
    }
}

fn refuse_what_is_no_function_of_the_row(expr: &Expr, text: &str) -> Result<()> {
    const CLOCK: [&str; 4] = ["now", "current_date", "current_time", "current_timestamp"];
    let mut refused = None;
    expr.apply(|inner| {
        refused = match inner {
            Expr::AggregateFunction(call) => Some(format!("{}() is an aggregate", call.func.name())),
            Expr::WindowFunction(call) => Some(format!("{}() OVER is computed over many rows", call.fun.name())),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => Some("it holds a subquery".to_owned()),
            Expr::ScalarFunction(call)
                if call.func.signature().volatility == Volatility::Volatile || CLOCK.contains(&call.func.name()) =>
            {
                Some(format!("{}() gives another value at each call", call.func.name()))
            }
            _ => None,
        };
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some(why) => Err(Error::invalid(format!("TRANSFORM: `{text}`: {why}; a feature must depend on its row alone"))
            .with_hint("statistics over the training rows come from ML.* functions with an empty OVER ()")),
        None => Ok(()),
    }
}
