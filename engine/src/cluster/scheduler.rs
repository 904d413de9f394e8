//! The scheduler: upstream's, set up for batch work. It listens nowhere by itself: whoever embeds it serves its routes,
//! beside other ones, where they like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ballista_core::JobId;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::serde::protobuf::UpdateTaskStatusParams;
use ballista_core::serde::protobuf::scheduler_grpc_server::{SchedulerGrpc, SchedulerGrpcServer};
use ballista_scheduler::cluster::{BallistaCluster, ClusterState, JobState};
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::create_scheduler;
use ballista_scheduler::scheduler_server::SchedulerServer;
use ballista_scheduler::state::execution_graph::ExecutionGraphBox;
use ballista_scheduler::state::execution_stage::ExecutionStage;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tonic::Request;
use tonic::service::{Routes, RoutesBuilder};

use super::api::{Disturbance, ExecutorInfo};
use super::cores::{Cores, CountedCores, lasting};
use super::environment::{Environment, default_config};
use super::lending::Lending;
use super::presence::Presence;
use super::reception::Reception;
use super::{LOST_AFTER, MESSAGE_BYTES_MAX, RESULT_LIFETIME};
use crate::error::{Error, Result};
use crate::gang::LeaseOffice;

/// How often the scheduler looks for executors that are lost.
const LOOK_FOR_LOST_SECONDS: u64 = 2;
/// How often the cores that are taken are compared with the tasks that run.
const LOOK_FOR_CORES_EVERY: Duration = Duration::from_secs(1);
/// Tries of a task, and of a stage, before the job fails.
const TASK_TRIES: usize = 4;
const STAGE_TRIES: usize = 4;
/// How long what is known of an ended plan is kept.
const PLAN_STATE_SECONDS: u64 = 60;

/// Where a scheduler is.
#[derive(Debug, Clone)]
pub struct SchedulerSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The name under which executors reach it.
    pub advertise: String,
}

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Scheduler {
    server: SchedulerServer<LogicalPlanNode, PhysicalPlanNode>,
    plans: Arc<dyn JobState>,
    leases: LeaseOffice,
    departures: Arc<AtomicU64>,
    presence: Arc<Presence>,
}

impl Scheduler {
    /// Makes one and starts its loops.
    ///
    /// # Errors
    /// Functions that do not fit together, settings that upstream refuses.
    pub async fn start(settings: &SchedulerSettings, environment: &Environment) -> Result<Self> {
        let config = Arc::new(config(settings, environment)?);
        let upstream = BallistaCluster::new_from_config(&config).await.map_err(unusable)?;
        let presence = Arc::new(Presence::new(upstream.cluster_state()));
        let cores = Arc::new(CountedCores::new(Arc::clone(&presence) as Arc<dyn ClusterState>));
        let leases = LeaseOffice::default();
        let lending = Lending::new(Arc::clone(&cores) as Arc<dyn ClusterState>, leases.clone());
        let (departures, plans) = (lending.departures(), upstream.job_state());
        let cluster = BallistaCluster::new(Arc::new(lending), Arc::clone(&plans));
        let server = create_scheduler(cluster, config).await.map_err(unusable)?;
        tokio::spawn(Arc::clone(&presence).watch());
        let scheduler = Scheduler { server, plans, leases, departures, presence };
        tokio::spawn(scheduler.clone().give_cores_back(cores));
        Ok(scheduler)
    }

    /// Who works for which gang.
    pub fn leases(&self) -> &LeaseOffice {
        &self.leases
    }

    /// Gives cores back that are taken while no running task accounts for them.
    async fn give_cores_back(self, cores: Arc<CountedCores>) {
        let mut before = Cores::new();
        loop {
            tokio::time::sleep(LOOK_FOR_CORES_EVERY).await;
            let now = cores.unaccounted(&self.running_cores().await);
            let lasting = lasting(&before, &now);
            before = if lasting.is_empty() { now } else { Cores::new() };
            for (executor_id, count) in lasting {
                tracing::debug!(executor_id, count, "cores of tasks that are gone are given back");
                if let Err(error) = cores.unbind_tasks(vec![(executor_id.clone(), count)]).await {
                    tracing::warn!(executor_id, %error, "cores cannot be given back");
                }
                // Word of no task at all makes the scheduler look what could run.
                let word = UpdateTaskStatusParams { executor_id, task_status: Vec::new() };
                if let Err(status) = SchedulerGrpc::update_task_status(&self.server, Request::new(word)).await {
                    tracing::warn!(%status, "the scheduler does not look for work");
                }
            }
        }
    }

