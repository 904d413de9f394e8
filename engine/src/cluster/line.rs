//! An executor's line to its scheduler. Upstream's executor ends itself when its scheduler has not answered five
//! heartbeats, and drops what it has to say of its tasks when it cannot say it at once. So it speaks to a service in its own
//! process, which speaks to the scheduler: it registers, and registers again, as long as that takes; heartbeats wait
//! until they are heard; word of a task is said once, and if it is not known whether it was heard, the scheduler is told
//! to take the executor for lost, which has the plan begun again.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ballista_core::extension::EndpointOverrideFn;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::scheduler_grpc_server::{SchedulerGrpc, SchedulerGrpcServer};
use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult, CreateUpdateSessionParams,
    CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult, ExecutorStoppedParams, ExecutorStoppedResult,
    GetJobMetricsParams, GetJobMetricsResult, GetJobStatusParams, GetJobStatusResult, HeartBeatParams, HeartBeatResult,
    PollWorkParams, PollWorkResult, RegisterExecutorParams, RegisterExecutorResult, RemoveSessionParams,
    RemoveSessionResult, UpdateTaskStatusParams, UpdateTaskStatusResult, executor_status,
};
use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

use super::{ClusterAddress, LOST_AFTER, MESSAGE_BYTES_MAX};
use crate::error::{Error, Result};

type Client = SchedulerGrpcClient<Channel>;

/// How long the scheduler may take to hear a heartbeat, or a farewell, and the pause before it is told again.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long an executor waits for its name when another one has it: longer than a dead one is known.
const NAME_WAIT: Duration = Duration::from_secs(LOST_AFTER.as_secs() + 10);
/// A connection on which nothing is answered is given up after this; word of tasks is waited for longer, since it cannot
/// be said twice.
const SILENCE: Duration = Duration::from_secs(10);
const LONG_SILENCE: Duration = Duration::from_secs(300);

/// Says something to whoever looks after the executor.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// The service in this process; it ends when this is dropped.
pub(super) struct Line {
    port: u16,
    relay: Relay,
    serving: JoinHandle<()>,
}

impl Line {
    /// Begins to listen, on this machine's loopback. `give_up_after`: how long the scheduler may be away; `None` is as
    /// long as it likes.
    pub(super) fn start(scheduler: ClusterAddress, give_up_after: Option<Duration>, tell: Tell) -> Result<Self> {
        let broken =
            |error: &dyn std::fmt::Display| Error::Cluster(format!("the executor cannot reach itself: {error}"));
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).map_err(|error| broken(&error))?;
        let port = incoming.local_addr().map_err(|error| broken(&error))?.port();
        let relay = Relay::new(scheduler, give_up_after, tell)?;
        let service = SchedulerGrpcServer::new(relay.clone())
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let serving = tokio::spawn(async move {
            if let Err(error) =
                Server::builder().add_service(service).serve_with_incoming(incoming.with_nodelay(Some(true))).await
            {
                tracing::error!(%error, "the executor cannot reach its scheduler any more");
            }
        });
        Ok(Line { port, relay, serving })
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Has every connection to a scheduler come here, without limits of time.
    pub(super) fn endpoints(&self) -> EndpointOverrideFn {
        let here = format!("http://127.0.0.1:{}", self.port);
        Arc::new(move |_| Ok(Endpoint::from_shared(here.clone())?.tcp_nodelay(true)))
    }

    /// Whether the scheduler knows of this executor, or has.
    pub(super) fn is_registered(&self) -> bool {
        self.relay.state.registered.load(Ordering::SeqCst)
    }

