//! In which order an epoch visits the rows, and the batches that follow from it.
//!
//! A leaf owns the blocks of its group of shards. Each epoch visits a leaf's blocks in a fresh order and the rows of a block
//! in a fresh order, both Feistel permutations keyed by (seed, epoch): no state, so a run can begin anywhere, and at most
//! two blocks of a leaf are in memory. A step takes a fixed number of rows from every leaf; a leaf that has run out is
//! padded with rows of weight 0, so that every product has one shape.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use engine::{Error, Result};

use super::reduce::share;
use crate::network::Tile;
use crate::random::{Permutation, Stream};
use crate::shards::{Bags, Block, FeatureLayout, NO_CATEGORY, ShardSet};

/// The random stream of a seed from which the orders' keys are drawn.
const ORDER: u64 = 3 << 32;

/// How batches lie over the shards; the same for every epoch.
#[derive(Debug)]
pub(super) struct Course {
    /// Blocks of each leaf: (shard, index, rows), in canonical order.
    leaves: Vec<Vec<(usize, usize, usize)>>,
    /// Rows that a step takes of each leaf.
    takes: Vec<usize>,
    /// Rows of every leaf's tile: the largest take.
    pub(super) tile_rows: usize,
    /// Steps of an epoch.
    pub(super) steps: u64,
}

impl Course {
    pub(super) fn new(set: &dyn ShardSet, leaves: usize, batch_size: usize) -> Course {
        let blocks_of = |shard: usize| {
            let (rows, size) = (set.rows(shard), set.block_rows());
            (0..set.blocks(shard)).map(move |index| (shard, index, size.min(rows - index * size)))
        };
        let groups: Vec<Vec<_>> =
            (0..leaves).map(|leaf| share(set.shards(), leaf, leaves).flat_map(blocks_of).collect()).collect();
        let takes: Vec<usize> = (0..leaves).map(|leaf| share(batch_size, leaf, leaves).len()).collect();
        let steps = groups.iter().zip(&takes).map(|(blocks, take)| {
            let rows: usize = blocks.iter().map(|(_, _, rows)| rows).sum();
            rows.div_ceil((*take).max(1)) as u64
        });
        Course {
            steps: steps.max().unwrap_or(0),
            tile_rows: takes.iter().copied().max().unwrap_or(0),
            leaves: groups,
            takes,
        }
    }

    pub(super) fn leaves(&self) -> usize {
        self.leaves.len()
    }
}

/// The blocks of a leaf in the order of one epoch, from the `from`-th on.
fn epoch_blocks(
    course: &Course,
    seed: u64,
    leaf: usize,
    epoch: usize,
    from: usize,
) -> impl Iterator<Item = (usize, usize, usize)> {
    let blocks = &course.leaves[leaf];
    let order = Permutation::new(blocks.len(), key(seed, [epoch as u32, leaf as u32, 0, 0]));
    (from..blocks.len()).map(move |place| blocks[order.get(place)])
}

fn key(seed: u64, counter: [u32; 4]) -> u64 {
    let words = Stream::new(seed, ORDER).words(counter);
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// Where a leaf's blocks come from.
enum Source<'a> {
    /// From memory, when they are wanted.
    Direct(&'a dyn ShardSet),
    /// From a thread that reads one block ahead.
    Ahead(Receiver<Result<Arc<Block>>>),
}

/// The rows of one leaf, epoch after epoch.
pub(super) struct LeafRows<'a> {
    course: &'a Course,
    leaf: usize,
    seed: u64,
    source: Source<'a>,
    epoch: usize,
    /// The block that is being visited: its place in the epoch's order, itself, the order of its rows, rows done.
    place: usize,
    block: Option<(Arc<Block>, Permutation)>,
    done: usize,
    /// Rows given since the epoch began.
    pub(super) given: u64,
}

