//! File formats by name and by file ending, and their options: the query engine's own keys and the words that people
//! know from elsewhere (`HEADER`, `DELIMITER`, `NULL_VALUE`).

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::datasource::file_format::FileFormat;
use datafusion::execution::context::SessionState;
use storage::{FoundFile, Location};

use crate::error::{Error, Result, near};

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    Parquet,
    Csv,
    /// CSV with tabs.
    Tsv,
    /// One JSON object a line.
    Json,
    /// Arrow IPC, file or stream.
    Arrow,
    Avro,
}

const NAMES: &[(&str, Format)] = &[
    ("parquet", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("json", Format::Json),
    ("jsonl", Format::Json),
    ("ndjson", Format::Json),
    ("arrow", Format::Arrow),
    ("avro", Format::Avro),
];

const ENDINGS: &[(&str, Format)] = &[
    ("parquet", Format::Parquet),
    ("pq", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("json", Format::Json),
    ("jsonl", Format::Json),
    ("ndjson", Format::Json),
    ("arrow", Format::Arrow),
    ("ipc", Format::Arrow),
    ("feather", Format::Arrow),
    ("avro", Format::Avro),
];

/// Words that people use, and the query engine's key for each.
const CSV_WORDS: &[(&str, &str)] = &[
    ("header", "has_header"),
    ("delim", "delimiter"),
    ("sep", "delimiter"),
    ("separator", "delimiter"),
    ("null", "null_value"),
    ("nullstr", "null_value"),
    ("null_string", "null_value"),
    ("na", "null_value"),
    ("multiline", "newlines_in_values"),
    ("sample_size", "schema_infer_max_rec"),
];

/// Options of a Parquet column whose names are not those of the whole file's.
const PARQUET_COLUMN_KEYS: &[&str] = &["bloom_filter_enabled"];

/// Rows that are read to find the columns' types, when the statement does not say: enough that a column of NAs at the
/// beginning of a file is still known for what it is.
const ROWS_TO_INFER: usize = 100_000;

impl Format {
    /// By the name in `STORED AS`.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let lower = name.to_lowercase();
        NAMES.iter().find(|(known, _)| *known == lower).map(|(_, format)| *format).ok_or_else(|| {
            let error = Error::invalid(format!("unknown file format `{name}`"));
            match near(&lower, NAMES.iter().map(|(known, _)| *known).chain(["delta"])) {
                Some(known) => error.with_hint(format!("did you mean {}?", known.to_uppercase())),
                None => error.with_hint("formats are PARQUET, CSV, TSV, JSON, ARROW, AVRO and DELTA"),
            }
        })
    }

    /// By a file's name without the ending of its compression.
    pub(crate) fn of_name(stem: &str) -> Option<Self> {
        let ending = stem.rsplit_once('.')?.1.to_lowercase();
        ENDINGS.iter().find(|(known, _)| *known == ending).map(|(_, format)| *format)
    }

    /// By a place's name, whatever its compression.
    pub(crate) fn of_location(location: &Location) -> Option<Self> {
        Self::of_name(Compression::strip(location.file_name()?).0)
    }

    /// The format that the files' names tell.
    pub(crate) fn of_files(files: &[&FoundFile], places: &str) -> Result<Self> {
        let formats = files.iter().filter_map(|file| Format::of_name(Compression::strip(file.location.file_name()?).0));
        let mut seen: Vec<Format> = Vec::new();
        for format in formats {
            if !seen.contains(&format) {
                seen.push(format);
            }
        }
        match seen.as_slice() {
            [format] => Ok(*format),
            [] => Err(Error::invalid(format!("{places}: the format cannot be told from the file names"))
                .with_hint("say it: CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '...'")),
            several => {
                let names: Vec<&str> = several.iter().map(|format| format.name()).collect();
                Err(Error::invalid(format!("{places}: holds files of several formats: {}", names.join(", ")))
                    .with_hint("name one kind with a glob, such as dir/*.parquet"))
            }
        }
    }

    /// As `STORED AS` spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Parquet => "PARQUET",
            Format::Csv => "CSV",
            Format::Tsv => "TSV",
            Format::Json => "JSON",
            Format::Arrow => "ARROW",
            Format::Avro => "AVRO",
        }
    }

    /// The ending of files of this format.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Json => "jsonl",
            Format::Arrow => "arrow",
            Format::Avro => "avro",
        }
    }

    pub(super) fn is_csv(self) -> bool {
        matches!(self, Format::Csv | Format::Tsv)
    }

    /// Whether each file says which columns it has.
    pub(super) fn describes_itself(self) -> bool {
        matches!(self, Format::Parquet | Format::Arrow | Format::Avro)
    }

    /// The name under which the query engine keeps it.
    fn engine_name(self) -> &'static str {
        match self {
            Format::Tsv => "csv",
            Format::Parquet => "parquet",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Arrow => "arrow",
            Format::Avro => "avro",
        }
    }

    /// A reader of files of this format.
    pub(crate) fn reader(
        self,
        state: &SessionState,
        options: &HashMap<String, String>,
        compression: Option<Compression>,
    ) -> Result<Arc<dyn FileFormat>> {
        let mut engine_options = HashMap::new();
        if self == Format::Tsv {
            engine_options.insert("format.delimiter".to_string(), "\t".to_string());
        }
        for (key, value) in options {
            let key = self.option_key(key)?;
            if key == "null_value" && self.is_csv() {
                engine_options.insert("format.null_regex".to_string(), format!("^({})?$", escape(value)));
            } else if key == "null_regex" && self.is_csv() {
                // An empty field is a NULL whatever else is.
                engine_options.insert("format.null_regex".to_string(), format!("^$|{value}"));
            } else {
                engine_options.insert(format!("format.{key}"), option_value(&key, value));
            }
        }
        if self.is_csv() || self == Format::Json {
            engine_options
                .entry("format.schema_infer_max_rec".to_string())
                .or_insert_with(|| ROWS_TO_INFER.to_string());
            if let Some(compression) = compression {
                engine_options.insert("format.compression".to_string(), compression.engine_name().to_string());
            }
        }
        let factory = state
            .get_file_format_factory(self.engine_name())
            .ok_or_else(|| Error::invalid(format!("{} files cannot be read by this build", self.name())))?;
        factory.create(state, &engine_options).map_err(|error| {
            Error::invalid(format!(
                "OPTIONS of a {} table: {}",
                self.name(),
                crate::mistake::sentence(&error.strip_backtrace())
            ))
        })
    }

    /// The query engine's key for an option as the user spelled it, without `format.`.
    ///
    /// # Errors
    /// A key that this format does not have, with the near one.
    pub(crate) fn option_key(self, written: &str) -> Result<String> {
        let lower = written.to_lowercase();
        let key = lower.strip_prefix("format.").unwrap_or(&lower);
        let words = if self.is_csv() { CSV_WORDS } else { &[] };
        let key = words.iter().find(|(word, _)| *word == key).map_or(key, |(_, key)| key);
        let known = self.option_keys();
        // A Parquet option may be of one column: `compression::name`.
        let (base, is_of_column) = key.split_once("::").map_or((key, false), |(base, _)| (base, true));
        let is_column_option = self == Format::Parquet && is_of_column && PARQUET_COLUMN_KEYS.contains(&base);
        if is_column_option || known.iter().any(|known| known == base) {
            return Ok(key.to_string());
        }
        let error = Error::invalid(format!("{} has no option `{key}`", self.name()));
        Err(match near(key, known.iter().map(String::as_str).chain(words.iter().map(|(word, _)| *word))) {
            Some(known) => error.with_hint(format!("did you mean `{known}`?")),
            None if known.is_empty() => error,
            None => error.with_hint(format!("options are {}", known.join(", "))),
        })
    }

    fn option_keys(self) -> Vec<String> {
        use datafusion::common::config::{ConfigFileType, TableOptions};
        let kind = match self {
            Format::Parquet => ConfigFileType::PARQUET,
            Format::Csv | Format::Tsv => ConfigFileType::CSV,
            Format::Json => ConfigFileType::JSON,
            Format::Arrow | Format::Avro => return Vec::new(),
        };
        let mut options = TableOptions::new();
        options.set_config_format(kind);
        let mut keys: Vec<String> = (options.entries().into_iter())
            .filter_map(|entry| entry.key.strip_prefix("format.").map(str::to_string))
            .collect();
        if self == Format::Parquet {
            keys.push("metadata".to_string());
        }
        keys
    }

    /// The text that means NULL in such files, or the pattern of such texts.
    pub(crate) fn nulls(self, options: &HashMap<String, String>) -> Result<Option<Nulls>> {
        let mut nulls = None;
        for (key, value) in options.iter().filter(|_| self.is_csv()) {
            match self.option_key(key)?.as_str() {
                "null_value" => nulls = Some(Nulls::Text(value.clone())),
                "null_regex" => nulls = Some(Nulls::of_pattern(value)),
                _ => {}
            }
        }
        Ok(nulls)
    }
}

