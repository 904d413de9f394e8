//! Who may register under which name. Upstream refuses a name that is registered until its executor was silent for long
//! enough; so one that was killed and is started again at once would stay away. Here a new process takes the place of one
//! that is dead, with all that follows from its loss, and only a living one keeps its name to itself. All else goes on to
//! upstream.

use std::time::Duration;

use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpc;
use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult, CreateUpdateSessionParams,
    CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult, ExecutorRegistration, ExecutorStoppedParams,
    ExecutorStoppedResult, GetJobMetricsParams, GetJobMetricsResult, GetJobStatusParams, GetJobStatusResult,
    HeartBeatParams, HeartBeatResult, PollWorkParams, PollWorkResult, RegisterExecutorParams, RegisterExecutorResult,
    RemoveSessionParams, RemoveSessionResult, UpdateTaskStatusParams, UpdateTaskStatusResult,
};
use ballista_core::serde::scheduler::ExecutorMetadata;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tonic::{Request, Response, Status};

use super::probe::answers;

type Upstream = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// How long a process that has the name already may take to say that it lives.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How often to look whether it has been taken out, and how long that may take.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Reception {
    upstream: Upstream,
}

impl Reception {
    pub(super) fn new(upstream: Upstream) -> Self {
        Reception { upstream }
    }

    async fn known(&self, id: &str) -> Option<ExecutorMetadata> {
        self.upstream.state.executor_manager.get_executor_metadata(id).await.ok()
    }

    /// Takes out the executor whose name a new process has.
    async fn make_room(&self, new: &ExecutorRegistration) -> Result<(), Status> {
        let Some(old) = self.known(&new.id).await else { return Ok(()) };
        if !is_at(&old, new) && answers(&old, ANSWER_WITHIN).await {
            return Err(taken(&old));
        }
        tracing::warn!(executor = new.id, "a new process takes the place of an executor that is lost");
        let lost = ExecutorStoppedParams { executor_id: new.id.clone(), reason: "it was started again".to_string() };
        self.upstream.executor_stopped(Request::new(lost)).await?;
        let gone = async {
            while self.known(&new.id).await.is_some() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(GONE_WITHIN, gone).await.map_err(|_| taken(&old))
    }
}

/// Whether both are, or were, at the same place.
fn is_at(known: &ExecutorMetadata, said: &ExecutorRegistration) -> bool {
    let host = said.host.as_ref().is_none_or(|host| *host == known.host);
    host && said.port == u32::from(known.port) && said.grpc_port == u32::from(known.grpc_port)
}

fn taken(by: &ExecutorMetadata) -> Status {
    Status::already_exists(format!(
        "the name `{}` is that of a living executor, at {}:{}",
        by.id, by.host, by.grpc_port
    ))
}

#[tonic::async_trait]
impl SchedulerGrpc for Reception {
    type ExecuteQueryPushStream = <Upstream as SchedulerGrpc>::ExecuteQueryPushStream;

    async fn register_executor(
        &self,
        request: Request<RegisterExecutorParams>,
    ) -> Result<Response<RegisterExecutorResult>, Status> {
        if let Some(new) = &request.get_ref().metadata {
            self.make_room(new).await?;
        }
        self.upstream.register_executor(request).await
    }

    async fn heart_beat_from_executor(
        &self,
        request: Request<HeartBeatParams>,
    ) -> Result<Response<HeartBeatResult>, Status> {
        // One that was taken for dead, and whose place another has taken meanwhile.
        if let Some(said) = &request.get_ref().metadata
            && let Some(known) = self.known(&said.id).await
            && !is_at(&known, said)
        {
            return Err(taken(&known));
        }
        self.upstream.heart_beat_from_executor(request).await
    }

    async fn poll_work(&self, request: Request<PollWorkParams>) -> Result<Response<PollWorkResult>, Status> {
        self.upstream.poll_work(request).await
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusParams>,
    ) -> Result<Response<UpdateTaskStatusResult>, Status> {
        self.upstream.update_task_status(request).await
    }

    async fn create_update_session(
        &self,
        request: Request<CreateUpdateSessionParams>,
    ) -> Result<Response<CreateUpdateSessionResult>, Status> {
        self.upstream.create_update_session(request).await
    }

    async fn remove_session(
        &self,
        request: Request<RemoveSessionParams>,
    ) -> Result<Response<RemoveSessionResult>, Status> {
        self.upstream.remove_session(request).await
    }

    async fn execute_query_push(
        &self,
        request: Request<ExecuteQueryParams>,
    ) -> Result<Response<Self::ExecuteQueryPushStream>, Status> {
        self.upstream.execute_query_push(request).await
    }

    async fn execute_query(
        &self,
        request: Request<ExecuteQueryParams>,
    ) -> Result<Response<ExecuteQueryResult>, Status> {
        self.upstream.execute_query(request).await
    }

    async fn get_job_status(
        &self,
        request: Request<GetJobStatusParams>,
    ) -> Result<Response<GetJobStatusResult>, Status> {
        self.upstream.get_job_status(request).await
    }

    async fn get_job_metrics(
        &self,
        request: Request<GetJobMetricsParams>,
    ) -> Result<Response<GetJobMetricsResult>, Status> {
        self.upstream.get_job_metrics(request).await
    }

    async fn executor_stopped(
        &self,
        request: Request<ExecutorStoppedParams>,
    ) -> Result<Response<ExecutorStoppedResult>, Status> {
        self.upstream.executor_stopped(request).await
    }

    async fn cancel_job(&self, request: Request<CancelJobParams>) -> Result<Response<CancelJobResult>, Status> {
        SchedulerGrpc::cancel_job(&self.upstream, request).await
    }

    async fn clean_job_data(
        &self,
        request: Request<CleanJobDataParams>,
    ) -> Result<Response<CleanJobDataResult>, Status> {
        self.upstream.clean_job_data(request).await
    }
}
