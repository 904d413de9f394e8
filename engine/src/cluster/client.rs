//! The driver's end: hands plans to the scheduler, hears how they go, fetches the rows from the executors that hold them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballista_core::client::BallistaClient;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, CleanJobDataParams, ExecuteQueryParams, GetJobMetricsParams, GetJobStatusResult, JobStageMetrics,
    KeyValuePair, PartitionLocation, job_status, operator_metric,
};
use ballista_core::version;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};

use super::api::{Disturbance, ExecutorInfo, Problem};
use super::connections::Connections;
use super::{ClusterAddress, MESSAGE_BYTES_MAX, failure};
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A scheduler that stands still for a while has not ended.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Tries to fetch rows whose executor does not answer, and the wait between them.
const FETCH_RETRIES: u8 = 3;
const FETCH_RETRY_WAIT_MS: u64 = 500;
/// How long the number of executors that have gone is taken from an earlier answer.
const DEPARTURES_KEPT: Duration = Duration::from_secs(1);

type Scheduler = SchedulerGrpcClient<Channel>;

/// A connection to a cluster; cloning shares it.
#[derive(Clone)]
pub struct ClusterClient {
    address: ClusterAddress,
    scheduler: Arc<OnceCell<Scheduler>>,
    http: reqwest::Client,
    executors: Connections,
    /// How many executors had gone, at the latest when this was asked.
    departures: Arc<Mutex<Option<(Instant, u64)>>>,
}

impl ClusterClient {
    /// For the scheduler at this address. Connects when it is first needed.
    pub fn new(address: ClusterAddress) -> Self {
        ClusterClient {
            address,
            scheduler: Arc::default(),
            http: reqwest::Client::new(),
            executors: Connections::default(),
            departures: Arc::default(),
        }
    }

    /// Where the scheduler is.
    pub fn address(&self) -> &ClusterAddress {
        &self.address
    }

    /// The HTTP client and the URL of a path of the API.
    pub fn http(&self, path: &str) -> (&reqwest::Client, String) {
        (&self.http, format!("{}/api/v1/{path}", self.address.http_url()))
    }

