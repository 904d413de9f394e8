//! How rows become the bytes of a file: the options of COPY, read once, and made into something that opens writers.

use std::collections::{BTreeMap, HashMap};

use arrow::csv::WriterBuilder;
use arrow::datatypes::{DataType, Schema};
use arrow::ipc::CompressionType as IpcCompression;
use datafusion::common::config::{ConfigFileType, TableOptions, TableParquetOptions};
use datafusion::common::file_options::csv_writer::CsvWriterOptions;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mistake::sentence;
use crate::options::{Options, parse_bytes};
use crate::source::format::{Compression, Format};

/// Keys of COPY's OPTIONS that are the sink's own and not the format's.
const TARGET_FILE_SIZE: &str = "target_file_size";

/// A format with its options.
#[derive(Debug, Clone)]
pub(crate) enum Encoding {
    Parquet(Box<TableParquetOptions>),
    /// Comma- or tab-separated text.
    Csv {
        writer: WriterBuilder,
        header: bool,
        compression: Option<Compression>,
        level: Option<u32>,
        tabs: bool,
    },
    /// One JSON object a line.
    Json {
        compression: Option<Compression>,
        level: Option<u32>,
    },
    /// Arrow IPC file.
    Arrow {
        compression: Option<IpcCompression>,
    },
}

/// An encoding as text: what a task in another process makes the same encoding from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenEncoding {
    format: String,
    /// The format's own keys, without `format.`.
    options: BTreeMap<String, String>,
    /// The compression that a single file's name tells.
    by_name: Option<String>,
}

/// What OPTIONS say: the encoding, and at which size another file is begun.
#[derive(Debug, Clone)]
pub(crate) struct FileOptions {
    pub(crate) encoding: Encoding,
    pub(crate) written: WrittenEncoding,
    pub(crate) target_file_size: u64,
}

impl FileOptions {
    /// Reads OPTIONS; `by_name` is the compression that a single file's name tells.
    ///
    /// # Errors
    /// An option that the format does not have, a value that is wrong.
    pub(crate) fn parse(
        defaults: &TableOptions,
        session: &Options,
        format: Format,
        options: &HashMap<String, String>,
        by_name: Option<Compression>,
    ) -> Result<Self> {
        let mut target_file_size = session.target_file_size;
        let mut rest = BTreeMap::new();
        for (key, value) in options {
            if key == TARGET_FILE_SIZE {
                let wrong = |reason| Error::invalid(format!("{TARGET_FILE_SIZE}: {reason}"));
                target_file_size = parse_bytes(value).map_err(wrong)?.max(1);
            } else {
                rest.insert(format.option_key(key)?, value.clone());
            }
        }
        if let (Format::Parquet, Some(compression)) = (format, &session.compression) {
            rest.entry("compression".to_string()).or_insert_with(|| compression.clone());
        }
        let by_name = by_name.map(|compression| compression.engine_name().to_string());
        let written = WrittenEncoding { format: format.name().to_string(), options: rest, by_name };
        Ok(FileOptions { encoding: written.read(defaults)?, written, target_file_size })
    }
}

/// Keys of options that say how text is read as well as how it is written.
const READERS_KEYS: &[&str] =
    &["has_header", "delimiter", "quote", "escape", "double_quote", "terminator", "newlines_in_values"];

impl FileOptions {
    /// The format of the files.
    pub(crate) fn format(&self) -> Result<Format> {
        Format::parse(&self.written.format)
    }

