//! Plans the SQL expressions of a transform, always in the same way: with the built-in functions and the scalar `ML.*`
//! functions alone and default settings, so that an expression means the same in the session that trained a model and in
//! a server that loads it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, SchemaError};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use engine::{Error, Result, near};

static PLANNER: LazyLock<SessionState> = LazyLock::new(|| {
    let context = SessionContext::new();
    for function in crate::function::scalar_functions() {
        context.register_udf(function.as_ref().clone());
    }
    context.state()
});

/// Plans the SQL expression `text` over `columns`.
///
/// # Errors
/// Unknown columns and functions (with the near name), wrong types, and whatever does not depend on the row alone:
/// aggregates, window functions, subqueries, `random()`, `now()`.
pub(crate) fn plan(text: &str, columns: &Schema) -> Result<Expr> {
    let schema = DFSchema::try_from(columns.clone())?;
    let expr = PLANNER.create_logical_expr(text, &schema).map_err(|error| explain(error, text, columns))?;
    refuse_what_is_no_function_of_the_row(&expr, text)?;
    Ok(expr.unalias_nested().data)
}

/// The physical expression over batches of `columns`; type coercion and simplification included.
pub(crate) fn physical(expr: Expr, columns: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(columns.clone())?;
    PLANNER.create_physical_expr(expr, &schema).map_err(|error| Error::invalid(plain(&error)))
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
    ]
    .iter()
    .fold(text, |text, prefix| text.replacen(prefix, "", 1));
    text.lines().next().unwrap_or_default().to_owned()
}

fn explain(error: DataFusionError, text: &str, columns: &Schema) -> Error {
    if let DataFusionError::SchemaError(inner, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, .. } = inner.as_ref()
    {
        return unknown_column(&field.name, columns);
    }
    Error::invalid(format!("TRANSFORM: `{text}`: {}", plain(&error)))
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
