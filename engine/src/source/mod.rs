//! Files as tables: `CREATE EXTERNAL TABLE`, `FROM 'file'`, directories, globs and Hive partitions, of every format. What
//! a location holds is asked of storage, which knows commits and hidden names; reading is the query engine's own
//! listing table. Files are listed when a query is planned, so a table shows what was committed until then.

mod accounted;
mod catalog;
pub(crate) mod diagnose;
pub(crate) mod fitting;
pub(crate) mod format;
mod headers;
mod intervals;
mod nulls;
mod partition;
mod planned;
mod registry;
mod schema;
mod told;
mod url_table;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Constraints, DFSchema};
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::logical_expr::{Expr, SortExpr};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use storage::{FoundFile, Location, Stores};

pub(crate) use catalog::FileCatalogs;
pub(crate) use intervals::Unreadable;
pub(crate) use planned::Planned;
pub(crate) use registry::StoreRegistry;
pub(crate) use told::Told;
pub(crate) use url_table::{FileTables, Unopened, looks_like_files};

use crate::delta::{self, DeltaTable};
use crate::error::{Error, Result, near};
use crate::options::Options;
use crate::sink::partition::NULL_DIRECTORY;
use format::{Compression, Format};

/// What to open as a table.
#[derive(Debug, Default)]
pub(crate) struct TableSource {
    pub(crate) locations: Vec<Location>,
    /// Told by the names of the files when absent.
    pub(crate) format: Option<Format>,
    /// A Delta table; directories without a declared format are asked whether they are one.
    pub(crate) delta: bool,
    /// As written in OPTIONS.
    pub(crate) options: HashMap<String, String>,
    /// Declared columns, those of partitions included; inferred when absent.
    pub(crate) columns: Option<SchemaRef>,
    /// Types of some columns, for formats that do not say them; the others are inferred.
    pub(crate) told: Told,
    /// Declared partition columns; inferred from `name=value` directories when empty.
    pub(crate) partition_columns: Vec<String>,
    pub(crate) order: Vec<Vec<SortExpr>>,
    pub(crate) constraints: Constraints,
    /// The statement that made it, for SHOW CREATE TABLE.
    pub(crate) definition: Option<String>,
    /// What INSERT puts into columns that it does not name.
    pub(crate) defaults: HashMap<String, Expr>,
}

impl TableSource {
    /// From a planned `CREATE EXTERNAL TABLE`.
    pub(crate) fn of_statement(statement: &CreateExternalTable, options: &Options) -> Result<Self> {
        let locations: Vec<Location> =
            statement.locations.iter().map(|text| options.place(text)).collect::<Result<_>>()?;
        if let Some(twice) = (1..locations.len()).find(|at| locations[..*at].contains(&locations[*at])) {
            return Err(Error::invalid(format!("LOCATION names {} twice", locations[twice])));
        }
        let delta = delta::is_named(&statement.file_type);
        Ok(TableSource {
            locations,
            format: if delta { None } else { Some(Format::parse(&statement.file_type)?) },
            delta,
            options: statement.options.clone(),
            columns: declared(&statement.schema),
            told: Told::new(),
            partition_columns: statement.table_partition_cols.clone(),
            order: statement.order_exprs.clone(),
            constraints: statement.constraints.clone(),
            definition: statement.definition.clone(),
            defaults: statement.column_defaults.clone(),
        })
    }
}

fn declared(schema: &DFSchema) -> Option<SchemaRef> {
    (!schema.fields().is_empty()).then(|| Arc::clone(schema.inner()))
}

