//! Golden rows: what went in, what the model saw, what it said, for a few rows of the day on which it was made. They
//! travel with the model and are computed again when it is loaded.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, RecordBatch, StructArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, UInt32Type};
use engine::{Error, Result};

use super::files;
use super::predictor::Predictor;
use crate::shards::{Bags, Block};

/// How many rows at most.
pub(crate) const ROWS: usize = 64;

/// `golden.arrow` for these raw rows.
pub(crate) fn make(predictor: &Predictor, rows: &RecordBatch) -> Result<Vec<u8>> {
    let rows = rows.slice(0, rows.num_rows().min(ROWS));
    let block = predictor.transform.apply(&rows)?;
    let scores = predictor.scores(&rows)?;
    let inputs: ArrayRef = Arc::new(StructArray::from(rows.clone()));
    let mut columns = vec![
        inputs,
        lists(Arc::new(Float32Array::from(block.dense)), rows.num_rows())?,
        lists(Arc::new(UInt32Array::from(block.indices)), rows.num_rows())?,
        lists(Arc::new(Float64Array::from(scores)), rows.num_rows())?,
    ];
    let names = ["input", "dense", "indices", "scores", BAGS];
    if !block.bags.rows.is_empty() {
        columns.push(bags(&block.bags)?);
    }
    let fields: Vec<Field> =
        names.iter().zip(&columns).map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(arrow_error)?;
    files::to_arrow(&schema, &[batch])
}

/// Computes the rows again. What the model sees must be equal bit for bit; scores may differ by rounding, since the
/// matrix kernel may be another one.
pub(crate) fn check(predictor: &Predictor, golden: &[u8]) -> Result<()> {
    let (_, batches) = files::from_arrow(golden)?;
    for batch in batches {
        let rows = RecordBatch::from(batch.column(0).as_struct());
        let Block { dense, indices, bags: places, .. } = predictor.transform.apply(&rows)?;
        let same_bags = match batch.column_by_name(BAGS) {
            Some(expected) => expected.to_data() == bags(&places)?.to_data(),
            None => true,
        };
        let same_bits = |expected: &[f32]| {
            expected.len() == dense.len() && expected.iter().zip(&dense).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let expected_indices = values(batch.column(2)).as_primitive::<UInt32Type>().values().to_vec();
        if !same_bits(values(batch.column(1)).as_primitive::<Float32Type>().values())
            || expected_indices != indices
            || !same_bags
        {
            return Err(Error::invalid(format!(
                "{}: the transform no longer gives what it gave when the model was made",
                files::GOLDEN
            )));
        }
        let scores = predictor.scores(&rows)?;
        let expected = values(batch.column(3)).as_primitive::<Float64Type>().values().to_vec();
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * a.abs().max(1.0) || (a.is_nan() && b.is_nan());
        if expected.len() != scores.len() || !expected.iter().zip(&scores).all(close) {
            return Err(Error::invalid(format!(
                "{}: the model no longer predicts what it predicted when it was made",
                files::GOLDEN
            )));
        }
    }
    Ok(())
}

/// The column of places, which models with a bag have.
const BAGS: &str = "bags";

/// The places of each row.
fn bags(bags: &Bags) -> Result<ArrayRef> {
    let lengths = bags.rows.iter().map(|(begin, end)| (end - begin) as usize);
    let places = Arc::new(UInt32Array::from(bags.places.clone()));
    let item = Arc::new(Field::new_list_field(DataType::UInt32, true));
    let lists = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), places, None).map_err(arrow_error)?;
    Ok(Arc::new(lists))
}

/// Equal parts of `values`, one for each row.
fn lists(values: ArrayRef, rows: usize) -> Result<ArrayRef> {
    let width = values.len() / rows.max(1);
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, rows));
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None).map_err(arrow_error)?))
}

fn values(column: &ArrayRef) -> ArrayRef {
    debug_assert!(matches!(column.data_type(), DataType::List(_)));
    column.as_list::<i32>().values().clone()
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::Query(error.into())
}