    /// Waits until the executor must end, and gives the reason.
    pub(super) async fn broken(&self) -> Error {
        let mut ends = self.relay.state.ends.subscribe();
        let reason = ends.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => Error::Cluster(reason),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Relay {
    /// For what can be said again, and for what cannot.
    beats: Client,
    words: Client,
    scheduler: ClusterAddress,
    state: Arc<State>,
}

struct State {
    give_up_after: Option<Duration>,
    tell: Tell,
    away: Mutex<Option<Away>>,
    registered: AtomicBool,
    leaving: AtomicBool,
    /// Why the executor must end.
    ends: watch::Sender<Option<String>>,
}

/// The scheduler does not answer.
struct Away {
    since: Instant,
    told: bool,
}

/// A short absence is not worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(3);

impl Relay {
    fn new(scheduler: ClusterAddress, give_up_after: Option<Duration>, tell: Tell) -> Result<Self> {
        let client = |silence: Duration| -> Result<Client> {
            let endpoint = Endpoint::from_shared(scheduler.http_url())
                .map_err(|error| Error::Usage(format!("{scheduler} is no address: {error}")))?
                .connect_timeout(HEARD_WITHIN)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(HEARD_WITHIN)
                .keep_alive_timeout(silence)
                .keep_alive_while_idle(true);
            Ok(SchedulerGrpcClient::new(endpoint.connect_lazy())
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
                .max_decoding_message_size(MESSAGE_BYTES_MAX))
        };
        let state = State {
            give_up_after,
            tell,
            away: Mutex::new(None),
            registered: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            ends: watch::Sender::new(None),
        };
        Ok(Relay { beats: client(SILENCE)?, words: client(LONG_SILENCE)?, scheduler, state: Arc::new(state) })
    }

    fn here(&self) {
        let away = self.state.away.lock().unwrap_or_else(PoisonError::into_inner).take();
        if away.is_some_and(|away| away.told) {
            (self.state.tell)(&format!("the scheduler at {} is there", self.scheduler));
        }
    }

    /// Notes that the scheduler did not answer, and waits before it is asked again; `false` when it need not be.
    async fn missed(&self, why: &str) -> bool {
        if self.state.leaving.load(Ordering::SeqCst) {
            return false;
        }
        let (since, tell) = {
            let mut away = self.state.away.lock().unwrap_or_else(PoisonError::into_inner);
            let away = away.get_or_insert_with(|| Away { since: Instant::now(), told: false });
            let tell = !away.told && away.since.elapsed() > WORTH_A_WORD;
            away.told |= tell;
            (away.since, tell)
        };
        if tell {
            (self.state.tell)(&format!(
                "the scheduler at {} cannot be reached ({why}); waiting for it",
                self.scheduler
            ));
        }
        if self.state.give_up_after.is_some_and(|longest| since.elapsed() > longest) {
            let seconds = since.elapsed().as_secs();
            self.end(format!("the scheduler at {} cannot be reached, for {seconds} s: {why}", self.scheduler));
            return false;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        true
    }

    fn end(&self, reason: String) {
        self.state.ends.send_if_modified(|known| known.is_none().then(|| *known = Some(reason)).is_some());
    }

    /// Tells the scheduler to take this executor for lost: the next heartbeat registers it again.
    async fn forget(&self, executor_id: &str) {
        let lost = ExecutorStoppedParams {
            executor_id: executor_id.to_string(),
            reason: "its connection broke while it told of a task".to_string(),
        };
        loop {
            let mut client = self.beats.clone();
            match in_time(HEARD_WITHIN, client.executor_stopped(lost.clone())).await {
                Ok(_) => return,
                Err(status) if !self.missed(&reason(&status)).await => return,
                Err(_) => {}
            }
        }
    }
}

async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<T, Status>>,
) -> std::result::Result<T, Status> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")))
}

/// Whether the call may go well another time: nobody was there, or nobody answered.
fn may_pass(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// Whether the call has certainly not been heard: there was no connection.
fn was_not_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// What is at the bottom of it.
fn reason(status: &Status) -> String {
    let Some(mut error) = status.source() else { return status.message().to_string() };
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn not_here<T>() -> std::result::Result<T, Status> {
    Err(Status::unimplemented("an executor's line carries what executors say"))
}

#[tonic::async_trait]
impl SchedulerGrpc for Relay {
    type ExecuteQueryPushStream = BoxStream<'static, std::result::Result<GetJobStatusResult, Status>>;

    async fn register_executor(
        &self,
        request: Request<RegisterExecutorParams>,
    ) -> std::result::Result<Response<RegisterExecutorResult>, Status> {
        let (params, begun) = (request.into_inner(), Instant::now());
        loop {
            let mut client = self.beats.clone();
            match client.register_executor(params.clone()).await {
                Ok(answer) => {
                    self.state.registered.store(true, Ordering::SeqCst);
                    self.here();
                    return Ok(answer);
                }
                Err(status) if status.code() == Code::AlreadyExists && begun.elapsed() < NAME_WAIT => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(status) if may_pass(&status) => {
                    if !self.missed(&reason(&status)).await {
                        return Err(status);
                    }
                }
                Err(status) => {
                    self.end(status.message().to_string());
                    return Err(status);
                }
            }
        }
    }

    async fn heart_beat_from_executor(
        &self,
        request: Request<HeartBeatParams>,
    ) -> std::result::Result<Response<HeartBeatResult>, Status> {
        let params = request.into_inner();
        let status = params.status.as_ref().and_then(|status| status.status.as_ref());
        let is_farewell = matches!(status, Some(executor_status::Status::Terminating(_)));
        if is_farewell {
            self.state.leaving.store(true, Ordering::SeqCst);
        }
        let limit = if is_farewell { FAREWELL_WITHIN } else { HEARD_WITHIN };
        loop {
            let mut client = self.beats.clone();
            match in_time(limit, client.heart_beat_from_executor(params.clone())).await {
                Ok(_) => {
                    self.here();
                    break;
                }
                Err(status) if status.code() == Code::AlreadyExists => {
                    self.end(status.message().to_string());
                    break;
                }
                Err(status) if !self.missed(&reason(&status)).await => break,
                Err(_) => {}
            }
        }
        Ok(Response::new(HeartBeatResult { reregister: false }))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusParams>,
    ) -> std::result::Result<Response<UpdateTaskStatusResult>, Status> {
        let params = request.into_inner();
        loop {
            let mut client = self.words.clone();
            match client.update_task_status(params.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) if was_not_sent(&status) => {
                    if !self.missed(&reason(&status)).await {
                        break;
                    }
                }
                Err(status) => {
                    tracing::warn!(%status, "it is not known whether the scheduler has heard of a task's end");
                    self.forget(&params.executor_id).await;
                    break;
                }
            }
        }
        Ok(Response::new(UpdateTaskStatusResult { success: false }))
    }

    async fn executor_stopped(
        &self,
        request: Request<ExecutorStoppedParams>,
    ) -> std::result::Result<Response<ExecutorStoppedResult>, Status> {
        self.state.leaving.store(true, Ordering::SeqCst);
        let mut client = self.beats.clone();
        if let Err(status) = in_time(FAREWELL_WITHIN, client.executor_stopped(request.into_inner())).await {
            tracing::debug!(%status, "the scheduler does not hear that this executor ends");
        }
        Ok(Response::new(ExecutorStoppedResult {}))
    }

    async fn poll_work(&self, _: Request<PollWorkParams>) -> std::result::Result<Response<PollWorkResult>, Status> {
        not_here()
    }

    async fn create_update_session(
        &self,
        _: Request<CreateUpdateSessionParams>,
    ) -> std::result::Result<Response<CreateUpdateSessionResult>, Status> {
        not_here()
    }

    async fn remove_session(
        &self,
        _: Request<RemoveSessionParams>,
    ) -> std::result::Result<Response<RemoveSessionResult>, Status> {
        not_here()
    }

    async fn execute_query_push(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> std::result::Result<Response<Self::ExecuteQueryPushStream>, Status> {
        not_here()
    }

    async fn execute_query(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> std::result::Result<Response<ExecuteQueryResult>, Status> {
        not_here()
    }

    async fn get_job_status(
        &self,
        _: Request<GetJobStatusParams>,
    ) -> std::result::Result<Response<GetJobStatusResult>, Status> {
        not_here()
    }

    async fn get_job_metrics(
        &self,
        _: Request<GetJobMetricsParams>,
    ) -> std::result::Result<Response<GetJobMetricsResult>, Status> {
        not_here()
    }

    async fn cancel_job(&self, _: Request<CancelJobParams>) -> std::result::Result<Response<CancelJobResult>, Status> {
        not_here()
    }

    async fn clean_job_data(
        &self,
        _: Request<CleanJobDataParams>,
    ) -> std::result::Result<Response<CleanJobDataResult>, Status> {
        not_here()
    }
}
