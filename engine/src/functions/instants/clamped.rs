//! `clamped_timestamp(x)`: a date or a timestamp in nanoseconds, for comparisons with one that is: what lies beyond their
//! range is the nearest value that does not, and so compares as it should with every other.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, AsArray, TimestampNanosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(Clamped { signature: Signature::any(1, Volatility::Immutable) })));
    Arc::clone(&FUNCTION)
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Clamped {
    signature: Signature,
}

const NANOS_PER_MICRO: i64 = 1000;

fn clamped(values: &ArrayRef) -> Result<ArrayRef> {
    let zone = match values.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = cast(values, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    let nanos: TimestampNanosecondArray = micros.unary(|micros| micros.saturating_mul(NANOS_PER_MICRO));
    Ok(Arc::new(nanos.with_timezone_opt(zone)))
}

impl ScalarUDFImpl for Clamped {
    fn name(&self) -> &'static str {
        "clamped_timestamp"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [DataType::Timestamp(_, zone)] => Ok(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())),
            [DataType::Date32 | DataType::Date64] => Ok(DataType::Timestamp(TimeUnit::Nanosecond, None)),
            _ => Err(DataFusionError::Plan("clamped_timestamp takes a date or a timestamp".to_string())),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match &args.args[0] {
            ColumnarValue::Array(values) => Ok(ColumnarValue::Array(clamped(values)?)),
            ColumnarValue::Scalar(value) => {
                let clamped = clamped(&value.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&clamped, 0)?))
            }
        }
    }
}
