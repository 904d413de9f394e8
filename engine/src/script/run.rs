//! Runs a script: statements in order, each with its events, its report and its place in errors. The first error ends
//! the job; cancelling ends the running statement and with it the job.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use storage::{Begun, Commit, CommitMode, Location, Stores};
use tokio_util::sync::CancellationToken;

use super::{Kind, Script, parse, sql};
use crate::error::{Error, Result, near};
use crate::events::{Event, EventSink, Outcome, Progress, StatementReport};
use crate::extension::{Finished, JobContext};
use crate::fault;
use crate::metrics::Usage;
use crate::report::JobReport;
use crate::result::{Collected, ResultSink};
use crate::runner::{Gather, Gauge, IN_DRIVER, Reading};
use crate::script::tokens::{significant, tokenize};
use crate::session::Session;

/// How often a running plan is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// How long a cancelled statement of an extension may take to end by itself.
const GRACE: Duration = Duration::from_secs(10);
/// How often a statement is begun because other processes replaced what it read.
const ATTEMPTS: usize = 100;

/// What a run needs beside the script.
#[derive(Clone)]
pub struct RunSettings {
    /// Where events go.
    pub events: EventSink,
    /// Where the rows of SELECTs go.
    pub results: Arc<dyn ResultSink>,
    /// Stops the job.
    pub cancel: CancellationToken,
    /// Values for declared parameters, as text, in the order given; the last of a name counts.
    pub parameters: Vec<(String, String)>,
    /// For a job that may have run before.
    pub resume: Option<Resume>,
}

/// A job that goes on where it was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Names the job: outputs that it committed are known by it.
    pub job: String,
    /// Statements that ended well before. Those that only make something in the session are run again, those that left
    /// something behind, or only showed something, are not.
    pub statements_done: usize,
}

impl Default for RunSettings {
    fn default() -> Self {
        RunSettings {
            events: Arc::new(|_| {}),
            results: Arc::new(Collected::default()),
            cancel: CancellationToken::new(),
            parameters: Vec::new(),
            resume: None,
        }
    }
}

/// A job that is running: what its statements share.
pub(crate) struct Job<'a> {
    pub(crate) session: &'a Session,
    pub(crate) settings: &'a RunSettings,
    pub(crate) script: &'a Script,
    /// The running statement's 1-based number.
    pub(crate) number: usize,
    /// Whether somebody has got rows of the running statement, which is then not begun again.
    shown: Arc<AtomicBool>,
}

impl Session {
    /// Runs the script.
    ///
    /// # Errors
    /// The first statement that fails, at its place; [`Error::Usage`] for parameters that the script does not declare;
    /// [`Error::Cancelled`].
    pub async fn run_script(&self, script: &Script, settings: &RunSettings) -> Result<JobReport> {
        script.check_parameters(&settings.parameters)?;
        let (begun, usage) = (Instant::now(), Usage::now());
        let counters = self.stores().counters();
        let mut report = JobReport::default();
        for (index, range) in script.ranges().iter().enumerate() {
            let text = &script.text()[range.clone()];
            let job = Job::new(self, settings, script, index + 1);
            if job.is_done(text) {
                continue;
            }
            let statement =
                fault::kept(job.statement(text)).await.map_err(|error| script.locate(error, range.start))?;
            report.statements.push(statement);
        }
        let now = self.stores().counters();
        report.elapsed = begun.elapsed();
        report.usage = Usage::now().since(usage);
        report.bytes_read = now.bytes_read - counters.bytes_read;
        report.bytes_written = now.bytes_written - counters.bytes_written;
        report.requests = now.requests - counters.requests;
        report.peak_reserved_bytes = self.peak_reserved() as u64;
        Ok(report)
    }
}

