//! `gm_moments(x)`: count, mean, standard deviation and extremes of a column of numbers, free of order.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::common::ScalarValue;
use datafusion::common::scalar::ScalarStructBuilder;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::{binary_state, states, unreadable_state};
use crate::exact::ExactMoments;

const NAME: &str = "gm_moments";

/// `gm_moments(x)` for numbers and booleans (true = 1) gives
/// `STRUCT<count BIGINT, mean, stddev_pop, min, max, max_abs DOUBLE, null_count BIGINT, not_finite_count BIGINT>`.
///
/// NULL is counted and otherwise left out. NaN and infinities are counted and take part: the mean and the deviation
/// are then NaN or infinite, so that they cannot go unnoticed. Without values, the numbers are NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Moments {
    signature: Signature,
}

impl Default for Moments {
    fn default() -> Self {
        Moments { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    Fields::from(vec![
        field("count", DataType::Int64),
        field("mean", DataType::Float64),
        field("stddev_pop", DataType::Float64),
        field("min", DataType::Float64),
        field("max", DataType::Float64),
        field("max_abs", DataType::Float64),
        field("null_count", DataType::Int64),
        field("not_finite_count", DataType::Int64),
    ])
});

impl AggregateUDFImpl for Moments {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [x] = arguments else {
            return Err(DataFusionError::Plan(format!("{NAME} takes one argument, got {}", arguments.len())));
        };
        Ok(vec![as_number(NAME, x)?])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(FIELDS.clone()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        binary_state(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(MomentsAccumulator::default()))
    }
}

/// The type in which `function` reads a column of type `given`: itself where it is read natively, else DOUBLE.
pub(super) fn as_number(function: &str, given: &DataType) -> Result<DataType> {
    match given {
        t if t.is_integer() || matches!(t, DataType::Float32 | DataType::Float64 | DataType::Boolean) => Ok(t.clone()),
        t if t.is_numeric() || t.is_null() => Ok(DataType::Float64),
        t => Err(DataFusionError::Plan(format!("{function} takes numbers, got a column of type {t}"))),
    }
}

/// The values of `column` that are not NULL, as `f64`.
pub(super) fn numbers(column: &ArrayRef) -> Result<Vec<f64>> {
    fn primitive<T: ArrowPrimitiveType>(column: &ArrayRef, as_f64: impl Fn(T::Native) -> f64) -> Vec<f64> {
        let array = column.as_primitive::<T>();
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => array.values().iter().map(|x| as_f64(*x)).collect(),
            Some(nulls) => valid(nulls).map(|i| as_f64(array.value(i))).collect(),
        }
    }
    fn valid(nulls: &NullBuffer) -> impl Iterator<Item = usize> + '_ {
        nulls.valid_indices()
    }
    let boolean = |array: &BooleanArray| array.iter().flatten().map(f64::from).collect();
    Ok(match column.data_type() {
        DataType::Float64 => primitive::<Float64Type>(column, |x| x),
        DataType::Float32 => primitive::<Float32Type>(column, f64::from),
        DataType::Int64 => primitive::<Int64Type>(column, |x| x as f64),
        DataType::Int32 => primitive::<Int32Type>(column, f64::from),
        DataType::Int16 => primitive::<Int16Type>(column, f64::from),
        DataType::Int8 => primitive::<Int8Type>(column, f64::from),
        DataType::UInt64 => primitive::<UInt64Type>(column, |x| x as f64),
        DataType::UInt32 => primitive::<UInt32Type>(column, f64::from),
        DataType::UInt16 => primitive::<UInt16Type>(column, f64::from),
        DataType::UInt8 => primitive::<UInt8Type>(column, f64::from),
        DataType::Boolean => boolean(column.as_boolean()),
        other => return Err(DataFusionError::Execution(format!("expected numbers, got a column of type {other}"))),
    })
}

#[derive(Debug, Default)]
struct MomentsAccumulator {
    moments: ExactMoments,
    nulls: u64,
}

impl Accumulator for MomentsAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let column = &values[0];
        self.nulls += column.null_count() as u64;
        self.moments.add_slice(&numbers(column)?);
        Ok(())
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for mut state in states(&columns[0]) {
            let unreadable = || unreadable_state(NAME);
            self.nulls += crate::tally::read_varint(&mut state).ok_or_else(unreadable)?;
            self.moments.merge(&ExactMoments::read(&mut state).ok_or_else(unreadable)?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut bytes = Vec::new();
        crate::tally::write_varint(&mut bytes, self.nulls);
        bytes.extend(self.moments.to_bytes());
        Ok(vec![ScalarValue::LargeBinary(Some(bytes))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let m = &self.moments;
        let values = [
            ScalarValue::Int64(Some(m.count as i64)),
            ScalarValue::Float64(m.mean()),
            ScalarValue::Float64(m.stddev()),
            ScalarValue::Float64(m.min()),
            ScalarValue::Float64(m.max()),
            ScalarValue::Float64(m.max_abs()),
            ScalarValue::Int64(Some(self.nulls as i64)),
            ScalarValue::Int64(Some(m.not_finite as i64)),
        ];
        FIELDS
            .iter()
            .zip(values)
            .fold(ScalarStructBuilder::new(), |built, (field, value)| built.with_scalar(Arc::clone(field), value))
            .build()
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }
}