impl<'a> LeafRows<'a> {
    /// Begins with `step` of `epoch`. `scope` is where a thread that reads ahead may live; it ends when this value is
    /// dropped.
    pub(super) fn new<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        course: &'a Course,
        set: &'a dyn ShardSet,
        seed: u64,
        leaf: usize,
        epoch: usize,
        step: u64,
    ) -> Result<Self> {
        let mut skip = step as usize * course.takes[leaf];
        let mut place = 0;
        for (_, _, rows) in epoch_blocks(course, seed, leaf, epoch, 0) {
            if skip < rows {
                break;
            }
            skip -= rows;
            place += 1;
        }
        let source = if set.in_memory() || course.leaves[leaf].is_empty() {
            Source::Direct(set)
        } else {
            // No room in the channel: the thread holds the one block that it has read ahead.
            let (sender, receiver) = sync_channel(0);
            let read = move || {
                let first = epoch_blocks(course, seed, leaf, epoch, place);
                let later = (epoch + 1..).flat_map(|epoch| epoch_blocks(course, seed, leaf, epoch, 0));
                for (shard, index, _) in first.chain(later) {
                    let block = set.block(shard, index);
                    let failed = block.is_err();
                    if sender.send(block).is_err() || failed {
                        return;
                    }
                }
            };
            std::thread::Builder::new()
                .name(format!("read-{leaf}"))
                .spawn_scoped(scope, read)
                .map_err(|error| Error::invalid(format!("cannot start a thread that reads ahead: {error}")))?;
            Source::Ahead(receiver)
        };
        let mut rows = LeafRows { course, leaf, seed, source, epoch, place, block: None, done: 0, given: 0 };
        if skip > 0 {
            rows.open()?;
            rows.done = skip;
        }
        rows.given = step * course.takes[leaf] as u64;
        Ok(rows)
    }

    /// Goes to the first row of the next epoch; this one's rows have all been given.
    pub(super) fn next_epoch(&mut self) {
        debug_assert!(
            self.block.is_none() && self.place == self.course.leaves[self.leaf].len(),
            "an epoch visits every block"
        );
        self.epoch += 1;
        self.place = 0;
        self.given = 0;
    }

    /// Makes the block at `place` current; false when the epoch has no more.
    fn open(&mut self) -> Result<bool> {
        let Some((shard, index, rows)) = epoch_blocks(self.course, self.seed, self.leaf, self.epoch, self.place).next()
        else {
            return Ok(false);
        };
        let block = match &self.source {
            Source::Direct(set) => set.block(shard, index)?,
            Source::Ahead(receiver) => {
                receiver.recv().map_err(|_| Error::invalid("reading ahead has ended early"))??
            }
        };
        if block.rows != rows {
            return Err(Error::invalid(format!(
                "block {index} of shard {shard} has {} rows, expected {rows}",
                block.rows
            )));
        }
        let order = Permutation::new(rows, key(self.seed, [self.epoch as u32, shard as u32, index as u32, 1]));
        self.block = Some((block, order));
        self.done = 0;
        Ok(true)
    }

    /// Fills part `number` of `batch` with the rows of the next step; gives how many there were.
    pub(super) fn fill(&mut self, layout: &FeatureLayout, batch: &mut Batch, number: usize) -> Result<usize> {
        let take = self.course.takes[self.leaf];
        let (dense, groups) = (layout.dense, layout.groups.len());
        let first = number * batch.leaf_rows;
        if number == 0 {
            batch.bags.places.clear();
        }
        let mut filled = 0;
        while filled < take {
            if self.block.is_none() && !self.open()? {
                break;
            }
            let Some((block, order)) = &self.block else { break };
            let count = (take - filled).min(block.rows - self.done);
            for target in first + filled..first + filled + count {
                let row = order.get(self.done);
                self.done += 1;
                batch.dense[target * dense..(target + 1) * dense]
                    .copy_from_slice(&block.dense[row * dense..(row + 1) * dense]);
                batch.indices[target * groups..(target + 1) * groups]
                    .copy_from_slice(&block.indices[row * groups..(row + 1) * groups]);
                batch.put_bag(target, block.bags.of(row));
                batch.labels[target] = block.labels[row];
                batch.weights[target] = block.weights[row];
            }
            filled += count;
            if self.done == block.rows {
                self.block = None;
                self.place += 1;
            }
        }
        batch.pad(first + filled..first + batch.leaf_rows, dense, groups);
        self.given += filled as u64;
        Ok(filled)
    }
}

/// The rows of a branch's leaves in one step, leaf after leaf.
pub(super) struct Batch {
    /// Rows of each leaf.
    leaf_rows: usize,
    dense: Vec<f32>,
    indices: Vec<u32>,
    bags: Bags,
    labels: Vec<f32>,
    weights: Vec<f32>,
}

impl Batch {
    /// Room for `leaves` leaves of `leaf_rows` rows.
    pub(super) fn new(layout: &FeatureLayout, leaf_rows: usize, leaves: usize) -> Batch {
        let rows = leaf_rows * leaves;
        Batch {
            leaf_rows,
            dense: vec![0.0; rows * layout.dense],
            indices: vec![NO_CATEGORY; rows * layout.groups.len()],
            bags: Bags { rows: vec![(0, 0); if layout.bag > 0 { rows } else { 0 }], places: Vec::new() },
            labels: vec![0.0; rows],
            weights: vec![0.0; rows],
        }
    }

    /// Gives row `target` its places; the leaves are filled in their order.
    fn put_bag(&mut self, target: usize, places: &[u32]) {
        if let Some(row) = self.bags.rows.get_mut(target) {
            let begin = self.bags.places.len() as u32;
            self.bags.places.extend_from_slice(places);
            *row = (begin, self.bags.places.len() as u32);
        }
    }

    fn pad(&mut self, rows: Range<usize>, dense: usize, groups: usize) {
        self.dense[rows.start * dense..rows.end * dense].fill(0.0);
        self.indices[rows.start * groups..rows.end * groups].fill(NO_CATEGORY);
        rows.clone().for_each(|row| self.put_bag(row, &[]));
        self.labels[rows.clone()].fill(0.0);
        self.weights[rows].fill(0.0);
    }

