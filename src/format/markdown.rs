//! A Markdown table, row by row: the cells are not padded, so that nothing has to be kept.

use std::io::Write;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::Result;

use super::nested::with_nested_as_text;
use super::{Out, RowWriter, Style, arrow_failed, write_failed};

pub(super) struct MarkdownWriter {
    out: Out,
    null: String,
    /// Lines before the first row, until they are written. Markdown knows no table without a header.
    head: Option<String>,
}

impl MarkdownWriter {
    pub(super) fn new(schema: &SchemaRef, out: Out, style: &Style) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| escape(field.name())).collect();
        let rules: Vec<&str> =
            schema.fields().iter().map(|field| if field.data_type().is_numeric() { "---:" } else { "---" }).collect();
        let head = format!("| {} |\n| {} |\n", names.join(" | "), rules.join(" | "));
        let null = style.null.clone().unwrap_or_else(|| "NULL".to_string());
        MarkdownWriter { out, null, head: Some(head) }
    }

    fn write_head(&mut self) -> Result<()> {
        match self.head.take() {
            Some(head) => self.out.write_all(head.as_bytes()).map_err(write_failed),
            None => Ok(()),
        }
    }
}

impl RowWriter for MarkdownWriter {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.write_head()?;
        let batch = with_nested_as_text(batch)?;
        let options = FormatOptions::default().with_null(&self.null);
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(arrow_failed)?;
        for row in 0..batch.num_rows() {
            let cells = formatters
                .iter()
                .map(|cells| cells.value(row).try_to_string().map(|text| escape(&text)))
                .collect::<Result<Vec<_>, _>>()
                .map_err(arrow_failed)?;
            writeln!(self.out, "| {} |", cells.join(" | ")).map_err(write_failed)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.write_head()?;
        self.out.flush().map_err(write_failed)
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>")
}
