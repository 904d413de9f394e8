//! Statements that the query engine plans: queries give a result, definitions change the session. Tables over files and
//! tables made from queries are made here rather than by the query engine, so that files are found, rows are counted and
//! cancelling works as everywhere else.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use super::names::twins;
use super::run::Job;
use super::{create_table, insert};
use crate::error::{Error, Result, near};
use crate::extension::Finished;
use crate::mistake::at_place;
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
    let declared = |statement: &mut SqlStatement| Ok(create_table::take_not_null(statement));
    let (plan, not_null) = session.plan_adjusted(text, tokens, declared).await?;
    let done = match plan {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(statement)) => {
            create_external(session, &statement)
                .await
                .map_err(|error| at_location(session, error, &statement, text))?;
            None
        }
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(statement)) => {
            create_table::create(session, text, statement, &not_null, job).await?
        }
        LogicalPlan::Ddl(statement) => {
            if let DdlStatement::DropTable(drop) = &statement {
                must_exist(session, &drop.name, drop.if_exists, "table")?;
            }
            if let DdlStatement::DropView(drop) = &statement {
                must_exist(session, &drop.name, drop.if_exists, "view")?;
            }
            let dropped = match &statement {
                DdlStatement::DropTable(drop) => Some(drop.name.clone()),
                _ => None,
            };
            let context = session.context();
            let run = context.execute_logical_plan(LogicalPlan::Ddl(statement));
            Box::pin(run).await.map_err(|error| session.explain(error, text))?;
            if let Some(name) = dropped {
                session.hold(&name, None);
                session.keys().set(session.resolved(&name), None);
            }
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
        plan => return Ok(Outcome::Rows(session.data_frame(twins::restore(plan)?))),
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
    let source = TableSource::of_statement(statement, &session.options())?;
    let table = open(&state, session.stores(), session.planned(), source).await?;
    replace(session, &statement.name, table)
}

/// Points at the place that an error is about, when it is about one.
fn at_location(session: &Session, error: Error, statement: &CreateExternalTable, text: &str) -> Error {
    let message = error.to_string();
    let options = session.options();
    let about = |place: &&String| options.place(place).is_ok_and(|place| message.starts_with(&place.to_string()));
    let first = matches!(error, Error::Storage(_)).then(|| statement.locations.first()).flatten();
    match statement.locations.iter().find(about).or(first) {
        Some(place) => at_place(error, place, text),
        None => error,
    }
}

/// Whether the table is to be made: not when it is there and that is fine.
pub(super) fn may_create(
    session: &Session,
    name: &TableReference,
    or_replace: bool,
    if_not_exists: bool,
) -> Result<bool> {
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

pub(super) fn replace(session: &Session, name: &TableReference, table: Arc<dyn TableProvider>) -> Result<()> {
    session.context().deregister_table(name.clone())?;
    session.hold(name, None);
    session.keys().set(session.resolved(name), None);
    session.context().register_table(name.clone(), table)?;
    Ok(())
}
