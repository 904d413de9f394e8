//! `to_timestamp` and its four siblings in the session's time zone.
//!
//! A number of seconds is an instant whatever the zone: the query engine's `to_timestamp` takes whole ones for local time, and
//! pins doubles to the end of its range. The zone is kept in the function, which an executor makes anew without it; but it
//! is in the type of the result, which travels.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime::to_timestamp::{
    ToTimestampFunc, ToTimestampMicrosFunc, ToTimestampMillisFunc, ToTimestampNanosFunc, ToTimestampSecondsFunc,
};
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

/// The functions, in a session without a time zone.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let upstream = [
        ScalarUDF::from(ToTimestampFunc::default()),
        ScalarUDF::from(ToTimestampSecondsFunc::default()),
        ScalarUDF::from(ToTimestampMillisFunc::default()),
        ScalarUDF::from(ToTimestampMicrosFunc::default()),
        ScalarUDF::from(ToTimestampNanosFunc::default()),
    ];
    upstream.into_iter().map(|upstream| Arc::new(ScalarUDF::from(ToTimestamp { upstream }))).collect()
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToTimestamp {
    upstream: ScalarUDF,
}

impl ToTimestamp {
    /// The query engine's function in the zone of a result's type.
    fn in_zone_of(&self, result: &DataType) -> Result<Option<ScalarUDF>> {
        if self.upstream.return_type(&[])? == *result {
            return Ok(None);
        }
        let DataType::Timestamp(_, zone) = result else { return Ok(None) };
        let mut config = ConfigOptions::default();
        config.execution.time_zone = zone.as_ref().map(ToString::to_string);
        Ok(self.upstream.inner().with_updated_config(&config))
    }
}

impl ScalarUDFImpl for ToTimestamp {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn signature(&self) -> &Signature {
        self.upstream.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.upstream.return_type(arg_types)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let upstream = self.upstream.inner().with_updated_config(config)?;
        Some(ScalarUDF::from(ToTimestamp { upstream }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        let in_nanos = self.upstream.inner().is::<ToTimestampFunc>();
        match args.args.first().map(ColumnarValue::data_type) {
            Some(given) if in_nanos && given.is_integer() => return instants(&args, &result),
            Some(given) if in_nanos && given.is_floating() => refuse_far(&args.args[0])?,
            _ => {}
        }
        match self.in_zone_of(&result)? {
            Some(upstream) => upstream.invoke_with_args(args),
            None => self.upstream.invoke_with_args(args),
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.upstream.documentation()
    }
}

/// Whole seconds since 1970, shown in the zone of the result.
fn instants(args: &ScalarFunctionArgs, result: &DataType) -> Result<ColumnarValue> {
    let DataType::Timestamp(_, zone) = result else {
        return Err(DataFusionError::Internal("to_timestamp gives a timestamp".to_string()));
    };
    let is_scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
    let seconds = args.args[0].to_array(if is_scalar { 1 } else { args.number_rows })?;
    let seconds = cast(&seconds, &DataType::Timestamp(TimeUnit::Second, None))?;
    let nanos = cast(&seconds, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    let instants = nanos.as_primitive::<TimestampNanosecondType>().clone().with_timezone_opt(zone.clone());
    if is_scalar {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&instants, 0)?));
    }
    Ok(ColumnarValue::Array(Arc::new(instants)))
}

/// Seconds that nanoseconds can hold.
const SECONDS_MAX: f64 = (i64::MAX / 1_000_000_000) as f64;

fn refuse_far(seconds: &ColumnarValue) -> Result<()> {
    let seconds = cast(&seconds.to_array(1)?, &DataType::Float64)?;
    let mut seconds = seconds.as_primitive::<Float64Type>().iter().flatten();
    match seconds.find(|value| value.is_nan() || value.abs() > SECONDS_MAX) {
        Some(value) => Err(DataFusionError::Execution(format!(
            "to_timestamp: {value} seconds are beyond the range of its timestamps (1677 to 2262)"
        ))),
        None => Ok(()),
    }
}
