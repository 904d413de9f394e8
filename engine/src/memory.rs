//! The memory that queries may hold: a limit shared fairly, so that operators that can spill do so before the others run
//! dry. What `datafusion`'s fair pool does, with these differences: the limit may change between statements (`SET
//! engine.memory_limit`); half is kept for operators that cannot spill (two sorts that share everything would leave nothing
//! for the rows that they compare and the merge of their results); merges of spilled runs, which take what they get and make do with less, share
//! too and leave something to the operators that must have what they ask for; what readers hold is taken off before anything
//! is shared; and an operator that gets nothing is told what it wanted and what there was.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};

/// How an exhausted pool's message begins; [`crate::mistake`] knows it by this.
pub(crate) const EXHAUSTED: &str = "out of memory: ";

/// How the query engine names the consumers that merge the spilled runs of a sort. They ask for buffers of as many runs as
/// they can get.
const MERGES: &str = "ExternalSorterMerge";

/// A pool that gives each spillable reservation at most an even share of what the unspillable ones leave.
#[derive(Debug)]
pub struct FairPool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limit: Option<usize>,
    /// What the process takes in any case.
    process: usize,
    spillers: usize,
    spillable: usize,
    unspillable: usize,
    /// Part of `unspillable`, by the consumer's number.
    merges: HashMap<usize, usize>,
    outside: usize,
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

    /// What the process takes beside all that is counted here. Up to a quarter of the limit, operators share less by this.
    pub(crate) fn set_process(&self, bytes: usize) {
        self.lock().process = bytes;
    }

    /// Counts bytes that no operator asked for, such as those of files being read, for as long as the answer lives. They
    /// are there already and cannot be refused: what operators may share becomes less, down to half of the limit.
    pub(crate) fn outside(self: &Arc<Self>, bytes: usize) -> Outside {
        let mut state = self.lock();
        state.outside += bytes;
        state.mark_peak();
        Outside { pool: Arc::clone(self), bytes }
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

/// See [`FairPool::outside`].
#[derive(Debug)]
pub(crate) struct Outside {
    pool: Arc<FairPool>,
    bytes: usize,
}

impl Drop for Outside {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.outside = state.outside.saturating_sub(self.bytes);
    }
}

impl State {
    fn add(&mut self, consumer: &MemoryConsumer, bytes: usize) {
        let held = if consumer.can_spill() { &mut self.spillable } else { &mut self.unspillable };
        *held += bytes;
        if let Some(held) = self.merges.get_mut(&consumer.id()) {
            *held += bytes;
        }
        self.mark_peak();
    }

    fn mark_peak(&mut self) {
        self.peak = self.peak.max(self.spillable + self.unspillable + self.outside);
    }

    /// What a consumer may still get for a reservation of `size` bytes.
    fn available(&self, limit: usize, consumer: &MemoryConsumer, size: usize) -> usize {
        let limit = limit - self.process.min(limit / 4);
        let shared = limit.saturating_sub(self.outside).max(limit / 2);
        let kept = shared / 2;
        if consumer.can_spill() {
            let room = shared.saturating_sub(self.unspillable.max(kept));
            // Sorts that have ended merge their runs and need as much as before.
            let share = room / self.spillers.max(self.merges.len()).max(1);
            // A quarter of the share can always be had: it takes some rows in memory to go on.
            let left = room.saturating_sub(self.spillable).max((share / 4).saturating_sub(size));
            return share.saturating_sub(size).min(left);
        }
        // Spillers that were there first may hold more than their part; the rest pays for it, not the kept half.
        let left = shared.saturating_sub(self.unspillable + self.spillable.min(shared - kept));
        match self.merges.get(&consumer.id()) {
            None => left,
            // The rows of a batch that is being sorted, or the first run of a merge: no way round them. A sort reserves twice
            // what it holds, so they have their place there.
            Some(_) if size == 0 => left.max(kept / 2),
            Some(held) => {
                let for_others = shared / 16;
                let share = (shared - 2 * for_others) / self.merges.len();
                share.saturating_sub(*held).min(left.saturating_sub(for_others))
            }
        }
    }
}

