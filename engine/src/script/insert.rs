//! `INSERT INTO table`: rows added to a table over files go the way of COPY, so that they appear whole or not at all;
//! rows added to a table in memory are the query engine's affair.

use std::collections::HashMap;

use arrow::array::UInt64Array;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, LogicalPlanBuilder, WriteOp};
use futures::TryStreamExt;
use storage::{CommitMode, Location};

use super::change;
use super::keys::{self, Before};
use super::run::Job;
use super::store::{Target, store};
use crate::delta::DeltaTable;
use crate::error::{Error, Result};
use crate::extension::Finished;
use crate::runner::Gather;
use crate::session::Session;
use crate::sink::NotNull;
use crate::sink::encoding::FileOptions;
use crate::source::format::{Compression, Format};

/// Runs a statement that changes a table's rows.
pub(super) async fn run(job: &Job<'_>, statement: DmlStatement, text: &str) -> Result<Finished> {
    let provider = source_as_provider(&statement.target)?;
    let input = LogicalPlan::clone(&statement.input);
    match (provider.downcast_ref::<ListingTable>(), &statement.op) {
        (Some(table), WriteOp::Insert(op)) => {
            let target = target(job.session, table, *op, &statement)?;
            let stored = store(job, ordered(table, input.clone())?, target).await;
            job.explained(stored, &input, text).await.map(|(finished, _)| finished)
        }
        (None, WriteOp::Insert(op)) if provider.is::<DeltaTable>() => {
            let table = provider.downcast_ref::<DeltaTable>().expect("a Delta table, as asked above");
            let target = delta_target(job.session, table, *op, &statement)?;
            let stored = store(job, input.clone(), target).await;
            job.explained(stored, &input, text).await.map(|(finished, _)| finished)
        }
        (_, WriteOp::Delete | WriteOp::Update) => {
            let Some(table) = provider.downcast_ref::<MemTable>() else { return Err(unchangeable(&statement)) };
            let change = change::run(job, &statement, table);
            let changed = keeping_keys(job, &statement.table_name, Some(table), change).await;
            let rows = job.explained(changed, &input, text).await?;
            Ok(Finished { rows: Some(rows), ..Finished::default() })
        }
        _ => {
            let name = statement.table_name.clone();
            let counted = count(job, LogicalPlan::Dml(statement));
            let counted = keeping_keys(job, &name, provider.downcast_ref::<MemTable>(), counted).await;
            let rows = job.explained(counted, &input, text).await?;
            Ok(Finished { rows: Some(rows), ..Finished::default() })
        }
    }
}

/// Does the work on a table in memory, and undoes it when rows then have the same key.
async fn keeping_keys<T>(
    job: &Job<'_>,
    name: &TableReference,
    table: Option<&MemTable>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let keys = job.session.keys().of(&job.session.resolved(name));
    let Some((keys, table)) = keys.zip(table) else { return work.await };
    let before = Before::of(table).await;
    let done = work.await?;
    match keys::check_table(name, table, &keys).await {
        Ok(()) => Ok(done),
        Err(error) => {
            before.restore(table).await;
            Err(error)
        }
    }
}

fn unchangeable(statement: &DmlStatement) -> Error {
    let (what, name) = (statement.op.name().to_uppercase(), &statement.table_name);
    Error::invalid(format!("{what} is not supported for table `{name}`, which is not in memory"))
        .with_hint("write the rows that stay with COPY, or keep the table with CREATE TABLE ... AS")
}

/// The rows in the order that the table's files are declared to have (WITH ORDER): readers rely on it.
fn ordered(table: &ListingTable, input: LogicalPlan) -> Result<LogicalPlan> {
    match table.options().file_sort_order.first() {
        Some(order) if !order.is_empty() => Ok(LogicalPlanBuilder::from(input).sort(order.clone())?.build()?),
        _ => Ok(input),
    }
}

fn target(session: &Session, table: &ListingTable, op: InsertOp, statement: &DmlStatement) -> Result<Target> {
    let name = &statement.table_name;
    let [url] = table.table_paths().as_slice() else {
        return Err(Error::invalid(format!("table `{name}` has several places: rows can be added to one directory")));
    };
    let location = Location::parse(url.as_str())?;
    if !location.is_directory_like() {
        return Err(Error::invalid(format!("table `{name}` is the file {location}: rows can be added to a directory")));
    }
    let mode = mode(op)?;
    let options = table.options();
    let format = Format::parse(options.format.get_ext().trim_start_matches('.'))?;
    let mut said = HashMap::new();
    if let Some(csv) = options.format.downcast_ref::<CsvFormat>() {
        said.insert("delimiter".to_string(), char::from(csv.options().delimiter).to_string());
        said.insert("quote".to_string(), char::from(csv.options().quote).to_string());
        said.insert("has_header".to_string(), csv.options().has_header.unwrap_or(true).to_string());
    }
    // New files must end as the others do, or the table would not see them.
    let compression = Compression::strip(&options.file_extension).1;
    let state = session.context().state();
    let written = FileOptions::parse(&state.default_table_options(), &session.options(), format, &said, compression)?;
    written.encoding.accepts(statement.input.schema().as_arrow())?;
    let ending = format!(".{}", written.encoding.ending());
    if !ending.ends_with(options.file_extension.as_str()) {
        return Err(Error::invalid(format!(
            "files of table `{name}` end with {}, and new ones would end with {ending}",
            options.file_extension
        ))
        .with_hint("use COPY"));
    }
    let partition_by = options.table_partition_cols.iter().map(|(column, _)| column.clone()).collect();
    Ok(Target { location, delta: false, mode, options: written, partition_by, not_null: not_null(statement) })
}

fn mode(op: InsertOp) -> Result<CommitMode> {
    match op {
        InsertOp::Append => Ok(CommitMode::Append),
        InsertOp::Overwrite => Ok(CommitMode::Overwrite),
        InsertOp::Replace => Err(Error::invalid("REPLACE INTO needs keys, and files have none")),
    }
}

fn delta_target(session: &Session, table: &DeltaTable, op: InsertOp, statement: &DmlStatement) -> Result<Target> {
    if table.is_held() {
        let name = &statement.table_name;
        return Err(Error::invalid(format!("table `{name}` is one version of {}, which stays", table.location())));
    }
    let defaults = session.context().state().default_table_options();
    let options = FileOptions::parse(&defaults, &session.options(), Format::Parquet, &HashMap::new(), None)?;
    let (location, partition_by) = (table.location().clone(), Vec::new());
    Ok(Target { location, delta: true, mode: mode(op)?, options, partition_by, not_null: not_null(statement) })
}

fn not_null(statement: &DmlStatement) -> Option<NotNull> {
    let schema = statement.target.schema();
    let columns: Vec<String> =
        schema.fields().iter().filter(|field| !field.is_nullable()).map(|field| field.name().clone()).collect();
    (!columns.is_empty()).then(|| NotNull { table: statement.table_name.to_string(), columns })
}

/// Runs a plan that gives the number of rows it changed.
async fn count(job: &Job<'_>, plan: LogicalPlan) -> Result<u64> {
    let execution = job.session.runner().run(job.session, plan, Gather::One).await?;
    let mut partitions = execution.partitions;
    let stream = partitions.pop().expect("a gathered execution has one stream");
    let collected = async { Ok(stream.try_collect::<Vec<_>>().await?) };
    let batches = job.watch(execution.gauge.as_ref(), collected).await?;
    let counts = batches.iter().filter_map(|batch| batch.column(0).as_any().downcast_ref::<UInt64Array>());
    Ok(counts.flat_map(|counts| counts.values().to_vec()).sum())
}
