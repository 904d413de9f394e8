//! `CREATE TABLE name AS query`: rows that are kept as long as the session. In one process they are in its memory. Where
//! other processes execute plans, rows that come from files become files again, in a place that all of them see, so that
//! what reads the table runs where it would run without it; only a small table stays in memory, and travels inside plans.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Constraint, Constraints, TableReference};
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{CreateMemoryTable, Expr, LogicalPlan};
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{ColumnOption, Statement};
use futures::TryStreamExt;
use parquet::arrow::ArrowSchemaConverter;
use storage::{CommitMode, Location};

use super::keys;
use super::run::Job;
use super::sql::{may_create, replace};
use super::store::{Target, store};
use crate::error::{Error, Result};
use crate::runner::{Execution, Gather, LocalRunner, Runner};
use crate::session::Session;
use crate::sink::NotNull;
use crate::sink::encoding::FileOptions;
use crate::source::format::Format;
use crate::source::{TableSource, open};

/// Files up to this size are looked at: their rows may be few enough for memory.
const SMALL_FILE_BYTES: u64 = 1 << 20;
/// Rows that are kept in memory, and travel inside every plan that reads them.
const SMALL_BYTES: usize = 4 << 20;

/// Takes out which columns a CREATE TABLE with a query declares NOT NULL: the query engine would not look at the rows. (What
/// it finds out about a query's columns, such as that a literal is never NULL, it takes for a declaration.)
pub(super) fn take_not_null(statement: &mut SqlStatement) -> Vec<String> {
    let SqlStatement::Statement(statement) = statement else { return Vec::new() };
    let Statement::CreateTable(table) = statement.as_mut() else { return Vec::new() };
    if table.query.is_none() {
        return Vec::new();
    }
    let mut names = Vec::new();
    for column in &mut table.columns {
        let options = column.options.len();
        column.options.retain(|option| option.option != ColumnOption::NotNull);
        let is_key = column.options.iter().any(|option| matches!(option.option, ColumnOption::PrimaryKey(_)));
        if is_key || column.options.len() < options {
            names.push(match column.name.quote_style {
                Some(_) => column.name.value.clone(),
                None => column.name.value.to_ascii_lowercase(),
            });
        }
    }
    names
}

/// Makes the table; gives the number of its rows. Without a job no data is read: the table has the query's columns and no
/// rows.
pub(super) async fn create(
    session: &Session,
    text: &str,
    statement: CreateMemoryTable,
    not_null: &[String],
    job: Option<&Job<'_>>,
) -> Result<Option<u64>> {
    let CreateMemoryTable { name, input, if_not_exists, or_replace, constraints, column_defaults, .. } = statement;
    if !may_create(session, &name, or_replace, if_not_exists)? {
        return Ok(None);
    }
    let input = Arc::unwrap_or_clone(input);
    // Optimizing finds out more about which columns can be NULL, and the batches will be of that schema.
    let optimized = session.context().state().optimize(&input)?;
    let schema = declared(optimized.schema().inner(), &input, not_null);
    unique_names(&schema)?;
    let consumer = MemoryConsumer::new(format!("table {name}"));
    let memory = Arc::new(consumer.register(&session.memory_pool()));
    let (keys, defaults) = (constraints, column_defaults.into_iter().collect());
    let table = Table { name: name.clone(), schema, keys, defaults, memory };
    let (provider, rows) = match job {
        None => (table.in_memory(&table.schema, vec![Vec::new()])?, None),
        Some(job) => {
            let read = input.clone();
            let in_files = session.runner().is_remote()
                && table.keys.is_empty()
                && reads_files(&optimized)?
                && fits_parquet(&table.schema);
            let made = if in_files { table.store(job, input).await } else { table.collect(job, input).await };
            let (provider, rows) = job.explained(made, &read, text).await?;
            (provider, Some(rows))
        }
    };
    replace(session, &name, provider)?;
    session.hold(&name, Some(table.memory));
    if !table.keys.is_empty() {
        session.keys().set(session.resolved(&name), Some(table.keys));
    }
    Ok(rows)
}

/// What a table is, its rows aside.
struct Table {
    name: TableReference,
    schema: SchemaRef,
    /// Looked through by [`keys`]: the query engine would believe them unchecked.
    keys: Constraints,
    defaults: HashMap<String, Expr>,
    /// What its rows take in memory; nothing when they lie in files.
    memory: Arc<MemoryReservation>,
}

impl Table {
    fn in_memory(&self, schema: &SchemaRef, partitions: Vec<Vec<RecordBatch>>) -> Result<Arc<dyn TableProvider>> {
        let table = MemTable::try_new(Arc::clone(schema), partitions)?;
        let table = table.with_constraints(believed(&self.keys)).with_column_defaults(self.defaults.clone());
        Ok(Arc::new(table))
    }

    /// The rows in the columns of the table, of which some must not be NULL.
    fn fitted(&self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let fields = self.schema.fields();
        let fit = |batch: RecordBatch| {
            let mut columns = fields.iter().zip(batch.columns());
            if let Some((field, _)) = columns.find(|(field, column)| !field.is_nullable() && column.null_count() > 0) {
                let (column, table) = (field.name(), &self.name);
                return Err(Error::invalid(format!(
                    "column `{column}` of table `{table}` is NOT NULL, and a row has NULL"
                )));
            }
            Ok(RecordBatch::try_new_with_options(
                Arc::clone(&self.schema),
                batch.columns().to_vec(),
                &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
            )
            .map_err(DataFusionError::from)?)
        };
        batches.into_iter().map(fit).collect()
    }

