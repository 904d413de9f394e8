//! Aggregate functions of SQL for what transforms are fitted with: moments, quantiles, frequent categories.
//!
//! They are ordinary aggregates with a mergeable binary state, so they run wherever a query runs. Always holds: the
//! result and the state are the same bits for any partitioning of the rows. The functions are public to SQL under
//! the `gm_` prefix; `ML.*` functions and FEATURE_INFO are built from them elsewhere.

mod categories;
mod moments;
mod quantiles;
pub(crate) mod ranks;
mod rows;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;

pub use categories::TopCategories;
pub use moments::Moments;
pub use quantiles::Quantiles;
pub use rows::Rows;

/// All aggregate functions of this module, to register with a session.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(Moments::default())),
        Arc::new(AggregateUDF::new_from_impl(Quantiles::default())),
        Arc::new(AggregateUDF::new_from_impl(TopCategories::default())),
    ]
}

/// The one state column every aggregate of ours has.
pub(crate) fn binary_state(args: &StateFieldsArgs) -> Result<Vec<FieldRef>> {
    let name = datafusion::logical_expr::utils::format_state_name(args.name, "state");
    Ok(vec![Arc::new(Field::new(name, DataType::LargeBinary, true))])
}

/// The states of a merge, one slice per non-null row.
pub(crate) fn states(column: &ArrayRef) -> impl Iterator<Item = &[u8]> {
    column.as_binary::<i64>().iter().flatten()
}

/// A state that cannot be read: the bytes were damaged on the way, or written by another version.
pub(crate) fn unreadable_state(function: &str) -> DataFusionError {
    DataFusionError::Execution(format!(
        "the intermediate state of {function} cannot be read: damaged, or of another version"
    ))
}

/// The constant given as argument number `index` (from 0), or an error that names the function and the argument.
pub(crate) fn constant(args: &AccumulatorArgs, index: usize, function: &str, argument: &str) -> Result<ScalarValue> {
    args.exprs
        .get(index)
        .and_then(|e| e.downcast_ref::<Literal>())
        .map(|l| l.value().clone())
        .ok_or_else(|| DataFusionError::Plan(format!("{function}: {argument} must be a constant")))
}

#[cfg(test)]
mod tests;
