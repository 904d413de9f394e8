//! The gradient of one branch of the tree: the rows of its leaves to a batch, the batch to sums.

use std::ops::Range;
use std::time::{Duration, Instant};

use engine::Result;

use super::order::{Batch, Course, LeafRows};
use super::rank::Run;
use crate::layer::dropout::Place;
use crate::network::{Branch, Leaf, Tape, Target};

/// Rows that go through the network together, at most, if one leaf has not more: what comes of them stays in the cache,
/// and packing the weights costs little beside multiplying with them.
const TILE_ROWS: usize = 256;

/// Leaves of the largest branches that a rank computes as one tile: as many as the kernel allows, in every branch up to
/// that size, and enough branches for `threads`. It changes nothing but the time.
pub(super) fn branch_leaves(run: &Run<'_>, own_leaves: usize, threads: usize) -> usize {
    let rows = run.course.tile_rows.max(1);
    let joins = |leaves| run.architecture.joins(run.plan.kernel.kernel, rows, leaves);
    let mut leaves = 1;
    while leaves * 2 * rows <= TILE_ROWS && leaves * 2 * threads <= own_leaves && joins(leaves * 2) {
        leaves *= 2;
    }
    leaves
}

/// What one thread computes branches with.
pub(super) struct Desk {
    batch: Batch,
    pub(super) tape: Tape,
    leaves: Vec<Leaf>,
    losses: Vec<f64>,
}

impl Desk {
    /// For branches of up to `leaves` leaves, and tiles of `rows_min` rows.
    pub(super) fn new(run: &Run<'_>, leaves: usize, rows_min: usize) -> Desk {
        let Course { tile_rows, .. } = *run.course;
        Desk {
            batch: Batch::new(run.train.layout(), tile_rows, leaves),
            tape: Tape::new(run.architecture, rows_min.max(tile_rows * leaves), leaves),
            leaves: Vec::with_capacity(leaves),
            losses: vec![0.0; leaves],
        }
    }
}

/// The gradients of one step.
#[derive(Clone, Copy)]
pub(super) struct LeafWork<'w> {
    pub(super) run: &'w Run<'w>,
    pub(super) parameters: &'w [f32],
    pub(super) epoch: usize,
    /// Set when it shall be known how long rows were waited for.
    pub(super) timed: Option<Instant>,
}

/// What a branch gives besides its gradient.
pub(super) struct BranchGiven {
    pub(super) sums: Sums,
    pub(super) rows: u64,
    pub(super) input: Duration,
}

/// Loss and weight of some rows.
pub(super) type Sums = [f64; 2];

/// Told of each part of a branch's gradient that is known: all planes, the part's range in the gradient, which lies where
/// the branch's plane does, and the branch's sums. The parts come in ascending order.
pub(super) type PartDone<'a> = &'a mut dyn FnMut(&mut [f32], Range<usize>, Sums);

impl LeafWork<'_> {
    /// The gradient of the next rows of a branch's leaves, the first of them leaf `first`, into the plane of `planes`
    /// that begins at `plane`.
    pub(super) fn gradient(
        &self,
        first: usize,
        rows: &mut [LeafRows<'_>],
        desk: &mut Desk,
        planes: &mut [f32],
        plane: usize,
        part_done: PartDone<'_>,
    ) -> Result<BranchGiven> {
        let Run { plan, architecture, train, .. } = *self.run;
        let Desk { batch, tape, leaves, losses } = desk;
        let begun = self.timed.map(|_| Instant::now());
        leaves.clear();
        let mut filled = 0;
        for (number, rows) in rows.iter_mut().enumerate() {
            let place = Place { epoch: self.epoch as u32, leaf: (first + number) as u32, first_row: rows.given };
            let given = rows.fill(train.layout(), batch, number)?;
            leaves.push(Leaf { place, is_empty: given == 0 });
            filled += given as u64;
        }
        let input = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let size = architecture.parameters();
        if filled == 0 {
            planes[plane..plane + size].fill(0.0);
            part_done(planes, 0..size, [0.0, 0.0]);
            return Ok(BranchGiven { sums: [0.0, 0.0], rows: 0, input });
        }
        let leaves = &leaves[..];
        let losses = &mut losses[..leaves.len()];
        let weight = tree_sum(0..leaves.len(), &|leaf| batch.weight(leaf));
        let sums = |losses: &[f64]| [tree_sum(0..losses.len(), &|leaf| losses[leaf]), weight];
        let mut layer_done =
            |planes: &mut [f32], range: Range<usize>, losses: &[f64]| part_done(planes, range, sums(losses));
        let mut target = Target { numbers: planes, first: plane, layer_done: Some(&mut layer_done) };
        let branch = Branch { leaves, seed: plan.seed };
        let tile = batch.tile(leaves.len());
        architecture.gradient(plan.kernel.kernel, self.parameters, tile, branch, tape, losses, &mut target);
        Ok(BranchGiven { sums: sums(losses), rows: filled, input })
    }
}

/// The sum over a complete subtree's leaves.
fn tree_sum(leaves: Range<usize>, value: &dyn Fn(usize) -> f64) -> f64 {
    if leaves.len() == 1 {
        return value(leaves.start);
    }
    let middle = leaves.start + leaves.len() / 2;
    tree_sum(leaves.start..middle, value) + tree_sum(middle..leaves.end, value)
}

/// Adds the two topmost (loss, weight).
pub(super) fn merge_sums(sums: &mut Vec<Sums>) {
    let [loss, weight] = sums.pop().expect("a merge has two nodes");
    let left = sums.last_mut().expect("a merge has two nodes");
    *left = [left[0] + loss, left[1] + weight];
}
