//! `ML.HASH_BUCKETIZE(text, n)`: a bucket in 0..n by hash, the hash itself for n = 0.
//!
//! The hash is xxh3 of the text's bytes (BigQuery's is FarmHash, so the numbers differ from its). Values of other types
//! are hashed by their text.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use engine::Result;
use xxhash_rust::xxh3::xxh3_64;

use super::catalogue::Usage;
use super::constants;
use super::row_function::RowFunction;
use crate::transform::as_text;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HashBucketize;

impl RowFunction for HashBucketize {
    const NAME: &'static str = "HASH_BUCKETIZE";
    type Constants = u64;

    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<u64> {
        match constants {
            [size] => match constants::integer(size) {
                Some(size @ 0..) => Ok(size as u64),
                _ => Err(usage.wrong(&format!("the number of buckets is a whole number from 0 on, got {size}"))),
            },
            _ => Err(usage.wrong(&format!("expected 2 arguments, got {}", constants.len() + 1))),
        }
    }

    fn output_type(usage: &Usage, input: &DataType, _: Option<&u64>) -> Result<DataType> {
        match input {
            nested if nested.is_nested() || nested.is_binary() => {
                Err(usage.wrong(&format!("the first argument is a string, got type {nested}")))
            }
            _ => Ok(DataType::Int64),
        }
    }

    fn apply(_: &Usage, values: &ArrayRef, size: &u64) -> Result<ArrayRef> {
        let text = as_text(values)?;
        let bucket = |text: &str| match xxh3_64(text.as_bytes()) {
            hash if *size == 0 => hash as i64,
            hash => (hash % size) as i64,
        };
        Ok(Arc::new(text.as_string::<i32>().iter().map(|text| text.map(bucket)).collect::<Int64Array>()))
    }
}