/// Which texts of a CSV file mean NULL, beside the empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nulls {
    Text(String),
    Pattern(String),
}

impl Nulls {
    /// `^NA$` is the text NA.
    fn of_pattern(pattern: &str) -> Self {
        let plain = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$'));
        match plain {
            Some(text) if text.chars().all(|c| c.is_alphanumeric() || " -_/".contains(c)) => {
                Nulls::Text(text.to_string())
            }
            _ => Nulls::Pattern(pattern.to_string()),
        }
    }
}

fn escape(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c])).collect()
}

/// Values that people spell in words.
fn option_value(key: &str, value: &str) -> String {
    match (key, value.to_lowercase().as_str()) {
        ("delimiter", "\\t" | "tab") => "\t".to_string(),
        ("compression", "gz") => "gzip".to_string(),
        ("compression", "zst") => "zstd".to_string(),
        ("compression", "none") => "uncompressed".to_string(),
        _ => value.to_string(),
    }
}

/// How whole files are compressed (text formats; the others compress inside).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

const COMPRESSIONS: &[(&str, Compression)] = &[
    ("gz", Compression::Gzip),
    ("gzip", Compression::Gzip),
    ("bz2", Compression::Bzip2),
    ("bzip2", Compression::Bzip2),
    ("xz", Compression::Xz),
    ("zst", Compression::Zstd),
    ("zstd", Compression::Zstd),
];

