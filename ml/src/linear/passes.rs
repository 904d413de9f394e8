//! One pass after the other over the shards, by one process or by the ranks of a gang.
//!
//! A solver is a function of the sums that its passes give. So the ranks of a gang all run the same solver, each sums up its
//! own shards, and the sums meet in the tree that one process would fold ([`super::fold`]): the owner of a slice of the
//! numbers finishes the tree, then everybody gets the whole. And a checkpoint is the list of the sums so far: a solver that
//! begins again is given them without a look at the rows, and stands where it was, whichever solver it is.

use std::ops::Range;
use std::time::{Duration, Instant};

use engine::gang::{Mesh, Offer, Part, Tag};
use engine::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::fold::{self, Node, Sum};
use crate::shards::ShardSet;
use crate::train::{CheckpointStore, broadcast, gang_error, share};

/// The most that sums to go on from may hold; later passes of a run with more are done again.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// The exchanges of a pass.
mod round {
    pub(super) const SUM: u32 = 0;
    pub(super) const WHOLE: u32 = 1;
    pub(super) const RESUME: u32 = 16;
}

/// Where a fit keeps what it needs to go on after an interruption.
#[derive(Clone, Copy)]
pub struct Keeping<'a> {
    /// Keeps the newest.
    pub store: &'a dyn CheckpointStore,
    /// Time between two.
    pub every: Duration,
}

/// See the module.
pub(super) struct Passes<'a> {
    gang: Option<Seat<'a>>,
    keeping: Option<Keeping<'a>>,
    identity: u64,
    /// Passes begun.
    count: usize,
    /// The numbers of each pass from the first on.
    sums: Vec<Vec<f64>>,
    bytes: usize,
    kept: Instant,
    /// How many passes the last checkpoint knows.
    kept_sums: usize,
    left: bool,
}

/// A rank's place.
pub(super) struct Seat<'a> {
    pub(super) mesh: &'a mut dyn Mesh,
    pub(super) generation: u32,
}

impl<'a> Passes<'a> {
    /// Begins; `identity` names the fit, so that nobody goes on from another's sums.
    pub(super) fn begin(mut gang: Option<Seat<'a>>, keeping: Option<Keeping<'a>>, identity: u64) -> Result<Self> {
        let is_first = gang.as_ref().is_none_or(|seat| seat.mesh.rank() == 0);
        let kept = match keeping {
            Some(keeping) if is_first => keeping.store.load()?,
            _ => None,
        };
        let kept = match &mut gang {
            Some(seat) if keeping.is_some() => {
                let tag = Tag { generation: seat.generation, step: 0, round: round::RESUME };
                broadcast(seat.mesh, tag, kept)?
            }
            _ => kept,
        };
        let sums = kept.map_or_else(|| Ok(Vec::new()), |bytes| decode(&bytes, identity))?;
        let (bytes, kept_sums) = (sums.iter().map(|numbers| 8 * numbers.len()).sum(), sums.len());
        Ok(Passes { gang, keeping, identity, count: 0, sums, bytes, kept: Instant::now(), kept_sums, left: false })
    }

    /// How many passes need not be done.
    pub(super) fn known(&self) -> usize {
        self.sums.len()
    }

    /// Whether the fit ended because a worker was told to leave.
    pub(super) fn has_left(&self) -> bool {
        self.left
    }

    /// The sum over all rows of `shards`; see [`fold::fold`].
    pub(super) fn fold<S: Sum>(
        &mut self,
        shards: &dyn ShardSet,
        workers: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
        zero: impl Fn() -> S + Sync,
    ) -> Result<S> {
        let pass = self.count;
        self.count += 1;
        if let Some(numbers) = self.sums.get(pass) {
            return filled(zero(), numbers);
        }
        // Asked before the pass: a worker that was frozen in the middle of it and taken for dead must not find that it is
        // high time for a checkpoint.
        let due = self.is_due();
        let mut sum = match &mut self.gang {
            None => fold::fold(shards, workers, cancelled, zero)?,
            Some(seat) => {
                let numbers = seat.fold(pass as u64, shards, workers, cancelled, &zero)?;
                self.left = seat.mesh.leaving();
                filled(zero(), &numbers)?
            }
        };
        if self.keeping.is_some() && self.sums.len() == pass {
            let numbers: Vec<f64> = sum.numbers().concat();
            if self.bytes + 8 * numbers.len() <= KEPT_BYTES_MAX {
                self.bytes += 8 * numbers.len();
                self.sums.push(numbers);
            }
        }
        self.keep(due || self.left)?;
        // The pass is kept: whoever goes on has it.
        if self.left { Err(Error::Cancelled) } else { Ok(sum) }
    }

    fn is_due(&self) -> bool {
        self.keeping.is_some_and(|keeping| !keeping.every.is_zero() && self.kept.elapsed() >= keeping.every)
    }

    fn keep(&mut self, due: bool) -> Result<()> {
        let Some(keeping) = self.keeping else { return Ok(()) };
        let is_first = self.gang.as_ref().is_none_or(|seat| seat.mesh.rank() == 0);
        if !is_first || !due || self.kept_sums == self.sums.len() {
            return Ok(());
        }
        keeping.store.save(&encode(&self.sums, self.identity))?;
        (self.kept, self.kept_sums) = (Instant::now(), self.sums.len());
        Ok(())
    }
}

