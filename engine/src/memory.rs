//! The memory that queries may hold: a limit shared fairly, so that operators that can spill do so before the others run
//! dry. What `datafusion`'s fair pool does, with three differences: the limit may change between statements (`SET
//! engine.memory_limit`), a quarter is kept for operators that cannot spill (two sorts that share everything would leave
//! nothing for the merge of their results), and an operator that gets nothing is told what it wanted and what there was.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// How an exhausted pool's message begins; [`crate::mistake`] knows it by this.
pub(crate) const EXHAUSTED: &str = "out of memory: ";

/// A pool that gives each spillable reservation at most an even share of what the unspillable ones leave.
#[derive(Debug)]
pub struct FairPool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limit: Option<usize>,
    spillers: usize,
    spillable: usize,
    unspillable: usize,
    peak: usize,
}

impl FairPool {
    /// A pool of `limit` bytes; `None` counts but never refuses.
    pub fn new(limit: Option<usize>) -> Self {
        FairPool { state: Mutex::new(State { limit, ..State::default() }) }
    }

    /// Changes the limit; what is held stays held.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.lock().limit = limit;
    }

    /// The limit in bytes.
    pub fn limit(&self) -> Option<usize> {
        self.lock().limit
    }

    /// The most that was held at once.
    pub fn peak(&self) -> usize {
        self.lock().peak
    }

    // The counters are plain numbers that every update leaves consistent, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, can_spill: bool, bytes: usize) {
        let held = if can_spill { &mut self.spillable } else { &mut self.unspillable };
        *held += bytes;
        self.peak = self.peak.max(self.spillable + self.unspillable);
    }

    /// What a reservation of `size` bytes may still get.
    fn available(&self, limit: usize, can_spill: bool, size: usize) -> usize {
        if can_spill {
            let kept = self.unspillable.max(limit / 4);
            (limit.saturating_sub(kept) / self.spillers.max(1)).saturating_sub(size)
        } else {
            limit.saturating_sub(self.unspillable + self.spillable)
        }
    }
}

impl MemoryPool for FairPool {
    fn name(&self) -> &'static str {
        "fair"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.lock().spillers += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            let mut state = self.lock();
            state.spillers = state.spillers.saturating_sub(1);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.lock().add(reservation.consumer().can_spill(), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut state = self.lock();
        let held = if reservation.consumer().can_spill() { &mut state.spillable } else { &mut state.unspillable };
        *held = held.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let can_spill = reservation.consumer().can_spill();
        let mut state = self.lock();
        if let Some(limit) = state.limit {
            let available = state.available(limit, can_spill, reservation.size());
            if additional > available {
                return Err(DataFusionError::ResourcesExhausted(format!(
                    "{EXHAUSTED}{} wanted {} more beside the {} it holds, {} of {} were available to it",
                    reservation.consumer().name(),
                    readable(additional),
                    readable(reservation.size()),
                    readable(available),
                    readable(limit),
                )));
            }
        }
        state.add(can_spill, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        let state = self.lock();
        state.spillable + state.unspillable
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.limit().map_or(MemoryLimit::Infinite, MemoryLimit::Finite)
    }
}

impl fmt::Display for FairPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fair(limit: {})", self.limit().map_or("none".to_string(), readable))
    }
}

/// Bytes as people read them, such as `12.5 MiB`.
pub fn readable(bytes: usize) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn spillers_share_what_the_others_leave() {
        let pool: Arc<dyn MemoryPool> = Arc::new(FairPool::new(Some(1000)));
        let fixed = MemoryConsumer::new("HashJoinInput").register(&pool);
        let sort = MemoryConsumer::new("ExternalSorter[0]").with_can_spill(true).register(&pool);
        let other = MemoryConsumer::new("ExternalSorter[1]").with_can_spill(true).register(&pool);
        fixed.try_grow(200).unwrap();
        sort.try_grow(375).unwrap();
        let error = sort.try_grow(1).unwrap_err().to_string();
        assert!(
            error.contains("ExternalSorter[0] wanted 1 B more beside the 375 B it holds, 0 B of 1000 B were available"),
            "{error}"
        );
        other.try_grow(375).unwrap();
        fixed.try_grow(50).unwrap();
        assert!(fixed.try_grow(1).is_err());
        drop(other);
        fixed.try_grow(375).unwrap();
        assert_eq!(pool.reserved(), 1000);
    }

    #[test]
    fn the_limit_may_change() {
        let pool = Arc::new(FairPool::new(None));
        let dynamic: Arc<dyn MemoryPool> = Arc::clone(&pool) as _;
        let held = MemoryConsumer::new("x").register(&dynamic);
        held.try_grow(1 << 40).unwrap();
        pool.set_limit(Some(10));
        assert!(held.try_grow(1).is_err());
        held.free();
        held.try_grow(10).unwrap();
        assert_eq!(pool.peak(), 1 << 40);
    }
}
