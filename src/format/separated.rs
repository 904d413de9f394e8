//! Comma- and tab-separated values, quoted where a value needs it (RFC 4180); lists and structs as JSON text.

use arrow::csv::{Writer, WriterBuilder};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use engine::Result;

use super::nested::{schema_with_nested_as_text, with_nested_as_text};
use super::{Out, RowWriter, Style, arrow_failed, write_failed};

pub(super) struct SeparatedWriter {
    writer: Writer<Out>,
}

pub(super) fn separated(schema: &SchemaRef, out: Out, style: &Style, delimiter: u8) -> SeparatedWriter {
    let mut builder = WriterBuilder::new().with_delimiter(delimiter).with_header(style.header);
    if let Some(null) = &style.null {
        builder = builder.with_null(null.clone());
    }
    let mut writer = builder.build(out);
    // A result without rows has its header all the same. A failed write comes back with the first batch or at the end.
    let _ = writer.write(&RecordBatch::new_empty(schema_with_nested_as_text(schema)));
    SeparatedWriter { writer }
}

impl RowWriter for SeparatedWriter {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(&with_nested_as_text(batch)?).map_err(arrow_failed)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.writer.into_inner().flush().map_err(write_failed)
    }
}