impl Seat<'_> {
    /// The numbers of the sum over all shards.
    fn fold<S: Sum>(
        &mut self,
        pass: u64,
        shards: &dyn ShardSet,
        workers: usize,
        cancelled: &(dyn Fn() -> bool + Sync),
        zero: &(impl Fn() -> S + Sync),
    ) -> Result<Vec<f64>> {
        let (rank, world, count) = (self.mesh.rank(), self.mesh.world(), shards.shards());
        let range = |rank: usize| share(count, rank, world);
        let own = fold::fold_range(shards, range(rank), workers, cancelled, zero)?;
        let length = zero().numbers().iter().map(|part| part.len()).sum::<usize>();
        let mut planes = Vec::with_capacity(2 * length * own.len());
        for (_, mut sum) in own {
            sum.numbers().into_iter().for_each(|part| planes.extend(part.iter().flat_map(|number| halves(*number))));
        }
        // Each owner's slice of the numbers, in halves.
        let cuts: Vec<Range<usize>> = (0..world)
            .map(|owner| {
                let slice = share(length, owner, world);
                2 * slice.start..2 * slice.end
            })
            .collect();
        let offer = Offer { header: &[], planes: &planes, plane: 2 * length, cuts: &cuts };
        let tag = Tag { generation: self.generation, step: pass, round: round::SUM };
        let mut whole = vec![0.0f32; 2 * length];
        let slice = &mut whole[cuts[rank].clone()];
        self.mesh
            .exchange(tag, offer, &mut |parts| {
                let nodes = parts.iter().enumerate().flat_map(|(giver, part)| nodes_in(part, range(giver), count));
                let root = fold::merge_nodes(count, nodes);
                slice.iter_mut().zip(root.into_iter().flat_map(halves)).for_each(|(to, from)| *to = from);
            })
            .map_err(gang_error)?;
        self.mesh.all_gather(Tag { round: round::WHOLE, ..tag }, &mut whole, &cuts).map_err(gang_error)?;
        Ok(whole.chunks_exact(2).map(joined).collect())
    }
}

/// The nodes that one rank gave.
fn nodes_in<'p>(
    part: &'p Part<'p>,
    range: Range<usize>,
    shards: usize,
) -> impl Iterator<Item = (Node, Vec<f64>)> + use<'p> {
    let nodes = fold::nodes_of(range, shards).into_iter().enumerate();
    nodes.map(|(plane, node)| (node, part.plane(plane).chunks_exact(2).map(joined).collect()))
}

/// The bits of a number as those of two that a mesh carries.
fn halves(number: f64) -> [f32; 2] {
    let bits = number.to_bits();
    [f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]
}

fn joined(halves: &[f32]) -> f64 {
    f64::from_bits(u64::from(halves[0].to_bits()) | u64::from(halves[1].to_bits()) << 32)
}

fn filled<S: Sum>(mut sum: S, numbers: &[f64]) -> Result<S> {
    let mut from = 0;
    for part in sum.numbers() {
        let to = from + part.len();
        let given = numbers.get(from..to).ok_or_else(damaged)?;
        part.copy_from_slice(given);
        from = to;
    }
    if from == numbers.len() { Ok(sum) } else { Err(damaged()) }
}

const MAGIC: &[u8] = b"gristmill sums 1\n";

fn damaged() -> Error {
    Error::invalid("the checkpoint is damaged").with_hint("remove it to train from the beginning")
}

/// The magic line, the identity, the number of passes; for each its length and its numbers; a hash of all before it.
fn encode(sums: &[Vec<f64>], identity: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(identity.to_le_bytes());
    bytes.extend((sums.len() as u64).to_le_bytes());
    for numbers in sums {
        bytes.extend((numbers.len() as u64).to_le_bytes());
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], identity: u64) -> Result<Vec<Vec<f64>>> {
    let (body, hash) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
    if xxh3_64(body) != u64::from_le_bytes(*hash) {
        return Err(damaged());
    }
    let (words, []) = body.strip_prefix(MAGIC).ok_or_else(damaged)?.as_chunks::<8>() else { return Err(damaged()) };
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    if words.next() != Some(identity) {
        return Err(Error::invalid("the checkpoint belongs to another training run: model, options or rows differ")
            .with_hint("remove it to train from the beginning"));
    }
    let count = words.next().ok_or_else(damaged)?;
    let mut sums = Vec::new();
    for _ in 0..count {
        let length = words.next().ok_or_else(damaged)? as usize;
        let numbers: Vec<f64> = words.by_ref().take(length).map(f64::from_bits).collect();
        if numbers.len() != length {
            return Err(damaged());
        }
        sums.push(numbers);
    }
    if words.next().is_none() { Ok(sums) } else { Err(damaged()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_are_kept_come_back_and_damage_is_refused() {
        let sums = vec![vec![1.0, -0.0, f64::NAN], vec![], vec![1e-310]];
        let bytes = encode(&sums, 7);
        let back = decode(&bytes, 7).unwrap();
        let bits = |sums: &[Vec<f64>]| -> Vec<Vec<u64>> {
            sums.iter().map(|numbers| numbers.iter().map(|number| number.to_bits()).collect()).collect()
        };
        assert_eq!(bits(&back), bits(&sums));
        assert!(decode(&bytes, 8).unwrap_err().to_string().contains("another training run"));
        for at in [0, 20, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, 7).unwrap_err().to_string().contains("damaged"));
        }
    }

    #[test]
    fn a_number_survives_its_halves() {
        for number in [0.1, -0.0, f64::MIN_POSITIVE, f64::NEG_INFINITY, f64::from_bits(0x7ff4_0000_0000_0001)] {
            assert_eq!(joined(&halves(number)).to_bits(), number.to_bits());
        }
    }
}
