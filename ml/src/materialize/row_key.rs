//! The canonical order of rows: a 128-bit hash of a row's content, of the seed, and of its number among its copies.
//!
//! Copies are alike, so it does not matter which of them has which number: the keys of a table depend on its rows alone.
//! The hash is taken over arrow's row format, in which a value has the same bytes whether it came as plain text, as a view
//! or through a dictionary, of the content in one type for each kind ([`Content`]). Who numbers the copies is
//! [`super::copies`]' matter.

use arrow::array::RecordBatch;
use arrow::array::{Array, ArrayRef, FixedSizeBinaryArray};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, lit};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::content::Content;

const BUCKET_SHIFT: u32 = 64;
const BUCKET_BITS: u32 = 11;
const BUCKET: u128 = ((1 << BUCKET_BITS) - 1) << BUCKET_SHIFT;

/// A row's place in the canonical order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[u64; 2]", into = "[u64; 2]")]
pub struct RowKey(pub u128);

impl From<[u64; 2]> for RowKey {
    fn from([high, low]: [u64; 2]) -> Self {
        RowKey(u128::from(high) << 64 | u128::from(low))
    }
}

impl From<RowKey> for [u64; 2] {
    fn from(RowKey(key): RowKey) -> Self {
        [(key >> 64) as u64, key as u64]
    }
}

impl RowKey {
    /// The shard of S (a power of two) in which the row is.
    pub fn shard(self, shards: usize) -> usize {
        debug_assert!(shards.is_power_of_two(), "S is a power of two, got {shards}");
        (self.0 as u64 & (shards as u64 - 1)) as usize
    }

    /// The key of copy number `copy`, from 0, of a row whose first has this key. Copies share their [`RowKey::bucket`].
    pub fn of_copy(self, copy: u64) -> Self {
        if copy == 0 {
            return self;
        }
        let mixed = xxh3_128_with_seed(&self.0.to_be_bytes(), copy);
        RowKey((mixed & !BUCKET) | (self.0 & BUCKET))
    }

    /// Where copies are counted, of so many buckets (a power of two, at most 2^11): bits that tell neither the shard nor the
    /// split.
    pub(super) fn bucket(self, buckets: usize) -> usize {
        debug_assert!(buckets.is_power_of_two() && buckets <= 1 << BUCKET_BITS, "{buckets} buckets");
        (self.0 >> BUCKET_SHIFT) as usize & (buckets - 1)
    }

    /// The key as it stands in plans.
    pub(super) fn literal(self) -> Expr {
        lit(ScalarValue::FixedSizeBinary(16, Some(self.0.to_be_bytes().to_vec())))
    }

    /// A number in [0, 1), uniform over rows and independent of the shard; it decides the split.
    pub fn unit(self) -> f64 {
        // 53 bits, so that the quotient is exact.
        (self.0 >> 75) as f64 / (1u64 << 53) as f64
    }
}

/// Computes the keys of batches of one schema, each row's as though it had no copies.
#[derive(Debug)]
pub struct RowKeys {
    contents: Vec<Content>,
    converter: RowConverter,
    seed: u64,
}

impl RowKeys {
    /// Keys over all columns of `schema`, in their order.
    ///
    /// # Errors
    /// A column of a type that has no canonical bytes.
    pub fn new(schema: &arrow::datatypes::Schema, seed: u64) -> Result<Self> {
        let contents: Vec<Content> = schema.fields().iter().map(|field| Content::of(field.data_type())).collect();
        let mut fields: Vec<SortField> = Vec::new();
        for (field, content) in schema.fields().iter().zip(&contents) {
            let own: Vec<_> = content.types(field.data_type()).into_iter().map(SortField::new).collect();
            if !RowConverter::supports_fields(&own) {
                return Err(Error::invalid(format!(
                    "column `{}` of type {} cannot be in a training query",
                    field.name(),
                    field.data_type()
                ))
                .with_hint("leave the column out, or cast it to text"));
            }
            fields.extend(own);
        }
        let converter = RowConverter::new(fields).map_err(arrow_error)?;
        Ok(RowKeys { contents, converter, seed })
    }

    /// One key a row.
    pub fn of(&self, batch: &RecordBatch) -> Result<Vec<RowKey>> {
        self.of_columns(batch.columns())
    }

    /// As [`RowKeys::of`], of the batch's columns.
    pub(super) fn of_columns(&self, columns: &[ArrayRef]) -> Result<Vec<RowKey>> {
        let mut canonical = Vec::with_capacity(columns.len());
        for (content, column) in self.contents.iter().zip(columns) {
            content.add(column, &mut canonical)?;
        }
        let rows = self.converter.convert_columns(&canonical).map_err(arrow_error)?;
        Ok(rows.iter().map(|row| RowKey(xxh3_128_with_seed(row.data(), self.seed))).collect())
    }
}

