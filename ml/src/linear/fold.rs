//! Folds shards into sums on several threads, with the same bits for any number of them.
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
//! about log2 S and one per thread. Whoever has a range of the shards alone comes as far as the range goes: to a few nodes
//! of the tree, which [`merge_nodes`] brings together with those of the others.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::{Error, Result};

use super::matrix;
use crate::shards::{Block, ShardSet};

/// A sum over rows.
pub(super) trait Sum: Send + Sized {
    /// Adds a block's rows.
    fn add(&mut self, block: &Block) -> Result<()>;
    /// All numbers that the sum consists of, always in the same order.
    fn numbers(&mut self) -> Vec<&mut [f64]>;
    /// Adds the sum over later shards.
    fn merge(&mut self, mut later: Self) {
        let more = later.numbers();
        self.numbers().into_iter().zip(more).for_each(|(own, more)| matrix::add_scaled(1.0, more, own));
    }
}

/// A node of the tree: level, and place in the level.
pub(super) type Node = (usize, usize);

/// The sum over all rows of `shards`, from `zero()` in each shard, on up to `workers` threads. Stops with
/// [`Error::Cancelled`] between blocks once `cancelled()`.
pub(super) fn fold<S: Sum>(
    shards: &dyn ShardSet,
    workers: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
    zero: impl Fn() -> S + Sync,
) -> Result<S> {
    let nodes = fold_range(shards, 0..shards.shards(), workers, cancelled, &zero)?;
    Ok(nodes.into_iter().next().map_or_else(zero, |(_, sum)| sum))
}

/// The sums over some of the shards: the nodes of the tree that lie inside the range and have no parent there, from left
/// to right.
pub(super) fn fold_range<S: Sum>(
    shards: &dyn ShardSet,
    range: Range<usize>,
    workers: usize,
    cancelled: &(dyn Fn() -> bool + Sync),
    zero: &(impl Fn() -> S + Sync),
) -> Result<Vec<(Node, S)>> {
    let tree = Mutex::new(Tree::new(shards.shards()));
    let (next, stop) = (AtomicUsize::new(range.start), AtomicBool::new(false));
    let work = || -> Result<()> {
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= range.end || stop.load(Ordering::Relaxed) {
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
    let threads = workers.clamp(1, range.len().max(1));
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(stopping)).collect();
        let own = stopping();
        others
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .fold(own, Result::and)
    })?;
    Ok(tree.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).nodes())
}

/// Which nodes [`fold_range`] gives for a range of `shards`.
pub(super) fn nodes_of(range: Range<usize>, shards: usize) -> Vec<Node> {
    let mut tree = Tree::new(shards);
    for shard in range {
        let mut pair = tree.put((0, shard), ());
        while let Some((node, (), ())) = pair {
            pair = tree.put(node, ());
        }
    }
    tree.nodes().into_iter().map(|(node, ())| node).collect()
}

/// The root's numbers from the nodes of all ranges.
pub(super) fn merge_nodes(shards: usize, nodes: impl Iterator<Item = (Node, Vec<f64>)>) -> Vec<f64> {
    let mut tree = Tree::new(shards);
    for (node, numbers) in nodes {
        let mut pair = tree.put(node, numbers);
        while let Some((node, mut left, right)) = pair {
            matrix::add_scaled(1.0, &right, &mut left);
            pair = tree.put(node, left);
        }
    }
    tree.nodes().into_iter().next().map_or_else(Vec::new, |(_, numbers)| numbers)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A thread that panicked while holding it is resumed on join; the content is not used after that.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Sums that wait for their neighbour.
struct Tree<S> {
    waiting: HashMap<Node, S>,
    shards: usize,
}

impl<S> Tree<S> {
    fn new(shards: usize) -> Self {
        Tree { waiting: HashMap::new(), shards }
    }

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

    /// What is left in the tree, from left to right.
    fn nodes(self) -> Vec<(Node, S)> {
        let mut nodes: Vec<(Node, S)> = self.waiting.into_iter().collect();
        nodes.sort_unstable_by_key(|((level, place), _)| place << level);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_all_ranges_make_the_tree_of_all_shards() {
        for shards in [1usize, 2, 5, 8, 13, 16] {
            // Numbers of such different size that another order would give another sum.
            let value = |shard: usize| vec![(1.0 + shard as f64 * 0.37) * 10f64.powi(shard as i32 * 7 % 9 * 4 - 16)];
            let leaves = |range: Range<usize>| range.map(|shard| ((0, shard), value(shard)));
            let whole = merge_nodes(shards, leaves(0..shards));
            for world in 1..=shards + 2 {
                let share = |rank: usize| rank * shards / world..(rank + 1) * shards / world;
                let mut nodes = Vec::new();
                for rank in 0..world {
                    let mut tree = Tree::new(shards);
                    for (node, numbers) in leaves(share(rank)) {
                        let mut pair = tree.put(node, numbers);
                        while let Some((node, left, right)) = pair {
                            pair = tree.put(node, vec![left[0] + right[0]]);
                        }
                    }
                    let own = tree.nodes();
                    let places: Vec<Node> = own.iter().map(|(node, _)| *node).collect();
                    assert_eq!(places, nodes_of(share(rank), shards));
                    nodes.extend(own);
                }
                let sum = merge_nodes(shards, nodes.into_iter());
                assert_eq!(sum[0].to_bits(), whole[0].to_bits(), "{shards} shards, {world} ranks");
            }
        }
    }
}