    /// The first `leaves` leaves.
    pub(super) fn tile(&self, leaves: usize) -> Tile<'_> {
        let rows = self.leaf_rows * leaves;
        let room = self.labels.len().max(1);
        Tile {
            rows,
            dense: &self.dense[..self.dense.len() / room * rows],
            indices: &self.indices[..self.indices.len() / room * rows],
            bags: self.bags.borrowed(0..rows),
            labels: &self.labels[..rows],
            weights: &self.weights[..rows],
        }
    }

    /// Sum of the weights of a leaf's rows, in row order.
    pub(super) fn weight(&self, leaf: usize) -> f64 {
        let rows = leaf * self.leaf_rows..(leaf + 1) * self.leaf_rows;
        self.weights[rows].iter().map(|weight| f64::from(*weight)).sum()
    }
}

/// The leaves that a rank computes.
pub(super) fn leaves_of(course: &Course, rank: usize, world: usize) -> Range<usize> {
    share(course.leaves(), rank, world)
}

/// The shards of these leaves.
pub(super) fn shards_of(course: &Course, shards: usize, rank: usize, world: usize) -> Range<usize> {
    let (leaves, own) = (course.leaves(), leaves_of(course, rank, world));
    let first = |leaf: usize| leaf * shards / leaves;
    first(own.start)..first(own.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::MemoryShards;

    /// Shards of unequal length whose rows are numbered by their labels; may pretend to be on disk.
    pub(super) struct Numbered {
        shards: MemoryShards,
        in_memory: bool,
    }

    impl Numbered {
        fn new(rows: &[usize], block_rows: usize, in_memory: bool) -> Self {
            let mut next = 0;
            let shard = |rows: &usize| {
                let labels: Vec<f32> = (next..next + rows).map(|i| i as f32).collect();
                next += rows;
                Block {
                    rows: *rows,
                    dense: labels.clone(),
                    indices: vec![],
                    weights: vec![1.0; *rows],
                    labels,
                    ..Block::default()
                }
            };
            let shards = rows.iter().map(shard).collect();
            let shards = MemoryShards::from_whole(FeatureLayout::of_dense(1), block_rows, shards).unwrap();
            Numbered { shards, in_memory }
        }
    }

    impl ShardSet for Numbered {
        fn layout(&self) -> &FeatureLayout {
            self.shards.layout()
        }
        fn shards(&self) -> usize {
            self.shards.shards()
        }
        fn rows(&self, shard: usize) -> usize {
            self.shards.rows(shard)
        }
        fn block_rows(&self) -> usize {
            self.shards.block_rows()
        }
        fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
            self.shards.block(shard, index)
        }
        fn in_memory(&self) -> bool {
            self.in_memory
        }
    }

    /// The labels of each step from (epoch, step) on, for `epochs` epochs.
    fn visit(set: &Numbered, leaf: usize, course: &Course, from: (usize, u64), epochs: usize) -> Vec<Vec<f32>> {
        std::thread::scope(|scope| {
            let mut rows = LeafRows::new(scope, course, set, 9, leaf, from.0, from.1).unwrap();
            let mut batch = Batch::new(set.layout(), course.tile_rows, 1);
            let mut steps = Vec::new();
            for epoch in from.0..epochs {
                for _ in if epoch == from.0 { from.1 } else { 0 }..course.steps {
                    let filled = rows.fill(set.layout(), &mut batch, 0).unwrap();
                    assert!(batch.weights[filled..].iter().all(|weight| *weight == 0.0));
                    steps.push(batch.labels[..filled].to_vec());
                }
                rows.next_epoch();
            }
            steps
        })
    }

    #[test]
    fn an_epoch_visits_every_row_once_in_a_fresh_order() {
        for in_memory in [true, false] {
            let set = Numbered::new(&[10, 0, 23, 7], 4, in_memory);
            let course = Course::new(&set, 2, 9);
            assert_eq!((course.tile_rows, course.steps, course.takes.as_slice()), (5, 6, [4, 5].as_slice()));
            for (leaf, expected) in [(0, 0..10), (1, 10..40)] {
                let steps = visit(&set, leaf, &course, (0, 0), 2);
                let (first, second) = steps.split_at(course.steps as usize);
                assert_ne!(first, second);
                for epoch in [first, second] {
                    let mut seen = epoch.concat();
                    seen.sort_by(f32::total_cmp);
                    assert_eq!(seen, expected.clone().map(|i| i as f32).collect::<Vec<f32>>());
                }
            }
        }
    }

    #[test]
    fn a_run_can_begin_at_any_step_and_reading_ahead_changes_nothing() {
        let (memory, disk) = (Numbered::new(&[13, 22], 5, true), Numbered::new(&[13, 22], 5, false));
        let course = Course::new(&memory, 1, 4);
        let all = visit(&memory, 0, &course, (0, 0), 3);
        for epoch in 0..3 {
            for step in 0..=course.steps {
                let at = epoch * course.steps as usize + step as usize;
                for set in [&memory, &disk] {
                    assert_eq!(
                        visit(set, 0, &course, (epoch, step), 3),
                        all[at..],
                        "from step {step} of epoch {epoch}"
                    );
                }
            }
        }
    }
}
