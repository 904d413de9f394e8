//! An executor: runs tasks, and ranks of gangs, until it is told to stop. A scheduler that goes away is waited for. Its
//! directory goes with it.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballista_core::config::TaskSchedulingPolicy;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::environment::{Environment, default_config};
use super::line::{Line, Tell};
use super::task::TaskEngine;
use super::{ClusterAddress, ClusterClient, HEARTBEAT, MESSAGE_BYTES_MAX};
use crate::error::{Error, Result};
use crate::gang::{GangService, Member, ServiceSettings};
use crate::temporary::TemporaryDirectory;

/// How often an executor that is told to end looks whether its ranks have.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the scheduler hears that this executor takes ranks.
const MEMBER_BEAT: Duration = Duration::from_secs(1);
/// How long one of these messages may take: a scheduler that is busy answers late.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an executor that is told to end waits for its ranks.
const DRAIN_WAIT: Duration = Duration::from_secs(60);

/// What an executor needs to know.
#[derive(Clone)]
pub struct ExecutorSettings {
    /// The scheduler it works for.
    pub scheduler: ClusterAddress,
    /// Its name; made up when absent.
    pub id: Option<String>,
    /// Where it listens.
    pub bind: IpAddr,
    /// The name under which others reach it.
    pub advertise: String,
    /// Ports for rows and for tasks; 0 takes a free one.
    pub ports: (u16, u16),
    /// The port for ranks of gangs; 0 takes a free one.
    pub gang_port: u16,
    /// Tasks that it runs at a time.
    pub cores: usize,
    /// Bytes for all of its tasks together; `None` is 7 tenths of the machine's.
    pub memory: Option<u64>,
    /// Where rows between stages and spilled rows go.
    pub work_dir: Option<PathBuf>,
    /// How long the scheduler may be away before the executor ends; `None` is as long as it likes.
    pub give_up_after: Option<Duration>,
    /// Hears what whoever runs the executor should know.
    pub tell: Tell,
}

/// Runs an executor until SIGTERM, SIGINT or the scheduler ends it.
///
/// # Errors
/// A scheduler that is away for too long, a name that another executor has, ports that are taken, a directory that cannot
/// be used.
pub async fn run_executor(settings: ExecutorSettings, environment: &Environment) -> Result<()> {
    if let Some(begin) = environment.extension().worker {
        begin(environment.stores());
    }
    let directory = TemporaryDirectory::new(settings.work_dir.as_deref())?;
    let line = Line::start(settings.scheduler.clone(), settings.give_up_after, Arc::clone(&settings.tell))?;
    let config = config(&settings, environment, &directory, &line)?;
    let gangs = GangService::start(ServiceSettings {
        bind: (settings.bind, settings.gang_port),
        tasks: environment.extension().gang_tasks.clone(),
        stores: environment.stores().clone(),
        cores: settings.cores,
        memory: settings.memory,
        scratch: directory.path().join("gang"),
    })?;
    let member = Member {
        id: config.executor_id.clone(),
        incarnation: uuid::Uuid::new_v4().to_string(),
        host: settings.advertise.clone(),
        port: gangs.port(),
        cores: u32::try_from(settings.cores).unwrap_or(u32::MAX),
        leaving: false,
    };
    let membership = tokio::spawn(Membership { service: gangs.clone(), member }.keep(settings.scheduler.clone()));
    let ended = tokio::select! {
        ended = start_executor_process(Arc::new(config)) => {
            ended.map_err(|error| Error::Cluster(format!("the executor: {error}")))
        }
        reason = line.broken() => Err(reason),
        () = told_to_end_early(&line) => Ok(()),
    };
    // Told to end: ranks save what they have done before the process goes.
    gangs.leave();
    let begun = Instant::now();
    while !gangs.is_idle() && begun.elapsed() < DRAIN_WAIT {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    membership.abort();
    ended
}

/// Waits for a signal before the scheduler knows of the executor; later ones are heard by upstream.
async fn told_to_end_early(line: &Line) {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    tokio::select! {
        () = heard(&mut terminate) => {}
        () = heard(&mut interrupt) => {}
    }
    if line.is_registered() {
        std::future::pending().await
    }
}

/// Tells the scheduler every second that this executor takes ranks, or that it takes no more.
struct Membership {
    service: GangService,
    member: Member,
}

impl Membership {
    async fn keep(mut self, scheduler: ClusterAddress) {
        let client = ClusterClient::new(scheduler);
        let mut terminate = signal(SignalKind::terminate()).ok();
        let mut interrupt = signal(SignalKind::interrupt()).ok();
        let mut beats = tokio::time::interval(MEMBER_BEAT);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = heard(&mut terminate) => self.service.leave(),
                () = heard(&mut interrupt) => self.service.leave(),
            }
            self.member.leaving = self.service.is_leaving();
            let (http, url) = client.http("gangs/members");
            let request = http.post(url).timeout(MEMBER_TIMEOUT).json(&self.member);
            if let Err(error) = client.checked(request).await {
                tracing::debug!(%error, "the scheduler does not hear that this executor takes ranks");
            }
        }
    }
}

