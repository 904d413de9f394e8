//! The one way by which another crate adds to the engine: functions, relations and statements in a single value that is
//! handed identically to driver, scheduler and executors, which makes "works locally, unknown function on the cluster"
//! impossible. The engine never names a model.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::logical_expr::planner::RelationPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::error::Result;
use crate::events::{Event, Outcome};
use crate::gang::GangTask;
use crate::session::Session;

/// What a crate adds to the engine.
#[derive(Clone, Default)]
pub struct Extension {
    /// For messages, e.g. `ml`.
    pub name: &'static str,
    /// Scalar functions.
    pub scalar_functions: Vec<Arc<ScalarUDF>>,
    /// Aggregate functions.
    pub aggregate_functions: Vec<Arc<AggregateUDF>>,
    /// Table-like calls with arguments of their own grammar, e.g. `ML.PREDICT(...)`.
    pub relation_planners: Vec<Arc<dyn RelationPlanner>>,
    /// Statements that the SQL parser does not know.
    pub statements: Vec<Arc<dyn StatementParser>>,
    /// Called with the tokens of every SQL statement before it is parsed.
    pub rewrites: Vec<Arc<dyn SqlRewrite>>,
    /// Options that the extension owns, readable with [`Session::setting`].
    pub settings: Vec<Setting>,
    /// What the ranks of gangs can do, by name.
    pub gang_tasks: Vec<Arc<dyn GangTask>>,
    /// Called in a process that executes plans for others before it executes the first: its functions may need the
    /// stores of the process.
    pub worker: Option<fn(&storage::Stores)>,
}

/// An option of an extension, settable wherever the engine's own options are.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// `section.key`, lower case, e.g. `ml.kernel`.
    pub key: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
}

/// Recognises and parses the statements of an extension.
pub trait StatementParser: Send + Sync {
    /// First words of the statements, upper case, for error messages and completion, e.g. `CREATE MODEL`.
    fn keywords(&self) -> &'static [&'static str];
    /// Whether the statement is this parser's. `tokens` holds no white space or comments.
    fn recognises(&self, tokens: &[TokenWithSpan]) -> bool;
    /// Parses the whole statement; errors carry an offset into `text`.
    fn parse(&self, text: &str, tokens: &[TokenWithSpan]) -> Result<Arc<dyn Statement>>;
}

/// A statement of an extension, parsed and ready to be planned or run.
#[async_trait]
pub trait Statement: Send + Sync {
    /// Short title for progress and report, e.g. `CREATE MODEL late_flights`.
    fn title(&self) -> String;
    /// Plans the statement and reads nothing but schemas (`gristmill check`). It may register in the session what later
    /// statements of the same script need in order to be planned.
    async fn check(&self, session: &Session) -> Result<()>;
    /// Runs it.
    async fn run(&self, session: &Session, job: &JobContext) -> Result<Finished>;
}

/// What a statement of an extension gives back.
#[derive(Default)]
pub struct Finished {
    /// Rows to show, as a SELECT would give them.
    pub result: Option<datafusion::dataframe::DataFrame>,
    /// Rows that it worked on, for the report.
    pub rows: Option<u64>,
    /// What it left behind.
    pub outcomes: Vec<Outcome>,
}

/// What a running statement knows of its job.
#[derive(Clone)]
pub struct JobContext {
    /// Where progress goes.
    pub events: crate::events::EventSink,
    /// Set when the user or the cluster asked to stop.
    pub cancel: tokio_util::sync::CancellationToken,
    /// The statement's own text with parameters shown as written, for lineage.
    pub statement_text: String,
    /// The whole script's text, for lineage.
    pub script_text: Arc<str>,
    /// Parameters as bound, in order of declaration: name and value as text.
    pub parameters: Arc<Vec<(String, String)>>,
}

impl JobContext {
    /// Sends an event.
    pub fn emit(&self, event: Event) {
        (self.events)(event);
    }
}

/// Lets an extension change a SQL statement's tokens before the SQL parser sees them, and load what planning will need.
#[async_trait]
pub trait SqlRewrite: Send + Sync {
    /// Rewrites `MODEL name` into something the parser knows, say. Called for SELECT, views, COPY, CTAS, ASSERT alike.
    /// `tokens` keeps white space, so that positions stay true.
    async fn rewrite(&self, session: &Session, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>>;
}
