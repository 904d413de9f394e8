//! Results as text or bytes: one [`RowWriter`] for each format. A writer sees batches and a byte sink, nothing of where
//! the rows come from; all writers hold a bounded amount of memory, however long the result is.

use std::io::Write;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use engine::{Error, Result};

use crate::args::Format;

mod columnar;
mod fit;
mod markdown;
mod nested;
mod number;
mod separated;
mod table;

pub(crate) use number::{count, plural, size};

/// Where formatted bytes go.
pub(crate) type Out = Box<dyn Write + Send>;

/// How a result should look, as far as its format leaves a choice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Style {
    /// Text for NULL; `None` is the format's own.
    pub(crate) null: Option<String>,
    /// Whether the column names are written (and a table's footer).
    pub(crate) header: bool,
    /// Columns of the terminal that a table must fit; `None` lets it be as wide as it is.
    pub(crate) width: Option<usize>,
    /// Rows after which a table only counts; `None` shows all.
    pub(crate) rows_max: Option<usize>,
    /// Whether a second result follows the first in the same output, so that a seekable file format cannot be used.
    pub(crate) to_file: bool,
}

/// Writes one result.
pub(crate) trait RowWriter: Send {
    /// Adds rows.
    fn batch(&mut self, batch: &RecordBatch) -> Result<()>;
    /// Writes what is left and flushes; without it the result is incomplete.
    fn finish(self: Box<Self>) -> Result<()>;
}

impl Format {
    /// The format that a file's name asks for.
    pub(crate) fn of_name(name: &str) -> Option<Format> {
        let (_, extension) = name.rsplit_once('.')?;
        Some(match extension.to_ascii_lowercase().as_str() {
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            "json" => Format::Json,
            "jsonl" | "ndjson" => Format::Jsonl,
            "md" | "markdown" => Format::Markdown,
            "arrow" | "ipc" | "feather" => Format::Arrow,
            "parquet" => Format::Parquet,
            "txt" => Format::Table,
            _ => return None,
        })
    }

    /// Whether the bytes are not for a terminal.
    pub(crate) fn is_binary(self) -> bool {
        matches!(self, Format::Arrow | Format::Parquet)
    }

    /// Whether two results may follow each other in one output.
    pub(crate) fn repeats(self) -> bool {
        !self.is_binary()
    }

    /// A writer of this format.
    pub(crate) fn writer(self, schema: &SchemaRef, out: Out, style: &Style) -> Result<Box<dyn RowWriter>> {
        Ok(match self {
            Format::Table if table::is_plan(schema) => Box::new(table::PlanText::new(out)),
            Format::Table => Box::new(table::TableWriter::new(schema, out, style)),
            Format::Csv => Box::new(separated::separated(schema, out, style, b',')),
            Format::Tsv => Box::new(separated::separated(schema, out, style, b'\t')),
            Format::Json => Box::new(nested::JsonWriter::array(out)),
            Format::Jsonl => Box::new(nested::JsonWriter::lines(out)),
            Format::Markdown => Box::new(markdown::MarkdownWriter::new(schema, out, style)),
            Format::Arrow if style.to_file => Box::new(columnar::ArrowFile::new(schema, out)?),
            Format::Arrow => Box::new(columnar::ArrowStream::new(schema, out)?),
            Format::Parquet => Box::new(columnar::ParquetFile::new(schema, out)?),
        })
    }
}

/// A failed write as the engine's error; keeps the source, so that a closed pipe can be told from a full disk.
pub(crate) fn write_failed(error: std::io::Error) -> Error {
    Error::Query(datafusion::error::DataFusionError::IoError(error))
}

fn arrow_failed(error: arrow::error::ArrowError) -> Error {
    Error::Query(datafusion::error::DataFusionError::ArrowError(Box::new(error), None))
}

/// Whether the error is the reader's end of a pipe that was closed (`| head`).
pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::BrokenPipe;
        }
        // Arrow's writers keep the io::Error beside their message without offering it as a source.
        if let Some(arrow::error::ArrowError::IoError(_, io)) = error.downcast_ref() {
            return io.kind() == std::io::ErrorKind::BrokenPipe;
        }
        if error.to_string().to_lowercase().contains("broken pipe") {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
