//! `gm_array_moments(x)`: moments of all elements of a column of arrays, and the lengths of the arrays.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::ScalarValue;
use datafusion::common::scalar::ScalarStructBuilder;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::fitted::{as_list, as_numbers};
use super::spec::{element_type, is_number};
use crate::exact::ExactMoments;
use crate::statistics::{binary_state, states, unreadable_state};

const NAME: &str = "gm_array_moments";

/// `gm_array_moments(x)` gives `STRUCT<mean, stddev_pop, min, max, max_abs DOUBLE, not_finite_count, min_length,
/// max_length BIGINT>` over the elements that are not NULL; free of the order of rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayMoments {
    signature: Signature,
}

static FUNCTION: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(ArrayMoments { signature }))
});

static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let real = ["mean", "stddev_pop", "min", "max", "max_abs"].map(|name| Field::new(name, DataType::Float64, true));
    let whole = ["not_finite_count", "min_length", "max_length"].map(|name| Field::new(name, DataType::Int64, true));
    real.into_iter().chain(whole).collect()
});

/// The function, to be called in an expression or registered with a session.
pub(crate) fn array_moments() -> Arc<AggregateUDF> {
    Arc::clone(&FUNCTION)
}

impl AggregateUDFImpl for ArrayMoments {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [list] if element_type(list).is_some_and(is_number) => Ok(vec![list.clone()]),
            _ => Err(DataFusionError::Plan(format!("{NAME} takes an array of numbers, got {arguments:?}"))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(FIELDS.clone()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        binary_state(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(ArrayMomentsAccumulator::default()))
    }
}

#[derive(Debug, Default)]
struct ArrayMomentsAccumulator {
    moments: ExactMoments,
    lengths: Option<(u64, u64)>,
}

impl ArrayMomentsAccumulator {
    fn widen(&mut self, shortest: u64, longest: u64) {
        let (low, high) = self.lengths.unwrap_or((shortest, longest));
        self.lengths = Some((low.min(shortest), high.max(longest)));
    }
}

impl Accumulator for ArrayMomentsAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let outside = |error: engine::Error| DataFusionError::External(Box::new(error));
        let list = as_list(&values[0]).map_err(outside)?;
        for row in (0..list.len()).filter(|row| list.is_valid(*row)) {
            let length = list.value_length(row) as u64;
            self.widen(length, length);
        }
        // Elements below a NULL array, or before and after a slice, do not count.
        let whole = list.null_count() == 0;
        let (first, last) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
        let runs = if whole {
            vec![(first, last)]
        } else {
            let ends = list.value_offsets().windows(2).enumerate().filter(|(row, _)| list.is_valid(*row));
            ends.map(|(_, ends)| (ends[0] as usize, ends[1] as usize)).collect()
        };
        for (from, to) in runs {
            let numbers = as_numbers(&list.values().slice(from, to - from)).map_err(outside)?;
            match numbers.null_count() {
                0 => self.moments.add_slice(numbers.values()),
                _ => self.moments.add_slice(&numbers.iter().flatten().collect::<Vec<_>>()),
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for state in states(&columns[0]) {
            let unreadable = || unreadable_state(NAME);
            let (lengths, mut moments) = state.split_at_checked(16).ok_or_else(unreadable)?;
            let number = |at: usize| lengths[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| unreadable());
            let (low, high) = (number(0)?, number(8)?);
            if low <= high {
                self.widen(low, high);
            }
            self.moments.merge(&ExactMoments::read(&mut moments).ok_or_else(unreadable)?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // No array seen: shortest after longest.
        let (low, high) = self.lengths.unwrap_or((1, 0));
        let mut bytes = [low.to_le_bytes(), high.to_le_bytes()].concat();
        bytes.extend(self.moments.to_bytes());
        Ok(vec![ScalarValue::LargeBinary(Some(bytes))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let m = &self.moments;
        let length = |n: Option<u64>| ScalarValue::Int64(n.map(|n| n as i64));
        let values = [
            ScalarValue::Float64(m.mean()),
            ScalarValue::Float64(m.stddev()),
            ScalarValue::Float64(m.min()),
            ScalarValue::Float64(m.max()),
            ScalarValue::Float64(m.max_abs()),
            ScalarValue::Int64(Some(m.not_finite as i64)),
            length(self.lengths.map(|(low, _)| low)),
            length(self.lengths.map(|(_, high)| high)),
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
