//! The least or greatest values of many groups.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::error::Result;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::NullState;

use super::{End, Ranked};

/// See the module. Its state is its result.
#[derive(Debug)]
pub(super) struct Extremes<T: Ranked> {
    end: End,
    values: Vec<T::Native>,
    nulls: NullState,
}

impl<T: Ranked> Extremes<T> {
    /// Of no group yet.
    pub(super) fn new(end: End) -> Self {
        Extremes { end, values: Vec::new(), nulls: NullState::new() }
    }
}

impl<T: Ranked> GroupsAccumulator for Extremes<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.values.resize(group_count, self.end.farthest::<T>());
        let (end, found) = (self.end, self.values.as_mut_slice());
        self.nulls.accumulate(groups, values[0].as_primitive::<T>(), filter, group_count, |group, value| {
            if end.is_nearer::<T>(value, found[group]) {
                found[group] = value;
            }
        });
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let values = emit_to.take_needed(&mut self.values).into_iter().map(T::shown).collect::<Vec<_>>();
        let nulls = self.nulls.build(emit_to);
        Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], group_count: usize) -> Result<()> {
        self.update_batch(states, groups, None, group_count)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let Some(filter) = filter else { return Ok(vec![Arc::clone(&values[0])]) };
        let passed = match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        };
        let (values, nulls) = (values[0].as_primitive::<T>(), NullBuffer::new(passed));
        let nulls = NullBuffer::union(values.nulls(), Some(&nulls));
        Ok(vec![Arc::new(PrimitiveArray::<T>::new(values.values().clone(), nulls))])
    }

    fn size(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.nulls.size()
    }
}