    /// Brings the rows here.
    async fn collect(&self, job: &Job<'_>, input: LogicalPlan) -> Result<(Arc<dyn TableProvider>, u64)> {
        let execution = job.session.runner().run(job.session, input, Gather::PartitionsInOrder).await?;
        let gauge = Arc::clone(&execution.gauge);
        let partitions = job.watch(gauge.as_ref(), collected(execution, &self.memory)).await?;
        keys::check(&self.name, &self.schema, &self.keys, &partitions)?;
        let rows = partitions.iter().flatten().map(|batch| batch.num_rows() as u64).sum();
        let partitions = partitions.into_iter().map(|batches| self.fitted(batches)).collect::<Result<_>>()?;
        Ok((self.in_memory(&self.schema, partitions)?, rows))
    }

    /// Leaves the rows in files, unless they are few.
    async fn store(&self, job: &Job<'_>, input: LogicalPlan) -> Result<(Arc<dyn TableProvider>, u64)> {
        let session = job.session;
        let location = session.new_shared_place().await?;
        let state = session.context().state();
        let options = FileOptions::parse(
            &state.default_table_options(),
            &session.options(),
            Format::Parquet,
            &HashMap::new(),
            None,
        )?;
        let mode = CommitMode::ErrorIfExists;
        let (place, partition_by) = (location.clone(), Vec::new());
        let columns: Vec<String> = self
            .schema
            .fields()
            .iter()
            .filter(|field| !field.is_nullable())
            .map(|field| field.name().clone())
            .collect();
        let not_null = (!columns.is_empty()).then(|| NotNull { table: self.name.to_string(), columns });
        let target = Target { location: place, delta: false, mode, options, partition_by, not_null };
        let (finished, bytes) = store(job, input, target).await?;
        let rows = finished.rows.unwrap_or(0);
        let source = self.source(location.clone());
        let provider = open(&state, session.stores(), session.planned(), source).await?;
        if bytes <= SMALL_FILE_BYTES {
            let scan = session.context().read_table(Arc::clone(&provider))?.into_parts().1;
            let execution = LocalRunner.run(session, scan, Gather::PartitionsInOrder).await?;
            let partitions = job.cancellable(collected(execution, &self.memory)).await?;
            if partitions.iter().flatten().map(RecordBatch::get_array_memory_size).sum::<usize>() <= SMALL_BYTES {
                session.stores().delete_prefix(&location).await?;
                return Ok((self.in_memory(&provider.schema(), partitions)?, rows));
            }
            drop(partitions);
            self.memory.free();
        }
        Ok((provider, rows))
    }

    fn source(&self, location: Location) -> TableSource {
        TableSource {
            locations: vec![location],
            format: Some(Format::Parquet),
            delta: false,
            options: HashMap::new(),
            told: Default::default(),
            columns: Some(Arc::clone(&self.schema)),
            partition_columns: Vec::new(),
            order: Vec::new(),
            constraints: Constraints::default(),
            definition: None,
            defaults: self.defaults.clone(),
        }
    }
}

/// The table's columns: those of a query can be NULL unless the statement says otherwise.
fn declared(columns: &SchemaRef, input: &LogicalPlan, not_null: &[String]) -> SchemaRef {
    if matches!(input, LogicalPlan::EmptyRelation(_)) {
        return Arc::clone(columns);
    }
    let fields = columns.fields().iter().map(|field| {
        let can_be_null = !not_null.contains(field.name());
        Field::clone(field).with_nullable(can_be_null)
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), columns.metadata().clone()))
}

/// The keys that the query engine is told of: it takes the NULLs of a UNIQUE column, of which there may be several, for one.
fn believed(keys: &Constraints) -> Constraints {
    let primary = keys.iter().filter(|key| matches!(key, Constraint::PrimaryKey(_))).cloned();
    Constraints::new_unverified(primary.collect())
}

/// Whether rows of the query come from files.
fn reads_files(plan: &LogicalPlan) -> Result<bool> {
    let mut reads = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && source_as_provider(&scan.source).is_ok_and(|provider| provider.is::<ListingTable>())
        {
            reads = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(reads)
}

/// Whether Parquet has all of the types.
fn fits_parquet(schema: &Schema) -> bool {
    ArrowSchemaConverter::new().convert(schema).is_ok()
}

/// A query may give two columns of one name, of different tables; a table may not.
fn unique_names(schema: &Schema) -> Result<()> {
    let mut seen = HashSet::new();
    match schema.fields().iter().find(|field| !seen.insert(field.name())) {
        Some(field) => Err(Error::invalid(format!("two columns are named `{}`", field.name()))
            .with_hint("give one of them another name with AS")),
        None => Ok(()),
    }
}

/// The rows of every partition, each read by a task of its own, with the memory that they take.
async fn collected(execution: Execution, memory: &Arc<MemoryReservation>) -> Result<Vec<Vec<RecordBatch>>> {
    let streams = execution.partitions.into_iter().map(|stream| tokio::spawn(batches(stream, Arc::clone(memory))));
    Tasks(streams.collect()).join().await
}

async fn batches(
    mut stream: SendableRecordBatchStream,
    memory: Arc<MemoryReservation>,
) -> datafusion::error::Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        memory.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(batches)
}

/// Tasks that are stopped when nobody waits for them any more.
struct Tasks<T>(Vec<tokio::task::JoinHandle<datafusion::error::Result<T>>>);

impl<T> Tasks<T> {
    async fn join(mut self) -> Result<Vec<T>> {
        let mut results = Vec::with_capacity(self.0.len());
        for task in &mut self.0 {
            results.push(
                task.await.map_err(|error| datafusion::error::DataFusionError::ExecutionJoin(Box::new(error)))??,
            );
        }
        Ok(results)
    }
}

impl<T> Drop for Tasks<T> {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