/// EXPLAIN ANALYZE with a row more: what the query asked of stores, as far as this process has done it.
fn with_requests(
    stream: SendableRecordBatchStream,
    stores: Stores,
    before: storage::Counters,
) -> SendableRecordBatchStream {
    let schema = stream.schema();
    if schema.fields().len() != 2 || schema.fields().iter().any(|field| *field.data_type() != DataType::Utf8) {
        return stream;
    }
    let columns = Arc::clone(&schema);
    let last = futures::stream::once(async move {
        let asked = stores.counters().since(before);
        let text = format!(
            "requests={}, bytes_read={}, bytes_written={}",
            asked.requests, asked.bytes_read, asked.bytes_written
        );
        let cell = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        Ok(RecordBatch::try_new(columns, vec![cell("Stores"), cell(&text)])?)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream.chain(last)))
}

impl Script {
    /// A `-p` that nothing declares is a slip of the pen, and found before anything runs.
    ///
    /// # Errors
    /// The first such parameter, with the near name.
    pub fn check_parameters(&self, given: &[(String, String)]) -> Result<()> {
        let declared: Vec<String> = self.statements().filter_map(declared_name).collect();
        for (name, _) in given {
            if !declared.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err(Error::Usage(match near(name, declared.iter().map(String::as_str)) {
                    Some(known) => {
                        format!("{} declares no parameter `{name}`; did you mean `{known}`?", self.name())
                    }
                    None if declared.is_empty() => {
                        format!("{} declares no parameters, and `{name}` is given", self.name())
                    }
                    None => {
                        format!("{} declares no parameter `{name}`; it declares {}", self.name(), declared.join(", "))
                    }
                }));
            }
        }
        Ok(())
    }
}

fn declared_name(text: &str) -> Option<String> {
    let words = significant(&tokenize(text).ok()?);
    super::tokens::begins_with(&words, &["DECLARE"]).then(|| words.get(1).and_then(super::tokens::identifier))?
}