    /// The body of an answer that is no error.
    ///
    /// # Errors
    /// What the scheduler says is wrong; [`Error::Cluster`] when it does not answer.
    pub async fn answer<T: serde::de::DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let response = self.checked(request).await?;
        response.json().await.map_err(|error| self.lost(&error))
    }

    /// An answer that is no error, its body still to be read.
    ///
    /// # Errors
    /// As [`ClusterClient::answer`].
    pub async fn checked(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(Problem { error, hint }) => {
                let error = Error::invalid(error);
                Err(hint.into_iter().fold(error, |error, hint| error.with_hint(hint)))
            }
            Err(_) => Err(Error::invalid(format!("{} answered {status}: is it a gristmill scheduler?", self.address))),
        }
    }

    /// The executors that live.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the scheduler cannot be reached.
    pub async fn executors(&self) -> Result<Vec<ExecutorInfo>> {
        let (http, url) = self.http("executors");
        self.answer(http.get(url)).await
    }

    /// What may have shaken a plan; without a plan, how many executors have gone.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the scheduler cannot be reached.
    pub(crate) async fn disturbance(&self, plan: Option<&str>) -> Result<Disturbance> {
        let (http, url) = self.http("disturbance");
        let asked = Instant::now();
        let query: Vec<_> = plan.map(|plan| ("plan", plan)).into_iter().collect();
        let disturbance: Disturbance = self.answer(http.get(url).query(&query)).await?;
        *self.departures.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, disturbance.departures));
        Ok(disturbance)
    }

    /// How many executors have gone, or had a moment ago: for who asks whether more have gone since, an earlier number does.
    ///
    /// # Errors
    /// As [`ClusterClient::disturbance`].
    pub(crate) async fn departures(&self) -> Result<u64> {
        let known = *self.departures.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some((asked, departures)) if asked.elapsed() < DEPARTURES_KEPT => Ok(departures),
            _ => Ok(self.disturbance(None).await?.departures),
        }
    }

    /// Makes the connections that the first plan needs, so that it need not wait for them.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the scheduler cannot be reached.
    pub(crate) async fn connect(&self) -> Result<()> {
        tokio::try_join!(self.scheduler(), self.departures()).map(drop)
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> Error {
        let mut root = error;
        while let Some(source) = root.source() {
            root = source;
        }
        Error::Cluster(format!("the scheduler at {} cannot be reached: {root}", self.address))
    }

    async fn scheduler(&self) -> Result<Scheduler> {
        let connect = || async {
            let endpoint = Endpoint::from_shared(self.address.http_url())
                .map_err(|error| self.lost(&error))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .keep_alive_while_idle(true);
            let channel = endpoint.connect().await.map_err(|error| self.lost(&error))?;
            Ok(SchedulerGrpcClient::new(channel)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
                .max_decoding_message_size(MESSAGE_BYTES_MAX))
        };
        self.scheduler.get_or_try_init(connect).await.cloned()
    }

    /// Hands over an encoded physical plan with the session's settings.
    ///
    /// # Errors
    /// [`Error::Cluster`] when the scheduler cannot be reached, [`Error::Query`] when it does not understand the plan.
    pub(crate) async fn submit(
        &self,
        plan: Vec<u8>,
        settings: Vec<KeyValuePair>,
        session_id: &str,
    ) -> Result<Submission> {
        let mut scheduler = self.scheduler().await?;
        let query = ExecuteQueryParams {
            query: Some(Query::PhysicalPlan(plan)),
            settings,
            session_id: session_id.to_string(),
            operation_id: uuid::Uuid::now_v7().to_string(),
        };
        let mut request = tonic::Request::new(query);
        version::insert_version_header(request.metadata_mut());
        let response = scheduler.execute_query_push(request).await.map_err(|status| self.refused(&status))?;
        Ok(Submission { client: self.clone(), updates: response.into_inner(), job: None, ended: false })
    }

    fn refused(&self, status: &tonic::Status) -> Error {
        match status.code() {
            tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown => {
                Error::Cluster(format!("the scheduler at {} is lost: {}", self.address, status.message()))
            }
            _ => Error::Query(failure::read(status.message())),
        }
    }

    /// Asks what the operators of ended stages have done, by stage.
    pub(crate) async fn stages(&self, job: &str) -> Result<Vec<JobStageMetrics>> {
        let mut scheduler = self.scheduler().await?;
        let params = GetJobMetricsParams { job_id: job.to_string() };
        let answer = scheduler.get_job_metrics(params).await.map_err(|status| self.refused(&status))?;
        Ok(answer.into_inner().stages)
    }

    /// Asks for the rows that the operators of ended stages gave.
    pub(crate) async fn metrics(&self, job: &str) -> Result<StageMetrics> {
        let stages = self.stages(job).await?;
        let mut metrics = StageMetrics::default();
        for operator in stages.iter().flat_map(|stage| &stage.operators) {
            for metric in &operator.metrics {
                match &metric.metric {
                    Some(operator_metric::Metric::OutputRows(rows)) if operator.operator_type == "DataSourceExec" => {
                        metrics.rows_scanned += rows;
                    }
                    Some(operator_metric::Metric::SpilledBytes(bytes)) => metrics.bytes_spilled += bytes,
                    Some(operator_metric::Metric::Count(count)) if count.name == crate::sink::ROWS_WRITTEN => {
                        metrics.rows_written += count.value;
                    }
                    _ => {}
                }
            }
        }
        Ok(metrics)
    }

    /// Fetches one partition of a job's result.
    pub(crate) async fn fetch(
        &self,
        location: &PartitionLocation,
    ) -> datafusion::error::Result<SendableRecordBatchStream> {
        let layout = location.layout();
        let (Some(executor), Some(partition)) = (location.executor_meta.clone(), location.partition_id.clone()) else {
            return Err(DataFusionError::Internal("the scheduler gave a result without a place".to_string()));
        };
        let port = u16::try_from(executor.port).unwrap_or_default();
        let lost = |error: ballista_core::error::BallistaError| {
            let place = format!("{}:{}", executor.host, executor.port);
            let message =
                format!("the executor at {place} that holds the result is lost: {}", failure::read(&error.to_string()));
            DataFusionError::External(Box::new(Error::Cluster(message)))
        };
        let make = || {
            BallistaClient::try_new(
                &executor.host,
                port,
                MESSAGE_BYTES_MAX,
                false,
                None,
                FETCH_RETRIES,
                FETCH_RETRY_WAIT_MS,
                0,
                0,
            )
        };
        let place = (executor.host.clone(), port);
        let mut client = match self.executors.take(&place) {
            Some(client) => client,
            None => make().await.map_err(lost)?,
        };
        let partition = partition.into();
        let rows =
            client.fetch_partition(&executor.id, &partition, location.file_id, layout, true).await.map_err(lost)?;
        // A connection carries several streams at a time.
        self.executors.give_back(place, client);
        Ok(rows)
    }

    async fn cancel(&self, job: String) {
        let Ok(mut scheduler) = self.scheduler().await else { return };
        if let Err(status) = scheduler.cancel_job(CancelJobParams { job_id: job.clone() }).await {
            tracing::warn!(job, %status, "the job could not be cancelled");
        }
    }

    async fn clean(&self, job: String) {
        let Ok(mut scheduler) = self.scheduler().await else { return };
        if let Err(status) =
            scheduler.clean_job_data(CleanJobDataParams { job_id: job.clone(), remove_stage_ids: Vec::new() }).await
        {
            tracing::debug!(job, %status, "the job's data could not be removed; executors will");
        }
    }
}

