//! From a batch of rows to the inputs of a model.
//!
//! Columns are computed one after the other for some thousand rows at a time, while they are in the cache, and written
//! into rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Int64Type, Schema, SchemaRef};
use engine::{Error, Result};

use super::evaluate::{ColumnId, Evaluator};
use super::fitted::{Applier, as_list, as_numbers};
use super::frozen::{Feature, FrozenTransform, Inputs};
use super::spec::{LabelColumn, engine_error};
use crate::network::PREDICTION_TILE;
use crate::shards::{Bags, Block, NO_CATEGORY};

/// Rows computed at a time: as many as have so many inputs together, and at most `TILE_MAX`. A multiple of what networks
/// predict at once.
const TILE_INPUTS: usize = 128 * 1024;
const TILE_MAX: usize = 4096;

/// Where each feature goes.
#[derive(Debug)]
pub(crate) struct Slots {
    features: Vec<Slot>,
    labels: Vec<ColumnId>,
    dense: usize,
    bag: usize,
    groups: usize,
    /// Columns that features are made from.
    pub(crate) feature_columns: Vec<bool>,
    /// Columns that labels are made from.
    pub(crate) label_columns: Vec<bool>,
}

#[derive(Debug)]
struct Slot {
    column: ColumnId,
    inputs: Inputs,
    /// First dense input, first place in the bag, or number of the group.
    at: usize,
}

impl Slots {
    /// Lays the features out; `evaluator` knows the columns.
    pub(crate) fn new(features: &[Feature], labels: &[LabelColumn], evaluator: &Evaluator) -> Result<Self> {
        let (mut dense, mut bag, mut groups, mut slots) = (0, 0, 0, Vec::new());
        for feature in features {
            let (next, width) = match feature.inputs {
                Inputs::Number { .. } => (&mut dense, 1),
                Inputs::Numbers { length, .. } => (&mut dense, length),
                Inputs::MultiHot { width } => (&mut dense, width as usize),
                Inputs::Bag { width } => (&mut bag, width as usize),
                Inputs::OneHot { width } | Inputs::Buckets { width } => (&mut groups, usize::from(width > 0)),
            };
            let column = evaluator.id(&feature.column)?;
            let column = match feature.inputs {
                Inputs::Number { missing } | Inputs::Numbers { missing, .. } => evaluator.unfilled(column, missing),
                _ => column,
            };
            slots.push(Slot { column, inputs: feature.inputs, at: *next });
            *next += width;
        }
        let labels = labels.iter().map(|label| evaluator.id(&label.column)).collect::<Result<Vec<_>>>()?;
        Ok(Slots {
            feature_columns: evaluator.needed(slots.iter().map(|slot| slot.column)),
            label_columns: evaluator.needed(labels.iter().copied()),
            features: slots,
            labels,
            dense,
            bag,
            groups,
        })
    }

    /// The fitted function around the first label, if any.
    pub(crate) fn label_function<'a>(&self, evaluator: &'a Evaluator) -> Option<&'a Applier> {
        self.labels.first().and_then(|label| evaluator.function(*label))
    }
}

impl FrozenTransform {
    /// So many rows go through [`FrozenTransform::apply`] while they are in the cache.
    pub(crate) fn rows_at_once(&self) -> usize {
        let rows = TILE_INPUTS / (self.slots.dense + self.slots.groups).max(1);
        rows.next_multiple_of(PREDICTION_TILE).min(TILE_MAX)
    }

    /// The features of each row, in the order of [`FrozenTransform::layout`]; labels are 0 and weights 1.
    ///
    /// # Errors
    /// A raw column that is missing or of another type, a number that is NaN or infinite (or beyond 32 bits), an array of
    /// another length than in training.
    pub fn apply(&self, batch: &RecordBatch) -> Result<Block> {
        let (rows, slots) = (batch.num_rows(), &self.slots);
        let mut block = Block {
            rows,
            dense: vec![0.0; rows * slots.dense],
            indices: vec![NO_CATEGORY; rows * slots.groups],
            bags: Bags::default(),
            labels: vec![0.0; rows],
            weights: vec![1.0; rows],
        };
        let at_once = self.rows_at_once();
        for first in (0..rows.max(1)).step_by(at_once) {
            let tile = batch.slice(first, at_once.min(rows - first));
            let end = first + tile.num_rows();
            let values = self.evaluator.run(&tile, &slots.feature_columns)?;
            let dense = &mut block.dense[first * slots.dense..end * slots.dense];
            let indices = &mut block.indices[first * slots.groups..end * slots.groups];
            let mut bags = Vec::new();
            for (slot, feature) in slots.features.iter().zip(self.features()) {
                let values = values[slot.column].as_ref().expect("the columns of features are needed");
                match slot.inputs {
                    Inputs::Number { missing } => {
                        write_numbers(&as_numbers(values)?, missing, dense, slots.dense, slot.at)
                            .map_err(|x| not_finite(&feature.name, x))?;
                    }
                    Inputs::Numbers { length, missing } => {
                        write_arrays(values, length, missing, dense, slots.dense, slot.at, &feature.name)?;
                    }
                    Inputs::MultiHot { .. } => write_multi_hot(values, dense, slots.dense, slot.at)?,
                    Inputs::Bag { .. } => bags.push((as_list(values)?, slot.at)),
                    Inputs::OneHot { width: 0 } => {}
                    Inputs::OneHot { .. } | Inputs::Buckets { .. } => {
                        write_indices(values, indices, slots.groups, slot.at)?;
                    }
                }
            }
            if slots.bag > 0 {
                push_bags(&bags, tile.num_rows(), &mut block.bags);
            }
        }
        Ok(block)
    }

