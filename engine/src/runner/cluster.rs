//! Execution on a cluster: the same physical plan, cut into stages by the scheduler, its rows fetched from the executors.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballista_core::extension::SessionConfigHelperExt;
use ballista_core::serde::protobuf::PartitionLocation;
use datafusion::common::format::ExplainFormat;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::analyze::explained;
use super::local::{execute, rows_to_scan};
use super::place::{told, with_place};
use super::{Execution, Gather, Gauge, Reading, Runner};
use crate::cluster::api::Disturbance;
use crate::cluster::{
    ClusterClient, Environment, NO_FILES, ScalarSubqueries, Submission, Travelled, cuts_badly, for_cluster,
    keeps_at_home, plan_for_tasks, reads_json_array, scalar_subqueries, values_first, without_dynamic_filters, written,
};
use crate::error::{Error, Result};
use crate::fault::kept_rows;
use crate::gang::{ClusterGangs, Gangs};
use crate::session::Session;

/// How often the scheduler is asked how far a plan is.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// How often a plan is given to the cluster when it was shaken or its result is lost.
const TRIES: usize = 5;
/// How long a session waits for the first executor, and how often it looks.
const EXECUTORS_WAIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Why an attempt does not count, and how many such ones there may be.
const LOST: &str = "an executor was lost or left";
const LOSSES: usize = 2;
/// Bytes of a result that are here before the first row is given on.
const HELD_BYTES: usize = 16 << 20;

/// See the module.
#[derive(Clone)]
pub struct ClusterRunner {
    client: ClusterClient,
    environment: Environment,
    cores: usize,
}

impl ClusterRunner {
    /// Looks at the cluster: its living cores tell how many partitions plans have. A cluster that has just started is
    /// waited for.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the scheduler cannot be reached or has no executors for a minute.
    pub async fn connect(client: ClusterClient, environment: Environment) -> Result<Self> {
        let begun = Instant::now();
        let (mut executors, ()) = tokio::try_join!(client.executors(), client.connect())?;
        while executors.is_empty() && begun.elapsed() < EXECUTORS_WAIT {
            tokio::time::sleep(LOOK_EVERY).await;
            executors = client.executors().await?;
        }
        let cores = executors.iter().map(|executor| executor.cores as usize).sum();
        if cores == 0 {
            let (address, seconds) = (client.address(), begun.elapsed().as_secs());
            return Err(Error::Cluster(format!("the scheduler at {address} has no executors, for {seconds} s")));
        }
        Ok(ClusterRunner { client, environment, cores })
    }
}

#[async_trait]
impl Runner for ClusterRunner {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn partitions(&self) -> Option<usize> {
        Some(self.cores)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn configure(&self, config: SessionConfig) -> SessionConfig {
        for_cluster(config)
    }

    fn gangs(&self) -> Option<Arc<dyn Gangs>> {
        Some(Arc::new(ClusterGangs::new(self.client.clone())))
    }

