//! The sessions that the files run on, one constructor for each runner, and how a record becomes a script of a session.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use engine::cluster::ClusterAddress;
use engine::{Options, ResultSink, RunSettings, Script, Session};
use futures::TryStreamExt;
use sqllogictest::{AsyncDB, DBOutput};

use super::place::Place;
use super::text::{self, Kind};
use crate::cluster_process;

/// How long one record may take before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(300);

/// A runner under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Engine {
    /// This process.
    Local,
    /// The executors of the scheduler there.
    Cluster(ClusterAddress),
}

impl Engine {
    /// Every runner that the files run on. The cluster is that of all tests, with two executors.
    pub(crate) fn all() -> [Engine; 2] {
        [Engine::Local, Engine::Cluster(cluster_process::shared().address().clone())]
    }

    /// As in the head of the table.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Engine::Local => "local",
            Engine::Cluster(_) => "cluster",
        }
    }

    /// A session that plans as DataFusion's own tests expect it: for four partitions. Those take 0.1 for a DOUBLE.
    pub(super) async fn session(&self, place: &Place, has_decimals: bool) -> engine::Result<Session> {
        let decimals = ("datafusion.sql_parser.parse_float_as_decimal".to_string(), has_decimals.to_string());
        let options = Options {
            threads: 2,
            target_partitions: Some(4),
            warehouse: place.root().join("warehouse").to_string_lossy().into_owned(),
            settings: BTreeMap::from([decimals]),
            ..Options::default()
        };
        match self {
            Engine::Local => gristmill::session(options),
            Engine::Cluster(address) => {
                gristmill::cluster_session(Options { cluster: Some(address.clone()), ..options }).await
            }
        }
    }
}

/// A session as the test runner wants it.
pub(super) struct Connection {
    session: Session,
    place: Arc<Place>,
}

impl Connection {
    pub(super) fn new(session: Session, place: Arc<Place>) -> Self {
        Connection { session, place }
    }
}

/// The error as the user reads it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Told(pub(super) String);

#[async_trait]
impl AsyncDB for Connection {
    type Error = Told;
    type ColumnType = Kind;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Kind>, Told> {
        let (session, sql) = (self.session.clone(), self.place.sql(sql).0);
        // A task of its own, so that a panic is an error like any other.
        let task = tokio::spawn(async move { run(&session, &sql).await });
        let abort = task.abort_handle();
        let output = match tokio::time::timeout(PATIENCE, task).await {
            Ok(Ok(output)) => output?,
            Ok(Err(panic)) => return Err(Told(format!("panic: {panic}"))),
            Err(_) => {
                abort.abort();
                return Err(Told(format!("no answer within {} seconds", PATIENCE.as_secs())));
            }
        };
        Ok(match output {
            DBOutput::Rows { types, rows } => {
                let placeless = |row: Vec<String>| row.iter().map(|cell| self.place.placeless(cell)).collect();
                DBOutput::Rows { types, rows: rows.into_iter().map(placeless).collect() }
            }
            done => done,
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        // The files leave records out for engines that are not DataFusion.
        "DataFusion"
    }
}

async fn run(session: &Session, sql: &str) -> Result<DBOutput<Kind>, Told> {
    let told = |error: engine::Error| Told(error.to_string());
    let script = Script::parse("record", sql).map_err(told)?;
    let results = Arc::new(LastResult::default());
    let settings = RunSettings { results: Arc::clone(&results) as _, ..RunSettings::default() };
    let report = session.run_script(&script, &settings).await.map_err(told)?;
    if let Some((schema, batches)) = results.0.lock().unwrap().take() {
        let mut rows = Vec::new();
        for batch in &batches {
            rows.extend(text::rows(batch).map_err(|error| Told(error.to_string()))?);
        }
        return Ok(DBOutput::Rows { types: text::kinds(&schema), rows });
    }
    // Upstream a statement that writes gives its number of rows as a row; ours reports it.
    let writes = ["insert", "copy", "delete", "update"].iter().any(|word| begins_with(sql, word));
    let rows = report.statements.last().and_then(|statement| statement.rows).filter(|_| writes);
    Ok(match rows {
        Some(count) => DBOutput::Rows { types: vec![Kind::Integer], rows: vec![vec![count.to_string()]] },
        None => DBOutput::StatementComplete(0),
    })
}

/// Whether the statement's first word, comments aside, is this one.
pub(super) fn begins_with(sql: &str, word: &str) -> bool {
    let first = sql.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with("--"));
    first.and_then(|line| line.get(..word.len())).is_some_and(|found| found.eq_ignore_ascii_case(word))
}

/// Keeps the rows of the last statement that has some, with their schema.
#[derive(Default)]
struct LastResult(Mutex<Option<(SchemaRef, Vec<RecordBatch>)>>);

#[async_trait]
impl ResultSink for LastResult {
    async fn accept(&self, _number: usize, rows: SendableRecordBatchStream) -> engine::Result<u64> {
        let schema = rows.schema();
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        let count = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        *self.0.lock().unwrap() = Some((schema, batches));
        Ok(count)
    }
}
