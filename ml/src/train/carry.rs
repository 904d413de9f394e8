//! Bytes through a mesh that carries numbers: four bytes are the bits of one, and nobody computes with it.

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
        if first {
            numbers.extend(whole[start..end].chunks(4).map(number_of));
        } else {
            numbers.resize((end - start).div_ceil(4), 0.0f32);
        }
        let mut cuts = vec![numbers.len()..numbers.len(); world];
        cuts[0] = 0..numbers.len();
        let tag = Tag { step: tag.step + number as u64, round: tag.round + 1, ..tag };
        mesh.all_gather(tag, &mut numbers, &cuts).map_err(gang_error)?;
        if !first {
            whole.extend(numbers.iter().flat_map(bytes_of));
            whole.truncate(end);
        }
    }
    Ok(Some(whole))
}

/// The bytes of every rank, in rank order, on rank 0; nothing on the others.
pub(crate) fn gather(mesh: &mut dyn Mesh, tag: Tag, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let first = mesh.rank() == 0;
    let numbers: Vec<f32> = bytes.chunks(4).map(number_of).collect();
    let mut cuts: Vec<Range<usize>> = vec![0..0; mesh.world()];
    cuts[0] = 0..numbers.len();
    let offer = Offer { header: &[bytes.len() as f64], planes: &numbers, plane: numbers.len(), cuts: &cuts };
    let mut all = Vec::new();
    mesh.exchange(tag, offer, &mut |parts| {
        for part in parts.iter().filter(|_| first) {
            let length = part.header.first().map_or(0, |length| *length as usize);
            let numbers = if part.planes() > 0 { part.plane(0) } else { &[] };
            let mut bytes: Vec<u8> = numbers.iter().flat_map(bytes_of).collect();
            bytes.truncate(length);
            all.push(bytes);
        }
    })
    .map_err(gang_error)?;
    Ok(all)
}

fn number_of(four: &[u8]) -> f32 {
    let mut bits = [0; 4];
    bits[..four.len()].copy_from_slice(four);
    f32::from_bits(u32::from_le_bytes(bits))
}

fn bytes_of(number: &f32) -> [u8; 4] {
    number.to_bits().to_le_bytes()
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

    #[test]
    fn the_first_has_the_bytes_of_every_rank() {
        let bytes = |rank: usize| vec![rank as u8 ^ 0xff; [5, 0, 12][rank]];
        let got = local::run("gather", 3, |mesh| -> Result<_> {
            let own = bytes(mesh.rank());
            gather(mesh, Tag { generation: 1, step: 0, round: 0 }, &own)
        });
        let got = got.map_err(|_| Error::Cancelled).unwrap();
        assert_eq!(got, [vec![bytes(0), bytes(1), bytes(2)], vec![], vec![]]);
    }
}