/// Opens a table over files: finds them, settles format, compression, partitions and columns.
///
/// # Errors
/// Nothing there (with the near name), a file that cannot be read as the format (named), options that do not exist.
pub(crate) async fn open(
    state: &SessionState,
    stores: &Stores,
    planned: &Planned,
    source: TableSource,
) -> Result<Arc<dyn TableProvider>> {
    if let Some(columns) = source.locations.iter().find_map(|location| planned.columns(location)) {
        let columns = source.columns.unwrap_or(columns);
        return Ok(Arc::new(MemTable::try_new(columns, vec![Vec::new()])?));
    }
    let (of_stores, options) = for_stores(source.options)?;
    let source = TableSource { options, ..source };
    for location in &source.locations {
        stores.configure(location, of_stores.iter().map(|(key, value)| (key.as_str(), value.as_str())))?;
    }
    if is_delta(stores, &source).await? {
        return Ok(Arc::new(delta_table(stores, &source).await?));
    }
    let mut found = Vec::new();
    for location in &source.locations {
        found.push((location.clone(), files_of(stores, location, source.columns.is_some()).await?));
    }
    let files: Vec<&FoundFile> = found.iter().flat_map(|(_, files)| files).collect();
    let places = places(&source.locations);
    let format = match source.format {
        Some(format) => format,
        None => Format::of_files(&files, &places)?,
    };
    let (compression, extension) = naming(format, &source.options, &files, &places)?;
    let file_format = format.reader(state, &source.options, compression)?;

    let infer = state.config_options().execution.listing_table_factory_infer_partitions;
    let partitions: Vec<(String, DataType)> = partition_columns(&source, &found, infer)?
        .into_iter()
        .map(|(name, kind)| (name.clone(), told::partition(&name, kind, &source.told)))
        .collect();
    // Values that stand for NULL cannot be of another type than text: such columns are read as text and typed above.
    let with_nulls = partition::with_nulls(&files);
    let read_as = |name: &str, kind: &DataType| {
        let is_text = with_nulls.iter().any(|column| column == name);
        (name.to_string(), if is_text { DataType::Utf8 } else { kind.clone() })
    };
    let partitions_read: Vec<(String, DataType)> = partitions.iter().map(|(name, kind)| read_as(name, kind)).collect();
    let urls = urls(&found, &partitions)?;
    let options = ListingOptions::new(Arc::clone(&file_format))
        .with_file_extension(extension)
        .with_table_partition_cols(partitions_read)
        .with_file_sort_order(source.order.clone());
    if source.columns.is_none()
        && let Some(groups) =
            headers::differing(state, &source, format, compression, &found, &options.file_extension).await?
    {
        return headers::union(state, stores, planned, source, format, &options, groups, &partitions).await;
    }
    let schema = match &source.columns {
        Some(columns) => without(columns, &partitions),
        None => {
            let found = infer_schema(state, &options, format, &found, &places).await?;
            told::columns(found, &source.told, format)
        }
    };
    if source.columns.is_none() {
        check_order(&source.order, &schema)?;
    }
    let schema = within_limit(state, schema);
    let texts_for_null = format.nulls(&source.options)?;
    let read = if texts_for_null.is_some() { nulls::as_text(&schema) } else { Arc::clone(&schema) };
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(read);
    let table = ListingTable::try_new(config)?
        .with_constraints(source.constraints)
        .with_definition(source.definition)
        .with_column_defaults(source.defaults)
        .with_cache(state.runtime_env().cache_manager.get_file_statistic_cache());
    let mut table: Arc<dyn TableProvider> = Arc::new(table);
    if let Some(texts) = texts_for_null {
        table = nulls::view(table, &schema, &texts)?;
    }
    let null_partitions: Vec<&(String, DataType)> =
        partitions.iter().filter(|(name, _)| with_nulls.contains(name)).collect();
    if !null_partitions.is_empty() {
        let fields: Vec<Field> =
            null_partitions.iter().map(|(name, kind)| Field::new(name, kind.clone(), true)).collect();
        let directory = format::Nulls::Text(NULL_DIRECTORY.to_string());
        table = nulls::view(table, &Arc::new(Schema::new(fields)), &directory)?;
    }
    Ok(told::written_out(table, &source.told, format)?)
}

/// Takes those OPTIONS out that say how a store is asked.
///
/// # Errors
/// A key that begins like one of a store and is none.
pub(crate) fn for_stores(
    options: HashMap<String, String>,
) -> Result<(HashMap<String, String>, HashMap<String, String>)> {
    for key in options.keys() {
        if let Some(Err(reason)) = storage::store_option(key) {
            return Err(Error::invalid(format!("OPTIONS: {reason}")));
        }
    }
    Ok(options.into_iter().partition(|(key, _)| storage::store_option(key).is_some()))
}

