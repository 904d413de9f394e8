//! The leases where a scheduler can give them out: under a lock, by this process's clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lease::{LeaseAnswer, LeaseRequest, Leases, Member};

/// See the module. Cloning shares it.
#[derive(Debug, Clone)]
pub struct LeaseOffice {
    leases: Arc<Mutex<Leases>>,
    opened: Instant,
}

impl Default for LeaseOffice {
    fn default() -> Self {
        LeaseOffice { leases: Arc::default(), opened: Instant::now() }
    }
}

impl LeaseOffice {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        // Every change is made whole or not at all.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    /// An executor says that it is there.
    pub fn heartbeat(&self, member: Member) {
        self.leases().heartbeat(member, self.now());
    }

    /// A run asks for workers, or says that it still has them.
    pub fn ask(&self, request: LeaseRequest) -> LeaseAnswer {
        self.leases().ask(request, self.now())
    }

    /// A run has ended.
    pub fn release(&self, run: &str) {
        self.leases().release(run, self.now());
    }

    /// Names of the executors that work for runs.
    pub fn lent(&self) -> Vec<String> {
        self.leases().lent(self.now())
    }

    /// How many executors live and take ranks.
    pub fn available(&self) -> usize {
        self.leases().available(self.now())
    }
}
