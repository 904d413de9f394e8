//! How much a task of a sink may hold: how many files open at a time, how large their buffers. Without a memory limit the
//! sizes are those that stores like best; under a limit the tasks of a sink share a part of it.

use datafusion::execution::memory_pool::MemoryLimit;

/// Files that one task has open at a time.
const OPEN_MAX: usize = 64;
/// Bytes that go to the store in one request.
const PART: usize = 8 << 20;
/// The least that a remote store takes as a part of an object.
const REMOTE_PART_MIN: usize = 5 << 20;
/// The least that is worth a request to a local disk.
const LOCAL_PART_MIN: usize = 64 << 10;
/// The part of the limit that all tasks of a sink may hold.
const SINK_PART: usize = 4;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Files that are open at a time.
    pub(super) open_max: usize,
    /// Bytes of a request to the store; every open file may hold so many.
    pub(super) part: usize,
    /// Bytes in writers' own buffers that are not asked to go to the store before their time.
    pub(super) at_ease: usize,
}

impl Room {
    /// Of one of `tasks` under `limit`.
    pub(super) fn new(limit: MemoryLimit, tasks: usize, local: bool) -> Room {
        let MemoryLimit::Finite(limit) = limit else {
            return Room { open_max: OPEN_MAX, part: PART, at_ease: PART };
        };
        let each = limit / SINK_PART / tasks.max(1);
        let part_min = if local { LOCAL_PART_MIN } else { REMOTE_PART_MIN };
        let part = (each / 2 / OPEN_MAX).clamp(part_min, PART);
        Room { open_max: (each / 2 / part).clamp(1, OPEN_MAX), part, at_ease: each / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_means_small_parts_or_few_files() {
        let room = |limit, local| Room::new(limit, 2, local);
        let mib = 1 << 20;
        for (limit, local, open_max, part) in [
            (MemoryLimit::Infinite, true, 64, 8 * mib),
            (MemoryLimit::Finite(512 * mib), true, 64, mib / 2),
            (MemoryLimit::Finite(512 * mib), false, 6, 5 * mib),
            (MemoryLimit::Finite(64 * mib), true, 64, mib / 16),
            (MemoryLimit::Finite(8 * mib), true, 8, mib / 16),
            (MemoryLimit::Finite(8 * mib), false, 1, 5 * mib),
        ] {
            let room = room(limit, local);
            assert_eq!((room.open_max, room.part), (open_max, part), "{local}");
        }
    }
}
