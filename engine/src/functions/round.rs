//! `round` of floating-point numbers to more places than they have, or to fewer: the query engine multiplies by a power of
//! ten, which is infinite or zero then, and gives NaN. Rounding behind the last digit changes nothing, and rounding before
//! the first gives 0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type, Int32Type};
use datafusion::error::Result;
use datafusion::functions::math::round;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::scalar::ScalarValue;

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Round {
    inner: Arc<ScalarUDF>,
}

impl Default for Round {
    fn default() -> Self {
        Round { inner: round() }
    }
}

impl ScalarUDFImpl for Round {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (values, places) = match args.args.as_slice() {
            [value, places] if value.data_type().is_floating() => (value.clone(), places.clone()),
            _ => return self.inner.invoke_with_args(args),
        };
        let rows = args.number_rows;
        let rounded = self.inner.invoke_with_args(args)?;
        if is_finite(&rounded) || places.data_type() != DataType::Int32 {
            return Ok(rounded);
        }
        let (rounded, values, places) = (rounded.to_array(rows)?, values.to_array(rows)?, places.to_array(rows)?);
        let places = places.as_primitive::<Int32Type>();
        Ok(ColumnarValue::Array(match rounded.data_type() {
            DataType::Float32 => repaired::<Float32Type>(&rounded, &values, places),
            DataType::Float64 => repaired::<Float64Type>(&rounded, &values, places),
            _ => rounded,
        }))
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Whether there is nothing to repair.
fn is_finite(rounded: &ColumnarValue) -> bool {
    match rounded {
        ColumnarValue::Scalar(ScalarValue::Float64(value)) => value.is_none_or(f64::is_finite),
        ColumnarValue::Scalar(ScalarValue::Float32(value)) => value.is_none_or(f32::is_finite),
        ColumnarValue::Scalar(_) => true,
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().all(|value| value.is_finite()),
            DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().all(|value| value.is_finite()),
            _ => true,
        },
    }
}

fn repaired<T: ArrowPrimitiveType>(
    rounded: &ArrayRef,
    values: &ArrayRef,
    places: &PrimitiveArray<Int32Type>,
) -> ArrayRef
where
    T::Native: Into<f64> + Default,
{
    let (rounded, values) = (rounded.as_primitive::<T>(), values.as_primitive::<T>());
    let row = |row: usize| {
        let (answer, value) = (rounded.value(row), values.value(row));
        let lost = !answer.into().is_finite() && value.into().is_finite();
        match lost {
            false => answer,
            true if places.value(row) > 0 => value,
            true => T::Native::default(),
        }
    };
    let rows = (0..rounded.len()).map(|index| rounded.is_valid(index).then(|| row(index)));
    Arc::new(rows.collect::<PrimitiveArray<T>>())
}