    /// The options under which a reader understands the files.
    pub(crate) fn for_readers(&self) -> HashMap<String, String> {
        let said = self.written.options.iter().filter(|(key, _)| READERS_KEYS.contains(&key.as_str()));
        said.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl WrittenEncoding {
    /// Makes the encoding; `defaults` are those of the session.
    ///
    /// # Errors
    /// An option that the format does not have, a value that is wrong.
    pub(crate) fn read(&self, defaults: &TableOptions) -> Result<Encoding> {
        let format = Format::parse(&self.format)?;
        let options = self.options.clone();
        let by_name = self.by_name.as_deref().map_or(Ok(None), Compression::parse)?;
        match format {
            Format::Parquet => parquet(defaults, options),
            Format::Csv | Format::Tsv => csv(defaults, format, options, by_name),
            Format::Json => json(options, by_name),
            Format::Arrow => Ok(Encoding::Arrow { compression: Some(IpcCompression::LZ4_FRAME) }),
            Format::Avro => Err(Error::invalid("COPY does not write AVRO; it writes PARQUET, CSV, JSON and ARROW")),
        }
    }
}

fn parquet(defaults: &TableOptions, mut options: BTreeMap<String, String>) -> Result<Encoding> {
    for (key, value) in &mut options {
        if key.starts_with("compression") {
            *value = parquet_compression(value);
        }
    }
    let table = table_options(defaults, Format::Parquet, ConfigFileType::PARQUET, &options)?;
    let encoding = Encoding::Parquet(Box::new(table.parquet));
    // Values such as an unknown compression are found only when the writer is made: better now than in a task.
    super::writer::check(&encoding)?;
    Ok(encoding)
}

/// The query engine wants a level with some compressions; people do not.
fn parquet_compression(name: &str) -> String {
    match name.to_lowercase().as_str() {
        "none" => "uncompressed".to_string(),
        "zstd" => "zstd(3)".to_string(),
        "gzip" => "gzip(6)".to_string(),
        "brotli" => "brotli(5)".to_string(),
        "lz4" => "lz4_raw".to_string(),
        other => other.to_string(),
    }
}

fn csv(
    defaults: &TableOptions,
    format: Format,
    options: BTreeMap<String, String>,
    by_name: Option<Compression>,
) -> Result<Encoding> {
    let mut rest = options;
    let compression = compression(&mut rest, by_name)?;
    let level = level(&mut rest)?;
    if format == Format::Tsv {
        rest.entry("delimiter".to_string()).or_insert_with(|| "\t".to_string());
    }
    if let Some(delimiter) = rest.get_mut("delimiter")
        && matches!(delimiter.to_lowercase().as_str(), "\\t" | "tab")
    {
        *delimiter = "\t".to_string();
    }
    let table = table_options(defaults, format, ConfigFileType::CSV, &rest)?;
    let header = table.csv.has_header.unwrap_or(true);
    let writer = CsvWriterOptions::try_from(&table.csv)
        .map_err(|error| Error::invalid(sentence(&error.strip_backtrace())))?
        .writer_options;
    Ok(Encoding::Csv { writer, header, compression, level, tabs: format == Format::Tsv })
}

fn json(options: BTreeMap<String, String>, by_name: Option<Compression>) -> Result<Encoding> {
    let mut rest = options;
    let compression = compression(&mut rest, by_name)?;
    let level = level(&mut rest)?;
    match rest.keys().next() {
        None => Ok(Encoding::Json { compression, level }),
        Some(key) => Err(Error::invalid(format!("`{key}` is an option for reading JSON, not for writing it"))),
    }
}

fn compression(options: &mut BTreeMap<String, String>, by_name: Option<Compression>) -> Result<Option<Compression>> {
    match options.remove("compression") {
        Some(name) => Compression::parse(&name),
        None => Ok(by_name),
    }
}

fn level(options: &mut BTreeMap<String, String>) -> Result<Option<u32>> {
    let Some(text) = options.remove("compression_level") else { return Ok(None) };
    let level =
        text.parse().map_err(|_| Error::invalid(format!("compression_level: expected a number, got `{text}`")))?;
    Ok(Some(level))
}

fn table_options(
    defaults: &TableOptions,
    format: Format,
    kind: ConfigFileType,
    options: &BTreeMap<String, String>,
) -> Result<TableOptions> {
    let mut table = defaults.clone();
    table.set_config_format(kind);
    for (key, value) in options {
        table.set(&format!("format.{key}"), value).map_err(|error| {
            Error::invalid(format!("OPTIONS of {}: {key}: {}", format.name(), sentence(&error.strip_backtrace())))
        })?;
    }
    Ok(table)
}

impl Encoding {
    /// How whole files are compressed.
    pub(crate) fn compression(&self) -> Option<Compression> {
        match self {
            Encoding::Csv { compression, .. } | Encoding::Json { compression, .. } => *compression,
            Encoding::Parquet(_) | Encoding::Arrow { .. } => None,
        }
    }

    /// The ending of its files, such as `csv.gz`.
    pub(crate) fn ending(&self) -> String {
        let (format, compression) = match self {
            Encoding::Parquet(_) => (Format::Parquet, None),
            Encoding::Csv { compression, tabs: false, .. } => (Format::Csv, *compression),
            Encoding::Csv { compression, tabs: true, .. } => (Format::Tsv, *compression),
            Encoding::Json { compression, .. } => (Format::Json, *compression),
            Encoding::Arrow { .. } => (Format::Arrow, None),
        };
        match compression {
            Some(compression) => format!("{}.{}", format.ending(), compression.ending()),
            None => format.ending().to_string(),
        }
    }

    /// Whether rows of this schema can be written.
    ///
    /// # Errors
    /// The column that cannot, and what could be done.
    pub(crate) fn accepts(&self, schema: &Schema) -> Result<()> {
        if let Encoding::Parquet(options) = self {
            return super::parquet::accepts(options, schema);
        }
        let Encoding::Csv { .. } = self else { return Ok(()) };
        match schema.fields().iter().find(|field| is_nested(field.data_type())) {
            None => Ok(()),
            Some(field) => {
                Err(Error::invalid(format!("CSV cannot hold column `{}`: it is a {}", field.name(), field.data_type()))
                    .with_hint("write PARQUET, JSON or ARROW, or take its parts in the query"))
            }
        }
    }
}

fn is_nested(kind: &DataType) -> bool {
    kind.is_nested() || matches!(kind, DataType::Dictionary(_, value) if value.is_nested())
}
