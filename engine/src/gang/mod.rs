//! N workers that run at the same time and talk to each other.
//!
//! Dataflow stages are not the place for an all-reduce: they give no guarantee that all partitions run at once and
//! nobody tells a task its peers. A gang does both. In one process it is threads that read each other's memory
//! ([`local`]); on a cluster it will be a service inside every executor, over TCP. What a rank does is supplied by the
//! caller, which sees only [`Mesh`].

use std::ops::Range;

pub mod local;

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

/// One rank's connection to all ranks of its gang.
///
/// Every rank calls the same sequence of exchanges with the same tags.
pub trait Mesh: Send {
    /// This rank.
    fn rank(&self) -> Rank;
    /// How many ranks there are.
    fn world(&self) -> usize;
    /// Gives `source[outgoing[r]]` to every rank r and hands what each rank r gave to this one to `receive(r, slice)`,
    /// in rank order, own rank included. On return every rank has consumed this rank's `source`.
    fn exchange(
        &mut self,
        tag: Tag,
        source: &[f32],
        outgoing: &[Range<usize>],
        receive: &mut dyn FnMut(Rank, &[f32]),
    ) -> Result<(), GangError>;
}
