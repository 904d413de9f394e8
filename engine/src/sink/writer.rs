//! One file being written, in any format, straight into an object store.

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::{FileWriter as IpcWriter, IpcWriteOptions};
use arrow::json::LineDelimitedWriter;
use datafusion::common::config::TableParquetOptions;
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::error::Result;
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterPropertiesBuilder;
use storage::Hashing;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::encoding::Encoding;
use crate::dictionaries::{unpacked, unpacked_schema};
use crate::error::Error;
use crate::fault;
use crate::map_keys;
use crate::mistake::sentence;
use crate::source::format::Compression;

/// Text and IPC bytes that are gathered before they go to the store, at most.
const CHUNK: usize = 1 << 20;

/// An open file.
pub(super) enum FileWriter {
    Parquet { writer: Box<AsyncArrowWriter<BufWriter>>, part: usize },
    Csv { encoder: WriterBuilder, header: bool, out: Out },
    Json { out: Out },
    Arrow { encoder: Box<IpcWriter<Vec<u8>>>, plain: SchemaRef, out: Out },
}

impl FileWriter {
    /// `store` gathers `part` bytes before it sends them on. The bytes of an Arrow file are hashed on their way when it is
    /// `sealed`.
    pub(super) fn open(
        encoding: &Encoding,
        schema: &SchemaRef,
        store: BufWriter,
        part: usize,
        sealed: bool,
    ) -> Result<Self> {
        Ok(match encoding {
            Encoding::Parquet(options) => {
                let properties = parquet_properties(options)?.build();
                let options = ArrowWriterOptions::new()
                    .with_properties(properties)
                    .with_skip_arrow_metadata(options.global.skip_arrow_metadata);
                let writer = AsyncArrowWriter::try_new_with_options(store, SchemaRef::clone(schema), options)?;
                FileWriter::Parquet { writer: Box::new(writer), part }
            }
            Encoding::Csv { writer, header, compression, level, .. } => FileWriter::Csv {
                encoder: writer.clone(),
                header: *header,
                out: Out::new(store, *compression, *level, part)?,
            },
            Encoding::Json { compression, level } => {
                FileWriter::Json { out: Out::new(store, *compression, *level, part)? }
            }
            Encoding::Arrow { compression } => {
                let options = IpcWriteOptions::default().try_with_compression(*compression)?;
                let plain = unpacked_schema(schema);
                let encoder = IpcWriter::try_new_with_options(Vec::new(), &plain, options)?;
                let mut out = Out::new(store, None, None, part)?;
                out.hashing = sealed.then(Hashing::default);
                FileWriter::Arrow { encoder: Box::new(encoder), plain, out }
            }
        })
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            FileWriter::Parquet { writer, .. } => writer.write(batch).await?,
            FileWriter::Csv { encoder, header, out } => {
                // Only the first batch brings the header.
                let with_header = std::mem::take(header);
                encoder.clone().with_header(with_header).build(&mut out.buffer).write(batch)?;
                out.send_chunk().await?;
            }
            FileWriter::Json { out } => {
                let mut encoder = LineDelimitedWriter::new(&mut out.buffer);
                encoder.write(&map_keys::as_text(batch.clone())?)?;
                encoder.finish()?;
                out.send_chunk().await?;
            }
            FileWriter::Arrow { encoder, plain, out } => {
                encoder.write(&unpacked(batch, plain)?)?;
                out.buffer.append(encoder.get_mut());
                out.send_chunk().await?;
            }
        }
        Ok(())
    }

    /// Bytes so far, those still held in memory included. Compressed text counts as before compression.
    pub(super) fn size(&self) -> u64 {
        match self {
            FileWriter::Parquet { writer, .. } => (writer.bytes_written() + writer.in_progress_size()) as u64,
            FileWriter::Csv { out, .. } | FileWriter::Json { out } | FileWriter::Arrow { out, .. } => out.size(),
        }
    }

    /// Bytes held in memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            // What was written last waits until it fills a request to the store.
            FileWriter::Parquet { writer, part } => writer.memory_size() + writer.bytes_written() % part,
            _ => self.encoded(),
        }
    }

    /// Bytes that [`FileWriter::flush`] can send on.
    pub(super) fn encoded(&self) -> usize {
        match self {
            FileWriter::Parquet { writer, .. } => writer.memory_size(),
            FileWriter::Csv { out, .. } | FileWriter::Json { out } | FileWriter::Arrow { out, .. } => {
                out.buffer.capacity()
            }
        }
    }

    /// Moves to the store what is held in memory, as far as the format lets it: a Parquet file gets a small row group.
    pub(super) async fn flush(&mut self) -> Result<()> {
        match self {
            FileWriter::Parquet { writer, .. } => writer.flush().await?,
            FileWriter::Csv { out, .. } | FileWriter::Json { out } | FileWriter::Arrow { out, .. } => {
                out.send().await?
            }
        }
        Ok(())
    }

    /// Ends the file; it is in the store when this returns. Gives its size, and its SHA-256 when it is sealed.
    pub(super) async fn finish(self, schema: &SchemaRef) -> Result<(u64, Option<String>)> {
        match self {
            FileWriter::Parquet { mut writer, .. } => {
                writer.finish().await?;
                Ok((writer.bytes_written() as u64, None))
            }
            FileWriter::Csv { encoder, header, mut out } => {
                if header {
                    let empty = RecordBatch::new_empty(SchemaRef::clone(schema));
                    encoder.with_header(true).build(&mut out.buffer).write(&empty)?;
                }
                out.finish().await
            }
            FileWriter::Json { out } => out.finish().await,
            FileWriter::Arrow { mut encoder, mut out, .. } => {
                encoder.finish()?;
                out.buffer.append(encoder.get_mut());
                out.finish().await
            }
        }
    }
}