    async fn run(&self, session: &Session, plan: LogicalPlan, gather: Gather) -> Result<Execution> {
        let mut state = session.context().state();
        without_dynamic_filters(state.config_mut());
        if let LogicalPlan::Explain(explain) = &plan {
            // Graphs and JSON have no place for a line.
            let is_text = matches!(explain.explain_format, ExplainFormat::Indent | ExplainFormat::Tree);
            let reason = self.placed(session, &state, &explain.plan).await?.reason().filter(|_| is_text);
            let physical = plan_for_tasks(&state, &plan).await?;
            return execute(&state, with_place(physical, reason), gather);
        }
        let (physical, task) = match self.placed(session, &state, &plan).await? {
            Placed::Executors { physical, task } => (physical, task),
            Placed::Driver { state, physical, reason } => {
                let analyzed = physical.is::<AnalyzeExec>();
                let mut execution = execute(&state, physical, gather)?;
                if analyzed {
                    execution.partitions = execution.partitions.into_iter().map(|rows| told(rows, &reason)).collect();
                }
                // A query without files is nobody's loss.
                if reason != NO_FILES {
                    session.note_place(reason);
                }
                return Ok(execution);
            }
        };
        let travelling = analyzed(&physical);
        let gauge =
            Arc::new(RemoteGauge { rows_to_scan: rows_to_scan(travelling), progress: Arc::clone(&task.progress) });
        let partitions = match physical.downcast_ref::<AnalyzeExec>() {
            Some(analyze) => vec![analysis(task, analyze)],
            None => partitions(&task, &physical, gather),
        };
        Ok(Execution { partitions, gauge })
    }
}

/// Where a plan is executed.
enum Placed {
    Executors { physical: Arc<dyn ExecutionPlan>, task: Arc<Remote> },
    Driver { state: Box<SessionState>, physical: Arc<dyn ExecutionPlan>, reason: String },
}

impl Placed {
    /// Why it runs in the driver.
    fn reason(self) -> Option<String> {
        match self {
            Placed::Executors { .. } => None,
            Placed::Driver { reason, .. } => Some(reason),
        }
    }
}

/// What EXPLAIN ANALYZE asks is asked of the whole plan, not of the tasks of its last stage.
fn analyzed(physical: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    physical.downcast_ref::<AnalyzeExec>().map_or(physical, AnalyzeExec::input)
}

impl ClusterRunner {
    /// Plans, and finds out whether executors give what one process would give.
    async fn placed(&self, session: &Session, state: &SessionState, plan: &LogicalPlan) -> Result<Placed> {
        let planned = match scalar_subqueries(plan)? {
            ScalarSubqueries::Several => None,
            ScalarSubqueries::Single => plan_for_tasks(state, plan).await.ok(),
            ScalarSubqueries::None => Some(plan_for_tasks(state, plan).await?),
        };
        let Some(physical) = planned else {
            let state = Box::new(values_first(state));
            let physical = Box::pin(state.create_physical_plan(plan)).await?;
            let reason = "a subquery that stands for one value may give several rows".to_string();
            return Ok(Placed::Driver { state, physical, reason });
        };
        let remote = match reads_json_array(plan)? {
            true => Err("a JSON file that is one array is read by one process".to_string()),
            false => self.remote(session, state, analyzed(&physical)),
        };
        Ok(match remote {
            Ok(task) => Placed::Executors { physical, task },
            Err(reason) => Placed::Driver { state: Box::new(state.clone()), physical, reason },
        })
    }

