//! When reading fails the query engine often does not say in which file, let alone in which row. Here the files are
//! asked one by one; it costs another look at them, but only when a job is failing anyway.

use std::io::{BufRead, Read};
use std::sync::Arc;

use arrow::csv::ReaderBuilder;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::CsvOptions;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use object_store::{GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use storage::Location;

use crate::error::Error;
use crate::fault;
use crate::mistake::sentence;

/// How an Arrow file begins and ends; one of streams does neither.
const ARROW_FILE: &[u8] = b"ARROW1";

/// The columns of files. Of a damaged file some readers make a panic, which is an error like any other here; and an Arrow
/// file without its end would be taken for a stream, whose first letters for a length.
///
/// # Errors
/// A file that cannot be read.
pub(super) async fn columns(
    state: &SessionState,
    format: &Arc<dyn FileFormat>,
    store: &Arc<dyn ObjectStore>,
    objects: &[ObjectMeta],
) -> Result<SchemaRef, DataFusionError> {
    if format.is::<ArrowFormat>() {
        for object in objects {
            is_whole(store, object).await?;
        }
    }
    let look = async { Ok(format.infer_schema(state as &dyn CatalogSession, store, objects).await?) };
    fault::kept(look).await.map_err(|error| match error {
        Error::Query(error) => error,
        Error::Fault(text) => DataFusionError::Execution(format!("the file is damaged: {text}")),
        other => DataFusionError::External(Box::new(other)),
    })
}

async fn is_whole(store: &Arc<dyn ObjectStore>, object: &ObjectMeta) -> Result<(), DataFusionError> {
    let mark = ARROW_FILE.len() as u64;
    if object.size < mark || store.get_range(&object.location, 0..mark).await? != ARROW_FILE {
        return Ok(());
    }
    match store.get_range(&object.location, object.size - mark..object.size).await? == ARROW_FILE {
        true => Ok(()),
        false => Err(DataFusionError::Execution("the end of the file is missing".to_string())),
    }
}

/// The error of the first file whose columns cannot be found, with its name; the given error when each file alone can
/// be read (then they do not fit together).
pub(crate) async fn which_file(
    state: &SessionState,
    format: &Arc<dyn FileFormat>,
    store: &Arc<dyn ObjectStore>,
    place: &Location,
    objects: &[ObjectMeta],
    error: DataFusionError,
) -> Error {
    if let Some(said) = Error::of_storage(&error) {
        return said;
    }
    for object in objects {
        let alone = std::slice::from_ref(object);
        if let Err(error) = columns(state, format, store, alone).await {
            if let Some(said) = Error::of_storage(&error) {
                return said;
            }
            let own = unreadable(format, store, object, &error.find_root().strip_backtrace()).await;
            return Error::invalid(format!("{}: {own}", place.sibling(&object.location)));
        }
    }
    Error::invalid(format!("the files do not fit together: {}", sentence(&error.strip_backtrace())))
}

/// Why the columns of one file cannot be found: the row, where there is one to blame.
async fn unreadable(
    format: &Arc<dyn FileFormat>,
    store: &Arc<dyn ObjectStore>,
    object: &ObjectMeta,
    message: &str,
) -> String {
    if let Some(csv) = format.downcast_ref::<CsvFormat>()
        && let Some(fault) = uneven_row(message, csv.options().has_header.unwrap_or(true))
    {
        return fault;
    }
    if let Some(json) = format.downcast_ref::<JsonFormat>()
        && json.options().newline_delimited
        && let Ok(read) = open(store, object, FileCompressionType::from(json.options().compression)).await
        && let Some(fault) = bad_json_line(read)
    {
        return fault;
    }
    format!("not readable as {}: {}", kind(format.as_ref()), sentence(message))
}

fn kind(format: &dyn FileFormat) -> String {
    format.get_ext().trim_start_matches('.').to_uppercase()
}

/// What is wrong in the files that `plan` reads, when the error may come from them; `None` when they are all fine.
pub(crate) async fn scan(state: &SessionState, plan: &LogicalPlan, error: &DataFusionError) -> Option<Error> {
    if let Some(replaced @ Error::Replaced(_)) = Error::of_storage(error) {
        return Some(replaced);
    }
    if !may_come_from_files(error.find_root()) {
        return None;
    }
    let mut tables = Vec::new();
    collect_tables(plan, &mut tables);
    for table in &tables {
        if let Some(found) = look_into(state, table).await {
            return Some(found);
        }
    }
    None
}

fn may_come_from_files(root: &DataFusionError) -> bool {
    match root {
        DataFusionError::ParquetError(_) => true,
        DataFusionError::ArrowError(error, _) => !matches!(
            **error,
            ArrowError::DivideByZero | ArrowError::ArithmeticOverflow(_) | ArrowError::MemoryError(_)
        ),
        DataFusionError::External(source) => {
            let is_fault = matches!(source.downcast_ref::<Error>(), Some(Error::Fault(_)));
            is_fault || source.is::<parquet::errors::ParquetError>() || source.is::<ArrowError>()
        }
        DataFusionError::ExecutionJoin(error) => error.is_panic(),
        _ => false,
    }
}

struct Table {
    provider: Arc<dyn TableProvider>,
    /// The types that a view over text makes, when there is one.
    typed: Option<SchemaRef>,
}

impl Table {
    fn files(&self) -> Option<&ListingTable> {
        self.provider.downcast_ref::<ListingTable>()
    }
}

fn collect_tables(plan: &LogicalPlan, tables: &mut Vec<Table>) {
    // The closures never fail, so neither does the walk.
    let _ = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                if let Ok(provider) = source_as_provider(&scan.source) {
                    match provider.get_logical_plan() {
                        Some(view) => collect_tables(&view, tables),
                        None => tables.push(Table { provider, typed: None }),
                    }
                }
            }
            LogicalPlan::Projection(projection) => {
                let before = tables.len();
                if matches!(projection.input.as_ref(), LogicalPlan::TableScan(_)) {
                    collect_tables(&projection.input, tables);
                    for table in &mut tables[before..] {
                        table.typed = Some(Arc::clone(projection.schema.inner()));
                    }
                    return Ok(TreeNodeRecursion::Jump);
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
}

async fn look_into(state: &SessionState, table: &Table) -> Option<Error> {
    let files = table.files()?;
    let format = &files.options().format;
    let first = files.table_paths().first()?;
    let store = state.runtime_env().object_store(first).ok()?;
    let place = Location::parse(first.as_str()).ok()?;
    let listed = files.list_files_for_scan(state, &[], None).await.ok()?;
    let mut objects: Vec<ObjectMeta> =
        listed.file_groups.iter().flat_map(|group| group.files()).map(|file| file.object_meta.clone()).collect();
    objects.sort_by(|a, b| a.location.cmp(&b.location));
    objects.dedup_by(|a, b| a.location == b.location);
    let schema = file_schema(table, files);
    for object in objects {
        let fault = if let Some(csv) = format.downcast_ref::<CsvFormat>() {
            csv_fault(&store, &object, &schema, csv.options()).await
        } else if format.downcast_ref::<ParquetFormat>().is_some() {
            parquet_fault(&store, &object).await
        } else if let Some(json) = format.downcast_ref::<JsonFormat>() {
            json_fault(&store, &object, &schema, FileCompressionType::from(json.options().compression)).await
        } else {
            None
        };
        if let Some(fault) = fault {
            return Some(Error::invalid(format!("{}: {fault}", place.sibling(&object.location))));
        }
    }
    None
}

/// The columns of the files, with the types that the user wanted.
fn file_schema(table: &Table, files: &ListingTable) -> SchemaRef {
    let partitions: Vec<&str> = files.options().table_partition_cols.iter().map(|(name, _)| name.as_str()).collect();
    let schema = table.provider.schema();
    let fields: Vec<_> = (schema.fields().iter())
        .filter(|field| !partitions.contains(&field.name().as_str()))
        .map(|field| {
            let typed = table.typed.as_ref().and_then(|typed| typed.field_with_name(field.name()).ok());
            typed.map_or_else(
                || field.as_ref().clone(),
                |typed| field.as_ref().clone().with_data_type(typed.data_type().clone()),
            )
        })
        .collect();
    Arc::new(Schema::new(fields))
}

async fn open(
    store: &Arc<dyn ObjectStore>,
    object: &ObjectMeta,
    compression: FileCompressionType,
) -> Result<Box<dyn Read + Send>, String> {
    let told = |error: object_store::Error| error.to_string();
    let result = store.get(&object.location).await.map_err(told)?;
    let opened = match result.payload {
        GetResultPayload::File(file, _) => compression.convert_read(file),
        GetResultPayload::Stream(_) => {
            let bytes = store.get(&object.location).await.map_err(told)?.bytes().await.map_err(told)?;
            compression.convert_read(std::io::Cursor::new(bytes))
        }
    };
    opened.map(|read| Box::new(read) as Box<dyn Read + Send>).map_err(|error| error.to_string())
}

async fn csv_fault(
    store: &Arc<dyn ObjectStore>,
    object: &ObjectMeta,
    schema: &SchemaRef,
    options: &CsvOptions,
) -> Option<String> {
    let header = options.has_header.unwrap_or(true);
    let mut builder = ReaderBuilder::new(Arc::clone(schema))
        .with_header(header)
        .with_delimiter(options.delimiter)
        .with_quote(options.quote)
        .with_truncated_rows(options.truncated_rows.unwrap_or(false));
    if let Some(escape) = options.escape {
        builder = builder.with_escape(escape);
    }
    if let Some(comment) = options.comment {
        builder = builder.with_comment(comment);
    }
    if let Some(terminator) = options.terminator {
        builder = builder.with_terminator(terminator);
    }
    if let Some(nulls) = options.null_regex.as_deref().and_then(|pattern| regex::Regex::new(pattern).ok()) {
        builder = builder.with_null_regex(nulls);
    }
    let read = match open(store, object, FileCompressionType::from(options.compression)).await {
        Ok(read) => read,
        Err(message) => return Some(message),
    };
    let mut reader = builder.build(read).ok()?;
    let error = reader.find_map(Result::err)?;
    Some(csv_sentence(&error.to_string(), schema, header))
}

/// The reader's message about a row, in the user's nouns. It counts records from 1 when a row has too few or too many
/// fields, and from 0 when a value cannot be read; the header is a record.
fn csv_sentence(message: &str, schema: &Schema, header: bool) -> String {
    let place = |record: usize| format!("row {} (line {record})", record.saturating_sub(usize::from(header)));
    if let (Some(record), Some(expected)) = (number_after(message, "for line "), number_after(message, "expected ")) {
        let got = match number_after(message, "got ") {
            Some(1) => "1 field".to_string(),
            Some(got) => format!("{got} fields"),
            None => format!("more than {expected} fields"),
        };
        return format!("{}: {got}, expected {expected}", place(record));
    }
    if let (Some(record), Some(column)) = (number_after(message, " at line "), number_after(message, "olumn ")) {
        let place = place(record + 1);
        let name = schema.fields().get(column).map_or("?", |field| field.name().as_str());
        let kind = schema.fields().get(column).map_or(String::new(), |field| sql_name(field.data_type()));
        let value = message.split_once("value '").and_then(|(_, rest)| rest.split_once("' as type"));
        return match value {
            Some((value, _)) => format!("{place}, column `{name}`: `{value}` is no {kind}"),
            None => format!("{place}, column `{name}`: {}", sentence(message)),
        };
    }
    sentence(message)
}

/// What the search for columns says about a row that is shorter or longer than the first; it calls fields records, and
/// counts the header as line 1.
fn uneven_row(message: &str, header: bool) -> Option<String> {
    let at = message.find("unequal lengths")?;
    let message = &message[at..];
    let (expected, got) = (number_after(message, "Expected ")?, number_after(message, "found ")?);
    let line = number_after(message, "at line ")?;
    let fields = if got == 1 { "field" } else { "fields" };
    Some(format!("row {} (line {line}): {got} {fields}, expected {expected}", line.saturating_sub(usize::from(header))))
}

/// The first line that is no JSON.
fn bad_json_line(read: impl Read) -> Option<String> {
    for (number, line) in std::io::BufReader::new(read).lines().enumerate() {
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(format!("line {}: {error}", number + 1)),
        };
        if line.trim().is_empty() {
            continue;
        }
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&line) {
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text);
            return Some(format!("line {}, column {}: no valid JSON: {what}", number + 1, error.column()));
        }
    }
    None
}

