//! The two exchanges of a training step: all give the owners of the slices their gradients, the owners add them up, and give
//! the sums to all.

use std::ops::Range;

use engine::gang::{GangError, Mesh, Offer, Part, Tag};
use ml::simd;

/// Numbers that are added up at a time, as in training.
const CHUNK: usize = 512;

/// Who owns what of `len` numbers.
pub(crate) fn cuts(len: usize, world: usize) -> Vec<Range<usize>> {
    (0..world).map(|rank| rank * len / world..(rank + 1) * len / world).collect()
}

/// Exchanges; `sums` is the sum of all ranks' gradients afterwards. Gives the header of rank 0.
pub(crate) fn step(
    mesh: &mut (impl Mesh + ?Sized),
    tags: [Tag; 2],
    header: [f64; 1],
    gradient: &[f32],
    sums: &mut [f32],
    cuts: &[Range<usize>],
) -> Result<[f64; 1], GangError> {
    let rank = mesh.rank();
    let offer = Offer { header: &header, planes: gradient, plane: gradient.len(), cuts };
    let mut told = header;
    let mut add = |parts: &[Part<'_>]| {
        told.copy_from_slice(parts[0].header);
        sum(parts, &mut sums[cuts[rank].clone()]);
    };
    mesh.exchange(tags[0], offer, &mut add)?;
    mesh.all_gather(tags[1], sums, cuts)?;
    Ok(told)
}

/// Adds up what all ranks gave, as an owner does.
fn sum(parts: &[Part<'_>], target: &mut [f32]) {
    for (index, target) in target.chunks_mut(CHUNK).enumerate() {
        let chunk = index * CHUNK..index * CHUNK + target.len();
        target.copy_from_slice(&parts[0].plane(0)[chunk.clone()]);
        for part in &parts[1..] {
            simd::add_assign(target, &part.plane(0)[chunk.clone()]);
        }
    }
}
