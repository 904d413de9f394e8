//! The least or greatest value of one group, and of a frame that slides over the rows.

use std::collections::VecDeque;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::{End, Ranked};

/// See the module. Its state is its result.
#[derive(Debug)]
pub(super) struct Extreme<T: Ranked> {
    end: End,
    found: Option<T::Native>,
    data_type: DataType,
}

impl<T: Ranked> Extreme<T> {
    /// Of no value yet.
    pub(super) fn new(end: End, data_type: &DataType) -> Self {
        Extreme { end, found: None, data_type: data_type.clone() }
    }
}

impl<T: Ranked> Accumulator for Extreme<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<T>();
        if values.null_count() == values.len() {
            return Ok(());
        }
        let end = self.end;
        let nearer = |found: T::Native, value: T::Native| if end.is_nearer::<T>(value, found) { value } else { found };
        let first = self.found.unwrap_or_else(|| end.farthest::<T>());
        self.found = Some(match values.nulls() {
            None => values.values().iter().copied().fold(first, nearer),
            Some(_) => values.iter().flatten().fold(first, nearer),
        });
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::new_primitive::<T>(self.found.map(T::shown), &self.data_type)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Rows leave the frame in the order in which they came. What is kept of it are the values that some value before them, in
/// the frame, may leave as the nearest: each is farther from the end than the one before it.
#[derive(Debug)]
pub(super) struct MovingExtreme<T: Ranked> {
    end: End,
    candidates: VecDeque<(u64, T::Native)>,
    came: u64,
    left: u64,
    data_type: DataType,
}

impl<T: Ranked> MovingExtreme<T> {
    /// Of an empty frame.
    pub(super) fn new(end: End, data_type: &DataType) -> Self {
        MovingExtreme { end, candidates: VecDeque::new(), came: 0, left: 0, data_type: data_type.clone() }
    }
}

impl<T: Ranked> Accumulator for MovingExtreme<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<T>().iter().flatten() {
            while self.candidates.back().is_some_and(|(_, last)| !self.end.is_nearer::<T>(*last, value)) {
                self.candidates.pop_back();
            }
            self.candidates.push_back((self.came, value));
            self.came += 1;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.left += (values[0].len() - values[0].null_count()) as u64;
        while self.candidates.front().is_some_and(|(at, _)| *at < self.left) {
            self.candidates.pop_front();
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let found = self.candidates.front().map(|(_, value)| T::shown(*value));
        ScalarValue::new_primitive::<T>(found, &self.data_type)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.candidates.capacity() * size_of::<(u64, T::Native)>()
    }
}
