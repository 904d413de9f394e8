//! The gradient of one leaf: rows to a batch, batch to sums.

use std::time::{Duration, Instant};

use engine::Result;

use super::order::{Batch, LeafRows};
use super::rank::Run;
use crate::layer::dropout::Place;
use crate::network::{Chance, Tape};

/// What one thread computes leaves with.
pub(super) struct Desk {
    pub(super) batch: Batch,
    pub(super) tape: Tape,
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

/// What a leaf gives besides its gradient.
pub(super) struct LeafGiven {
    /// Loss and weight.
    pub(super) sums: [f64; 2],
    pub(super) rows: u64,
    pub(super) input: Duration,
}

impl LeafWork<'_> {
    /// The gradient of a leaf's next rows, into `plane`.
    pub(super) fn gradient(
        &self,
        index: usize,
        leaf: &mut LeafRows<'_>,
        desk: &mut Desk,
        plane: &mut [f32],
    ) -> Result<LeafGiven> {
        let Run { plan, architecture, train, .. } = *self.run;
        let place = Place { epoch: self.epoch as u32, leaf: index as u32, first_row: leaf.given };
        let begun = self.timed.map(|_| Instant::now());
        let filled = leaf.fill(train.layout(), &mut desk.batch)?;
        let input = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        if filled == 0 {
            plane.fill(0.0);
            return Ok(LeafGiven { sums: [0.0, 0.0], rows: 0, input });
        }
        let chance = (plan.network.dropout > 0.0).then_some(Chance { seed: plan.seed, place });
        let tile = desk.batch.tile();
        let loss = architecture.gradient(plan.kernel.kernel, self.parameters, tile, chance, &mut desk.tape, plane);
        Ok(LeafGiven { sums: [loss, desk.batch.weight()], rows: filled as u64, input })
    }
}

/// Adds the two topmost (loss, weight).
pub(super) fn merge_sums(sums: &mut Vec<[f64; 2]>) {
    let [loss, weight] = sums.pop().expect("a merge has two nodes");
    let left = sums.last_mut().expect("a merge has two nodes");
    *left = [left[0] + loss, left[1] + weight];
}
