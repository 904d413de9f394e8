//! The totals of many groups.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, UInt64Array,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::NullState;

use super::{Number, Outcome, Summand, Wide, checked_result, overflow, travels_as};

/// See the module. Its state is that of [`Total`](super::Total).
#[derive(Debug)]
pub(in crate::functions) struct GroupTotals<S: Summand, O: Outcome<S>> {
    totals: Vec<Number<S>>,
    /// Of each group, when the outcome counts.
    counts: Vec<u64>,
    nulls: NullState,
    outcome: O,
    name: String,
    travels: DataType,
}

impl<S: Summand, O: Outcome<S>> GroupTotals<S, O> {
    /// Of no group yet; `summed` is the type of the values.
    pub(in crate::functions) fn new(outcome: O, name: &str, summed: &DataType) -> Self {
        GroupTotals {
            totals: Vec::new(),
            counts: Vec::new(),
            nulls: NullState::new(),
            outcome,
            name: name.to_string(),
            travels: travels_as(summed),
        }
    }

    fn add<T>(
        &mut self,
        values: &PrimitiveArray<T>,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()>
    where
        T: ArrowPrimitiveType<Native: Into<Number<S>>> + Send,
    {
        self.totals.resize(group_count, Number::<S>::default());
        let totals = self.totals.as_mut_slice();
        // One flag for the whole batch: a branch for each row would cost more than the additions.
        let mut overflows = false;
        self.nulls.accumulate(groups, values, filter, group_count, |group, value| {
            overflows |= totals[group].add(value.into());
        });
        if overflows { Err(overflow(&self.name, self.outcome.data_type())) } else { Ok(()) }
    }

    fn count(&mut self, values: &dyn Array, groups: &[usize], filter: Option<&BooleanArray>, group_count: usize) {
        self.counts.resize(group_count, 0);
        let counts = self.counts.as_mut_slice();
        match seen(values.nulls(), filter) {
            None => groups.iter().for_each(|group| counts[*group] += 1),
            Some(seen) => groups.iter().zip(seen.iter()).for_each(|(group, seen)| counts[*group] += u64::from(seen)),
        }
    }
}

/// The rows that are neither NULL nor filtered out; `None` is all of them.
fn seen(nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let filter = filter.map(|filter| match filter.nulls() {
        Some(nulls) => NullBuffer::new(filter.values() & nulls.inner()),
        None => NullBuffer::new(filter.values().clone()),
    });
    NullBuffer::union(nulls, filter.as_ref())
}

impl<S: Summand, O: Outcome<S>> GroupsAccumulator for GroupTotals<S, O> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        if O::COUNTS {
            self.count(values[0].as_ref(), groups, filter, group_count);
        }
        self.add(values[0].as_primitive::<S>(), groups, filter, group_count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = emit_to.take_needed(&mut self.totals);
        let counts = if O::COUNTS { emit_to.take_needed(&mut self.counts) } else { Vec::new() };
        let nulls = self.nulls.build(emit_to);
        let mut results = vec![<O::Result as ArrowPrimitiveType>::Native::default(); totals.len()];
        for (at, total) in totals.into_iter().enumerate() {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(at)) {
                let count = counts.get(at).copied().unwrap_or(1);
                results[at] = checked_result(&self.outcome, &self.name, total, count)?;
            }
        }
        let results = PrimitiveArray::<O::Result>::new(results.into(), nulls);
        Ok(Arc::new(results.with_data_type(self.outcome.data_type().clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let totals = emit_to.take_needed(&mut self.totals);
        let nulls = self.nulls.build(emit_to);
        let totals = PrimitiveArray::<S::Wide>::new(totals.into(), nulls).with_data_type(self.travels.clone());
        let mut state = vec![Arc::new(totals) as ArrayRef];
        if O::COUNTS {
            state.push(Arc::new(UInt64Array::from(emit_to.take_needed(&mut self.counts))));
        }
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], group_count: usize) -> Result<()> {
        if O::COUNTS {
            self.counts.resize(group_count, 0);
            let counts = states[1].as_primitive::<UInt64Type>().values();
            groups.iter().zip(counts).for_each(|(group, count)| self.counts[*group] += count);
        }
        self.add(states[0].as_primitive::<S::Wide>(), groups, None, group_count)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<S>();
        let seen = seen(values.nulls(), filter);
        let totals = values.values().iter().map(|value| (*value).into()).collect::<Vec<Number<S>>>();
        let counts = O::COUNTS.then(|| match &seen {
            Some(seen) => UInt64Array::from_iter_values(seen.iter().map(u64::from)),
            None => UInt64Array::from_value(1, values.len()),
        });
        let totals = PrimitiveArray::<S::Wide>::new(totals.into(), seen).with_data_type(self.travels.clone());
        let mut state = vec![Arc::new(totals) as ArrayRef];
        state.extend(counts.map(|counts| Arc::new(counts) as ArrayRef));
        Ok(state)
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<Number<S>>()
            + self.counts.capacity() * size_of::<u64>()
            + self.nulls.size()
            + self.name.capacity()
    }
}
