//! `date_bin` of dates and of timestamps that nanoseconds do not hold, of which the query engine makes NULL.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    ArrowTimestampType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime::date_bin;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::on_dates::{coerced, units_per_second};

/// The function.
pub(super) fn function() -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(DateBin { upstream: date_bin(), signature }))
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateBin {
    upstream: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateBin {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        coerced(&self.upstream, arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.upstream.return_type(arg_types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (arguments, rows) = (args.args.clone(), args.number_rows);
        let result = self.upstream.invoke_with_args(args)?;
        let DataType::Timestamp(unit, _) = result.data_type() else { return Ok(result) };
        let is_scalar = matches!(result, ColumnarValue::Scalar(_));
        let rows = if is_scalar { 1 } else { rows };
        let (values, bins) = (arguments[1].to_array(rows)?, result.to_array(rows)?);
        if bins.null_count() == values.logical_null_count() || is_null(&arguments[0]) {
            return Ok(result);
        }
        let bins = match unit {
            TimeUnit::Second => filled::<TimestampSecondType>(&values, &bins, &arguments)?,
            TimeUnit::Millisecond => filled::<TimestampMillisecondType>(&values, &bins, &arguments)?,
            TimeUnit::Microsecond => filled::<TimestampMicrosecondType>(&values, &bins, &arguments)?,
            TimeUnit::Nanosecond => filled::<TimestampNanosecondType>(&values, &bins, &arguments)?,
        };
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&bins, 0)?));
        }
        Ok(ColumnarValue::Array(bins))
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.upstream.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.upstream.documentation()
    }
}

fn is_null(value: &ColumnarValue) -> bool {
    matches!(value, ColumnarValue::Scalar(value) if value.is_null())
}

/// The bins, and those of the values that have none although they are no NULL.
fn filled<T: ArrowTimestampType>(values: &ArrayRef, bins: &ArrayRef, arguments: &[ColumnarValue]) -> Result<ArrayRef> {
    let (stride, origin) = (stride_nanos(&arguments[0]), origin_nanos(arguments.get(2)));
    let beyond = || DataFusionError::Execution("date_bin: a timestamp is beyond the range of nanoseconds".to_string());
    let (Some(stride), Some(origin)) = (stride, origin) else { return Err(beyond()) };
    let per_unit = i128::from(units_per_second(TimeUnit::Nanosecond) / units_per_second(T::UNIT));
    let values = values.as_primitive::<T>();
    let known = bins.as_primitive::<T>();
    let bins = values.iter().zip(known.iter()).map(|(value, bin)| match (value, bin) {
        (None, _) => Ok(None),
        (Some(_), Some(bin)) => Ok(Some(bin)),
        (Some(value), None) => {
            let since = i128::from(value) * per_unit - origin;
            let bin = origin + since - since.rem_euclid(stride);
            i64::try_from(bin.div_euclid(per_unit)).map(Some).map_err(|_| beyond())
        }
    });
    let bins = bins.collect::<Result<PrimitiveArray<T>>>()?;
    Ok(Arc::new(bins.with_data_type(known.data_type().clone())))
}

/// `None` for months, whose bins differ in length.
fn stride_nanos(stride: &ColumnarValue) -> Option<i128> {
    const NANOS_PER_DAY: i128 = 24 * 60 * 60 * 1_000_000_000;
    let nanos = match stride {
        ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(stride))) if stride.months == 0 => {
            i128::from(stride.days) * NANOS_PER_DAY + i128::from(stride.nanoseconds)
        }
        ColumnarValue::Scalar(ScalarValue::IntervalDayTime(Some(stride))) => {
            i128::from(stride.days) * NANOS_PER_DAY + i128::from(stride.milliseconds) * 1_000_000
        }
        _ => return None,
    };
    (nanos > 0).then_some(nanos)
}

fn origin_nanos(origin: Option<&ColumnarValue>) -> Option<i128> {
    match origin {
        None => Some(0),
        Some(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), _))) => Some((*origin).into()),
        Some(_) => None,
    }
}