    /// The cores of the tasks that run, by executor.
    async fn running_cores(&self) -> Cores {
        let mut cores = Cores::new();
        for job in self.server.state.task_manager.get_running_job_cache().values() {
            let graph = job.execution_graph.read().await;
            for task in graph.running_tasks() {
                let own = graph.task_vcores(task.stage_id, task.task_id).unwrap_or(1);
                *cores.entry(task.executor_id).or_default() += own;
            }
        }
        cores
    }

    /// What may have shaken a plan, by its id: executors that went, stages that were begun again.
    pub async fn disturbance(&self, plan: Option<&str>) -> Disturbance {
        let departures = self.departures.load(Ordering::SeqCst);
        let Some(plan) = plan else { return Disturbance { departures, repeated: false } };
        let id = JobId::from(plan.to_string());
        let again = |graph: &ExecutionGraphBox| graph.stages().values().any(|stage| attempts(stage) > 0);
        let running = self.server.state.task_manager.get_running_job_cache().get(&id).cloned();
        let repeated = match running {
            Some(job) => again(&*job.execution_graph.read().await),
            None => matches!(self.plans.get_execution_graph(&id).await, Ok(Some(graph)) if again(&graph)),
        };
        Disturbance { departures, repeated }
    }

    /// The services that drivers and executors call.
    pub fn routes(&self) -> Routes {
        let service = SchedulerGrpcServer::new(Reception::new(self.server.clone()))
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut routes = RoutesBuilder::default();
        routes.add_service(service);
        routes.routes()
    }

    /// The executors that live, by name.
    ///
    /// # Errors
    /// None today; the state that is asked may be elsewhere one day.
    pub async fn executors(&self) -> Result<Vec<ExecutorInfo>> {
        let states = self.server.state.executor_manager.get_executors_state().await.map_err(unusable)?;
        let mut executors: Vec<ExecutorInfo> = (states.into_iter())
            .filter_map(|(metadata, ..)| Some((self.presence.silence(&metadata.id)?, metadata)))
            .map(|(silence, metadata)| ExecutorInfo {
                id: metadata.id,
                host: metadata.host,
                port: metadata.port,
                cores: metadata.specification.vcores,
                last_seen_seconds: silence.as_secs(),
            })
            .filter(|executor| executor.last_seen_seconds <= LOST_AFTER.as_secs())
            .collect();
        executors.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(executors)
    }
}

/// How often a stage was begun again.
fn attempts(stage: &ExecutionStage) -> usize {
    match stage {
        ExecutionStage::UnResolved(stage) => stage.stage_attempt_num,
        ExecutionStage::Resolved(stage) => stage.stage_attempt_num,
        ExecutionStage::Running(stage) => stage.stage_attempt_num,
        ExecutionStage::Successful(stage) => stage.stage_attempt_num,
        ExecutionStage::Failed(stage) => stage.stage_attempt_num,
    }
}

fn config(settings: &SchedulerSettings, environment: &Environment) -> Result<SchedulerConfig> {
    let runtime = environment.runtime(RuntimeEnvBuilder::new())?;
    let states = environment.clone();
    let message_bytes = u32::try_from(MESSAGE_BYTES_MAX).expect("the largest message is told in 32 bits");
    Ok(SchedulerConfig {
        external_host: settings.advertise.clone(),
        bind_host: settings.listen.ip().to_string(),
        bind_port: settings.listen.port(),
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        executor_timeout_seconds: LOST_AFTER.as_secs(),
        expire_dead_executor_interval_seconds: LOOK_FOR_LOST_SECONDS,
        no_executors_grace_period_seconds: 2 * LOST_AFTER.as_secs(),
        finished_job_data_clean_up_interval_seconds: RESULT_LIFETIME.as_secs(),
        finished_job_state_clean_up_interval_seconds: PLAN_STATE_SECONDS,
        grpc_server_max_decoding_message_size: message_bytes,
        grpc_server_max_encoding_message_size: message_bytes,
        grpc_client_max_message_size: message_bytes,
        task_max_failures: TASK_TRIES,
        stage_max_failures: STAGE_TRIES,
        override_config_producer: Some(Arc::new(default_config)),
        override_session_builder: Some(Arc::new(move |config| states.state(config, Arc::clone(&runtime)))),
        override_physical_codec: Some(environment.codec()),
        ..SchedulerConfig::default()
    })
}

fn unusable(error: ballista_core::error::BallistaError) -> Error {
    Error::Cluster(format!("the scheduler: {error}"))
}