/// The same rows with nothing but the rows in them: what lies under a NULL is whatever a reader or a filter has left there.
pub(super) fn canonical(batch: &RecordBatch) -> Result<RecordBatch> {
    let fields = batch.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(arrow_error)?;
    let rows = converter.convert_columns(batch.columns()).map_err(arrow_error)?;
    let columns = converter.convert_rows(rows.iter()).map_err(arrow_error)?;
    RecordBatch::try_new(batch.schema(), columns).map_err(arrow_error)
}

/// Keys as a column of 16 bytes each, big-endian, so that bytes sort as keys do.
pub(super) fn to_array(keys: &[RowKey]) -> Result<ArrayRef> {
    let bytes: Vec<u8> = keys.iter().flat_map(|key| key.0.to_be_bytes()).collect();
    let array = FixedSizeBinaryArray::try_new(16, bytes.into(), None).map_err(arrow_error)?;
    Ok(std::sync::Arc::new(array))
}

/// Bytes of a key, as [`to_array`] and files have it.
pub(super) const KEY_BYTES: usize = 16;

/// The inverse of [`to_array`].
pub(super) fn from_array(array: &dyn Array) -> Vec<RowKey> {
    let array = array.as_any().downcast_ref::<FixedSizeBinaryArray>().expect("a key column is 16 bytes wide");
    (0..array.len())
        .map(|row| RowKey(u128::from_be_bytes(array.value(row).try_into().expect("a key is 16 bytes"))))
        .collect()
}

pub(super) fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::Query(error.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn keys(columns: Vec<ArrayRef>, seed: u64) -> Vec<RowKey> {
        let columns = columns.into_iter().enumerate().map(|(i, column)| (format!("c{i}"), column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        RowKeys::new(&batch.schema(), seed).unwrap().of(&batch).unwrap()
    }

    #[test]
    fn a_key_depends_on_content_and_seed_alone() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1)]));
        let words = ["a", "b", "a"];
        let plain: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
        let views: ArrayRef = Arc::new(StringViewArray::from(words.to_vec()));
        let dictionary: ArrayRef = Arc::new(words.into_iter().collect::<DictionaryArray<Int32Type>>());
        let expected = keys(vec![numbers.clone(), plain.clone()], 7);
        assert_eq!(expected[0], expected[2]);
        assert_ne!(expected[0], expected[1]);
        assert_eq!(keys(vec![numbers.clone(), views], 7), expected);
        assert_eq!(keys(vec![numbers.clone(), dictionary], 7), expected);
        assert_eq!(keys(vec![numbers.slice(2, 1), plain.slice(2, 1)], 7), expected[2..]);
        assert_ne!(keys(vec![numbers, plain], 8), expected);
    }

    #[test]
    fn shards_and_splits_are_even_and_independent() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40_000));
        let keys = keys(vec![numbers], 0);
        let mut counts = [[0usize; 2]; 16];
        for key in keys {
            counts[key.shard(16)][usize::from(key.unit() < 0.2)] += 1;
        }
        for [train, eval] in counts {
            // Binomial: 2,000 and 500 rows expected, 5 standard deviations are 200 and 105.
            assert!(train.abs_diff(2_000) < 200 && eval.abs_diff(500) < 105, "{train} {eval}");
        }
    }

    #[test]
    fn copies_are_spread_like_other_rows_and_share_a_bucket() {
        let first = RowKey(0x0123_4567_89ab_cdef_0fed_cba9_8765_4321);
        let keys: Vec<RowKey> = (0..40_000).map(|copy| first.of_copy(copy)).collect();
        assert_eq!(keys[0], first);
        let different: std::collections::HashSet<RowKey> = keys.iter().copied().collect();
        assert_eq!(different.len(), keys.len());
        let mut counts = [[0usize; 2]; 16];
        for key in &keys {
            assert_eq!(key.bucket(256), first.bucket(256));
            counts[key.shard(16)][usize::from(key.unit() < 0.2)] += 1;
        }
        for [train, eval] in counts {
            assert!(train.abs_diff(2_000) < 200 && eval.abs_diff(500) < 105, "{train} {eval}");
        }
    }

    #[test]
    fn what_lies_under_a_null_does_not_show() {
        let with = |under: i64| {
            let numbers = arrow::buffer::ScalarBuffer::from(vec![1, under, 3]);
            let numbers = Int64Array::new(numbers, Some(vec![true, false, true].into()));
            RecordBatch::try_from_iter_with_nullable([("n", Arc::new(numbers) as ArrayRef, true)]).unwrap()
        };
        let [a, b] = [7, 9].map(|under| canonical(&with(under)).unwrap());
        assert_eq!(a, with(0));
        let bytes = |batch: &RecordBatch| batch.column(0).to_data().buffers()[0].as_slice().to_vec();
        assert_eq!(bytes(&a), bytes(&b));
        assert_ne!(bytes(&with(7)), bytes(&with(9)));
    }

    #[test]
    fn keys_survive_the_way_through_a_column() {
        let keys = [RowKey(0), RowKey(u128::MAX), RowKey(1 << 100)];
        assert_eq!(from_array(&to_array(&keys).unwrap()), keys);
        let text = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<Vec<RowKey>>(&text).unwrap(), keys);
    }
}