fn number_after(message: &str, prefix: &str) -> Option<usize> {
    let rest = &message[message.find(prefix)? + prefix.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A type as SQL calls it.
fn sql_name(kind: &arrow::datatypes::DataType) -> String {
    use arrow::datatypes::DataType;
    match kind {
        DataType::Int64 => "BIGINT".to_string(),
        DataType::Int32 => "INT".to_string(),
        DataType::Int16 => "SMALLINT".to_string(),
        DataType::Float64 => "DOUBLE".to_string(),
        DataType::Float32 => "FLOAT".to_string(),
        DataType::Boolean => "BOOLEAN".to_string(),
        DataType::Date32 => "DATE".to_string(),
        DataType::Timestamp(_, _) => "TIMESTAMP".to_string(),
        other => other.to_string(),
    }
}

async fn parquet_fault(store: &Arc<dyn ObjectStore>, object: &ObjectMeta) -> Option<String> {
    let payload = match store.get(&object.location).await {
        Ok(result) => result.payload,
        Err(error) => return Some(error.to_string()),
    };
    let fault = match payload {
        GetResultPayload::File(file, _) => parquet_rows(file),
        GetResultPayload::Stream(_) => match store.get_range(&object.location, 0..object.size).await {
            Ok(bytes) => parquet_rows(bytes),
            Err(error) => return Some(error.to_string()),
        },
    };
    fault.err().map(|error| format!("not readable as PARQUET: {}", sentence(&error.to_string())))
}

fn parquet_rows<R: ChunkReader + 'static>(file: R) -> Result<(), Error> {
    let told = |error: ArrowError| Error::invalid(error.to_string());
    fault::caught(|| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(ParquetRecordBatchReaderBuilder::build);
        for batch in reader.map_err(|error| told(error.into()))? {
            batch.map_err(told)?;
        }
        Ok(())
    })
    .map_err(|error| match error {
        Error::Fault(text) => Error::invalid(format!("the file is damaged: {text}")),
        error => error,
    })
}

