//! What is needed to go on after an interruption and come to the same bytes: parameters, optimizer state, place in the
//! epoch, sums of the epoch so far, history.
//!
//! Layout: the magic line, length of the header and the header (JSON; floating-point numbers as their bits), the vectors as
//! little-endian f32, and a 64-bit xxh3 hash of all before it. Where the bytes are kept is the store's affair.

use std::sync::{Mutex, PoisonError};

use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{EpochRecord, TrainPlan};
use crate::optimizer::Optimizer;
use crate::shards::ShardSet;

/// Keeps the newest checkpoint of one training run. `save` must be atomic: after a crash `load` gives the old bytes or
/// the new ones.
pub trait CheckpointStore: Send + Sync {
    /// Replaces what was kept.
    fn save(&self, bytes: &[u8]) -> Result<()>;
    /// What was saved last, if anything.
    fn load(&self) -> Result<Option<Vec<u8>>>;
}

/// Checkpoints in memory, for tests and for gangs that start again within one process.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints(Mutex<Option<Vec<u8>>>);

impl CheckpointStore for MemoryCheckpoints {
    fn save(&self, bytes: &[u8]) -> Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
        Ok(())
    }
    fn load(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A hash of all that decides a run's bytes: a checkpoint of another run must not be resumed. Workers are not part of it.
pub(super) fn identity(plan: &TrainPlan, train: &dyn ShardSet, eval: Option<&dyn ShardSet>) -> u64 {
    let mut hash = Xxh3::new();
    let rows = |set: &dyn ShardSet| (0..set.shards()).map(|shard| set.rows(shard)).collect::<Vec<_>>();
    let shape = (rows(train), train.block_rows(), eval.map(|eval| (rows(eval), eval.block_rows())));
    let numbers = (plan.batch_size, plan.epochs, plan.seed, plan.l1.to_bits(), plan.l2.to_bits());
    let rules = (plan.clip_norm.map(f64::to_bits), plan.early_stop, &plan.kernel.fingerprint);
    let parts = [
        serde_json::to_vec(&(&plan.network, &plan.optimizer, &plan.schedule)),
        serde_json::to_vec(&(shape, numbers, rules)),
    ];
    for part in parts {
        hash.update(&part.expect("a plan is plain data"));
    }
    hash.digest()
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    pub(super) epoch: usize,
    /// Steps done in this epoch.
    pub(super) step: u64,
    /// Steps done in all.
    pub(super) count: u64,
    /// Weighted loss and weight of this epoch so far.
    pub(super) loss: f64,
    pub(super) weight: f64,
    pub(super) history: Vec<EpochRecord>,
    pub(super) progress: Progress,
    pub(super) parameters: Vec<f32>,
    /// The optimizer's state vectors, whole.
    pub(super) slots: Vec<Vec<f32>>,
}

/// What early stopping remembers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    pub(super) best: f64,
    /// Epochs since the loss has improved enough.
    pub(super) stale: usize,
    /// Parameters of the best epoch, when held-out rows decide.
    pub(super) best_parameters: Option<Vec<f32>>,
}

const MAGIC: &[u8] = b"gristmill checkpoint 2\n";

#[derive(Serialize, Deserialize)]
struct Header {
    identity: u64,
    epoch: usize,
    step: u64,
    count: u64,
    loss: u64,
    weight: u64,
    /// iteration, loss, eval_loss, learning_rate, duration_ms
    history: Vec<(usize, u64, Option<u64>, u64, u64)>,
    best: u64,
    stale: usize,
    has_best: bool,
    slots: usize,
}

