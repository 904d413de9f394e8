//! `date_trunc` of dates and of timestamps that nanoseconds do not hold. Times zones, and whatever fits, are the query
//! engine's.

use std::sync::Arc;

use chrono::{Datelike, NaiveDate};
use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampSecondType,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime::date_trunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::on_dates::{coerced, units_per_day};

/// The function.
pub(super) fn function() -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(DateTrunc { upstream: date_trunc(), signature }))
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    upstream: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn aliases(&self) -> &[String] {
        self.upstream.aliases()
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

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.upstream.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let DataType::Timestamp(unit, None) = args.args[1].data_type() else {
            return self.upstream.invoke_with_args(args);
        };
        if unit == TimeUnit::Nanosecond {
            return self.upstream.invoke_with_args(args);
        }
        let first = match &args.args[0] {
            ColumnarValue::Scalar(granularity) => granularity.try_as_str().flatten().and_then(first_day_of),
            ColumnarValue::Array(_) => None,
        };
        let is_scalar = matches!(args.args[1], ColumnarValue::Scalar(_));
        let values = args.args[1].to_array(args.number_rows)?;
        let truncated = match first {
            Some(first) => ColumnarValue::Array(truncated(&values, unit, first)?),
            // Its arithmetic of whole arrays stays within the unit.
            None => {
                let values = vec![args.args[0].clone(), ColumnarValue::Array(values)];
                self.upstream.invoke_with_args(ScalarFunctionArgs { args: values, ..args })?
            }
        };
        match truncated {
            ColumnarValue::Array(values) if is_scalar => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?))
            }
            truncated => Ok(truncated),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.upstream.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.upstream.documentation()
    }
}

/// The first day of the week, month, quarter or year of a day.
type FirstDay = fn(NaiveDate) -> Option<NaiveDate>;

/// `None` for what is shorter than a week.
fn first_day_of(granularity: &str) -> Option<FirstDay> {
    Some(match granularity.to_lowercase().as_str() {
        "week" => |day| {
            let since = chrono::Days::new(day.weekday().num_days_from_monday().into());
            day.checked_sub_days(since)
        },
        "month" => |day| day.with_day(1),
        "quarter" => |day| day.with_day(1)?.with_month0(day.month0() / 3 * 3),
        "year" => |day| day.with_day(1)?.with_month(1),
        _ => return None,
    })
}

fn truncated(values: &ArrayRef, unit: TimeUnit, first: FirstDay) -> Result<ArrayRef> {
    match unit {
        TimeUnit::Second => of_unit::<TimestampSecondType>(values, first),
        TimeUnit::Millisecond => of_unit::<TimestampMillisecondType>(values, first),
        _ => of_unit::<TimestampMicrosecondType>(values, first),
    }
}

fn of_unit<T: ArrowTimestampType>(values: &ArrayRef, first: FirstDay) -> Result<ArrayRef> {
    let per_day = units_per_day(T::UNIT);
    let truncate = |value: i64| {
        let day = i32::try_from(value.div_euclid(per_day)).ok().and_then(NaiveDate::from_epoch_days);
        let first = day.and_then(first).map(|first| i64::from(first.to_epoch_days()));
        first.and_then(|first| first.checked_mul(per_day)).ok_or_else(|| {
            DataFusionError::Execution(format!("date_trunc: the timestamp {value} is beyond the calendar"))
        })
    };
    let truncated: PrimitiveArray<T> = values.as_primitive::<T>().try_unary(truncate)?;
    Ok(Arc::new(truncated))
}
