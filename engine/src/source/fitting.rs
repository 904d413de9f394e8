//! Whether rows that are about to be written fit the table of files that is there: same format, same partition columns, and
//! types that a reader of all files can bring together. Asked before anything is written, and once more when another
//! commit was first. What a reader can merge is allowed: new columns, columns left out, wider types. Everything else would
//! cost all readers the whole table.
//!
//! The manifest says the columns of a table that only this program wrote; else the files are asked, one of each writer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::listing::ListingOptions;
use datafusion::execution::context::SessionState;
use storage::manifest::Columns;
use storage::{Base, FoundFile, Location, Stores};

use super::format::{Compression, Format};
use super::schema::wider;
use super::{Planned, TableSource, infer_schema, naming, open, partition};
use crate::error::{Error, Result};
use crate::sink::partition::written_schema;

/// Rows that are about to be written, as readers will see them.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// All columns of the rows.
    pub(crate) schema: SchemaRef,
    pub(crate) partition_by: Vec<String>,
    pub(crate) format: Format,
    pub(crate) compression: Option<Compression>,
    /// How files of the format are read.
    pub(crate) options: HashMap<String, String>,
}

/// The table that is there.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) state: SessionState,
    pub(crate) stores: Stores,
    pub(crate) location: Location,
}

impl Place {
    /// The columns of the table together with those that arrive. Files in the directories `replaced` (relative to the table)
    /// do not count: they go.
    ///
    /// # Errors
    /// What does not fit, in one sentence.
    pub(crate) async fn admit(
        &self,
        arrival: &Arrival,
        base: Option<Base>,
        replaced: &HashSet<String>,
    ) -> Result<Columns> {
        let ours = arrival.columns();
        let files = match storage::expand(&self.stores, &self.location.as_directory()).await {
            Err(storage::Error::NotFound { .. }) => return Ok(said(&ours)),
            found => found?,
        };
        let stays = |file: &FoundFile| !replaced.contains(&self.directory(file)) && file.size > 0;
        let files: Vec<FoundFile> = files.into_iter().filter(stays).collect();
        let known: Vec<FoundFile> =
            files.iter().filter(|file| format_of(file) == Some(arrival.format)).cloned().collect();
        let Some(first) = known.first() else {
            return match files.iter().find_map(format_of) {
                Some(other) => Err(Error::invalid(format!(
                    "its files are {}, and {} is to be written: they cannot be read together",
                    other.name(),
                    arrival.format.name()
                ))),
                None => Ok(said(&ours)),
            };
        };
        self.same_compression(first, arrival)?;
        self.same_partitions(&known, arrival)?;
        let (theirs, told) = match base.and_then(|base| base.columns).and_then(|columns| understood(&columns)) {
            Some(columns) => (columns, true),
            None => {
                let theirs = self.columns(arrival, known).await?;
                // Files with other headers are read apart, and types that a reader found must fit together then.
                let is_told = !arrival.format.is_csv() || names(&theirs) != names(&ours);
                (theirs, is_told)
            }
        };
        let is_headless = arrival.is_headless();
        if is_headless && theirs.fields().len() != ours.fields().len() {
            let (expected, got) = (theirs.fields().len(), ours.fields().len());
            return Err(Error::invalid(format!(
                "the table has {expected} columns and {got} are to be written, without a header that names them"
            )));
        }
        together(&theirs, &ours, arrival.format, told).map(|columns| said(&columns))
    }

    /// Whether the directories are those of the same columns, which does not depend on the rows.
    pub(crate) async fn admit_partitions(&self, arrival: &Arrival) -> Result<()> {
        match storage::expand(&self.stores, &self.location.as_directory()).await {
            Err(storage::Error::NotFound { .. }) => Ok(()),
            found => {
                let known: Vec<FoundFile> =
                    found?.into_iter().filter(|file| format_of(file) == Some(arrival.format)).collect();
                if known.is_empty() { Ok(()) } else { self.same_partitions(&known, arrival) }
            }
        }
    }

