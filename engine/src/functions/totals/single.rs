//! The total of one group, also of a frame that slides over the rows.

use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::{Number, Outcome, Summand, Wide, checked_result, count_of, overflow, travels_as};

/// See the module. Its state is the total, and behind it the number of values when the outcome counts.
#[derive(Debug)]
pub(in crate::functions) struct Total<S: Summand, O: Outcome<S>> {
    total: Number<S>,
    count: u64,
    outcome: O,
    name: String,
    travels: DataType,
}

impl<S: Summand, O: Outcome<S>> Total<S, O> {
    /// Of no value yet; `summed` is the type of the values.
    pub(in crate::functions) fn new(outcome: O, name: &str, summed: &DataType) -> Self {
        Total { total: Number::<S>::default(), count: 0, outcome, name: name.to_string(), travels: travels_as(summed) }
    }

    fn sum_of<T: Summand<Wide = S::Wide>>(&self, values: &PrimitiveArray<T>) -> Result<Number<S>> {
        T::add_up(values).ok_or_else(|| overflow(&self.name, self.outcome.data_type()))
    }

    fn checked(&self, overflows: bool) -> Result<()> {
        if overflows { Err(overflow(&self.name, self.outcome.data_type())) } else { Ok(()) }
    }
}

impl<S: Summand, O: Outcome<S>> Accumulator for Total<S, O>
where
    S::Wide: Summand<Wide = S::Wide>,
{
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<S>();
        let sum = self.sum_of(values)?;
        self.count += count_of(values);
        let overflows = self.total.add(sum);
        self.checked(overflows)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<S>();
        let sum = self.sum_of(values)?;
        self.count -= count_of(values);
        let overflows = self.total.take(sum);
        self.checked(overflows)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let result = match self.count {
            0 => None,
            count => Some(checked_result(&self.outcome, &self.name, self.total, count)?),
        };
        ScalarValue::new_primitive::<O::Result>(result, self.outcome.data_type())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let total = (self.count > 0).then_some(self.total);
        let total = PrimitiveArray::<S::Wide>::from_iter([total]).with_data_type(self.travels.clone());
        let mut state = vec![ScalarValue::try_from_array(&total, 0)?];
        if O::COUNTS {
            state.push(ScalarValue::UInt64(Some(self.count)));
        }
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let totals = states[0].as_primitive::<S::Wide>();
        let sum = self.sum_of::<S::Wide>(totals)?;
        self.count += match states.get(1) {
            Some(counts) => counts.as_primitive::<UInt64Type>().iter().flatten().sum(),
            None => count_of(totals),
        };
        let overflows = self.total.add(sum);
        self.checked(overflows)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.name.capacity()
    }
}
