//! The canonical order of rows: a 128-bit hash of a row's content and the seed.
//!
//! Rows with equal keys are equal rows, so ties do not matter. The hash is taken over arrow's row format, in which a
//! value has the same bytes whether it came as plain text, as a view or through a dictionary.

use arrow::array::RecordBatch;
use arrow::array::{Array, ArrayRef, FixedSizeBinaryArray};
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, lit};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

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

/// Computes the keys of batches of one schema.
#[derive(Debug)]
pub struct RowKeys {
    converter: RowConverter,
    seed: u64,
}

impl RowKeys {
    /// Keys over all columns of `schema`, in their order.
    ///
    /// # Errors
    /// A column of a type that has no canonical bytes.
    pub fn new(schema: &arrow::datatypes::Schema, seed: u64) -> Result<Self> {
        let fields: Vec<SortField> =
            schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        for (field, sort_field) in schema.fields().iter().zip(&fields) {
            if !RowConverter::supports_fields(std::slice::from_ref(sort_field)) {
                return Err(Error::invalid(format!(
                    "column `{}` of type {} cannot be in a training query",
                    field.name(),
                    field.data_type()
                ))
                .with_hint("leave the column out, or cast it to text"));
            }
        }
        let converter = RowConverter::new(fields).map_err(arrow_error)?;
        Ok(RowKeys { converter, seed })
    }

    /// One key a row.
    pub fn of(&self, batch: &RecordBatch) -> Result<Vec<RowKey>> {
        self.of_columns(batch.columns())
    }

    /// As [`RowKeys::of`], of the batch's columns.
    pub(super) fn of_columns(&self, columns: &[ArrayRef]) -> Result<Vec<RowKey>> {
        let rows = self.converter.convert_columns(columns).map_err(arrow_error)?;
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
