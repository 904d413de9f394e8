//! Dates, timestamps and time zones where the query engine counts in nanoseconds, which end in 2262, or does not know what a
//! clock shows when it is put forward or back.

mod clamped;
mod date_bin;
mod date_trunc;
mod on_dates;
mod to_timestamp;
mod zones;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub(crate) use clamped::function as clamped;
pub(crate) use zones::function as at_zone;

/// The functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = to_timestamp::functions();
    functions.extend([clamped(), date_bin::function(), date_trunc::function(), at_zone(false), at_zone(true)]);
    functions
}
