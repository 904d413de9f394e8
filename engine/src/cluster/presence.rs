//! Which executors live. Upstream compares the clock's time of a heartbeat with the clock, so a step of the clock, or a
//! scheduler that stood still for a while (a suspended machine, a snapshot), makes it take every executor for lost, and
//! tell it to end. Here silence is measured by a clock that only runs while this process does; and an executor that was
//! silent for too long is taken out without being told anything: when it is heard again it registers again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::{ExecutorHeartbeat, ExecutorStatus, executor_status};
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::task_manager::JobInfoCache;

use super::LOST_AFTER;
use super::probe::answers;

/// How often the clock is wound, and how much of a longer pause counts.
const TICK: Duration = Duration::from_millis(500);
const TICK_MAX: Duration = Duration::from_secs(1);
/// An executor that was silent for this long is asked whether it lives, and how long its answer may take.
const ASK_AFTER: Duration = Duration::from_secs(12);
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Upstream's time of a heartbeat that is newer, or older, than any.
const JUST_NOW: u64 = u32::MAX as u64;
const LONG_AGO: u64 = 0;

/// Time while this process runs: what it stands still does not count.
#[derive(Debug)]
struct Awake {
    last: Instant,
    total: Duration,
}

impl Awake {
    fn tick(&mut self, now: Instant) {
        self.total += now.saturating_duration_since(self.last).min(TICK_MAX);
        self.last = now;
    }
}

/// What was heard of executors, and when.
#[derive(Debug)]
struct Heard {
    awake: Awake,
    at: HashMap<String, Duration>,
}

/// See the module.
pub(super) struct Presence {
    upstream: Arc<dyn ClusterState>,
    heard: Mutex<Heard>,
}

impl Presence {
    pub(super) fn new(upstream: Arc<dyn ClusterState>) -> Self {
        let awake = Awake { last: Instant::now(), total: Duration::ZERO };
        Presence { upstream, heard: Mutex::new(Heard { awake, at: HashMap::new() }) }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Every change is whole when the lock is given back, so a poisoned one is still good.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, executor: &str) {
        let mut heard = self.heard();
        let now = heard.awake.total;
        heard.at.insert(executor.to_string(), now);
    }

    /// Since when nothing was heard of an executor; `None` of one that is not known.
    pub(super) fn silence(&self, executor: &str) -> Option<Duration> {
        let heard = self.heard();
        heard.at.get(executor).map(|at| heard.awake.total.saturating_sub(*at))
    }

    /// Winds the clock, and asks executors that are silent, for as long as the scheduler lives.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut asked: HashMap<String, tokio::task::JoinHandle<()>> = HashMap::new();
        loop {
            tokio::time::sleep(TICK).await;
            self.heard().awake.tick(Instant::now());
            asked.retain(|_, asking| !asking.is_finished());
            for executor in self.upstream.registered_executor_metadata().await {
                let silent = self.silence(&executor.id).is_some_and(|silence| silence > ASK_AFTER);
                if silent && !asked.contains_key(&executor.id) {
                    let (own, id) = (Arc::clone(&self), executor.id.clone());
                    let asking = tokio::spawn(async move {
                        if answers(&executor, ANSWER_WITHIN).await {
                            own.hear(&executor.id);
                        }
                    });
                    asked.insert(id, asking);
                }
            }
        }
    }

    /// A heartbeat as upstream should see it. Of lost ones it is said that they end by themselves: upstream then takes
    /// them out, and does not tell them to end.
    fn seen(&self, mut heartbeat: ExecutorHeartbeat) -> ExecutorHeartbeat {
        let status = heartbeat.status.as_ref().and_then(|status| status.status.as_ref());
        if matches!(status, Some(executor_status::Status::Active(_))) {
            if self.silence(&heartbeat.executor_id).is_some_and(|silence| silence <= LOST_AFTER) {
                heartbeat.timestamp = JUST_NOW;
            } else {
                let lost = executor_status::Status::Terminating("lost".to_string());
                heartbeat.status = Some(ExecutorStatus { status: Some(lost) });
                heartbeat.timestamp = LONG_AGO;
            }
        }
        heartbeat
    }
}

#[async_trait]
impl ClusterState for Presence {
    async fn init(&self) -> Result<()> {
        self.upstream.init().await
    }

    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        self.upstream.bind_schedulable_tasks(distribution, active_jobs, executors).await
    }

    async fn unbind_tasks(&self, executor_slots: Vec<ExecutorSlot>) -> Result<()> {
        self.upstream.unbind_tasks(executor_slots).await
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, spec: ExecutorData) -> Result<()> {
        self.hear(&metadata.id);
        self.upstream.register_executor(metadata, spec).await
    }

    async fn save_executor_metadata(&self, metadata: ExecutorMetadata) -> Result<()> {
        self.upstream.save_executor_metadata(metadata).await
    }

    async fn get_executor_metadata(&self, executor_id: &str) -> Result<ExecutorMetadata> {
        self.upstream.get_executor_metadata(executor_id).await
    }

    async fn registered_executor_metadata(&self) -> Vec<ExecutorMetadata> {
        self.upstream.registered_executor_metadata().await
    }

    async fn save_executor_heartbeat(&self, heartbeat: ExecutorHeartbeat) -> Result<()> {
        self.hear(&heartbeat.executor_id);
        self.upstream.save_executor_heartbeat(heartbeat).await
    }

    async fn remove_executor(&self, executor_id: &str) -> Result<()> {
        self.heard().at.remove(executor_id);
        self.upstream.remove_executor(executor_id).await
    }

    fn executor_heartbeats(&self) -> HashMap<String, ExecutorHeartbeat> {
        let known = self.upstream.executor_heartbeats().into_iter();
        known.map(|(id, heartbeat)| (id, self.seen(heartbeat))).collect()
    }

    fn get_executor_heartbeat(&self, executor_id: &str) -> Option<ExecutorHeartbeat> {
        self.upstream.get_executor_heartbeat(executor_id)
    }

    async fn cluster_state_events(&self) -> Result<ClusterStateEventStream> {
        self.upstream.cluster_state_events().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_process_is_no_silence() {
        let begun = Instant::now();
        let mut awake = Awake { last: begun, total: Duration::ZERO };
        for half_seconds in 1..=10 {
            awake.tick(begun + TICK * half_seconds);
        }
        assert_eq!(awake.total, Duration::from_secs(5));
        awake.tick(begun + Duration::from_secs(300));
        assert_eq!(awake.total, Duration::from_secs(6));
    }
}