impl RunSettings {
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        (self.parameters.iter().rev())
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl<'a> Job<'a> {
    pub(crate) fn new(session: &'a Session, settings: &'a RunSettings, script: &'a Script, number: usize) -> Self {
        Job { session, settings, script, number, shown: Arc::default() }
    }

    /// Whether an earlier run of the job has done the statement for good.
    fn is_done(&self, text: &str) -> bool {
        let Some(resume) = &self.settings.resume else { return false };
        self.number <= resume.statements_done && !makes_session(text)
    }

    /// Begins to write an output; finds out when an earlier run of the job has committed it.
    pub(crate) async fn begin(&self, location: &Location, mode: CommitMode) -> Result<Begun> {
        let stores = self.session.stores();
        Ok(match self.key() {
            None => Begun::New(Box::new(Commit::begin(stores, location, mode).await?)),
            Some(key) => Commit::begin_once(stores, location, mode, &key).await?,
        })
    }

    /// Names this statement of a job that may be run again after a loss; its outputs are committed once.
    pub(crate) fn key(&self) -> Option<String> {
        let resume = self.settings.resume.as_ref()?;
        Some(format!("{}/{}", resume.job, self.number))
    }

    async fn statement(&self, text: &str) -> Result<StatementReport> {
        let number = self.number;
        let begun = Instant::now();
        self.session.stores().forget_listings();
        let before = self.session.stores().counters();
        let kind = parse(self.session, text);
        let title = match &kind {
            Ok(kind) => title(kind, text),
            Err(_) => super::title::title(&significant(&tokenize(text)?)),
        };
        self.emit(Event::StatementStarted { number, count: self.script.len(), title: title.clone() });
        self.session.take_places();
        let Finished { rows, mut outcomes, .. } = match self.settled(kind, text).await {
            Ok(finished) => finished,
            Err(error) => {
                self.emit(Event::StatementFailed { number, title });
                return Err(error);
            }
        };
        outcomes.extend(
            (self.session.take_places().into_iter()).map(|value| Outcome::Fact { name: IN_DRIVER.into(), value }),
        );
        let after = self.session.stores().counters();
        let report = StatementReport {
            title,
            elapsed: begun.elapsed(),
            rows,
            requests: after.requests - before.requests,
            bytes_read: after.bytes_read - before.bytes_read,
            bytes_written: after.bytes_written - before.bytes_written,
            outcomes,
        };
        self.emit(Event::StatementFinished { number, report: report.clone() });
        Ok(report)
    }

    /// Runs the statement, again when a commit of somebody else has taken away a file that it was reading: what it meant
    /// to read is there, under other names. A statement that fails has left nothing behind.
    async fn settled(&self, kind: Result<Kind>, text: &str) -> Result<Finished> {
        let mut kind = kind;
        for attempt in 1.. {
            let work = async { self.run(kind?, self.number, text).await };
            let finished = if self.settings.cancel.is_cancelled() { Err(Error::Cancelled) } else { work.await };
            // Whatever a cancelled plan reports, the reason is that it was cancelled.
            let error = match finished {
                Ok(finished) => return Ok(finished),
                Err(_) if self.settings.cancel.is_cancelled() => return Err(Error::Cancelled),
                Err(Error::Query(error)) => self.session.explain(error, text),
                Err(other) => other,
            };
            if !matches!(error, Error::Replaced(_)) || attempt == ATTEMPTS || self.shown.load(Ordering::Relaxed) {
                return Err(error);
            }
            tracing::info!(%error, attempt, "the statement is begun again");
            self.session.stores().forget_listings();
            kind = parse(self.session, text);
        }
        unreachable!("the last attempt returns")
    }

    pub(crate) async fn run(&self, kind: Kind, number: usize, text: &str) -> Result<Finished> {
        let session = self.session;
        match kind {
            Kind::Declare(declare) => {
                let given = self.settings.given(&declare.name);
                let parameter = self.cancellable(declare.evaluate(session, text, given)).await?;
                let fact = Outcome::Fact { name: parameter.name.clone(), value: parameter.text() };
                session.set_parameter(parameter);
                Ok(Finished { outcomes: vec![fact], ..Finished::default() })
            }
            Kind::Set(set) => set.apply(session).map(|()| Finished::default()),
            Kind::Assert(assert) => {
                let outcome = self.cancellable(assert.evaluate(session, text)).await?;
                if let Outcome::Assertion { held: false, value, .. } = &outcome {
                    self.emit(Event::Warning(format!("assertion failed: {}", assert.failure(value))));
                }
                Ok(Finished { outcomes: vec![outcome], ..Finished::default() })
            }
            Kind::Copy(copy) => copy.run(self, text).await,
            Kind::Extension(statement) => {
                let finished = self.graceful(statement.run(session, &self.context(text))).await?;
                match finished.result {
                    Some(frame) => {
                        let rows = self.show(number, frame, text).await?;
                        Ok(Finished { rows: finished.rows.or(Some(rows)), outcomes: finished.outcomes, result: None })
                    }
                    None => Ok(finished),
                }
            }
            Kind::Sql(tokens) => match sql::execute(session, text, tokens, Some(self)).await? {
                sql::Outcome::Rows(frame) => {
                    let rows = self.show(number, frame, text).await?;
                    Ok(Finished { rows: Some(rows), ..Finished::default() })
                }
                sql::Outcome::Done(finished) => Ok(finished),
            },
        }
    }

    /// Runs a query and hands its rows over.
    async fn show(&self, number: usize, frame: DataFrame, text: &str) -> Result<u64> {
        let (_, plan) = frame.into_parts();
        let read = plan.clone();
        let analyzed = matches!(plan, LogicalPlan::Analyze(_));
        let before = self.session.stores().counters();
        let shown = async {
            let execution = self.session.runner().run(self.session, plan, Gather::One).await?;
            let mut partitions = execution.partitions;
            let mut stream = partitions.pop().expect("a gathered execution has one stream");
            if analyzed {
                stream = with_requests(stream, self.session.stores().clone(), before);
            }
            let stream = self.noticed(stream);
            self.watch(execution.gauge.as_ref(), self.settings.results.accept(number, stream)).await
        };
        let shown = shown.await;
        self.explained(shown, &read, text).await
    }

    /// Remembers that rows went out.
    fn noticed(&self, stream: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let shown = Arc::clone(&self.shown);
        let schema = stream.schema();
        let stream = stream.inspect(move |batch| {
            shown.fetch_or(batch.is_ok(), Ordering::Relaxed);
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, stream))
    }

    /// Waits for work while telling how far it is; stops it when the job is cancelled.
    pub(crate) async fn watch<T>(&self, gauge: &dyn Gauge, work: impl Future<Output = Result<T>>) -> Result<T> {
        watch(&self.settings.events, &self.settings.cancel, gauge, work).await
    }

    /// Drops the work when the job is cancelled.
    pub(crate) async fn cancellable<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.settings.cancel.cancelled() => Err(Error::Cancelled),
            done = work => done,
        }
    }

    /// Lets an extension's statement end by itself when the job is cancelled, for a while: it may have threads to stop
    /// and files to remove.
    async fn graceful<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = self.settings.cancel.cancelled() => {}
        }
        tokio::time::timeout(GRACE, work).await.unwrap_or(Err(Error::Cancelled))
    }

    pub(crate) fn context(&self, text: &str) -> JobContext {
        JobContext {
            events: Arc::clone(&self.settings.events),
            cancel: self.settings.cancel.clone(),
            statement_text: text.to_string(),
            script_text: Arc::clone(self.script.text()),
            parameters: Arc::new(self.session.parameters().texts()),
        }
    }

    fn emit(&self, event: Event) {
        (self.settings.events)(event);
    }

    /// Looks into the files that a plan reads when running it failed, unless it was stopped.
    pub(crate) async fn explained<T>(&self, done: Result<T>, plan: &LogicalPlan, text: &str) -> Result<T> {
        match done {
            Err(Error::Query(error)) if !self.settings.cancel.is_cancelled() => {
                Err(self.cancellable(async { Ok(self.session.explain_failure(error, plan, text).await) }).await?)
            }
            done => done,
        }
    }
}