    fn directory(&self, file: &FoundFile) -> String {
        let base = self.location.as_directory();
        let below = file.location.path().as_ref().strip_prefix(base.path().as_ref()).unwrap_or_default();
        below.trim_start_matches('/').rsplit_once('/').map_or("", |(directory, _)| directory).to_string()
    }

    fn same_compression(&self, first: &FoundFile, arrival: &Arrival) -> Result<()> {
        let compression = Compression::strip(first.location.file_name().unwrap_or_default()).1;
        if compression == arrival.compression {
            return Ok(());
        }
        let name = |compression: Option<Compression>| {
            compression.map_or("not compressed".to_string(), |compression| {
                format!("compressed with {}", compression.engine_name())
            })
        };
        Err(Error::invalid(format!(
            "its files are {}, and what is to be written is {}: they cannot be read together",
            name(compression),
            name(arrival.compression)
        )))
    }

    fn same_partitions(&self, files: &[FoundFile], arrival: &Arrival) -> Result<()> {
        let known = partition::infer(&self.location.as_directory(), files)?;
        let known: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        if known == arrival.partition_by {
            return Ok(());
        }
        let list = |names: String| if names.is_empty() { "nothing".to_string() } else { names };
        Err(Error::invalid(format!(
            "the table is partitioned by {}, not by {}",
            list(known.join(", ")),
            list(arrival.partition_by.join(", "))
        )))
    }

    /// The columns of the table's files, as a reader finds them.
    async fn columns(&self, arrival: &Arrival, files: Vec<FoundFile>) -> Result<Schema> {
        if !arrival.format.describes_itself() {
            let planned = Planned::default();
            let source = TableSource {
                locations: vec![self.location.as_directory()],
                format: Some(arrival.format),
                options: arrival.options.clone(),
                ..TableSource::default()
            };
            let table = open(&self.state, &self.stores, &planned, source).await?;
            return Ok(Schema::clone(&written_schema(&table.schema(), &arrival.partition_by)));
        }
        let place = self.location.to_string();
        let of_writers = one_of_each_writer(files);
        let references: Vec<&FoundFile> = of_writers.iter().collect();
        let (compression, extension) = naming(arrival.format, &HashMap::new(), &references, &place)?;
        let reader = arrival.format.reader(&self.state, &HashMap::new(), compression)?;
        let options = ListingOptions::new(reader).with_file_extension(extension);
        let found = [(self.location.clone(), of_writers)];
        let schema = infer_schema(&self.state, &options, arrival.format, &found, &place).await?;
        Ok(Schema::clone(&schema))
    }
}

impl Arrival {
    /// The columns that files get. Without a header their names are lost.
    fn columns(&self) -> Schema {
        let written = written_schema(&self.schema, &self.partition_by);
        if !self.is_headless() {
            return Schema::clone(&written);
        }
        let fields = written.fields().iter().enumerate();
        Schema::new(
            fields
                .map(|(at, field)| field.as_ref().clone().with_name(format!("column_{}", at + 1)))
                .collect::<Vec<_>>(),
        )
    }

    /// The same, as the manifest has them.
    pub(crate) fn said(&self) -> Columns {
        said(&self.columns())
    }

    fn is_headless(&self) -> bool {
        self.options.get("has_header").is_some_and(|header| header.eq_ignore_ascii_case("false"))
    }
}

fn format_of(file: &FoundFile) -> Option<Format> {
    Format::of_name(Compression::strip(file.location.file_name()?).0)
}

/// Files of one commit have the same columns. What somebody else wrote is looked at whole.
fn one_of_each_writer(files: Vec<FoundFile>) -> Vec<FoundFile> {
    let mut seen = HashSet::new();
    files
        .into_iter()
        .filter(|file| file.location.file_name().and_then(writer).is_none_or(|id| seen.insert(id)))
        .collect()
}