/// Said so, or one directory without a format of which it is true.
async fn is_delta(stores: &Stores, source: &TableSource) -> Result<bool> {
    let [location] = source.locations.as_slice() else { return Ok(source.delta) };
    let may_be = source.format.is_none() && !location.is_glob() && Format::of_location(location).is_none();
    Ok(source.delta || may_be && delta::Log::open(stores, location)?.exists().await?)
}

async fn delta_table(stores: &Stores, source: &TableSource) -> Result<DeltaTable> {
    let [location] = source.locations.as_slice() else {
        return Err(Error::invalid("a Delta table is one directory"));
    };
    if source.columns.is_some() || !source.partition_columns.is_empty() || !source.order.is_empty() {
        return Err(Error::invalid(format!("{location}: a Delta table says itself which columns it has"))
            .with_hint("leave the columns, PARTITIONED BY and WITH ORDER out"));
    }
    DeltaTable::open(stores, location, &source.options).await
}

/// What is there. A directory that is not there yet, or is empty, is a table without rows when its columns are declared:
/// INSERT and COPY can fill it.
async fn files_of(stores: &Stores, location: &Location, is_declared: bool) -> Result<Vec<FoundFile>> {
    let is_file = location.local_path().is_some_and(|path| path.is_file());
    match storage::expand(stores, location).await {
        Err(storage::Error::NotFound { .. }) if is_declared && location.is_directory_like() && !is_file => {
            Ok(Vec::new())
        }
        found => Ok(found?),
    }
}

/// Columns that WITH ORDER names must exist.
fn check_order(order: &[Vec<SortExpr>], schema: &Schema) -> Result<()> {
    let columns = order.iter().flatten().flat_map(|sort| sort.expr.column_refs());
    let unknown = columns.into_iter().find(|column| schema.field_with_name(&column.name).is_err());
    let Some(unknown) = unknown else { return Ok(()) };
    let error = Error::invalid(format!("WITH ORDER: there is no column `{}`", unknown.name));
    Err(match near(&unknown.name, schema.fields().iter().map(|field| field.name().as_str())) {
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None => error,
    })
}

/// The columns as they are read under the session's memory limit.
fn within_limit(state: &SessionState, schema: SchemaRef) -> SchemaRef {
    match state.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Finite(_) => without_views(&schema),
        _ => schema,
    }
}

