//! Bytes of rank 0 for all ranks, through a mesh that carries numbers: four bytes are the bits of one, and nobody computes
//! with it.

use std::ops::Range;

use engine::Result;
use engine::gang::{Mesh, Offer, Tag};

use super::gang_error;

/// Numbers that are sent at a time: buffers stay small.
const PIECE: usize = 1 << 20;

/// The bytes that rank 0 has, on every rank; `None` when it has none. Uses the rounds from `tag.round` on, with the steps
/// from `tag.step` on.
pub(crate) fn broadcast(mesh: &mut dyn Mesh, tag: Tag, bytes: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    let (first, world) = (mesh.rank() == 0, mesh.world());
    if world == 1 {
        return Ok(bytes);
    }
    // -1 says that there is nothing; a length below 2^53 is exact.
    let own = [bytes.as_ref().map_or(-1.0, |bytes| bytes.len() as f64)];
    let nothing: Vec<Range<usize>> = vec![0..0; world];
    let offer = Offer { header: if first { &own } else { &[] }, planes: &[], plane: 0, cuts: &nothing };
    let mut length = -1.0;
    mesh.exchange(tag, offer, &mut |parts| {
        length = parts.iter().flat_map(|part| part.header).next().copied().unwrap_or(-1.0);
    })
    .map_err(gang_error)?;
    if length < 0.0 {
        return Ok(None);
    }
    let length = length as usize;
    let mut whole = bytes.unwrap_or_default();
    let mut numbers = Vec::new();
    for (number, start) in (0..length).step_by(4 * PIECE).enumerate() {
        let end = (start + 4 * PIECE).min(length);
        numbers.clear();
        numbers.resize((end - start).div_ceil(4), 0.0f32);
        if first {
            for (number, four) in numbers.iter_mut().zip(whole[start..end].chunks(4)) {
                let mut bits = [0; 4];
                bits[..four.len()].copy_from_slice(four);
                *number = f32::from_bits(u32::from_le_bytes(bits));
            }
        }
        let mut cuts = vec![numbers.len()..numbers.len(); world];
        cuts[0] = 0..numbers.len();
        let tag = Tag { step: tag.step + number as u64, round: tag.round + 1, ..tag };
        mesh.all_gather(tag, &mut numbers, &cuts).map_err(gang_error)?;
        if !first {
            whole.extend(numbers.iter().flat_map(|number| number.to_bits().to_le_bytes()));
            whole.truncate(end);
        }
    }
    Ok(Some(whole))
}

#[cfg(test)]
mod tests {
    use engine::Error;
    use engine::gang::local;

    use super::*;

    #[test]
    fn every_rank_has_the_bytes_of_the_first() {
        // Every pattern of bits, those of numbers that are none included.
        let long: Vec<u8> =
            (0..4 * PIECE as u64 + 1003).flat_map(|i| ((i * 2_654_435_761) as u32).to_le_bytes()).collect();
        for bytes in [None, Some(vec![]), Some(b"gristmill".to_vec()), Some(vec![0xff; 9]), Some(long)] {
            let got = local::run("broadcast", 3, |mesh| -> Result<_> {
                let own = if mesh.rank() == 0 { bytes.clone() } else { None };
                broadcast(mesh, Tag { generation: 1, step: 0, round: 0 }, own)
            });
            let got = got.map_err(|_| Error::Cancelled).unwrap();
            assert!(got.iter().all(|got| *got == bytes), "{:?}", bytes.map(|bytes| bytes.len()));
        }
    }
}
