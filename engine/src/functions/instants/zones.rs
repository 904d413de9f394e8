//! `at_zone(local, NULL)`: the instant of a local time in the zone of the second argument's type, a cast that knows what a
//! clock shows when it is changed. A time that it shows twice, or never, is taken as standard time, as PostgreSQL and DuckDB
//! do; the query engine ends the statement.

use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use chrono::{Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Utc};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::temporal_conversions::as_datetime;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The function; the one that `tries` gives NULL for text that is no time.
pub(crate) fn function(tries: bool) -> Arc<ScalarUDF> {
    static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 2]> =
        LazyLock::new(|| [false, true].map(|tries| Arc::new(ScalarUDF::from(AtZone::new(tries)))));
    Arc::clone(&FUNCTIONS[usize::from(tries)])
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AtZone {
    tries: bool,
    signature: Signature,
}

impl AtZone {
    fn new(tries: bool) -> Self {
        AtZone { tries, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn cast(&self, values: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
        let options = CastOptions { safe: self.tries, ..CastOptions::default() };
        match cast_with_options(values, target, &options) {
            // What could not be cast may be a time of a change.
            Ok(done) if done.null_count() == values.null_count() => return Ok(done),
            Ok(_) => {}
            Err(error) if is_of_zones(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let DataType::Timestamp(unit, Some(zone)) = target else {
            return Err(DataFusionError::Internal(format!("{target} has no time zone")));
        };
        let zone_name = Arc::clone(zone);
        let zone = Tz::from_str(zone)?;
        match unit {
            TimeUnit::Second => self.resolved::<TimestampSecondType>(values, zone, zone_name),
            TimeUnit::Millisecond => self.resolved::<TimestampMillisecondType>(values, zone, zone_name),
            TimeUnit::Microsecond => self.resolved::<TimestampMicrosecondType>(values, zone, zone_name),
            TimeUnit::Nanosecond => self.resolved::<TimestampNanosecondType>(values, zone, zone_name),
        }
    }

    fn resolved<T: ArrowTimestampType>(&self, values: &ArrayRef, zone: Tz, zone_name: Arc<str>) -> Result<ArrayRef> {
        let instants: PrimitiveArray<T> = match values.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let texts = cast(values, &DataType::Utf8)?;
                let parsed = texts.as_string::<i32>().iter().map(|text| match text {
                    None => Ok(None),
                    Some(text) => self.forgiven(of_text::<T>(text, zone)),
                });
                parsed.collect::<Result<PrimitiveArray<T>>>()?
            }
            _ => {
                let local = cast(values, &DataType::Timestamp(T::UNIT, None))?;
                let local = local.as_primitive::<T>().iter().map(|local| match local {
                    None => Ok(None),
                    Some(local) => self.forgiven(of_local::<T>(as_datetime::<T>(local), zone)),
                });
                local.collect::<Result<PrimitiveArray<T>>>()?
            }
        };
        Ok(Arc::new(instants.with_timezone(zone_name)))
    }

    fn forgiven<V>(&self, value: Result<V>) -> Result<Option<V>> {
        match value {
            Ok(value) => Ok(Some(value)),
            Err(_) if self.tries => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_of_zones(error: &ArrowError) -> bool {
    let text = error.to_string();
    text.contains("timezone") || text.contains("time zone")
}

/// Text with an offset of its own is an instant, other text is local.
fn of_text<T: ArrowTimestampType>(text: &str, zone: Tz) -> Result<i64> {
    match string_to_datetime(&zone, text) {
        Ok(instant) => in_unit::<T>(Some(instant.naive_utc())),
        Err(_) => of_local::<T>(Some(string_to_datetime(&Utc, text)?.naive_utc()), zone),
    }
}

fn of_local<T: ArrowTimestampType>(local: Option<NaiveDateTime>, zone: Tz) -> Result<i64> {
    in_unit::<T>(local.and_then(|local| instant(local, zone)))
}

fn in_unit<T: ArrowTimestampType>(instant: Option<NaiveDateTime>) -> Result<i64> {
    let value = instant.and_then(|instant| T::from_naive_datetime(instant, None));
    value.ok_or_else(|| DataFusionError::Execution("the time is beyond the range of timestamps".to_string()))
}

/// In UTC. Standard time is the one that is behind.
fn instant(local: NaiveDateTime, zone: Tz) -> Option<NaiveDateTime> {
    let behind = |one: i32, other: i32| one.min(other);
    let seconds = match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) => offset.fix().local_minus_utc(),
        LocalResult::Ambiguous(one, other) => behind(one.fix().local_minus_utc(), other.fix().local_minus_utc()),
        LocalResult::None => {
            let offset = |at: NaiveDateTime| zone.offset_from_local_datetime(&at).latest();
            let before = offset(local.checked_sub_signed(Duration::days(1))?)?;
            let after = offset(local.checked_add_signed(Duration::days(1))?)?;
            behind(before.fix().local_minus_utc(), after.fix().local_minus_utc())
        }
    };
    local.checked_sub_signed(Duration::seconds(seconds.into()))
}

impl ScalarUDFImpl for AtZone {
    fn name(&self) -> &'static str {
        if self.tries { "try_at_zone" } else { "at_zone" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[1].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [value, target] = args.arg_fields else {
            return Err(DataFusionError::Plan(format!("{} takes a time and a value of its type", self.name())));
        };
        let nullable = self.tries || value.is_nullable();
        Ok(Arc::new(Field::new(value.name(), target.data_type().clone(), nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let target = args.return_field.data_type();
        match &args.args[0] {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(self.cast(values, target)?)),
            ColumnarValue::Scalar(value) => {
                let done = self.cast(&value.to_array()?, target)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&done, 0)?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_time_that_a_clock_shows_twice_or_never_is_standard_time() {
        let zone = Tz::from_str("America/New_York").unwrap();
        let cases = [
            ("2024-11-03T00:30:00", "2024-11-03T04:30:00"),
            ("2024-11-03T01:30:00", "2024-11-03T06:30:00"),
            ("2024-11-03T02:30:00", "2024-11-03T07:30:00"),
            ("2024-03-10T01:30:00", "2024-03-10T06:30:00"),
            ("2024-03-10T02:30:00", "2024-03-10T07:30:00"),
            ("2024-03-10T03:30:00", "2024-03-10T07:30:00"),
        ];
        for (local, expected) in cases {
            let local: NaiveDateTime = local.parse().unwrap();
            assert_eq!(instant(local, zone), Some(expected.parse().unwrap()), "{local}");
        }
    }
}