/// What ended stages have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StageMetrics {
    pub(crate) rows_scanned: u64,
    pub(crate) rows_written: u64,
    pub(crate) bytes_spilled: u64,
}

/// A plan that the cluster is executing. Dropped, it is cancelled if it runs, and its rows are removed if it has ended.
pub struct Submission {
    client: ClusterClient,
    updates: tonic::Streaming<GetJobStatusResult>,
    job: Option<String>,
    ended: bool,
}

impl Submission {
    /// The scheduler's id of it, once known.
    pub(crate) fn job(&self) -> Option<&str> {
        self.job.as_deref()
    }

    /// Waits for the next word about it: where the rows of each partition are when it has ended well, `None` before.
    ///
    /// # Errors
    /// Why it failed; [`Error::Cluster`] when the scheduler is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<PartitionLocation>>> {
        let client = self.client.clone();
        let update = match self.updates.next().await {
            Some(update) => update.map_err(|status| client.refused(&status))?,
            None => return Err(Error::Cluster(format!("the scheduler at {} is lost", client.address))),
        };
        let Some(status) = update.status else { return Ok(None) };
        self.job.get_or_insert(status.job_id);
        match status.status {
            Some(job_status::Status::Successful(success)) => {
                self.ended = true;
                let mut places = success.partition_location;
                places.sort_by_key(|place| place.partition_id.as_ref().map_or(0, |id| id.partition_id));
                Ok(Some(places))
            }
            Some(job_status::Status::Failed(failed)) => {
                self.ended = true;
                Err(Error::Query(failure::read(&failed.error)))
            }
            _ => Ok(None),
        }
    }
}

impl Drop for Submission {
    fn drop(&mut self) {
        let (Some(job), Ok(runtime)) = (self.job.take(), tokio::runtime::Handle::try_current()) else { return };
        let (client, ended) = (self.client.clone(), self.ended);
        runtime.spawn(async move {
            if !ended {
                client.cancel(job.clone()).await;
            }
            client.clean(job).await;
        });
    }
}
