//! The loss of held-out rows after an epoch: each rank takes some shards, sums are kept shard by shard and folded in
//! their order, so the number of ranks does not show.

use std::ops::Range;

use engine::Result;
use engine::gang::{Mesh, Offer, Tag};

use super::gang_error;
use super::reduce::share;
use crate::kernel::Kernel;
use crate::network::{Architecture, PREDICTION_TILE, Tape, Tile};
use crate::shards::ShardSet;

/// Mean weighted loss over all rows of `set`; the same number on every rank.
pub(super) fn mean_loss(
    mesh: &mut dyn Mesh,
    tag: Tag,
    kernel: Kernel,
    architecture: &Architecture,
    parameters: &[f32],
    set: &dyn ShardSet,
    tape: &mut Tape,
) -> Result<f64> {
    let mut sums = Vec::new();
    for shard in share(set.shards(), mesh.rank(), mesh.world()) {
        let (mut loss, mut weight) = (0.0, 0.0);
        for index in 0..set.blocks(shard) {
            let block = set.block(shard, index)?;
            for start in (0..block.rows).step_by(PREDICTION_TILE) {
                let rows = start..(start + PREDICTION_TILE).min(block.rows);
                let tile = Tile::of(&block, set.layout(), rows.clone());
                loss += architecture.loss(kernel, parameters, tile, tape);
                weight += block.weights[rows].iter().map(|weight| f64::from(*weight)).sum::<f64>();
            }
        }
        sums.extend([loss, weight]);
    }
    let nothing: Vec<Range<usize>> = vec![0..0; mesh.world()];
    let (mut loss, mut weight) = (0.0, 0.0);
    let offer = Offer { header: &sums, planes: &[], plane: 0, cuts: &nothing };
    mesh.exchange(tag, offer, &mut |parts| {
        for shard in parts.iter().flat_map(|part| part.header.chunks_exact(2)) {
            loss += shard[0];
            weight += shard[1];
        }
    })
    .map_err(gang_error)?;
    Ok(loss / weight)
}