/// Waits for work while telling how far it is; stops it when it is cancelled.
pub(crate) async fn watch<T>(
    events: &EventSink,
    cancel: &CancellationToken,
    gauge: &dyn Gauge,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut told = Reading::default();
    let tell = |told: &mut Reading| {
        let now = gauge.read();
        if now != *told {
            emit_reading(events, &now);
            *told = now;
        }
    };
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Error::Cancelled),
            done = &mut work => {
                if told != Reading::default() {
                    tell(&mut told);
                }
                return done;
            }
            _ = ticks.tick() => tell(&mut told),
        }
    }
}

fn emit_reading(events: &EventSink, reading: &Reading) {
    let spilled = (reading.bytes_spilled > 0)
        .then(|| ("spilled", crate::memory::readable(usize::try_from(reading.bytes_spilled).unwrap_or(usize::MAX))));
    let progress = |task: &str, done: u64, total: Option<u64>| {
        let fields = spilled.clone().into_iter().collect();
        Event::Progress(Progress { task: task.to_string(), done, total, unit: "rows", fields })
    };
    if reading.rows_scanned > 0 {
        let total = reading.rows_to_scan.filter(|total| *total >= reading.rows_scanned);
        events(progress("scan", reading.rows_scanned, total));
    }
    if reading.rows_written > 0 {
        events(progress("write", reading.rows_written, None));
    }
}

/// Statements that leave nothing behind but in the session: a job that goes on needs them again.
fn makes_session(text: &str) -> bool {
    let Ok(tokens) = tokenize(text) else { return true };
    let words = significant(&tokens);
    let begins = |first: &[&str]| super::tokens::begins_with(&words, first);
    let of_models =
        begins(&["CREATE", "MODEL"]) || begins(&["CREATE", "OR", "REPLACE", "MODEL"]) || begins(&["DROP", "MODEL"]);
    let makes = ["DECLARE", "SET", "RESET", "CREATE", "DROP", "PREPARE", "DEALLOCATE"];
    !of_models && makes.iter().any(|word| begins(&[word]))
}

pub(super) fn title(kind: &Kind, text: &str) -> String {
    match kind {
        Kind::Declare(declare) => declare.title(),
        Kind::Set(set) => set.title(),
        Kind::Assert(assert) => assert.title(),
        Kind::Copy(copy) => copy.title(),
        Kind::Extension(statement) => statement.title(),
        Kind::Sql(_) => super::title::title(&significant(&tokenize(text).unwrap_or_default())),
    }
}
