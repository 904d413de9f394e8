//! The categories of a column, frozen: which get an index of their own, and how a value finds its index.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use engine::Result;
use serde::{Deserialize, Serialize};

use super::spec::{CategoryLimit, engine_error};

/// The kept categories of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Categories {
    /// As text, ascending (by number for a column of integers). Category `i` has index `i`.
    pub values: Vec<String>,
    /// What the column's values are.
    pub of: CategoryType,
    /// Whether index `values.len()` stands for "other": NULL and all values that are not kept. It does when the
    /// training rows had such; otherwise nothing could be learned about it, and such a value has no index.
    pub other: bool,
    /// A value without an index, not even that of "other": the most frequent one, when it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

/// What the values of a categorical column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoryType {
    /// Integers, looked up as such.
    Integer,
    /// Everything else, looked up by its text.
    Text,
}

impl CategoryType {
    /// For the values of an Arrow type.
    pub(crate) fn of(data_type: &DataType) -> Self {
        if data_type.is_integer() { CategoryType::Integer } else { CategoryType::Text }
    }
}

/// Values and how often each was seen, the most frequent first, ties by value; NULL apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct CategoryCounts {
    pub(crate) counts: Vec<(String, u64)>,
    pub(crate) nulls: u64,
}

impl Categories {
    /// Keeps what `limit` allows.
    pub(crate) fn choose(counts: &CategoryCounts, of: CategoryType, limit: CategoryLimit, drop_first: bool) -> Self {
        let number = |value: &str| value.parse::<i128>().unwrap_or(i128::MAX);
        let mut counted: Vec<&(String, u64)> = counts.counts.iter().collect();
        if of == CategoryType::Integer {
            // Counts come with ties by text.
            counted.sort_by_key(|(value, count)| (std::cmp::Reverse(*count), number(value)));
        }
        let frequent = counted.into_iter().filter(|(_, count)| *count >= limit.frequency_threshold);
        let mut values: Vec<String> = frequent.take(limit.top_k).map(|(value, _)| value.clone()).collect();
        let other = counts.nulls > 0 || values.len() < counts.counts.len();
        let dropped = (drop_first && !values.is_empty()).then(|| values.remove(0));
        match of {
            CategoryType::Text => values.sort_unstable(),
            CategoryType::Integer => values.sort_unstable_by_key(|value| number(value)),
        }
        Categories { values, of, other, dropped }
    }

    /// Number of indices, "other" included.
    pub fn width(&self) -> u32 {
        (self.values.len() + usize::from(self.other)) as u32
    }

    /// A name per index.
    pub fn names(&self) -> Vec<String> {
        self.values.iter().cloned().chain(self.other.then(|| "(other)".to_owned())).collect()
    }
}

/// Finds the index of a value. Made once from [`Categories`].
#[derive(Debug)]
pub(crate) struct Lookup {
    /// For NULL and unknown values: the index of "other", or -1.
    rest: i64,
    table: Table,
}

#[derive(Debug)]
enum Table {
    Integer(HashMap<i64, i64, BuildHasherDefault<FoldHasher>>),
    Text { short: HashMap<Short, i64, BuildHasherDefault<FoldHasher>>, long: HashMap<Box<str>, i64> },
}

/// A string of at most 16 bytes as two numbers and its length: a comparison of registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Short(u64, u64, u64);

impl Short {
    #[inline]
    fn of(bytes: &[u8]) -> Option<Short> {
        let n = bytes.len();
        let eight = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let four = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        // First and last bytes overlap; with the length they determine all of them.
        match n {
            0 => Some(Short(0, 0, 0)),
            1..=3 => Some(Short(
                u64::from(bytes[0]) | u64::from(bytes[n / 2]) << 8 | u64::from(bytes[n - 1]) << 16,
                0,
                n as u64,
            )),
            4..=7 => Some(Short(u64::from(four(0)?) | u64::from(four(n - 4)?) << 32, 0, n as u64)),
            8..=16 => Some(Short(eight(0)?, eight(n - 8)?, n as u64)),
            _ => None,
        }
    }
}

/// Multiplies and folds: enough for tables that are made once from our own data.
#[derive(Default)]
struct FoldHasher(u64);

impl Hasher for FoldHasher {
    #[inline]
    fn write_u64(&mut self, x: u64) {
        let product = u128::from(self.0 ^ x ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xd6e8_feb8_6659_fd93u64);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
    #[inline]
    fn write_i64(&mut self, x: i64) {
        self.write_u64(x as u64);
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

impl Lookup {
    /// The table of `categories`.
    pub(crate) fn new(categories: &Categories) -> Self {
        let rest = if categories.other { categories.values.len() as i64 } else { -1 };
        let entries = || {
            let kept = categories.values.iter().enumerate().map(|(i, value)| (value.as_str(), i as i64));
            kept.chain(categories.dropped.as_deref().map(|value| (value, -1)))
        };
        let table = match categories.of {
            CategoryType::Integer => {
                Table::Integer(entries().filter_map(|(value, i)| Some((value.parse().ok()?, i))).collect())
            }
            CategoryType::Text => Table::Text {
                short: entries().filter_map(|(value, i)| Some((Short::of(value.as_bytes())?, i))).collect(),
                long: entries().filter(|(value, _)| value.len() > 16).map(|(value, i)| (value.into(), i)).collect(),
            },
        };
        Lookup { rest, table }
    }

    /// The index of each value: -1 for one without an index, never null.
    pub(crate) fn indices(&self, values: &ArrayRef) -> Result<Int64Array> {
        let mut indices: Vec<i64> = Vec::with_capacity(values.len());
        match &self.table {
            Table::Integer(table) => {
                let values = cast(values, &DataType::Int64).map_err(engine_error)?;
                let find = |x: Option<i64>| x.and_then(|x| table.get(&x)).copied().unwrap_or(self.rest);
                indices.extend(values.as_primitive::<Int64Type>().iter().map(find));
            }
            Table::Text { short, long } => {
                let find = |text: Option<&str>| {
                    let Some(text) = text else { return self.rest };
                    let found = match Short::of(text.as_bytes()) {
                        Some(key) => short.get(&key),
                        None => long.get(text),
                    };
                    found.copied().unwrap_or(self.rest)
                };
                match values.data_type() {
                    DataType::Utf8View => indices.extend(values.as_string_view().iter().map(find)),
                    DataType::Utf8 => indices.extend(values.as_string::<i32>().iter().map(find)),
                    DataType::LargeUtf8 => indices.extend(values.as_string::<i64>().iter().map(find)),
                    _ => {
                        let values = as_text(values)?;
                        indices.extend(values.as_string::<i32>().iter().map(find));
                    }
                }
            }
        }
        Ok(Int64Array::from(indices))
    }
}

/// Any plain column as text, in the same spelling as the statistics see it.
pub(crate) fn as_text(values: &ArrayRef) -> Result<ArrayRef> {
    cast(values, &DataType::Utf8).map_err(engine_error)
}
