//! The scheduler: upstream's, set up for batch work. It listens nowhere by itself: whoever embeds it serves its routes,
//! beside other ones, where they like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::create_scheduler;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tonic::service::{Routes, RoutesBuilder};

use super::api::ExecutorInfo;
use super::environment::{Environment, default_config};
use super::lending::Lending;
use super::{LOST_AFTER, MESSAGE_BYTES_MAX, RESULT_LIFETIME};
use crate::error::{Error, Result};
use crate::gang::LeaseOffice;

/// How often the scheduler looks for executors that are lost.
const LOOK_FOR_LOST_SECONDS: u64 = 2;
/// Tries of a task, and of a stage, before the job fails.
const TASK_TRIES: usize = 4;
const STAGE_TRIES: usize = 4;
/// How long what is known of an ended plan is kept.
const PLAN_STATE_SECONDS: u64 = 600;

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
    leases: LeaseOffice,
}

impl Scheduler {
    /// Makes one and starts its loops.
    ///
    /// # Errors
    /// Functions that do not fit together, settings that upstream refuses.
    pub async fn start(settings: &SchedulerSettings, environment: &Environment) -> Result<Self> {
        let config = Arc::new(config(settings, environment)?);
        let cluster = BallistaCluster::new_from_config(&config).await.map_err(unusable)?;
        let leases = LeaseOffice::default();
        let lending = Lending::new(cluster.cluster_state(), leases.clone());
        let cluster = BallistaCluster::new(Arc::new(lending), cluster.job_state());
        let server = create_scheduler(cluster, config).await.map_err(unusable)?;
        Ok(Scheduler { server, leases })
    }

    /// Who works for which gang.
    pub fn leases(&self) -> &LeaseOffice {
        &self.leases
    }

    /// The services that drivers and executors call.
    pub fn routes(&self) -> Routes {
        let service = SchedulerGrpcServer::new(self.server.clone())
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
        let now = now_seconds();
        let mut executors: Vec<ExecutorInfo> = (states.into_iter())
            .map(|(metadata, seen, _)| ExecutorInfo {
                id: metadata.id,
                host: metadata.host,
                port: metadata.port,
                cores: metadata.specification.vcores,
                last_seen_seconds: seen.map_or(0, |seen| now.saturating_sub(seen.as_secs())),
            })
            .filter(|executor| executor.last_seen_seconds <= LOST_AFTER.as_secs())
            .collect();
        executors.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(executors)
    }
}

#[allow(clippy::disallowed_methods, reason = "heartbeats are told in the clock's time")]
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