async fn json_fault(
    store: &Arc<dyn ObjectStore>,
    object: &ObjectMeta,
    schema: &SchemaRef,
    compression: FileCompressionType,
) -> Option<String> {
    let read = match open(store, object, compression).await {
        Ok(read) => read,
        Err(message) => return Some(message),
    };
    let mut reader = arrow::json::ReaderBuilder::new(Arc::clone(schema)).build(std::io::BufReader::new(read)).ok()?;
    let error = reader.find_map(Result::err)?;
    Some(format!("not readable as JSON: {}", sentence(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn messages_about_rows() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("d", DataType::Date32, true)]);
        for (message, expected) in [
            (
                "Parser error: Error while parsing value 'x' as type 'Date32' for column 1 at line 4. Row data: '[1,x]'",
                "row 4 (line 5), column `d`: `x` is no DATE",
            ),
            (
                "Csv error: incorrect number of fields for line 3, expected 2 got 1",
                "row 2 (line 3): 1 field, expected 2",
            ),
            (
                "Csv error: incorrect number of fields for line 3, expected 2 got more than 2",
                "row 2 (line 3): more than 2 fields, expected 2",
            ),
        ] {
            assert_eq!(csv_sentence(message, &schema, true), expected);
        }
        let uneven =
            "Encountered unequal lengths between records on CSV file. Expected 3 records, found 2 records at line 3";
        assert_eq!(uneven_row(uneven, true).unwrap(), "row 2 (line 3): 2 fields, expected 3");
        assert_eq!(uneven_row("Csv error: something else", true), None);
    }

    #[test]
    fn lines_that_are_no_json() {
        for (text, expected) in [
            ("{\"a\": 1}\n\n{\"a\": }\n", Some("line 3, column 7: no valid JSON: expected value")),
            ("{\"a\": 1}\n{\"a\"", Some("line 2, column 4: no valid JSON: EOF while parsing an object")),
            ("{\"a\": 1}\n{\"b\": [1, 2]}\n", None),
        ] {
            assert_eq!(bad_json_line(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }
}
