//! How much a task of a sink may hold: how many files open at a time, how large their buffers, how many rows that wait for
//! their file. The tasks of a sink share a part of the memory limit; without one, what a machine can be expected to spare.

use datafusion::execution::memory_pool::MemoryLimit;

/// Files that one task has open at a time, at most: every process may open some hundreds.
const OPEN_MAX: usize = 256;
/// Bytes that go to the store in one request, at most.
const PART_MAX: usize = 8 << 20;
/// The least that a remote store takes as a part of an object.
const REMOTE_PART_MIN: usize = 5 << 20;
/// The least that is worth a request to a local disk.
const LOCAL_PART_MIN: usize = 64 << 10;
/// The part of the limit that all tasks of a sink may hold.
const SINK_PART: usize = 4;
/// What all tasks of a sink may hold without a limit.
const UNLIMITED: usize = 1 << 30;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Files that are open at a time.
    pub(super) open_max: usize,
    /// Bytes of a request to the store; every open file may hold so many.
    pub(super) part: usize,
    /// Bytes in writers' own buffers that are not asked to go to the store before their time.
    pub(super) at_ease: usize,
    /// Bytes of rows that wait for a file to be opened.
    pub(super) waiting_max: usize,
}

impl Room {
    /// Of one of `tasks` under `limit`, which has reason to write `files` at a time.
    pub(super) fn new(limit: MemoryLimit, tasks: usize, local: bool, files: Files) -> Room {
        let all = match limit {
            MemoryLimit::Finite(limit) => limit / SINK_PART,
            _ => UNLIMITED,
        };
        let each = all / tasks.max(1);
        let wanted = match files {
            Files::One => 1,
            Files::Many => OPEN_MAX,
        };
        let part_min = if local { LOCAL_PART_MIN } else { REMOTE_PART_MIN };
        let part = (each / 2 / wanted).clamp(part_min, PART_MAX);
        Room { open_max: (each / 2 / part).clamp(1, wanted), part, at_ease: each / 2, waiting_max: each / 4 }
    }
}

/// How the rows of a task come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Those of a file one after the other.
    One,
    /// Those of all files mixed.
    Many,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_means_small_parts_or_few_files() {
        let mib = 1 << 20;
        for (limit, local, files, open_max, part) in [
            (MemoryLimit::Infinite, true, Files::Many, 256, mib),
            (MemoryLimit::Infinite, false, Files::Many, 51, 5 * mib),
            (MemoryLimit::Infinite, true, Files::One, 1, 8 * mib),
            (MemoryLimit::Finite(512 * mib), true, Files::Many, 256, mib / 8),
            (MemoryLimit::Finite(512 * mib), false, Files::Many, 6, 5 * mib),
            (MemoryLimit::Finite(512 * mib), false, Files::One, 1, 8 * mib),
            (MemoryLimit::Finite(64 * mib), true, Files::Many, 64, mib / 16),
            (MemoryLimit::Finite(8 * mib), true, Files::Many, 8, mib / 16),
            (MemoryLimit::Finite(8 * mib), true, Files::One, 1, mib / 2),
            (MemoryLimit::Finite(8 * mib), false, Files::Many, 1, 5 * mib),
        ] {
            let room = Room::new(limit, 2, local, files);
            assert_eq!((room.open_max, room.part), (open_max, part), "{local} {files:?}");
        }
    }
}
