//! Of all values that are equal, one: the keys by which rows are compared, grouped, joined and sorted.
//!
//! The query engine compares floating-point numbers by their bits: to it the two zeros differ, and a NaN that a division
//! makes (its sign is set) is below all numbers while one that is written is above them. It compares intervals by months,
//! then by days, then by the rest. Behind `canonical` its order and its equality are right: there is one zero, one NaN, and
//! an interval has as many months as it is long, then days, then a rest that is less than a day.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray};
use datafusion::arrow::compute::unary;
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Float16Type, Float32Type, Float64Type, IntervalDayTime, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::clone(&FUNCTION)
}

static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(Canonical::new())));

/// Whether values of a type may be equal and yet differ to the query engine.
pub(crate) fn has_several_forms(data_type: &DataType) -> bool {
    data_type.is_floating()
        || matches!(data_type, DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano))
}

/// The canonical form of a single value.
pub(crate) fn canonical_value(value: &ScalarValue) -> Result<ScalarValue> {
    ScalarValue::try_from_array(&canonical(&value.to_array()?), 0)
}

fn canonical(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float16 => floats::<Float16Type>(array),
        DataType::Float32 => floats::<Float32Type>(array),
        DataType::Float64 => floats::<Float64Type>(array),
        DataType::Interval(IntervalUnit::MonthDayNano) => Arc::new(unary::<_, _, IntervalMonthDayNanoType>(
            array.as_primitive::<IntervalMonthDayNanoType>(),
            month_day_nano,
        )),
        DataType::Interval(IntervalUnit::DayTime) => {
            Arc::new(unary::<_, _, IntervalDayTimeType>(array.as_primitive::<IntervalDayTimeType>(), day_time))
        }
        _ => Arc::clone(array),
    }
}

/// Adding zero makes one zero of two; what does not equal itself is NaN.
fn floats<T: ArrowPrimitiveType>(array: &ArrayRef) -> ArrayRef {
    let zero = T::Native::ZERO;
    let either = zero.div_wrapping(zero);
    let nan = if either.is_lt(zero) { either.neg_wrapping() } else { either };
    #[allow(clippy::eq_op)]
    let canonical = |value: T::Native| if value == value { value.add_wrapping(zero) } else { nan };
    Arc::new(unary::<T, _, T>(array.as_primitive::<T>(), canonical))
}

const NANOS_PER_DAY: i128 = 24 * 60 * 60 * 1_000_000_000;
const MILLIS_PER_DAY: i128 = 24 * 60 * 60 * 1000;
const DAYS_PER_MONTH: i128 = 30;

/// A month has 30 days, a day 24 hours. All parts have the sign of the whole.
fn month_day_nano(interval: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let days = i128::from(interval.months) * DAYS_PER_MONTH + i128::from(interval.days);
    let nanos = days * NANOS_PER_DAY + i128::from(interval.nanoseconds);
    let (days, nanos) = (nanos / NANOS_PER_DAY, nanos % NANOS_PER_DAY);
    // Months beyond 32 bits leave what is over to the days, which have room for it.
    let months = (days / DAYS_PER_MONTH).clamp(i32::MIN.into(), i32::MAX.into());
    IntervalMonthDayNano::new(months as i32, (days - months * DAYS_PER_MONTH) as i32, nanos as i64)
}

fn day_time(interval: IntervalDayTime) -> IntervalDayTime {
    let millis = i128::from(interval.days) * MILLIS_PER_DAY + i128::from(interval.milliseconds);
    let days = (millis / MILLIS_PER_DAY).clamp(i32::MIN.into(), i32::MAX.into());
    IntervalDayTime::new(days as i32, (millis - days * MILLIS_PER_DAY) as i32)
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl Canonical {
    fn new() -> Self {
        Canonical { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &'static str {
        "canonical"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        Ok(arg_types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [value] = args.arg_fields else {
            return Err(DataFusionError::Plan("canonical takes one value".to_string()));
        };
        Ok(Arc::new(Field::new(value.name(), value.data_type().clone(), value.is_nullable())))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(canonical(array))),
            ColumnarValue::Scalar(value) => Ok(ColumnarValue::Scalar(canonical_value(value)?)),
        }
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        Interval::make_unbounded(&input[0].data_type())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn interval(months: i32, days: i32, nanos: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(months, days, nanos)
    }

    #[test]
    fn intervals_of_one_length_have_one_form() {
        let hour = 60 * 60 * 1_000_000_000;
        let cases = [
            (interval(0, 0, 30 * hour), interval(0, 1, 6 * hour)),
            (interval(0, 30, 0), interval(1, 0, 0)),
            (interval(1, -1, 0), interval(0, 29, 0)),
            (interval(0, 1, -24 * hour), interval(0, 0, 0)),
            (interval(0, 0, -30 * hour), interval(0, -1, -6 * hour)),
            (interval(i32::MAX, i32::MAX, 0), interval(i32::MAX, i32::MAX, 0)),
            (interval(i32::MIN, i32::MIN, 0), interval(i32::MIN, i32::MIN, 0)),
        ];
        for (given, expected) in cases {
            assert_eq!(month_day_nano(given), expected, "{given:?}");
        }
    }

    #[test]
    fn there_is_one_zero_and_one_nan() {
        let zero = canonical_value(&ScalarValue::Float64(Some(-0.0))).unwrap();
        assert_eq!(zero, ScalarValue::Float64(Some(0.0)));
        for nan in [f64::NAN, -f64::NAN] {
            let ScalarValue::Float64(Some(value)) = canonical_value(&ScalarValue::Float64(Some(nan))).unwrap() else {
                panic!("a double stays a double");
            };
            assert!(value.is_nan() && value.is_sign_positive());
        }
    }
}
