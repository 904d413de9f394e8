//! Folds all shards into one sum on several threads, with the same bits for any number of them.
//!
//! One shard is folded from first block to last by whichever thread takes it. Sums of shards meet in one binary tree
//! over the shard index, always the left one plus the right one:
//! ```text
//!   shard  0   1   2   3   4
//!           \ /     \ /    |
//!            +       +     |
//!             \     /      |
//!                +         |
//!                 \       /
//!                     +
//! ```
//! Threads take shards in order and merge a pair as soon as both sides are there, so that few sums exist at a time:
//! about log2 S and one per thread.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::{Error, Result};

use crate::shards::{Block, ShardSet};

/// A sum over rows.
pub(super) trait Sum: Send {
    /// Adds a block's rows.
    fn add(&mut self, block: &Block) -> Result<()>;
    /// Adds the sum over later shards.
    fn merge(&mut self, later: Self);
}

/// The sum over all rows of `shards`, from `zero()` in each shard, on up to `workers` threads. Stops with
/// [`Error::Cancelled`] between blocks once `cancelled()`.
pub(super) fn fold<S: Sum>(
    shards: &dyn ShardSet,
    workers: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
    zero: impl Fn() -> S + Sync,
) -> Result<S> {
    let count = shards.shards();
    let tree = Mutex::new(Tree { waiting: HashMap::new(), shards: count });
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || -> Result<()> {
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= count || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut sum = zero();
            for index in 0..shards.blocks(shard) {
                if cancelled() {
                    return Err(Error::Cancelled);
                }
                sum.add(shards.block(shard, index)?.as_ref())?;
            }
            let mut pair = lock(&tree).put((0, shard), sum);
            while let Some((node, mut left, right)) = pair {
                left.merge(right); // outside the lock: the other threads go on
                pair = lock(&tree).put(node, left);
            }
        }
    };
    let stopping = || {
        let result = work();
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        result
    };
    let threads = workers.clamp(1, count.max(1));
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(stopping)).collect();
        let own = stopping();
        others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .fold(own, Result::and)
    })?;
    let mut tree = lock(&tree);
    let root = (usize::BITS - count.saturating_sub(1).leading_zeros()) as usize;
    Ok(tree.waiting.remove(&(root, 0)).unwrap_or_else(zero))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked while holding it is resumed on join; the content is not used after that.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sums that wait for their neighbour, by (level, place in level).
struct Tree<S> {
    waiting: HashMap<(usize, usize), S>,
    shards: usize,
}

type Node = (usize, usize);

impl<S> Tree<S> {
    /// Puts the sum of `node`. Gives the pair to merge, and its node, when the neighbour waits already; a node whose
    /// right neighbour does not exist moves up as it is. The root stays in the tree.
    fn put(&mut self, (mut level, mut place): Node, sum: S) -> Option<(Node, S, S)> {
        loop {
            let width = self.shards.div_ceil(1 << level);
            if width == 1 {
                self.waiting.insert((level, place), sum);
                return None;
            }
            let up = (level + 1, place / 2);
            if place % 2 == 0 && place == width - 1 {
                (level, place) = up;
                continue;
            }
            return match self.waiting.remove(&(level, place ^ 1)) {
                Some(other) if place % 2 == 0 => Some((up, sum, other)),
                Some(other) => Some((up, other, sum)),
                None => {
                    self.waiting.insert((level, place), sum);
                    None
                }
            };
        }
    }
}
