//! JSON: whole results as an array or as lines, and single nested cells for the formats that know only text.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};
use arrow::record_batch::RecordBatch;
use engine::{Result, map_keys};

use super::{Out, RowWriter, arrow_failed, write_failed};

/// Rows as JSON objects; a NULL is written as `null`, so that every object has every column.
pub(super) enum JsonWriter {
    Array(arrow::json::Writer<Out, JsonArray>),
    Lines(arrow::json::Writer<Out, LineDelimited>),
}

impl JsonWriter {
    pub(super) fn array(out: Out) -> Self {
        JsonWriter::Array(WriterBuilder::new().with_explicit_nulls(true).build(out))
    }

    pub(super) fn lines(out: Out) -> Self {
        JsonWriter::Lines(WriterBuilder::new().with_explicit_nulls(true).build(out))
    }
}

impl RowWriter for JsonWriter {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = map_keys::as_text(batch.clone()).map_err(arrow_failed)?;
        match self {
            JsonWriter::Array(writer) => writer.write(&batch),
            JsonWriter::Lines(writer) => writer.write(&batch),
        }
        .map_err(arrow_failed)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut out = match *self {
            JsonWriter::Array(mut writer) => {
                writer.finish().map_err(arrow_failed)?;
                let mut out = writer.into_inner();
                writeln!(out).map_err(write_failed)?;
                out
            }
            JsonWriter::Lines(mut writer) => {
                writer.finish().map_err(arrow_failed)?;
                writer.into_inner()
            }
        };
        out.flush().map_err(write_failed)
    }
}

/// Whether values of the type have parts.
pub(super) fn is_nested(data_type: &DataType) -> bool {
    data_type.is_nested()
}

/// The schema that [`with_nested_as_text`] gives to batches of `schema`.
pub(super) fn schema_with_nested_as_text(schema: &SchemaRef) -> SchemaRef {
    let text = |field: &Arc<Field>| {
        if is_nested(field.data_type()) {
            Arc::new(Field::new(field.name(), DataType::Utf8, true))
        } else {
            Arc::clone(field)
        }
    };
    Arc::new(Schema::new(schema.fields().iter().map(text).collect::<Vec<_>>()))
}

/// Lists and structs as JSON text; all else as it is.
pub(super) fn with_nested_as_text(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .map(|column| if is_nested(column.data_type()) { as_text(column) } else { Ok(Arc::clone(column)) });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema_with_nested_as_text(&batch.schema()), columns).map_err(arrow_failed)
}

fn as_text(column: &ArrayRef) -> Result<ArrayRef> {
    // Written as one object a row, {"v":...}, whose frame is then taken off.
    const FRAME: &str = "{\"v\":";
    let schema = Arc::new(Schema::new(vec![Field::new("v", column.data_type().clone(), true)]));
    let batch = RecordBatch::try_new(schema, vec![Arc::clone(column)]).map_err(arrow_failed)?;
    let batch = map_keys::as_text(batch).map_err(arrow_failed)?;
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(&batch).map_err(arrow_failed)?;
    writer.finish().map_err(arrow_failed)?;
    let bytes = writer.into_inner();
    let text = String::from_utf8_lossy(&bytes);
    let cells = text.lines().enumerate().map(|(row, line)| {
        let cell = line.strip_prefix(FRAME).and_then(|cell| cell.strip_suffix('}')).unwrap_or(line);
        (!column.is_null(row)).then(|| cell.to_string())
    });
    Ok(Arc::new(cells.collect::<StringArray>()))
}
