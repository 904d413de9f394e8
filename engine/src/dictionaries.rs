//! Columns of dictionaries, unpacked. An Arrow file takes one dictionary for a column, and the batches of a result have one
//! each; those that came from executors do not even say which. So Arrow files get the values themselves.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;

/// The same columns, with the type of the values where it was one of dictionaries; the schema itself when there are none.
pub fn unpacked_schema(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(field).collect();
    if fields.iter().zip(schema.fields()).all(|(own, other)| own.data_type() == other.data_type()) {
        return Arc::clone(schema);
    }
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The same rows in columns of `schema`, which [`unpacked_schema`] gave.
///
/// # Errors
/// Whatever a conversion meets; none is expected.
pub fn unpacked(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = (batch.columns().iter().zip(schema.fields()))
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

fn field(field: &FieldRef) -> FieldRef {
    let unpacked = kind(field.data_type());
    if unpacked == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::new(field.name(), unpacked, field.is_nullable()).with_metadata(field.metadata().clone()))
}

fn kind(whole: &DataType) -> DataType {
    match whole {
        DataType::Dictionary(_, values) => kind(values),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, DictionaryArray, ListArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn values_take_the_place_of_dictionaries() {
        let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
        let words = Arc::new(words);
        let item = Arc::new(Field::new_list_field(words.data_type().clone(), true));
        let lists = ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1, 1]), Arc::clone(&words) as _, None);
        let batch = RecordBatch::try_from_iter([("w", words as _), ("l", Arc::new(lists) as _)]).unwrap();
        let schema = unpacked_schema(&batch.schema());
        let plain = unpacked(&batch, &schema).unwrap();
        assert_eq!(
            plain.column(0).as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("a"), None, Some("b"), Some("a")]
        );
        assert_eq!(plain.column(1).as_list::<i32>().value(0).as_string::<i32>().value(0), "a");
        assert!(Arc::ptr_eq(&unpacked_schema(&schema), &schema));
    }
}