/// Text as text of its own. A view shares the buffers that it came from, so that a few rows of a batch hold, and count
/// with, whole pages: under a memory limit a sort's merge would be out of it after some batches.
fn without_views(schema: &SchemaRef) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        DataType::BinaryView => Arc::new(field.as_ref().clone().with_data_type(DataType::Binary)),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new_with_metadata(
        schema.fields().iter().map(plain).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

fn places(locations: &[Location]) -> String {
    locations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The compression that the files' names tell, and the ending by which data files are known among others. No ending
/// when no file has the format's own: then all files are meant.
fn naming(
    format: Format,
    options: &HashMap<String, String>,
    files: &[&FoundFile],
    places: &str,
) -> Result<(Option<Compression>, String)> {
    let mut matching = Vec::new();
    for file in files {
        let name = file.location.file_name().unwrap_or_default();
        let (stem, compression) = Compression::strip(name);
        if Format::of_name(stem) == Some(format) {
            matching.push((name, stem, compression));
        }
    }
    let declared = format::declared_compression(options)?;
    let Some((first_name, first_stem, compression)) = matching.first().copied() else {
        return Ok((declared, String::new()));
    };
    if declared.is_none()
        && let Some((other, _, _)) = matching.iter().find(|(_, _, other)| *other != compression)
    {
        return Err(Error::invalid(format!(
            "{places}: files of one table must be compressed alike, and `{first_name}` and `{other}` are not"
        )));
    }
    let ending = |name: &str, stem: &str| {
        let at = stem.rfind('.').unwrap_or(0);
        name[at..].to_string()
    };
    let extension = ending(first_name, first_stem);
    let alike = matching.iter().all(|(name, stem, _)| ending(name, stem) == extension);
    Ok((declared.or(compression), if alike { extension } else { String::new() }))
}

fn partition_columns(
    source: &TableSource,
    found: &[(Location, Vec<FoundFile>)],
    infer: bool,
) -> Result<Vec<(String, DataType)>> {
    if source.partition_columns.is_empty() {
        if !infer {
            return Ok(Vec::new());
        }
        let collections = found.iter().filter(|(location, files)| is_collection(location, files));
        let mut tables: Vec<Vec<(String, DataType)>> =
            collections.map(|(location, files)| partition::infer(location, files)).collect::<Result<_>>()?;
        let columns = tables.pop().unwrap_or_default();
        // A declared column list says what is wanted; a directory called `x=1` does not add to it.
        let wanted = |name: &str| source.columns.as_ref().is_none_or(|schema| schema.field_with_name(name).is_ok());
        return Ok(columns.into_iter().filter(|(name, _)| wanted(name)).collect());
    }
    let inferred = match found.first() {
        Some((location, files)) => partition::infer(location, files)?,
        None => Vec::new(),
    };
    let agrees = |(declared, (found, _)): (&String, &(String, DataType))| declared == found;
    if !source.partition_columns.iter().zip(&inferred).all(agrees) {
        let found: Vec<&str> = inferred.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::invalid(format!(
            "PARTITIONED BY ({}): the directories are those of {}",
            source.partition_columns.join(", "),
            found.join(", ")
        )));
    }
    (source.partition_columns.iter())
        .map(|name| {
            let declared = source.columns.as_ref().and_then(|schema| schema.field_with_name(name).ok());
            let seen = inferred.iter().find(|(known, _)| known == name).map(|(_, kind)| kind.clone());
            let kind = declared.map(|field| field.data_type().clone()).or(seen);
            Ok((name.clone(), kind.unwrap_or(DataType::Utf8)))
        })
        .collect()
}

fn is_collection(location: &Location, files: &[FoundFile]) -> bool {
    location.is_glob() || location.is_directory_like() || !files.iter().any(|file| file.location == *location)
}

fn without(columns: &SchemaRef, partitions: &[(String, DataType)]) -> SchemaRef {
    let fields: Vec<Arc<Field>> = (columns.fields().iter())
        .filter(|field| !partitions.iter().any(|(name, _)| name == field.name()))
        .cloned()
        .collect();
    Arc::new(Schema::new_with_metadata(fields, columns.metadata().clone()))
}

/// What the listing table is told to list.
///
/// The listing table's globs are not storage's (a `*` there crosses directories, braces are unknown), so the files that a
/// glob means now are listed one by one; with partition columns, which only a directory can have, the whole directory is.
fn urls(found: &[(Location, Vec<FoundFile>)], partitions: &[(String, DataType)]) -> Result<Vec<ListingTableUrl>> {
    let mut urls = Vec::new();
    for (location, files) in found {
        if location.is_glob() && partitions.is_empty() {
            for file in files {
                urls.push(ListingTableUrl::try_new(file.location.url().clone(), None)?);
            }
        } else if location.is_glob() {
            let (base, pattern) = split_glob(location);
            if let Some(narrow) = pattern.split('/').find(|part| !covers_all(part)) {
                return Err(Error::invalid(format!(
                    "{location}: `{narrow}` chooses among the files of a table that is partitioned by {}",
                    partitions.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
                ))
                .with_hint(format!("read {base} and choose with WHERE")));
            }
            urls.push(ListingTableUrl::try_new(base.url().clone(), None)?);
        } else if is_collection(location, files) {
            urls.push(ListingTableUrl::try_new(location.as_directory().url().clone(), None)?);
        } else {
            urls.push(ListingTableUrl::try_new(location.url().clone(), None)?);
        }
    }
    Ok(urls)
}

/// `*`, `**`, `name=*` and `*.ending` leave nothing out of a partitioned table.
fn covers_all(part: &str) -> bool {
    let value = part.split_once('=').map_or(part, |(_, value)| value);
    matches!(value, "*" | "**") || part.strip_prefix("*.").is_some_and(|ending| !ending.contains(['*', '?', '[', '{']))
}

/// `a/b/*/c.csv` → the directory `a/b/` and the pattern `*/c.csv`.
pub(super) fn split_glob(location: &Location) -> (Location, String) {
    let path = location.path().as_ref();
    let segments: Vec<&str> = path.split('/').collect();
    let first = segments.iter().position(|segment| segment.contains(['*', '?', '[', '{'])).unwrap_or(segments.len());
    let mut base = location.clone();
    for _ in first..segments.len() {
        base = base.parent().unwrap_or(base);
    }
    (base.as_directory(), segments[first..].join("/"))
}

/// Files that are looked at or read at once: as many as one host is asked things at a time (`storage.max_requests`).
pub(crate) const FILES_AT_ONCE: usize = 64;

/// The columns of the files that were found: of each one when the format writes them down, else as the query engine finds
/// them in the rows.
async fn infer_schema(
    state: &SessionState,
    options: &ListingOptions,
    format: Format,
    found: &[(Location, Vec<FoundFile>)],
    places: &str,
) -> Result<SchemaRef> {
    let is_data = |file: &&FoundFile| file.size > 0 && file.meta.location.as_ref().ends_with(&options.file_extension);
    let files: Vec<&FoundFile> = found.iter().flat_map(|(_, files)| files).filter(is_data).collect();
    let Some(first) = files.first() else {
        return Err(Error::invalid(format!("{places}: all files are empty, so there are no columns to be found"))
            .with_hint("declare the columns: CREATE EXTERNAL TABLE t (a INT, ...) ..."));
    };
    let store_of = |file: &FoundFile| -> Result<Arc<dyn ObjectStore>> {
        Ok(state.runtime_env().object_store(ListingTableUrl::try_new(file.location.url().clone(), None)?)?)
    };
    if format.describes_itself() && files.len() > 1 {
        return schema::merged(&schemas_of(state, options, format, &files).await?);
    }
    // Files of several stores cannot be asked together, and their rows were never compared.
    let store = store_of(first)?;
    let same = first.location.store_url();
    let objects: Vec<ObjectMeta> =
        files.iter().filter(|file| file.location.store_url() == same).map(|file| file.meta.clone()).collect();
    match diagnose::columns(state, &options.format, &store, &objects).await {
        Ok(schema) => marked(format, schema, &store, &first.meta).await,
        // The query engine takes no two files together whose rows look different: whole numbers here, others there.
        Err(_) if files.len() > 1 => {
            let schemas = schemas_of(state, options, format, &files).await?;
            if format.is_csv() { schema::merged_as_text(&schemas) } else { schema::merged(&schemas) }
        }
        Err(error) => Err(diagnose::which_file(state, &options.format, &store, &first.location, &objects, error).await),
    }
}

/// What the format cannot tell of a file's columns.
async fn marked(
    format: Format,
    schema: SchemaRef,
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
) -> Result<SchemaRef> {
    match format {
        Format::Parquet => Ok(intervals::marked(schema, store, file).await?),
        _ => Ok(schema),
    }
}

/// The columns of each file, with its place.
async fn schemas_of(
    state: &SessionState,
    options: &ListingOptions,
    format: Format,
    files: &[&FoundFile],
) -> Result<Vec<(String, SchemaRef)>> {
    let looks = files.iter().map(|file| async move {
        let url = ListingTableUrl::try_new(file.location.url().clone(), None)?;
        let (store, objects) = (state.runtime_env().object_store(url)?, std::slice::from_ref(&file.meta));
        match diagnose::columns(state, &options.format, &store, objects).await {
            Ok(schema) => Ok((file.location.to_string(), marked(format, schema, &store, &file.meta).await?)),
            Err(error) => {
                Err(diagnose::which_file(state, &options.format, &store, &file.location, objects, error).await)
            }
        }
    });
    let looks: Vec<_> = looks.collect();
    futures::stream::iter(looks).buffered(FILES_AT_ONCE).try_collect().await
}
