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
    /// Whether NULL has the index after those of the values: it does when the training rows had NULL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub null: bool,
    /// Whether the last index stands for "other". It does when the training rows had such values; otherwise nothing could be
    /// learned about them.
    pub other: bool,
    /// Which values are "other".
    #[serde(default)]
    pub others: Others,
    /// A value without an index, not even that of "other": the most frequent one, when it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

/// Which values are "other". A value without an index sets no input: it adds nothing to what a model says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Others {
    /// NULL and all values that are not kept, whether training showed them or not: so it was in transforms of format 1.
    #[default]
    Everything,
    /// All values that are not kept, whether training showed them or not: those were too many to be written down.
    Unlisted,
    /// These, which training showed too rarely.
    Listed(Vec<String>),
}

/// More values than this, or more bytes of them, are not written down.
const LISTED_MAX: usize = 1 << 20;
const LISTED_BYTES_MAX: usize = 32 << 20;

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
        let frequent = counted.iter().take_while(|(_, count)| *count >= limit.frequency_threshold).count();
        let (kept, rare) = counted.split_at(frequent.min(limit.top_k));
        let mut values: Vec<String> = kept.iter().map(|(value, _)| value.clone()).collect();
        let dropped = (drop_first && !values.is_empty()).then(|| values.remove(0));
        match of {
            CategoryType::Text => values.sort_unstable(),
            CategoryType::Integer => values.sort_unstable_by_key(|value| number(value)),
        }
        let bytes: usize = rare.iter().map(|(value, _)| value.len()).sum();
        let others = if rare.len() <= LISTED_MAX && bytes <= LISTED_BYTES_MAX {
            let mut rare: Vec<String> = rare.iter().map(|(value, _)| value.clone()).collect();
            rare.sort_unstable();
            Others::Listed(rare)
        } else {
            Others::Unlisted
        };
        Categories { values, of, null: counts.nulls > 0, other: !rare.is_empty(), others, dropped }
    }

    /// These categories and no others: NULL and any other value have no index.
    pub(crate) fn exactly(values: Vec<String>, of: CategoryType) -> Self {
        Categories { values, of, null: false, other: false, others: Others::Listed(Vec::new()), dropped: None }
    }

    /// Number of indices, those of NULL and "other" included.
    pub fn width(&self) -> u32 {
        (self.values.len() + usize::from(self.null) + usize::from(self.other)) as u32
    }

    /// A name per index.
    pub fn names(&self) -> Vec<String> {
        let named = |is_there: bool, name: &str| is_there.then(|| name.to_owned());
        self.values.iter().cloned().chain(named(self.null, "(null)")).chain(named(self.other, "(other)")).collect()
    }
}

/// Finds the index of a value. Made once from [`Categories`].
#[derive(Debug)]
pub(crate) struct Lookup {
    /// For NULL: its index, or -1.
    null: i64,
    /// For values that are not in the table: the index of "other", or -1.
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
        let after = categories.values.len() as i64;
        let other = if categories.other { after + i64::from(categories.null) } else { -1 };
        let own = if categories.null { after } else { -1 };
        let (null, rest, rare): (i64, i64, &[String]) = match &categories.others {
            Others::Everything => (other, other, &[]),
            Others::Unlisted => (own, other, &[]),
            Others::Listed(rare) => (own, -1, rare),
        };
        let entries = || {
            let kept = categories.values.iter().enumerate().map(|(i, value)| (value.as_str(), i as i64));
            let rare = rare.iter().map(|value| (value.as_str(), other));
            kept.chain(rare).chain(categories.dropped.as_deref().map(|value| (value, -1)))
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
        Lookup { null, rest, table }
    }

    /// The index of each value: -1 for one without an index, never null.
    pub(crate) fn indices(&self, values: &ArrayRef) -> Result<Int64Array> {
        let mut indices: Vec<i64> = Vec::with_capacity(values.len());
        match &self.table {
            Table::Integer(table) => {
                let values = cast(values, &DataType::Int64).map_err(engine_error)?;
                let find = |x: Option<i64>| match x {
                    Some(x) => table.get(&x).copied().unwrap_or(self.rest),
                    None => self.null,
                };
                indices.extend(values.as_primitive::<Int64Type>().iter().map(find));
            }
            Table::Text { short, long } => {
                let find = |text: Option<&str>| {
                    let Some(text) = text else { return self.null };
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