/// The writer's properties; the Arrow schema, which the query engine would want among them, is added by the writer.
fn parquet_properties(options: &TableParquetOptions) -> Result<WriterPropertiesBuilder> {
    let mut options = options.clone();
    options.global.skip_arrow_metadata = true;
    WriterPropertiesBuilder::try_from(&options)
}

/// Finds values that no Parquet writer takes.
pub(super) fn check(encoding: &Encoding) -> crate::Result<()> {
    let Encoding::Parquet(options) = encoding else { return Ok(()) };
    super::parquet::check(options)?;
    // The builder panics at values that it does not take.
    fault::caught(|| Ok(parquet_properties(options)?.build())).map(drop).map_err(|error| {
        let reason = match error {
            Error::Fault(text) => text,
            Error::Query(error) => sentence(&error.strip_backtrace()),
            other => other.to_string(),
        };
        Error::invalid(format!("OPTIONS of PARQUET: {reason}"))
    })
}

/// Bytes on their way to the store.
pub(super) struct Out {
    buffer: Vec<u8>,
    /// Bytes to gather.
    chunk: usize,
    sent: u64,
    /// Of what was sent.
    hashing: Option<Hashing>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Out {
    fn new(store: BufWriter, compression: Option<Compression>, level: Option<u32>, part: usize) -> Result<Self> {
        let variant = match compression {
            None => CompressionTypeVariant::UNCOMPRESSED,
            Some(Compression::Gzip) => CompressionTypeVariant::GZIP,
            Some(Compression::Bzip2) => CompressionTypeVariant::BZIP2,
            Some(Compression::Xz) => CompressionTypeVariant::XZ,
            Some(Compression::Zstd) => CompressionTypeVariant::ZSTD,
        };
        let writer = FileCompressionType::from(variant).convert_async_writer_with_level(store, level)?;
        Ok(Out { buffer: Vec::new(), chunk: CHUNK.min(part), sent: 0, hashing: None, writer })
    }

    fn size(&self) -> u64 {
        self.sent + self.buffer.len() as u64
    }

    async fn send_chunk(&mut self) -> Result<()> {
        if self.buffer.len() >= self.chunk { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<()> {
        self.writer.write_all(&self.buffer).await?;
        self.sent += self.buffer.len() as u64;
        if let Some(hashing) = &mut self.hashing {
            hashing.add(&self.buffer);
        }
        self.buffer.clear();
        Ok(())
    }

    async fn finish(mut self) -> Result<(u64, Option<String>)> {
        self.send().await?;
        self.writer.shutdown().await?;
        Ok((self.sent, self.hashing.map(Hashing::finish)))
    }
}
