//! CSV files of one table whose headers differ: columns were added, or stand in another order. The query engine's reader
//! goes by position and looks at no header once the columns are known, so the files of each header are a table of their
//! own, and the whole is the union of those by name. A column that some files lack is NULL in them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{Session as CatalogSession, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::listing::{ListingOptions, ListingTableUrl};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Union, lit};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use storage::{FoundFile, Location, Stores};

use super::format::{Compression, Format};
use super::nulls::quoted;
use super::partition;
use super::{FILES_AT_ONCE, Planned, TableSource, infer_schema, open, schema, told, within_limit};
use crate::error::{Error, Result};
use crate::sink::partition::{NULL_DIRECTORY, unescaped};

/// Files that begin with the same header and lie in the same partition.
pub(super) struct Group {
    names: Vec<String>,
    /// The partition's columns and their values, as the directories say them.
    partition: Vec<(String, String)>,
    files: Vec<FoundFile>,
}

/// The files by their headers, when those differ.
///
/// # Errors
/// Files that have no column in common: their first lines are no headers.
pub(super) async fn differing(
    state: &SessionState,
    source: &TableSource,
    format: Format,
    compression: Option<Compression>,
    found: &[(Location, Vec<FoundFile>)],
    ending: &str,
) -> Result<Option<Vec<Group>>> {
    let is_data = |file: &FoundFile| file.size > 0 && file.meta.location.as_ref().ends_with(ending);
    let files: Vec<(&Location, &FoundFile)> = found
        .iter()
        .flat_map(|(base, files)| files.iter().map(move |file| (base, file)))
        .filter(|(_, file)| is_data(file))
        .collect();
    if !format.is_csv() || files.len() < 2 {
        return Ok(None);
    }
    let reader = format.reader(state, &with_one_row(format, &source.options)?, compression)?;
    let looks = files.iter().map(|(_, file)| {
        let reader = &reader;
        async move {
            let store =
                state.runtime_env().object_store(ListingTableUrl::try_new(file.location.url().clone(), None)?)?;
            let objects = std::slice::from_ref(&file.meta);
            let schema = reader.infer_schema(state as &dyn CatalogSession, &store, objects).await?;
            Ok::<_, Error>(schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>())
        }
    });
    let looks: Vec<_> = looks.collect();
    let headers: Result<Vec<Vec<String>>> = futures::stream::iter(looks).buffered(FILES_AT_ONCE).try_collect().await;
    // A file that cannot be read is told of where the columns' types are looked for.
    let Ok(headers) = headers else { return Ok(None) };
    if headers.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(None);
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    for ((base, file), names) in files.into_iter().zip(headers) {
        if let Some(first) = groups.first().filter(|_| !names.iter().any(|name| known.contains(name))) {
            return Err(Error::invalid(format!(
                "{} and {} have no column in common: do they begin with headers?",
                first.files[0].location, file.location
            ))
            .with_hint("OPTIONS (has_header false) says that they do not"));
        }
        known.extend(names.iter().cloned());
        let partition = partition::pairs(base, &file.location);
        match groups.iter_mut().find(|group| group.names == names && group.partition == partition) {
            Some(group) => group.files.push(file.clone()),
            None => groups.push(Group { names, partition, files: vec![file.clone()] }),
        }
    }
    Ok(Some(groups))
}

/// The options under which one row is looked at: its names are wanted, not its types.
fn with_one_row(format: Format, options: &HashMap<String, String>) -> Result<HashMap<String, String>> {
    let key = "schema_infer_max_rec";
    let mut one = HashMap::from([(key.to_string(), "1".to_string())]);
    for (written, value) in options {
        if format.option_key(written)? != key {
            one.insert(written.clone(), value.clone());
        }
    }
    Ok(one)
}

/// All of them as one table.
///
/// # Errors
/// Columns of one name whose types do not fit together, with the first file of each kind.
pub(super) fn union<'a>(
    state: &'a SessionState,
    stores: &'a Stores,
    planned: &'a Planned,
    source: TableSource,
    format: Format,
    options: &'a ListingOptions,
    groups: Vec<Group>,
    partitions: &'a [(String, DataType)],
) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
    // Boxed: it opens tables, and is a part of that.
    union_of(state, stores, planned, source, format, options, groups, partitions).boxed()
}

async fn union_of(
    state: &SessionState,
    stores: &Stores,
    planned: &Planned,
    source: TableSource,
    format: Format,
    options: &ListingOptions,
    groups: Vec<Group>,
    partitions: &[(String, DataType)],
) -> Result<Arc<dyn TableProvider>> {
    let mut schemas = Vec::with_capacity(groups.len());
    for group in &groups {
        let first = &group.files[0].location;
        let files = [(first.clone(), group.files.clone())];
        schemas.push((first.to_string(), infer_schema(state, options, format, &files, &first.to_string()).await?));
    }
    let merged = within_limit(state, told::columns(schema::merged(&schemas)?, &source.told, format));
    let mut parts = Vec::with_capacity(groups.len());
    for group in groups {
        let columns = group.names.iter().map(|name| merged.field_with_name(name).cloned());
        let columns: Vec<_> = columns.collect::<Result<_, _>>().map_err(datafusion::error::DataFusionError::from)?;
        let own = TableSource {
            locations: group.files.iter().map(|file| file.location.clone()).collect(),
            format: Some(format),
            options: source.options.clone(),
            columns: Some(Arc::new(Schema::new(columns))),
            ..TableSource::default()
        };
        let table = open(state, stores, planned, own).await?;
        parts.push(Arc::new(part(table, &merged, &group.partition, partitions)?));
    }
    let plan = LogicalPlan::Union(Union::try_new_with_loose_types(parts)?);
    Ok(Arc::new(ViewTable::new(plan, source.definition)))
}

/// The rows of one group with all columns of the table.
fn part(
    table: Arc<dyn TableProvider>,
    merged: &SchemaRef,
    values: &[(String, String)],
    partitions: &[(String, DataType)],
) -> Result<LogicalPlan> {
    let own = table.schema();
    let mut columns: Vec<Expr> = Vec::new();
    for field in merged.fields().iter().filter(|field| !partitions.iter().any(|(name, _)| name == field.name())) {
        columns.push(match own.field_with_name(field.name()) {
            Ok(_) => quoted(field.name()),
            Err(_) => lit(ScalarValue::try_from(field.data_type())?).alias(field.name()),
        });
    }
    for (name, kind) in partitions {
        let value = values.iter().find(|(known, value)| known == name && value != NULL_DIRECTORY);
        let value = match value {
            Some((_, value)) => ScalarValue::try_from_string(unescaped(value), kind)?,
            None => ScalarValue::try_from(kind)?,
        };
        columns.push(lit(value).alias(name));
    }
    Ok(LogicalPlanBuilder::scan("csv", provider_as_source(table), None)?.project(columns)?.build()?)
}