impl MemoryPool for FairPool {
    fn name(&self) -> &'static str {
        "fair"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let mut state = self.lock();
        state.spillers += usize::from(consumer.can_spill());
        if consumer.name().starts_with(MERGES) {
            state.merges.insert(consumer.id(), 0);
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut state = self.lock();
        state.spillers = state.spillers.saturating_sub(usize::from(consumer.can_spill()));
        state.merges.remove(&consumer.id());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.lock().add(reservation.consumer(), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut state = self.lock();
        let held = if reservation.consumer().can_spill() { &mut state.spillable } else { &mut state.unspillable };
        *held = held.saturating_sub(shrink);
        if let Some(held) = state.merges.get_mut(&reservation.consumer().id()) {
            *held = held.saturating_sub(shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut state = self.lock();
        if let Some(limit) = state.limit {
            let available = state.available(limit, reservation.consumer(), reservation.size());
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
        state.add(reservation.consumer(), additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        let state = self.lock();
        state.spillable + state.unspillable + state.outside
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
        sort.try_grow(250).unwrap();
        let error = sort.try_grow(1).unwrap_err().to_string();
        assert!(
            error.contains("ExternalSorter[0] wanted 1 B more beside the 250 B it holds, 0 B of 1000 B were available"),
            "{error}"
        );
        other.try_grow(250).unwrap();
        fixed.try_grow(300).unwrap();
        assert!(fixed.try_grow(1).is_err());
        drop(other);
        fixed.try_grow(250).unwrap();
        assert_eq!(pool.reserved(), 1000);
    }

    #[test]
    fn who_comes_late_gets_something_and_a_half_is_kept() {
        let pool: Arc<dyn MemoryPool> = Arc::new(FairPool::new(Some(1000)));
        let sort = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let first = sort("first");
        first.try_grow(500).unwrap();
        let late = sort("late");
        // Its share is 250, all of which the first holds.
        late.try_grow(62).unwrap();
        assert!(late.try_grow(1).is_err());
        let fixed = MemoryConsumer::new("merge").register(&pool);
        fixed.try_grow(500).unwrap();
        assert!(fixed.try_grow(1).is_err());
        first.free();
        late.try_grow(250 - 62).unwrap();
    }

    #[test]
    fn merges_leave_something_to_others() {
        let pool: Arc<dyn MemoryPool> = Arc::new(FairPool::new(Some(1600)));
        let merge = |number: usize| MemoryConsumer::new(format!("{MERGES}[{number}]")).register(&pool);
        let (first, second) = (merge(0), merge(1));
        // Two reservations of one consumer count together.
        let rows = first.new_empty();
        first.try_grow(600).unwrap();
        rows.try_grow(100).unwrap();
        assert!(rows.try_grow(1).is_err() && first.try_grow(1).is_err());
        // The first bytes of a reservation are rows that are being sorted.
        let sorted = first.new_empty();
        sorted.try_grow(400).unwrap();
        sorted.free();
        second.try_grow(700).unwrap();
        let other = MemoryConsumer::new("SortPreservingMergeExec[0]").register(&pool);
        other.try_grow(200).unwrap();
        drop((first, rows, sorted));
        // Alone it may have more, but for a sixteenth.
        second.try_grow(600).unwrap();
        assert!(second.try_grow(1).is_err());
        other.try_grow(100).unwrap();
    }

    #[test]
    fn what_readers_hold_is_not_shared() {
        let pool = Arc::new(FairPool::new(Some(1000)));
        let dynamic: Arc<dyn MemoryPool> = Arc::clone(&pool) as _;
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&dynamic);
        let read = pool.outside(200);
        sort.try_grow(400).unwrap();
        assert!(sort.try_grow(1).is_err());
        drop(read);
        sort.try_grow(100).unwrap();
        sort.free();
        // However much is read, half of the limit stays to work with.
        let _flood = pool.outside(5000);
        sort.try_grow(250).unwrap();
    }

    #[test]
    fn the_process_itself_takes_a_quarter_at_most() {
        let pool = Arc::new(FairPool::new(Some(1000)));
        let dynamic: Arc<dyn MemoryPool> = Arc::clone(&pool) as _;
        let table = MemoryConsumer::new("table").register(&dynamic);
        for (process, left) in [(100, 900), (5000, 750)] {
            pool.set_process(process);
            table.try_grow(left).unwrap();
            assert!(table.try_grow(1).is_err());
            table.free();
        }
    }

    #[test]
    fn a_sort_leaves_room_for_the_merge_of_one_that_has_ended() {
        let pool: Arc<dyn MemoryPool> = Arc::new(FairPool::new(Some(1600)));
        let sort = MemoryConsumer::new("ExternalSorter[1]").with_can_spill(true).register(&pool);
        let merges = [0, 1].map(|number| MemoryConsumer::new(format!("{MERGES}[{number}]")).register(&pool));
        // The other sort has ended and merges its runs with all that it can get.
        merges[0].try_grow(700).unwrap();
        sort.try_grow(400).unwrap();
        assert!(sort.try_grow(1).is_err());
        // Half of that are rows; to merge them takes them and what they are compared by.
        merges[1].try_grow(500).unwrap();
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
