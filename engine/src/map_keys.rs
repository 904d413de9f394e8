//! Maps in JSON. An object's keys are texts, so the keys of maps become texts before a batch is written; values stay.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use arrow::error::ArrowError;

/// The batch with texts for the keys of all maps in it; the same batch when they are that already.
///
/// # Errors
/// Keys that have no text, such as lists.
pub fn as_text(batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| has_other_keys(field.data_type())) {
        return Ok(batch);
    }
    let fields: Fields = schema.fields().iter().map(with_text).collect();
    let columns = batch.columns().iter().zip(&fields).map(|(column, field)| cast(column, field.data_type()));
    RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns.collect::<Result<_, _>>()?)
}

fn has_other_keys(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(parts) => {
                parts.first().is_some_and(|key| !key.data_type().is_string())
                    || parts.iter().any(|part| has_other_keys(part.data_type()))
            }
            _ => false,
        },
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_other_keys(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| has_other_keys(field.data_type())),
        _ => false,
    }
}

fn with_text(field: &FieldRef) -> FieldRef {
    let of = |data_type: DataType| Arc::new(Field::new(field.name(), data_type, field.is_nullable()));
    match field.data_type() {
        DataType::Map(entries, sorted) => {
            let DataType::Struct(parts) = entries.data_type() else { return Arc::clone(field) };
            let part = |(index, part): (usize, &FieldRef)| match index {
                0 => Arc::new(Field::new(part.name(), DataType::Utf8, part.is_nullable())),
                _ => with_text(part),
            };
            let parts: Fields = parts.iter().enumerate().map(part).collect();
            let entries = Field::new(entries.name(), DataType::Struct(parts), entries.is_nullable());
            of(DataType::Map(Arc::new(entries), *sorted))
        }
        DataType::List(item) => of(DataType::List(with_text(item))),
        DataType::LargeList(item) => of(DataType::LargeList(with_text(item))),
        DataType::FixedSizeList(item, size) => of(DataType::FixedSizeList(with_text(item), *size)),
        DataType::Struct(fields) => of(DataType::Struct(fields.iter().map(with_text).collect())),
        _ => Arc::clone(field),
    }
}
