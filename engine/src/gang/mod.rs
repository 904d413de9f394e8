//! N workers that run at the same time and talk to each other.
//!
//! Dataflow stages are not the place for an all-reduce: they give no guarantee that all partitions run at once and
//! nobody tells a task its peers. A gang does both. In one process it is threads that read each other's memory
//! ([`local`], [`threads`]); on a cluster it is a service inside every executor, over TCP. What a rank does is supplied
//! by the caller ([`task`]), which sees only [`Mesh`].

use std::ops::Range;

mod control;
mod conversation;
mod frame;
mod greeting;
mod lease;
pub mod local;
mod office;
mod remote;
mod renewal;
mod service;
#[cfg(test)]
mod simulated;
mod supervision;
pub mod task;
mod tcp;
mod threads;

pub use lease::{LeaseAnswer, LeaseRequest, Leases, Member};
pub use office::LeaseOffice;
pub(crate) use remote::ClusterGangs;
pub(crate) use service::{GangService, ServiceSettings};
pub use task::{Ended, GangEvent, GangOrder, GangTask, Gangs, Kept, Seat};
pub use threads::ThreadGangs;

use crate::error::Error;

/// A rank's place in its gang, `0..world`.
pub type Rank = usize;

/// Names one exchange, so that a late or repeated message can be told from the awaited one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Counts up each time the gang is formed again; an older generation is refused.
    pub generation: u32,
    /// The step of the training loop.
    pub step: u64,
    /// Which exchange of the step.
    pub round: u32,
}

/// Why an exchange ended without its data.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GangError {
    /// Another rank ended with an error or panicked; its cause.
    #[error("worker {rank} failed: {cause}")]
    PeerFailed {
        /// Which rank.
        rank: Rank,
        /// Its own words.
        cause: String,
    },
    /// Another rank is gone, or its connection is: not its fault, and another generation may do better.
    #[error("worker {rank} is lost: {cause}")]
    PeerLost {
        /// Which rank.
        rank: Rank,
        /// How that was noticed.
        cause: String,
    },
    /// Another rank and this one must not work together, or it does not keep to the protocol.
    #[error("worker {rank} is refused: {cause}")]
    Refused {
        /// Which rank.
        rank: Rank,
        /// What is wrong with it.
        cause: String,
    },
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A message with another tag arrived: the ranks are not in the same step.
    #[error("worker {rank} is at {got:?}, this one at {expected:?}")]
    OutOfStep {
        /// Which rank.
        rank: Rank,
        /// Its tag.
        got: Tag,
        /// Ours.
        expected: Tag,
    },
}

/// What a rank gives in an exchange: some vectors of one length ("planes") that lie behind each other, cut alike for
/// all ranks, and a few numbers that everybody gets.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Given to every rank.
    pub header: &'a [f64],
    /// The planes, one behind the other: a multiple of `plane` numbers.
    pub planes: &'a [f32],
    /// Length of a plane.
    pub plane: usize,
    /// Rank r is given `cuts[r]` of every plane. One range for each rank.
    pub cuts: &'a [Range<usize>],
}

impl Offer<'_> {
    /// An offer of a header alone needs cuts all the same: empty ones.
    pub fn check(&self, world: usize) {
        assert_eq!(self.cuts.len(), world, "an exchange has one cut for each rank");
        assert!(
            self.cuts.iter().all(|cut| cut.start <= cut.end && cut.end <= self.plane),
            "a cut lies inside its plane"
        );
        assert!(self.plane == 0 || self.planes.len().is_multiple_of(self.plane), "planes are of one length");
    }
}

/// What one rank gave to this one.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The giver's header.
    pub header: &'a [f64],
    numbers: &'a [f32],
    planes: usize,
    stride: usize,
    first: usize,
    len: usize,
}

impl<'a> Part<'a> {
    /// A part that lies in the giver's own planes, `stride` apart; of each, `cut` is what was given.
    pub fn new(header: &'a [f64], numbers: &'a [f32], stride: usize, cut: Range<usize>) -> Self {
        let planes = numbers.len().checked_div(stride).unwrap_or(0);
        Part { header, numbers, planes, stride, first: cut.start, len: cut.len() }
    }

    /// A part whose cuts of `planes` planes lie one behind the other.
    pub fn compact(header: &'a [f64], numbers: &'a [f32], planes: usize) -> Self {
        let len = numbers.len().checked_div(planes).unwrap_or(0);
        Part { header, numbers, planes, stride: len, first: 0, len }
    }

    /// How many planes the giver had.
    pub fn planes(&self) -> usize {
        self.planes
    }

    /// This rank's cut of plane `index`.
    #[inline]
    pub fn plane(&self, index: usize) -> &'a [f32] {
        let start = index * self.stride + self.first;
        &self.numbers[start..start + self.len]
    }
}

/// One rank's connection to all ranks of its gang.
///
/// Every rank calls the same sequence of exchanges with the same tags. A call that fails has failed, or will fail, for
/// every rank; after that the gang is of no more use.
pub trait Mesh: Send {
    /// This rank.
    fn rank(&self) -> Rank;
    /// How many ranks there are.
    fn world(&self) -> usize;
    /// Gives every rank its cut of this rank's planes, and hands what all ranks gave to this one, in rank order and own
    /// rank included, to `receive`.
    fn exchange(&mut self, tag: Tag, offer: Offer<'_>, receive: &mut dyn FnMut(&[Part<'_>])) -> Result<(), GangError>;
    /// Announces an exchange whose last plane is still being computed: its first `ready` numbers are final, and so are the
    /// header and the other planes. What can be sent without waiting may be sent now. May be called again with more; an
    /// exchange with this tag and the finished offer must follow, and nothing else before it. What goes wrong meanwhile
    /// is told by that exchange.
    fn announce(&mut self, _tag: Tag, _offer: Offer<'_>, _ready: usize) {}
    /// Each rank r owns `cuts[r]` of `vector`; on return every rank has all of it. Cuts do not overlap.
    fn all_gather(&mut self, tag: Tag, vector: &mut [f32], cuts: &[Range<usize>]) -> Result<(), GangError>;

    /// Whether, at the latest exchange, some worker had been told to leave: then all save a checkpoint and end with
    /// [`Ended::Left`]. Every rank is given the same answer after the same exchange.
    fn leaving(&self) -> bool {
        false
    }
}

/// The error of a rank that panicked.
fn fault(task: &str, rank: Rank, message: &str) -> Error {
    Error::invalid(format!("worker {rank} of {task} was stopped by a fault of the program: {message}"))
}