    /// The labels of each row, in the order of [`FrozenTransform::labels`], in their own types.
    ///
    /// # Errors
    /// A raw column that is missing or of another type, an expression that fails.
    pub fn apply_labels(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let values = self.evaluator.run(batch, &self.slots.label_columns)?;
        let value = |id: &ColumnId| values[*id].clone().expect("the columns of labels are needed");
        Ok(self.slots.labels.iter().map(value).collect())
    }

    /// The columns of [`FrozenTransform::apply_to_batch`].
    pub fn output_schema(&self) -> SchemaRef {
        let fields = self.features().iter().map(|feature| {
            let data_type = match feature.inputs {
                Inputs::Number { .. } => DataType::Float64,
                Inputs::Numbers { .. } => DataType::new_list(DataType::Float64, true),
                _ => DataType::new_list(DataType::Struct(sparse_fields()), true),
            };
            Field::new(&feature.name, data_type, true)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// What the model sees, as named columns: numbers as DOUBLE (or arrays of them), one-hot and multi-hot features as
    /// `ARRAY<STRUCT<index BIGINT, value DOUBLE>>` of the columns that are set.
    ///
    /// # Errors
    /// As [`FrozenTransform::apply`].
    pub fn apply_to_batch(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let values = self.evaluator.run(batch, &self.slots.feature_columns)?;
        let columns = self.slots.features.iter().zip(self.features()).map(|(slot, feature)| {
            let values = values[slot.column].as_ref().expect("the columns of features are needed");
            output_column(values, slot.inputs, &feature.name)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.output_schema(), columns, &options).map_err(engine_error)
    }
}

/// Writes one number per row; gives back the first that is not finite in 32 bits.
fn write_numbers(values: &Float64Array, missing: f64, out: &mut [f32], stride: usize, at: usize) -> Result<(), f64> {
    let mut finite = true;
    let mut write = |row: &mut [f32], x: f64| {
        let x = x as f32;
        finite &= x.is_finite();
        row[at] = x;
    };
    if values.null_count() == 0 {
        out.chunks_exact_mut(stride).zip(values.values()).for_each(|(row, x)| write(row, *x));
    } else {
        out.chunks_exact_mut(stride).zip(values).for_each(|(row, x)| write(row, x.unwrap_or(missing)));
    }
    if finite {
        return Ok(());
    }
    Err(values.iter().flatten().find(|x| !(*x as f32).is_finite()).unwrap_or(missing))
}

/// Writes numbers as they are; gives back the first that is not finite.
fn copy_floats(values: &[f32], out: &mut [f32]) -> Result<(), f64> {
    out.copy_from_slice(values);
    match values.iter().fold(true, |finite, x| finite & x.is_finite()) {
        true => Ok(()),
        false => Err(values.iter().find(|x| !x.is_finite()).map_or(f64::NAN, |x| f64::from(*x))),
    }
}

fn not_finite(feature: &str, x: f64) -> Error {
    if x.is_finite() {
        return Error::invalid(format!(
            "feature `{feature}` is {x:e} after its transform, which is too large for a model's 32-bit input"
        ))
        .with_hint("scale the column, or take its logarithm");
    }
    let what = if x.is_nan() { "NaN" } else { "an infinite value" };
    Error::invalid(format!("feature `{feature}` holds {what}")).with_hint(
        "filter such rows or turn the values into NULL, which is imputed: CASE WHEN isnan(x) THEN NULL ELSE x END",
    )
}

fn write_arrays(
    values: &ArrayRef,
    length: usize,
    missing: f64,
    out: &mut [f32],
    stride: usize,
    at: usize,
    feature: &str,
) -> Result<()> {
    let list = as_list(values)?;
    let floats = list.values().as_primitive_opt::<Float32Type>().filter(|floats| floats.null_count() == 0);
    let numbers = match floats {
        Some(_) => Float64Array::new_null(0),
        None => as_numbers(list.values())?,
    };
    for (i, row) in out.chunks_exact_mut(stride).enumerate() {
        let row = &mut row[at..at + length];
        if list.is_null(i) {
            row.fill(missing as f32);
            continue;
        }
        let (from, to) = (list.value_offsets()[i] as usize, list.value_offsets()[i + 1] as usize);
        if to - from != length {
            return Err(Error::invalid(format!(
                "feature `{feature}` holds an array of {} elements, expected {length} as in training",
                to - from
            )));
        }
        match floats {
            Some(floats) => copy_floats(&floats.values()[from..to], row),
            None => write_numbers(&numbers.slice(from, length), missing, row, 1, 0),
        }
        .map_err(|x| not_finite(feature, x))?;
    }
    Ok(())
}

fn write_multi_hot(values: &ArrayRef, out: &mut [f32], stride: usize, at: usize) -> Result<()> {
    if stride == 0 {
        return Ok(());
    }
    let list = as_list(values)?;
    let indices = list.values().as_primitive::<Int64Type>();
    for (i, row) in out.chunks_exact_mut(stride).enumerate() {
        let (from, to) = (list.value_offsets()[i] as usize, list.value_offsets()[i + 1] as usize);
        indices.values()[from..to].iter().for_each(|index| row[at + *index as usize] = 1.0);
    }
    Ok(())
}

/// Adds the places of each row: those of one feature after the other.
fn push_bags(features: &[(ListArray, usize)], rows: usize, bags: &mut Bags) {
    let places = |row: usize| {
        features.iter().flat_map(move |(list, at)| {
            let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
            let indices = &list.values().as_primitive::<Int64Type>().values()[from..to];
            indices.iter().map(move |index| *at as u32 + *index as u32)
        })
    };
    (0..rows).for_each(|row| bags.push(places(row)));
}

fn write_indices(values: &ArrayRef, out: &mut [u32], stride: usize, at: usize) -> Result<()> {
    let values = values.as_primitive::<Int64Type>();
    for (i, (row, index)) in out.chunks_exact_mut(stride).zip(values.values()).enumerate() {
        row[at] = if values.is_valid(i) { *index as u32 } else { NO_CATEGORY };
    }
    Ok(())
}

fn output_column(values: &ArrayRef, inputs: Inputs, feature: &str) -> Result<ArrayRef> {
    let fill = |numbers: &Float64Array, missing: f64| -> Float64Array {
        numbers.iter().map(|x| Some(x.unwrap_or(missing))).collect()
    };
    match inputs {
        Inputs::Number { missing } => Ok(Arc::new(fill(&as_numbers(values)?, missing))),
        Inputs::Numbers { length, missing } => {
            let rows = values.len();
            let mut numbers = vec![0f32; rows * length];
            // The same checks as for training; the numbers themselves are kept in 64 bits.
            write_arrays(values, length, missing, &mut numbers, length, 0, feature)?;
            let list = as_list(values)?;
            let elements = as_numbers(list.values())?;
            let mut filled = Vec::with_capacity(rows * length);
            for row in 0..rows {
                let from = list.value_offsets()[row] as usize;
                let element = |i: usize| match list.is_valid(row) && elements.is_valid(from + i) {
                    true => elements.value(from + i),
                    false => missing,
                };
                filled.extend((0..length).map(element));
            }
            let field = Arc::new(Field::new_list_field(DataType::Float64, true));
            let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, rows));
            Ok(Arc::new(ListArray::new(field, offsets, Arc::new(Float64Array::from(filled)), None)))
        }
        Inputs::OneHot { .. } | Inputs::Buckets { .. } => {
            let indices = values.as_primitive::<Int64Type>();
            let lengths = (0..indices.len()).map(|row| usize::from(indices.is_valid(row)));
            sparse(OffsetBuffer::from_lengths(lengths), indices.iter().flatten().collect())
        }
        Inputs::MultiHot { .. } | Inputs::Bag { .. } => {
            let list = as_list(values)?;
            let (first, last) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
            let indices = list.values().as_primitive::<Int64Type>().values()[first..last].to_vec();
            let lengths = (0..list.len()).map(|row| list.value_length(row) as usize);
            sparse(OffsetBuffer::from_lengths(lengths), indices)
        }
    }
}

fn sparse_fields() -> Fields {
    Fields::from(vec![Field::new("index", DataType::Int64, true), Field::new("value", DataType::Float64, true)])
}

fn sparse(offsets: OffsetBuffer<i32>, indices: Vec<i64>) -> Result<ArrayRef> {
    let ones: Float64Array = Float64Array::from_value(1.0, indices.len());
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(indices)), Arc::new(ones)];
    let entries = StructArray::try_new(sparse_fields(), columns, None).map_err(engine_error)?;
    let field = Arc::new(Field::new_list_field(DataType::Struct(sparse_fields()), true));
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(entries), None).map_err(engine_error)?))
}
