//! Statements that the query engine plans: queries give a result, definitions change the session. Tables over files and
//! tables made from queries are made here rather than by the query engine, so that files are found, rows are counted and
//! cancelling works as everywhere else.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{CreateExternalTable, CreateMemoryTable, DdlStatement, LogicalPlan};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use futures::TryStreamExt;

use super::insert;
use super::run::Job;
use crate::error::{Error, Result, near};
use crate::extension::Finished;
use crate::runner::Gather;
use crate::session::Session;
use crate::source::{TableSource, open};

/// What a SQL statement gave.
pub(crate) enum Outcome {
    /// Rows to show.
    Rows(DataFrame),
    /// It is done; what it did.
    Done(Finished),
}

/// Plans the statement, and does it when it is a definition. With `check` no data is read: a table made from a query has
/// the query's columns and no rows.
pub(crate) async fn execute(
    session: &Session,
    text: &str,
    tokens: Vec<TokenWithSpan>,
    job: Option<&Job<'_>>,
) -> Result<Outcome> {
    let plan = session.plan_statement(text, tokens).await?;
    let done = match plan {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(statement)) => {
            create_external(session, &statement).await?;
            None
        }
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(statement)) => {
            create_memory(session, text, statement, job).await?
        }
        LogicalPlan::Ddl(statement) => {
            if let DdlStatement::DropTable(drop) = &statement {
                must_exist(session, &drop.name, drop.if_exists, "table")?;
            }
            if let DdlStatement::DropView(drop) = &statement {
                must_exist(session, &drop.name, drop.if_exists, "view")?;
            }
            let context = session.context();
            let run = context.execute_logical_plan(LogicalPlan::Ddl(statement));
            Box::pin(run).await.map_err(|error| session.explain(error, text))?;
            None
        }
        LogicalPlan::Statement(statement) => {
            let run = session.context().execute_logical_plan(LogicalPlan::Statement(statement));
            let frame = Box::pin(run).await.map_err(|error| session.explain(error, text))?;
            if frame.schema().fields().is_empty() {
                return Ok(Outcome::Done(Finished::default()));
            }
            return Ok(Outcome::Rows(frame));
        }
        LogicalPlan::Dml(statement) => {
            return Ok(Outcome::Done(match job {
                Some(job) => insert::run(job, statement, text).await?,
                None => Finished::default(),
            }));
        }
        plan => return Ok(Outcome::Rows(session.data_frame(plan))),
    };
    Ok(Outcome::Done(Finished { rows: done, ..Finished::default() }))
}

async fn create_external(session: &Session, statement: &CreateExternalTable) -> Result<()> {
    if statement.unbounded {
        return Err(Error::invalid("unbounded tables (streams) are not supported"));
    }
    if !may_create(session, &statement.name, statement.or_replace, statement.if_not_exists)? {
        return Ok(());
    }
    let state = session.context().state();
    let table = open(&state, session.stores(), session.planned(), TableSource::of_statement(statement)?).await?;
    replace(session, &statement.name, table)
}

async fn create_memory(
    session: &Session,
    text: &str,
    statement: CreateMemoryTable,
    job: Option<&Job<'_>>,
) -> Result<Option<u64>> {
    let CreateMemoryTable { name, input, if_not_exists, or_replace, constraints, column_defaults, .. } = statement;
    if !may_create(session, &name, or_replace, if_not_exists)? {
        return Ok(None);
    }
    let input = Arc::unwrap_or_clone(input);
    // Optimizing finds out more about which columns can be NULL, and the batches will be of that schema.
    let schema = Arc::clone(session.context().state().optimize(&input)?.schema().inner());
    unique_names(&schema)?;
    let (partitions, rows) = match job {
        None => (vec![Vec::new()], None),
        Some(job) => {
            let read = input.clone();
            let collected = async {
                let execution = session.runner().run(session, input, Gather::Partitions).await?;
                let streams =
                    execution.partitions.into_iter().map(|stream| tokio::spawn(stream.try_collect::<Vec<_>>()));
                let tasks = Tasks(streams.collect());
                job.watch(execution.gauge.as_ref(), tasks.join()).await
            };
            let collected: Result<Vec<Vec<RecordBatch>>> = collected.await;
            let batches = job.explained(collected, &read, text).await?;
            let rows = batches.iter().flatten().map(|batch| batch.num_rows() as u64).sum();
            (batches, Some(rows))
        }
    };
    let defaults = column_defaults.into_iter().collect();
    let table = MemTable::try_new(schema, partitions)?.with_constraints(constraints).with_column_defaults(defaults);
    replace(session, &name, Arc::new(table))?;
    Ok(rows)
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

/// Whether the table is to be made: not when it is there and that is fine.
fn may_create(session: &Session, name: &TableReference, or_replace: bool, if_not_exists: bool) -> Result<bool> {
    if or_replace && if_not_exists {
        return Err(Error::invalid("OR REPLACE and IF NOT EXISTS contradict each other"));
    }
    let exists = exists(session, name);
    if exists && !or_replace && !if_not_exists {
        return Err(Error::invalid(format!("table `{name}` exists already"))
            .with_hint("CREATE OR REPLACE replaces it, IF NOT EXISTS keeps it"));
    }
    Ok(!(exists && if_not_exists))
}

fn exists(session: &Session, name: &TableReference) -> bool {
    session.context().table_exist(name.clone()).unwrap_or(false)
}

fn must_exist(session: &Session, name: &TableReference, if_exists: bool, kind: &str) -> Result<()> {
    if if_exists || exists(session, name) {
        return Ok(());
    }
    let names = session.table_names();
    let error = Error::invalid(format!("there is no {kind} `{name}`"));
    Err(match near(name.table(), names.iter().map(String::as_str)) {
        Some(known) => error.with_hint(format!("did you mean `{known}`?")),
        None => error,
    })
}

fn replace(session: &Session, name: &TableReference, table: Arc<dyn TableProvider>) -> Result<()> {
    session.context().deregister_table(name.clone())?;
    session.context().register_table(name.clone(), table)?;
    Ok(())
}