/// The commit of `part-00000-<commit>-<try>.parquet`.
fn writer(name: &str) -> Option<String> {
    let rest = name.strip_prefix("part-")?;
    let (number, rest) = rest.split_once('-')?;
    let (id, _) = rest.rsplit_once('-')?;
    (number.len() >= 5 && number.bytes().all(|digit| digit.is_ascii_digit()) && id.len() >= 16).then(|| id.to_string())
}

/// Columns as the manifest has them.
fn said(schema: &Schema) -> Columns {
    schema.fields().iter().map(|field| (field.name().clone(), plain(field.data_type()).to_string())).collect()
}

/// `None` when a newer version spells a type that this one does not know.
fn understood(columns: &Columns) -> Option<Schema> {
    let field = |(name, kind): &(String, String)| Some(Field::new(name, kind.parse().ok()?, true));
    Some(Schema::new(columns.iter().map(field).collect::<Option<Vec<_>>>()?))
}

/// Texts and bytes are the same however they lie in memory.
fn plain(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

/// The columns of both. `told` says that the table's types were told by who wrote it: those that a reader finds in texts may
/// be others, because a column of texts may have had nothing but numbers so far.
fn together(theirs: &Schema, ours: &Schema, format: Format, told: bool) -> Result<Schema> {
    let mut columns: Vec<Arc<Field>> = theirs.fields().iter().cloned().collect();
    let mut has_common = theirs.fields().is_empty() || ours.fields().is_empty();
    for field in ours.fields() {
        let Some(known) = columns.iter_mut().find(|known| known.name() == field.name()) else {
            columns.push(Arc::clone(field));
            continue;
        };
        has_common = true;
        let (expected, got) = (plain(known.data_type()), plain(field.data_type()));
        let merged = match () {
            () if format.describes_itself() => wider(&expected, &got),
            () if !told && kind(&got) == Kind::Text => Some(got.clone()),
            () => as_text(&expected, &got),
        };
        let Some(merged) = merged else {
            return Err(Error::invalid(format!(
                "column `{}`: is {expected} in the table and {got} in what is to be written",
                field.name()
            )));
        };
        *known = Arc::new(Field::new(field.name(), merged, true));
    }
    if !has_common {
        let names =
            |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(format!(
            "no column is in the table and in what is to be written: the table has {}, the rows have {}",
            names(theirs),
            names(ours)
        )));
    }
    Ok(Schema::new(columns))
}

fn names(schema: &Schema) -> String {
    schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// What values are in files that only hold texts: a reader tells the type from all of them.
#[derive(PartialEq, Eq)]
enum Kind {
    Nothing,
    Number,
    Truth,
    Time,
    Text,
    Nested,
}

fn kind(of: &DataType) -> Kind {
    match of {
        DataType::Null => Kind::Nothing,
        DataType::Boolean => Kind::Truth,
        DataType::Dictionary(_, value) => kind(value),
        numeric if numeric.is_numeric() => Kind::Number,
        nested if nested.is_nested() => Kind::Nested,
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => Kind::Time,
        _ => Kind::Text,
    }
}

/// The type of a column of a text format that has values of both: a text may hold whatever can be written as one.
fn as_text(theirs: &DataType, ours: &DataType) -> Option<DataType> {
    match (kind(theirs), kind(ours)) {
        (Kind::Nothing, _) => Some(ours.clone()),
        (_, Kind::Nothing) => Some(theirs.clone()),
        (Kind::Nested, Kind::Nested) => Some(wider(theirs, ours).unwrap_or_else(|| theirs.clone())),
        (Kind::Text, Kind::Nested) => None,
        (Kind::Text, _) => Some(theirs.clone()),
        (a, b) if a == b => Some(wider(theirs, ours).unwrap_or_else(|| theirs.clone())),
        _ => None,
    }
}
