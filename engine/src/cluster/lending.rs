//! Executors whose cores work for a gang get no tasks while others can have them. When all executors work for gangs tasks
//! run beside the ranks: a query that waited until a training of hours has ended would be worse than one that slows it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use ballista_core::JobId;
use ballista_core::error::Result;
use ballista_core::serde::protobuf::ExecutorHeartbeat;
use ballista_core::serde::scheduler::{ExecutorData, ExecutorMetadata};
use ballista_scheduler::cluster::{BoundTask, ClusterState, ClusterStateEventStream, ExecutorSlot};
use ballista_scheduler::config::TaskDistributionPolicy;
use ballista_scheduler::state::task_manager::JobInfoCache;

use crate::gang::LeaseOffice;

/// Upstream's state of the cluster, asked for fewer executors.
pub(super) struct Lending {
    upstream: Arc<dyn ClusterState>,
    leases: LeaseOffice,
    departures: Arc<AtomicU64>,
}

impl Lending {
    pub(super) fn new(upstream: Arc<dyn ClusterState>, leases: LeaseOffice) -> Self {
        Lending { upstream, leases, departures: Arc::default() }
    }

    /// Counts executors that were lost or left.
    pub(super) fn departures(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.departures)
    }
}

/// The executors that tasks may go to.
fn for_tasks(living: HashSet<String>, lent: &[String]) -> HashSet<String> {
    let free: HashSet<String> = living.iter().filter(|id| !lent.contains(id)).cloned().collect();
    if free.is_empty() { living } else { free }
}

#[async_trait]
impl ClusterState for Lending {
    async fn init(&self) -> Result<()> {
        self.upstream.init().await
    }

    async fn bind_schedulable_tasks(
        &self,
        distribution: TaskDistributionPolicy,
        active_jobs: Arc<HashMap<JobId, JobInfoCache>>,
        executors: Option<HashSet<String>>,
    ) -> Result<Vec<BoundTask>> {
        let executors = executors.map(|living| for_tasks(living, &self.leases.lent()));
        self.upstream.bind_schedulable_tasks(distribution, active_jobs, executors).await
    }

    async fn unbind_tasks(&self, executor_slots: Vec<ExecutorSlot>) -> Result<()> {
        self.upstream.unbind_tasks(executor_slots).await
    }

    async fn register_executor(&self, metadata: ExecutorMetadata, spec: ExecutorData) -> Result<()> {
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
        self.departures.fetch_add(1, Ordering::SeqCst);
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
    fn tasks_go_to_executors_that_work_for_no_gang_while_there_are_any() {
        let ids = |text: &str| text.split(' ').map(str::to_string).collect::<HashSet<_>>();
        for (lent, expected) in [("", "a b"), ("a", "b"), ("b c", "a"), ("a b", "a b")] {
            let lent: Vec<String> = lent.split_whitespace().map(str::to_string).collect();
            assert_eq!(for_tasks(ids("a b"), &lent), ids(expected), "{lent:?}");
        }
    }
}
