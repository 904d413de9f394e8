//! Functions of timestamps that take dates, too: as timestamps in microseconds, which hold every date, where the query engine
//! makes nanoseconds of them, which do not.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;

/// What upstream's function makes of its arguments once dates are timestamps.
pub(super) fn coerced(upstream: &ScalarUDF, types: &[DataType]) -> Result<Vec<DataType>> {
    let without_dates = types.iter().map(|data_type| match data_type {
        DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => other.clone(),
    });
    let fields: Vec<FieldRef> = without_dates.map(|data_type| Arc::new(Field::new("", data_type, true))).collect();
    let coerced = fields_with_udf(&fields, upstream)?;
    Ok(coerced.iter().map(|field| field.data_type().clone()).collect())
}

/// How many of a unit are a day.
pub(super) fn units_per_day(unit: TimeUnit) -> i64 {
    const SECONDS_PER_DAY: i64 = 24 * 60 * 60;
    SECONDS_PER_DAY * units_per_second(unit)
}

/// How many of a unit are a second.
pub(super) fn units_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}