impl State {
    pub(super) fn encode(&self, identity: u64) -> Vec<u8> {
        let record = |r: &EpochRecord| {
            let eval = r.eval_loss.map(f64::to_bits);
            (r.iteration, r.loss.to_bits(), eval, r.learning_rate.to_bits(), r.duration_ms.to_bits())
        };
        let header = Header {
            identity,
            epoch: self.epoch,
            step: self.step,
            count: self.count,
            loss: self.loss.to_bits(),
            weight: self.weight.to_bits(),
            history: self.history.iter().map(record).collect(),
            best: self.progress.best.to_bits(),
            stale: self.progress.stale,
            has_best: self.progress.best_parameters.is_some(),
            slots: self.slots.len(),
        };
        let header = serde_json::to_vec(&header).expect("a header is plain data");
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        let vectors = [&self.parameters].into_iter().chain(&self.slots).chain(&self.progress.best_parameters);
        for vector in vectors {
            bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8], identity: u64, optimizer: &Optimizer, parameters: usize) -> Result<State> {
        let damaged = || Error::invalid("the checkpoint is damaged").with_hint("remove it to train from the beginning");
        let (body, hash) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
        if xxh3_64(body) != u64::from_le_bytes(*hash) {
            return Err(damaged());
        }
        let rest = body.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (len, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (header, rest) = rest.split_at_checked(u64::from_le_bytes(*len) as usize).ok_or_else(damaged)?;
        let header: Header = serde_json::from_slice(header).map_err(|_| damaged())?;
        if header.identity != identity {
            return Err(Error::invalid(
                "the checkpoint belongs to another training run: model, options, rows or matrix kernel differ",
            )
            .with_hint("remove it to train from the beginning"));
        }
        let (values, []) = rest.as_chunks::<4>() else { return Err(damaged()) };
        let vectors = 1 + header.slots + usize::from(header.has_best);
        if values.len() != vectors * parameters || header.slots != optimizer.slots() {
            return Err(damaged());
        }
        let mut vectors =
            values.chunks_exact(parameters).map(|v| v.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect());
        let record = |(iteration, loss, eval_loss, learning_rate, duration_ms): (usize, u64, Option<u64>, u64, u64)| {
            EpochRecord {
                iteration,
                loss: f64::from_bits(loss),
                eval_loss: eval_loss.map(f64::from_bits),
                learning_rate: f64::from_bits(learning_rate),
                duration_ms: f64::from_bits(duration_ms),
            }
        };
        Ok(State {
            epoch: header.epoch,
            step: header.step,
            count: header.count,
            loss: f64::from_bits(header.loss),
            weight: f64::from_bits(header.weight),
            history: header.history.into_iter().map(record).collect(),
            parameters: vectors.next().ok_or_else(damaged)?,
            slots: vectors.by_ref().take(header.slots).collect(),
            progress: Progress {
                best: f64::from_bits(header.best),
                stale: header.stale,
                best_parameters: vectors.next(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let record =
            EpochRecord { iteration: 0, loss: 0.1, eval_loss: Some(1.0 / 3.0), learning_rate: 1e-3, duration_ms: 12.5 };
        State {
            epoch: 1,
            step: 17,
            count: 140,
            loss: 1.0 / 7.0,
            weight: 544.0,
            history: vec![record],
            progress: Progress { best: 1.0 / 3.0, stale: 0, best_parameters: Some(vec![0.5, -0.25]) },
            parameters: vec![0.1, f32::MIN_POSITIVE],
            slots: vec![vec![1.0, 2.0], vec![3.0, 1e-40]],
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        let bytes = state().encode(5);
        assert_eq!(State::decode(&bytes, 5, &Optimizer::ADAM, 2).unwrap(), state());
    }

    #[test]
    fn damage_and_other_runs_are_refused() {
        let bytes = state().encode(5);
        for at in [0, 30, bytes.len() / 2, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(State::decode(&bad, 5, &Optimizer::ADAM, 2).unwrap_err().to_string().contains("damaged"));
        }
        assert!(State::decode(&bytes[..20], 5, &Optimizer::ADAM, 2).is_err());
        assert!(
            State::decode(&bytes, 6, &Optimizer::ADAM, 2).unwrap_err().to_string().contains("another training run")
        );
    }
}