/// Waits for a signal; for ever when nobody listens to it.
async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn config(
    settings: &ExecutorSettings,
    environment: &Environment,
    directory: &TemporaryDirectory,
    line: &Line,
) -> Result<ExecutorProcessConfig> {
    let message_bytes = u32::try_from(MESSAGE_BYTES_MAX).expect("the largest message is told in 32 bits");
    let (port, grpc_port) = ports(settings)?;
    let spill = directory.path().join("spill");
    let shared = environment.clone();
    let runtime = move |_: &_| {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill.clone()]));
        shared.runtime(RuntimeEnvBuilder::new().with_disk_manager_builder(disk))
    };
    let mut config = ExecutorProcessConfig {
        bind_host: settings.bind.to_string(),
        external_host: Some(settings.advertise.clone()),
        port,
        grpc_port,
        scheduler_host: "127.0.0.1".to_string(),
        scheduler_port: line.port(),
        override_create_grpc_client_endpoint: Some(line.endpoints()),
        vcores: settings.cores,
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: Some(directory.path().join("shuffle").to_string_lossy().into_owned()),
        grpc_max_decoding_message_size: message_bytes,
        grpc_max_encoding_message_size: message_bytes,
        executor_heartbeat_interval_seconds: HEARTBEAT.as_secs(),
        memory_pool_size: settings.memory,
        override_execution_engine: Some(Arc::new(TaskEngine::new())),
        override_function_registry: Some(Arc::new(environment.functions()?)),
        override_runtime_producer: Some(Arc::new(runtime)),
        override_config_producer: Some(Arc::new(default_config)),
        override_physical_codec: Some(environment.codec()),
        ..ExecutorProcessConfig::default()
    };
    if let Some(id) = &settings.id {
        config.executor_id.clone_from(id);
    }
    Ok(config)
}

/// The first of the ports below those that systems give to connections, and how many there are.
const QUIET_PORTS: u16 = 10_000;
const QUIET_COUNT: u32 = 10_000;

/// Two different free ports where none are given; of those, when there are any, that the system gives to nobody who just
/// connects: the servers listen at them a little later, and until then such a connection could take them.
fn ports(settings: &ExecutorSettings) -> Result<(u16, u16)> {
    let quiet = || {
        let begin = std::process::id() % QUIET_COUNT;
        let port = |step| QUIET_PORTS + ((begin * 7 + step) % QUIET_COUNT) as u16;
        (0..QUIET_COUNT).find_map(|step| TcpListener::bind((settings.bind, port(step))).ok())
    };
    let take = |port: u16| match (port == 0).then(quiet).flatten() {
        Some(listener) => Ok(listener),
        None => TcpListener::bind((settings.bind, port))
            .map_err(|error| Error::Usage(format!("the executor cannot listen at {}:{port}: {error}", settings.bind))),
    };
    let (first, second) = (take(settings.ports.0)?, take(settings.ports.1)?);
    let number = |listener: &TcpListener| {
        listener.local_addr().map(|address| address.port()).map_err(|error| Error::Usage(error.to_string()))
    };
    Ok((number(&first)?, number(&second)?))
}