    /// The plan ready to be handed over, or why it must run in the driver.
    fn remote(
        &self,
        session: &Session,
        state: &SessionState,
        plan: &Arc<dyn ExecutionPlan>,
    ) -> std::result::Result<Arc<Remote>, String> {
        if let Some(reason) = keeps_at_home(plan) {
            return Err(reason);
        }
        let context = self.environment.decoding(state.config().clone()).map_err(|error| error.to_string())?;
        let Travelled { bytes, arrived } = written(plan, self.environment.codec().as_ref(), &context)?;
        if let Some(reason) = cuts_badly(arrived, state.config().options()) {
            return Err(reason);
        }
        Ok(Arc::new(Remote {
            client: self.client.clone(),
            plan: bytes,
            settings: state.config().to_key_value_pairs(),
            session_id: session.context().session_id(),
            ended: OnceCell::new(),
            progress: Arc::default(),
        }))
    }
}

/// The answer of EXPLAIN ANALYZE; the plan runs when somebody reads it.
fn analysis(task: Arc<Remote>, analyze: &AnalyzeExec) -> SendableRecordBatchStream {
    let (schema, verbose) = (analyze.schema(), analyze.verbose());
    let columns = Arc::clone(&schema);
    let rows = futures::stream::once(async move {
        let ended = task.ended.get_or_try_init(|| task.execute()).await?;
        let job = ended.submission.job().unwrap_or_default();
        let stages = task.client.stages(job).await.map_err(outward)?;
        explained(&columns, verbose, &stages, &ended.places)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// One stream for each partition, or one of them all; none begins before somebody reads it.
fn partitions(task: &Arc<Remote>, physical: &Arc<dyn ExecutionPlan>, gather: Gather) -> Vec<SendableRecordBatchStream> {
    let count = physical.output_partitioning().partition_count();
    let schema = physical.schema();
    let stream = |wanted: Option<usize>| -> SendableRecordBatchStream {
        let rows = futures::stream::once(Arc::clone(task).rows(wanted)).try_flatten();
        kept_rows(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows)))
    };
    match gather {
        Gather::One => vec![stream(None)],
        Gather::Partitions | Gather::PartitionsInOrder => (0..count).map(|partition| stream(Some(partition))).collect(),
    }
}

/// A plan on its way to the cluster and back.
struct Remote {
    client: ClusterClient,
    plan: Vec<u8>,
    settings: Vec<ballista_core::serde::protobuf::KeyValuePair>,
    session_id: String,
    ended: OnceCell<Ended>,
    progress: Arc<RemoteProgress>,
}

/// Where the rows are; they are removed when this is dropped.
struct Ended {
    places: Vec<PartitionLocation>,
    submission: Submission,
    /// Rows that were begun already, to see that their executor lives; by their place's number.
    begun: Mutex<HashMap<usize, SendableRecordBatchStream>>,
}

impl Ended {
    fn begun(&self) -> MutexGuard<'_, HashMap<usize, SendableRecordBatchStream>> {
        // The map is whole whenever the lock is free, so a poisoned one is still good.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an execution ended that did not fail: with rows, or with what happened meanwhile so that they are not believed.
type Attempt = std::result::Result<Ended, &'static str>;

impl Remote {
    /// The rows of one partition, or of all in order.
    async fn rows(
        self: Arc<Self>,
        wanted: Option<usize>,
    ) -> QueryResult<impl futures::Stream<Item = QueryResult<arrow::array::RecordBatch>> + Send> {
        let ended = self.ended.get_or_try_init(|| self.execute()).await?;
        let of = |place: &PartitionLocation| place.partition_id.as_ref().map_or(0, |id| id.partition_id as usize);
        let numbered = ended.places.iter().enumerate();
        let places: Vec<usize> = numbered
            .filter(|(_, place)| wanted.is_none_or(|wanted| of(place) == wanted))
            .map(|(number, _)| number)
            .collect();
        let keep = Arc::clone(&self);
        Ok(futures::stream::iter(places)
            .then(move |number| {
                let keep = Arc::clone(&keep);
                async move {
                    keep.fetch(number).await.map(|rows| {
                        rows.map(move |batch| {
                            let _ = &keep;
                            batch
                        })
                    })
                }
            })
            .try_flatten())
    }

    /// The rows of one place, from their beginning.
    async fn fetch(&self, number: usize) -> QueryResult<SendableRecordBatchStream> {
        let ended = self.ended.get().expect("rows are fetched when the plan has ended");
        let begun = ended.begun().remove(&number);
        match begun {
            Some(rows) => Ok(rows),
            None => self.client.fetch(&ended.places[number]).await,
        }
    }

    /// Has the plan executed, again when executors were lost meanwhile, or are before anybody has read the result.
    ///
    /// A plan goes on after a loss by repeating stages, and the answer of one that did so can be wrong: rows of a
    /// repeated stage were read more than once (seen in a query of five joins, Ballista 55.0). So it is not believed.
    async fn execute(&self) -> QueryResult<Ended> {
        let (mut tries, mut losses) = (0, 0);
        loop {
            tries += 1;
            let lost = match self.attempt().await.map_err(outward)? {
                // A plan may be what ends them: others are not given to it.
                Err(LOST) if losses + 1 == LOSSES => {
                    let message =
                        format!("executors were lost during {LOSSES} attempts: no more are given to the plan");
                    return Err(outward(Error::Cluster(message)));
                }
                Err(_) if tries == TRIES => {
                    let message = format!("executors were lost during each of {TRIES} attempts");
                    return Err(outward(Error::Cluster(message)));
                }
                Err(why) => {
                    losses += usize::from(why == LOST);
                    why.to_string()
                }
                Ok(ended) => match self.check(&ended).await {
                    Err(error) if tries < TRIES => error.to_string(),
                    checked => return checked.map(|()| ended),
                },
            };
            tracing::warn!(lost, "the plan is executed again");
        }
    }

    async fn attempt(&self) -> Result<Attempt> {
        let before = self.client.departures().await?;
        let mut submission = self.client.submit(self.plan.clone(), self.settings.clone(), &self.session_id).await?;
        let mut ticks = tokio::time::interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                biased;
                update = submission.next() => if let Some(places) = update? {
                    let ((), shaken) = tokio::join!(self.measure(&submission), self.shaken(&submission, before));
                    return Ok(shaken?.map_or(Ok(Ended { places, submission, begun: Mutex::default() }), Err));
                },
                _ = ticks.tick() => {
                    self.measure(&submission).await;
                    if let Some(why) = self.shaken(&submission, before).await? {
                        return Ok(Err(why));
                    }
                }
            }
        }
    }

    /// Whether something has happened after which the plan's answer is not believed.
    async fn shaken(&self, submission: &Submission, before: u64) -> Result<Option<&'static str>> {
        let now = self.client.disturbance(submission.job()).await?;
        Ok(match now {
            Disturbance { repeated: true, .. } => Some("a stage was begun again"),
            now if now.departures != before => Some(LOST),
            _ => None,
        })
    }

