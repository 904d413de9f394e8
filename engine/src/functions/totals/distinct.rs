//! The total of the different values of one group, also of a frame that slides over the rows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use datafusion::common::utils::memory::estimate_memory_size;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::{Number, Outcome, Summand, Wide, checked_result, overflow};

/// See the module. Its state is the list of the values.
#[derive(Debug)]
pub(in crate::functions) struct DistinctTotal<S: Summand, O: Outcome<S>> {
    /// How often each value is there, with the value as it came.
    values: HashMap<Number<S>, (S::Native, u64)>,
    outcome: O,
    name: String,
    summed: DataType,
}

impl<S: Summand, O: Outcome<S>> DistinctTotal<S, O> {
    /// Of no value yet; `summed` is the type of the values.
    pub(in crate::functions) fn new(outcome: O, name: &str, summed: &DataType) -> Self {
        DistinctTotal { values: HashMap::new(), outcome, name: name.to_string(), summed: summed.clone() }
    }

    fn insert(&mut self, values: &PrimitiveArray<S>) {
        for value in values.iter().flatten() {
            self.values.entry(value.into()).or_insert((value, 0)).1 += 1;
        }
    }
}

impl<S: Summand, O: Outcome<S>> Accumulator for DistinctTotal<S, O> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.insert(values[0].as_primitive::<S>());
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<S>().iter().flatten() {
            if let Entry::Occupied(mut entry) = self.values.entry(value.into()) {
                entry.get_mut().1 -= 1;
                if entry.get().1 == 0 {
                    entry.remove();
                }
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut total = Number::<S>::default();
        let mut overflows = false;
        for value in self.values.keys() {
            overflows |= total.add(*value);
        }
        if overflows {
            return Err(overflow(&self.name, self.outcome.data_type()));
        }
        let result = match self.values.len() as u64 {
            0 => None,
            count => Some(checked_result(&self.outcome, &self.name, total, count)?),
        };
        ScalarValue::new_primitive::<O::Result>(result, self.outcome.data_type())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = PrimitiveArray::<S>::from_iter_values(self.values.values().map(|(value, _)| *value));
        let values = values.with_data_type(self.summed.clone());
        let field = Arc::new(Field::new_list_field(self.summed.clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = datafusion::arrow::array::ListArray::new(field, offsets, Arc::new(values), None);
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for list in states[0].as_list::<i32>().iter().flatten() {
            self.insert(list.as_primitive::<S>());
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let entry = size_of::<(Number<S>, (S::Native, u64))>();
        let values = estimate_memory_size::<(Number<S>, (S::Native, u64))>(self.values.len(), size_of_val(self));
        values.unwrap_or(self.values.len() * entry)
    }
}