impl Compression {
    /// A file's name without the ending of its compression, and that compression.
    pub(crate) fn strip(name: &str) -> (&str, Option<Compression>) {
        let Some((stem, ending)) = name.rsplit_once('.') else { return (name, None) };
        let lower = ending.to_lowercase();
        match COMPRESSIONS.iter().find(|(known, _)| *known == lower) {
            Some((_, compression)) => (stem, Some(*compression)),
            None => (name, None),
        }
    }

    /// By name; `None` for none.
    pub(crate) fn parse(name: &str) -> Result<Option<Compression>> {
        let lower = name.to_lowercase();
        if matches!(lower.as_str(), "none" | "uncompressed" | "") {
            return Ok(None);
        }
        match COMPRESSIONS.iter().find(|(known, _)| *known == lower) {
            Some((_, compression)) => Ok(Some(*compression)),
            None => {
                Err(Error::invalid(format!("unknown compression `{name}`; known are gzip, bzip2, xz, zstd and none")))
            }
        }
    }

    /// As the query engine spells it.
    pub(crate) fn engine_name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
        }
    }

    /// The ending of files.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Compression::Gzip => "gz",
            Compression::Bzip2 => "bz2",
            Compression::Xz => "xz",
            Compression::Zstd => "zst",
        }
    }
}

/// The compression that OPTIONS name.
pub(crate) fn declared_compression(options: &HashMap<String, String>) -> Result<Option<Compression>> {
    for (key, value) in options {
        if matches!(key.to_lowercase().as_str(), "compression" | "format.compression") {
            return Compression::parse(value);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_format_and_compression() {
        for (name, format, compression) in [
            ("a.parquet", Some(Format::Parquet), None),
            ("A.CSV", Some(Format::Csv), None),
            ("a.csv.gz", Some(Format::Csv), Some(Compression::Gzip)),
            ("a.jsonl.zst", Some(Format::Json), Some(Compression::Zstd)),
            ("a.tsv.bz2", Some(Format::Tsv), Some(Compression::Bzip2)),
            ("a.feather", Some(Format::Arrow), None),
            ("README", None, None),
            ("a.gz", None, Some(Compression::Gzip)),
        ] {
            let (stem, found) = Compression::strip(name);
            assert_eq!((Format::of_name(stem), found), (format, compression), "{name}");
        }
    }

    #[test]
    fn options_are_known_by_several_names() {
        for (format, written, expected) in [
            (Format::Csv, "HEADER", Ok("has_header")),
            (Format::Csv, "format.null_regex", Ok("null_regex")),
            (Format::Csv, "sep", Ok("delimiter")),
            (Format::Tsv, "NULL_VALUE", Ok("null_value")),
            (Format::Csv, "delimitr", Err("did you mean `delimiter`?")),
            (Format::Parquet, "pushdown_filters", Ok("pushdown_filters")),
            (Format::Parquet, "header", Err("")),
        ] {
            match (format.option_key(written), expected) {
                (Ok(key), Ok(expected)) => assert_eq!(key, expected, "{written}"),
                (Err(Error::Invalid { hint, .. }), Err(expected)) => {
                    assert!(hint.as_deref().unwrap_or_default().starts_with(expected), "{written}: {hint:?}");
                }
                (got, _) => panic!("{written}: {got:?}"),
            }
        }
    }

    #[test]
    fn patterns_of_one_text_are_that_text() {
        for (pattern, expected) in [
            ("^NA$", Nulls::Text("NA".into())),
            ("^(NA|-)$", Nulls::Pattern("^(NA|-)$".into())),
            ("NA", Nulls::Pattern("NA".into())),
        ] {
            assert_eq!(Nulls::of_pattern(pattern), expected);
        }
    }
}
