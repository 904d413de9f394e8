//! What a job tells the world while it runs: a stream of events that the command line draws as bars or prints as lines,
//! and that the job report is folded from. Events carry no secrets and no rows.

use std::sync::Arc;
use std::time::Duration;

/// Receives events; must not block.
pub type EventSink = Arc<dyn Fn(Event) + Send + Sync>;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A statement begins: its 1-based number of `count`, and a short title such as `CREATE MODEL late_flights`.
    StatementStarted { number: usize, count: usize, title: String },
    /// Long work goes on inside the running statement.
    Progress(Progress),
    /// The statement ended well.
    StatementFinished { number: usize, report: StatementReport },
    /// The statement failed; the error itself is the job's result.
    StatementFailed { number: usize, title: String },
    /// A line for the user that is neither progress nor result ("ASSERT ... (warning)").
    Note(String),
    /// A line that the user should act on.
    Warning(String),
}

/// How far a piece of long work is. `task` identifies the bar ("scan", "transform", "epoch 3/5").
#[derive(Debug, Clone)]
pub struct Progress {
    /// Name of the work; a new name starts a new bar.
    pub task: String,
    /// Units done so far.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
    /// "rows", "steps", "bytes".
    pub unit: &'static str,
    /// Figures beside the bar, e.g. ("loss", "0.3121"), ("samples/s", "812,000").
    pub fields: Vec<(&'static str, String)>,
}

/// What one statement did, for the job report.
#[derive(Debug, Clone, Default)]
pub struct StatementReport {
    /// Short title such as `COPY TO out/`.
    pub title: String,
    /// Wall time.
    pub elapsed: Duration,
    /// Rows produced (result, written or trained on), when the statement has such a number.
    pub rows: Option<u64>,
    /// Requests to stores; over HTTP those that were repeated count again.
    pub requests: u64,
    /// Bytes read from object stores.
    pub bytes_read: u64,
    /// Bytes written to object stores.
    pub bytes_written: u64,
    /// What the statement left behind or found, in the order in which it should be read.
    pub outcomes: Vec<Outcome>,
}

/// A lasting result of a statement.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// An output that was committed: where, how many files, rows and bytes.
    Committed { location: String, files: u64, rows: u64, bytes: u64 },
    /// An assertion and the value that it saw.
    Assertion { text: String, held: bool, value: String, warn_only: bool },
    /// Anything else with a name: ("model", "late_flights@3"), ("kernel", "native 215 GFLOP/s").
    Fact { name: String, value: String },
}
