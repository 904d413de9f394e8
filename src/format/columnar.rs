//! Arrow IPC and Parquet: the result itself, types and all.

use std::io::Write;

use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::record_batch::RecordBatch;
use engine::dictionaries::{unpacked, unpacked_schema};
use engine::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::{Out, RowWriter, arrow_failed, write_failed};

/// Can be read while it is written: what a pipe needs.
pub(super) struct ArrowStream(StreamWriter<Out>, SchemaRef);

impl ArrowStream {
    pub(super) fn new(schema: &SchemaRef, out: Out) -> Result<Self> {
        let plain = unpacked_schema(schema);
        StreamWriter::try_new(out, &plain).map(|writer| ArrowStream(writer, plain)).map_err(arrow_failed)
    }
}

impl RowWriter for ArrowStream {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(&unpacked(batch, &self.1).map_err(arrow_failed)?).map_err(arrow_failed)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.0.finish().map_err(arrow_failed)?;
        self.0.get_mut().flush().map_err(write_failed)
    }
}

/// Can be read from any place: what a file should offer.
pub(super) struct ArrowFile(FileWriter<Out>, SchemaRef);

impl ArrowFile {
    pub(super) fn new(schema: &SchemaRef, out: Out) -> Result<Self> {
        let plain = unpacked_schema(schema);
        FileWriter::try_new(out, &plain).map(|writer| ArrowFile(writer, plain)).map_err(arrow_failed)
    }
}

impl RowWriter for ArrowFile {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(&unpacked(batch, &self.1).map_err(arrow_failed)?).map_err(arrow_failed)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.0.finish().map_err(arrow_failed)?;
        self.0.get_mut().flush().map_err(write_failed)
    }
}

pub(super) struct ParquetFile(ArrowWriter<Out>);

impl ParquetFile {
    pub(super) fn new(schema: &SchemaRef, out: Out) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties)).map(ParquetFile).map_err(parquet_failed)
    }
}

impl RowWriter for ParquetFile {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(batch).map_err(parquet_failed)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut out = self.0.into_inner().map_err(parquet_failed)?;
        out.flush().map_err(write_failed)
    }
}

fn parquet_failed(error: parquet::errors::ParquetError) -> Error {
    Error::Query(datafusion::error::DataFusionError::ParquetError(Box::new(error)))
}