    /// Takes over what the scheduler knows; a question without an answer is asked again later.
    async fn measure(&self, submission: &Submission) {
        let Some(job) = submission.job() else { return };
        if let Ok(metrics) = self.client.metrics(job).await {
            self.progress.rows_scanned.store(metrics.rows_scanned, Ordering::Relaxed);
            self.progress.rows_written.store(metrics.rows_written, Ordering::Relaxed);
            self.progress.bytes_spilled.store(metrics.bytes_spilled, Ordering::Relaxed);
        }
    }

    /// Reads the beginning of the result from every executor that holds some of it, and all of a result that is small: an
    /// executor that is lost before that costs another attempt, and nobody has seen a row yet.
    async fn check(&self, ended: &Ended) -> QueryResult<()> {
        let (mut asked, mut room) = (Vec::new(), HELD_BYTES);
        for (number, place) in ended.places.iter().enumerate() {
            let executor = place.executor_meta.as_ref().map(|executor| executor.id.as_str());
            if room > 0 || !asked.contains(&executor) {
                asked.push(executor);
                let rows = self.client.fetch(place).await?;
                let rows = begun(rows, &mut room).await?;
                ended.begun().insert(number, rows);
            }
        }
        Ok(())
    }
}

/// The same rows, of which as many are here as there is room for.
async fn begun(mut rows: SendableRecordBatchStream, room: &mut usize) -> QueryResult<SendableRecordBatchStream> {
    let (schema, mut held, mut rest) = (rows.schema(), Vec::new(), true);
    while rest && *room > 0 {
        match rows.try_next().await? {
            Some(batch) => {
                *room = room.saturating_sub(batch.get_array_memory_size());
                held.push(Ok(batch));
            }
            None => rest = false,
        }
    }
    let held = futures::stream::iter(held);
    Ok(match rest {
        true => Box::pin(RecordBatchStreamAdapter::new(schema, held.chain(rows))),
        false => Box::pin(RecordBatchStreamAdapter::new(schema, held)),
    })
}

fn outward(error: Error) -> DataFusionError {
    match error {
        Error::Query(error) => error,
        error => DataFusionError::External(Box::new(error)),
    }
}

#[derive(Default)]
struct RemoteProgress {
    rows_scanned: AtomicU64,
    rows_written: AtomicU64,
    bytes_spilled: AtomicU64,
}

struct RemoteGauge {
    rows_to_scan: Option<u64>,
    progress: Arc<RemoteProgress>,
}

impl Gauge for RemoteGauge {
    fn read(&self) -> Reading {
        Reading {
            rows_scanned: self.progress.rows_scanned.load(Ordering::Relaxed),
            rows_to_scan: self.rows_to_scan,
            rows_written: self.progress.rows_written.load(Ordering::Relaxed),
            bytes_spilled: self.progress.bytes_spilled.load(Ordering::Relaxed),
        }
    }
}
