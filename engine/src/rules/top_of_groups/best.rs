//! Which rows of a group may still be among its first.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type, Schema, UInt64Type};
use datafusion::error::Result;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Values of one column in the order of a query as numbers: the earlier a row comes, the greater its number. NULL and the
/// value next to it may have the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    kind: Kind,
    options: SortOptions,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Integer,
    Unsigned,
    Float,
    Decimal,
}

impl Order {
    /// `None` for values that are no numbers of 64 bits.
    pub(super) fn new(data_type: &DataType, options: SortOptions) -> Option<Self> {
        let kind = match data_type {
            DataType::UInt64 => Kind::Unsigned,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Kind::Float,
            DataType::Decimal128(digits, _) if *digits <= 18 => Kind::Decimal,
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Kind::Integer,
            whole if whole.is_integer() => Kind::Integer,
            _ => return None,
        };
        Some(Order { kind, options })
    }

    /// The numbers of some rows.
    pub(super) fn numbers(self, values: &ArrayRef) -> Result<Vec<u64>> {
        const SIGN: u64 = 1 << 63;
        Ok(match self.kind {
            Kind::Integer => {
                let values = cast(values, &DataType::Int64)?;
                self.mapped(values.as_primitive::<Int64Type>(), |x| x as u64 ^ SIGN)
            }
            Kind::Unsigned => self.mapped(values.as_primitive::<UInt64Type>(), |x| x),
            Kind::Decimal => self.mapped(values.as_primitive::<Decimal128Type>(), |x| x as i64 as u64 ^ SIGN),
            Kind::Float => {
                let values = cast(values, &DataType::Float64)?;
                // The total order of IEEE 754, in which sorts have them; the two zeros count as one.
                self.mapped(values.as_primitive::<Float64Type>(), |x| {
                    let bits = (x + 0.0).to_bits();
                    if bits & SIGN == 0 { bits | SIGN } else { !bits }
                })
            }
        })
    }

    fn mapped<T: ArrowPrimitiveType>(self, values: &PrimitiveArray<T>, number: impl Fn(T::Native) -> u64) -> Vec<u64> {
        // Descending orders want the greatest first, ascending ones the least.
        let turned = if self.options.descending { 0 } else { u64::MAX };
        if values.null_count() == 0 {
            return values.values().iter().map(|x| number(*x) ^ turned).collect();
        }
        let null = if self.options.nulls_first { u64::MAX } else { 0 };
        values.iter().map(|x| x.map_or(null, |x| number(x) ^ turned)).collect()
    }
}

/// The best numbers of each group so far.
pub(super) struct Best {
    groups: Box<dyn GroupValues>,
    /// `rows` for each group, ascending: the first of them is the least that may still be among the best.
    best: Vec<u64>,
    rows: usize,
    /// The group of each row of a batch.
    found: Vec<usize>,
}

impl Best {
    /// For groups by keys of these types.
    pub(super) fn new(keys: &[DataType], rows: usize) -> Result<Self> {
        let fields = keys.iter().map(|key| Field::new("key", key.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let groups = new_group_values(schema, &GroupOrdering::None)?;
        Ok(Best { groups, best: Vec::new(), rows, found: Vec::new() })
    }

    /// Which of these rows have fewer than `rows` before them. Rows that come together with the last of those count, too.
    pub(super) fn may_be_first(&mut self, keys: &[ArrayRef], numbers: &[u64]) -> Result<BooleanArray> {
        self.groups.intern(keys, &mut self.found)?;
        self.best.resize(self.groups.len() * self.rows, 0);
        let rows = self.rows;
        let best = &mut self.best;
        let kept = self.found.iter().zip(numbers).map(|(group, number)| {
            let best = &mut best[group * rows..(group + 1) * rows];
            if *number > best[0] {
                let place = best.partition_point(|other| other < number);
                best.copy_within(1..place, 0);
                best[place - 1] = *number;
                true
            } else {
                *number == best[0]
            }
        });
        Ok(BooleanArray::from(kept.collect::<Vec<bool>>()))
    }

    /// How many groups there are.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How many rows of each are looked for.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of all this.
    pub(super) fn size(&self) -> usize {
        self.groups.size() + self.best.capacity() * size_of::<u64>() + self.found.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Float32Array, Int8Array, StringArray, UInt64Array};
    use arrow::compute::sort_to_indices;

    #[test]
    fn numbers_fall_in_the_order_of_a_sort() {
        let decimals = Decimal128Array::from(vec![Some(-7), None, Some(0), Some(12), Some(-7)]);
        let columns: [ArrayRef; 4] = [
            Arc::new(Int8Array::from(vec![Some(-128), Some(127), None, Some(0), Some(-1), Some(0)])),
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(0), None, Some(1 << 63)])),
            Arc::new(Float32Array::from(vec![
                Some(f32::NAN),
                Some(-0.0),
                Some(-1.5),
                None,
                Some(f32::INFINITY),
                Some(3.0),
            ])),
            Arc::new(decimals.with_precision_and_scale(9, 2).unwrap()),
        ];
        for column in &columns {
            for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
                let options = SortOptions { descending, nulls_first };
                let numbers = Order::new(column.data_type(), options).unwrap().numbers(column).unwrap();
                let sorted = sort_to_indices(column, Some(options), None).unwrap();
                let sorted: Vec<u64> = sorted.values().iter().map(|row| numbers[*row as usize]).collect();
                assert!(sorted.is_sorted_by(|a, b| a >= b), "{column:?} {options:?}: {sorted:?}");
            }
        }
        assert!(Order::new(&DataType::Utf8, SortOptions::default()).is_none());
    }

    #[test]
    fn no_row_is_lost_that_belongs_to_the_first() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for rows in [1, 2, 5] {
            let keys: Vec<String> = (0..3000).map(|_| format!("group {}", random(40))).collect();
            let numbers: Vec<u64> = (0..3000).map(|_| random(500)).collect();
            let mut best = Best::new(&[DataType::Utf8], rows).unwrap();
            let mut kept = Vec::new();
            for first in (0..3000).step_by(250) {
                let tile: ArrayRef = Arc::new(StringArray::from(keys[first..first + 250].to_vec()));
                kept.extend(best.may_be_first(&[tile], &numbers[first..first + 250]).unwrap().values().iter());
            }
            for row in 0..3000 {
                let before =
                    (0..3000).filter(|other| keys[*other] == keys[row] && numbers[*other] > numbers[row]).count();
                assert!(kept[row] || before >= rows, "row {row} has {before} before it");
            }
            assert!(kept.iter().filter(|kept| **kept).count() < 1500);
        }
    }
}
