//! Which cores of executors are taken by tasks. Upstream gives a task's cores back when its status arrives, and looks up
//! in the task's stage how many they were; of a stage that was rolled back meanwhile, because an executor was lost, and of
//! a job that has ended, it finds nothing: the cores stay taken, and on a small cluster the job waits for ever (Ballista
//! 55.0). So what is taken is counted here too, and what no running task accounts for is given back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::ExecutorHeartbeat;
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::task_manager::JobInfoCache;

/// Cores by executor.
pub(super) type Cores = HashMap<String, u32>;

/// Upstream's state of the cluster, with an account of the cores.
pub(super) struct CountedCores {
    upstream: Arc<dyn ClusterState>,
    taken: Mutex<Cores>,
}

impl CountedCores {
    pub(super) fn new(upstream: Arc<dyn ClusterState>) -> Self {
        CountedCores { upstream, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Cores> {
        // Every change is whole when the lock is given back, so a poisoned one is still good.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is taken beyond the cores of the tasks that run.
    pub(super) fn unaccounted(&self, running: &Cores) -> Cores {
        let taken = self.taken();
        let beyond = |(executor, cores): (&String, &u32)| {
            let own = running.get(executor).copied().unwrap_or(0);
            (*cores > own).then(|| (executor.clone(), cores - own))
        };
        taken.iter().filter_map(beyond).collect()
    }
}

/// Of what was unaccounted for at two looks, as much as was so at both.
pub(super) fn lasting(before: &Cores, now: &Cores) -> Cores {
    let both = now.iter().filter_map(|(executor, cores)| Some((executor.clone(), *cores.min(before.get(executor)?))));
    both.collect()
}

#[async_trait]
impl ClusterState for CountedCores {
    async fn init(&self) -> Result<()> {
        self.upstream.init().await
    }

    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        let bound = self.upstream.bind_schedulable_tasks(distribution, active_jobs, executors).await?;
        let mut taken = self.taken();
        for (executor, task) in &bound {
            *taken.entry(executor.clone()).or_default() += task.vcores_consumed;
        }
        drop(taken);
        Ok(bound)
    }

    /// Never more than is taken: a task of which nothing was known may be told of after its cores were given back.
    async fn unbind_tasks(&self, slots: Vec<ExecutorSlot>) -> Result<()> {
        let mut given = Vec::with_capacity(slots.len());
        {
            let mut taken = self.taken();
            for (executor, cores) in slots {
                let Some(own) = taken.get_mut(&executor) else { continue };
                let cores = cores.min(*own);
                *own -= cores;
                given.push((executor, cores));
            }
        }
        self.upstream.unbind_tasks(given).await
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, spec: ExecutorData) -> Result<()> {
        self.taken().insert(metadata.id.clone(), 0);
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
        self.upstream.save_executor_heartbeat(heartbeat).await
    }

    async fn remove_executor(&self, executor_id: &str) -> Result<()> {
        self.taken().remove(executor_id);
        self.upstream.remove_executor(executor_id).await
    }

    fn executor_heartbeats(&self) -> HashMap<String, ExecutorHeartbeat> {
        self.upstream.executor_heartbeats()
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
    fn only_what_lasts_is_given_back() {
        let cores = |pairs: &[(&str, u32)]| pairs.iter().map(|(id, cores)| (id.to_string(), *cores)).collect::<Cores>();
        assert_eq!(lasting(&cores(&[("a", 2), ("b", 1)]), &cores(&[("a", 1), ("c", 3)])), cores(&[("a", 1)]));
        assert_eq!(lasting(&cores(&[]), &cores(&[("a", 1)])), cores(&[]));
    }
}
