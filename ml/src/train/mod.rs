//! Minibatch training: the same model bytes for any number of workers, and after any number of interruptions.
//!
//! The loop's story is in `rank.rs`: batch, gradient, reduce, update. What always holds:
//!
//! * The order of rows is a function of (seed, epoch) and the canonical shards (`order.rs`).
//! * A batch is cut into leaves, groups of consecutive shards; how many depends on the specification alone. Gradients are
//!   summed in one binary tree over the leaves, whoever computes them (`reduce.rs`).
//! * Random numbers have counters, not state; all that changes from step to step is in a checkpoint (`checkpoint.rs`).
//!
//! Equal bytes are promised on one matrix kernel. Nothing here reads files or knows SQL.

mod carry;
mod checkpoint;
mod clock;
mod evaluate;
mod leaf;
mod order;
mod rank;
mod reduce;
mod resume;
mod update;

use std::sync::Arc;
use std::time::Duration;

use engine::gang::{self, GangError, Mesh};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::kernel::ChosenKernel;
use crate::network::{Architecture, Network, NetworkSpec};
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use crate::shards::ShardSet;

pub(crate) use carry::{broadcast, gather};
pub use checkpoint::{CheckpointStore, MemoryCheckpoints};
pub use clock::Shares;
pub(crate) use reduce::share;

/// All that a training run depends on, besides the rows.
#[derive(Clone)]
pub struct TrainPlan {
    /// The network.
    pub network: NetworkSpec,
    /// How gradients change it.
    pub optimizer: Optimizer,
    /// How fast.
    pub schedule: Schedule,
    /// Rows of a step.
    pub batch_size: usize,
    /// Passes over the training rows, at most.
    pub epochs: usize,
    /// Initial weights, order of rows and dropout follow from it.
    pub seed: u64,
    /// Adds l1 * sum |w| to the mean loss; weights only, not biases.
    pub l1: f64,
    /// Adds l2 / 2 * sum w^2 to the mean loss; weights only, not biases.
    pub l2: f64,
    /// Scales the mean gradient down to this norm when it is longer.
    pub clip_norm: Option<f64>,
    /// When to stop before the last epoch.
    pub early_stop: Option<EarlyStop>,
    /// Threads; changes nothing but the time. More than the batch has leaves are not used.
    pub workers: usize,
    /// The matrix kernel of all workers.
    pub kernel: ChosenKernel,
    /// Where and how often to keep what is needed to go on after an interruption.
    pub checkpoint: Option<Checkpointing>,
}

/// Stop when an epoch has not improved the loss enough.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EarlyStop {
    /// The least improvement that counts, relative to the best loss so far (BigQuery: 0.01).
    pub min_rel_progress: f64,
    /// So many epochs in a row without it end the training; at least 1.
    pub patience: usize,
}

/// Where checkpoints go, and how often.
#[derive(Clone)]
pub struct Checkpointing {
    /// Keeps the newest.
    pub store: Arc<dyn CheckpointStore>,
    /// Steps between two; 0 means that steps do not count.
    pub every_steps: u64,
    /// Time between two, and a tenth of it before the end of an epoch; 0 means that time does not count. Without both
    /// none is kept, but the run still resumes from what the store holds.
    pub every: Duration,
}

/// One epoch, as ML.TRAINING_INFO shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 0.
    pub iteration: usize,
    /// Mean weighted loss of the training rows, each at the moment it was trained on.
    #[serde(with = "crate::bits::one")]
    pub loss: f64,
    /// Mean weighted loss of the held-out rows after the epoch, if there are any.
    #[serde(with = "crate::bits::option")]
    pub eval_loss: Option<f64>,
    /// Of the epoch's last step.
    #[serde(with = "crate::bits::one")]
    pub learning_rate: f64,
    /// Wall time; the one field that two equal runs do not share.
    pub duration_ms: f64,
}

/// How far training is, a few times a second.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct TrainProgress {
    /// From 0.
    pub epoch: usize,
    /// At most.
    pub epochs: usize,
    /// Steps done in this epoch.
    pub step: u64,
    /// Steps of an epoch.
    pub steps: u64,
    /// Steps done in all.
    pub count: u64,
    /// Rows trained on in this run.
    pub rows: u64,
    /// Mean loss of this epoch so far.
    pub loss: f64,
    /// Rows a second since the last report.
    pub samples_per_second: f64,
    /// How many train.
    pub workers: usize,
    /// What the time of rank 0 goes to.
    pub shares: Shares,
}

/// Looks on; called by one thread at a time, must not block.
pub trait TrainObserver: Sync {
    /// A few times a second.
    fn progress(&self, _progress: &TrainProgress) {}
    /// Before the first step: the steps and epochs that the run has behind it.
    fn resumed(&self, _count: u64, _history: &[EpochRecord]) {}
    /// After each epoch.
    fn epoch(&self, _record: &EpochRecord) {}
}

/// Nobody looks on.
impl TrainObserver for () {}

/// What training gives.
#[derive(Debug, Clone)]
pub struct TrainedNetwork {
    /// The network; after early stopping on held-out rows the one of the best epoch.
    pub network: Network,
    /// The epochs that were run, resumed ones included.
    pub history: Vec<EpochRecord>,
    /// Whether early stopping ended the run.
    pub stopped_early: bool,
    /// Steps done.
    pub steps: u64,
}

/// How a rank ended without an error.
#[derive(Debug)]
pub enum Outcome<T> {
    /// The work is done.
    Finished(T),
    /// A worker was told to leave: a checkpoint is kept, and another gang goes on from it.
    Left,
}

/// One rank's place in a run that is trained by a gang.
pub struct Place<'a> {
    /// Its connection to the others.
    pub mesh: &'a mut dyn Mesh,
    /// Which gang of this run it is.
    pub generation: u32,
    /// Threads that this rank may keep busy; they change nothing but the time.
    pub threads: usize,
    /// Set when the run shall end.
    pub cancel: &'a CancellationToken,
}

/// Trains `plan.network` on `train`, measuring `eval` after each epoch, on threads of this process.
///
/// Blocks the calling thread (call it from one that may block, not from an async runtime's worker). Errors: no rows, a
/// loss that is not finite (naming step and learning rate), a block that cannot be read, a checkpoint that cannot be
/// written or belongs to another run, [`Error::Cancelled`].
pub fn train(
    plan: &TrainPlan,
    train: Arc<dyn ShardSet>,
    eval: Option<Arc<dyn ShardSet>>,
    observer: &dyn TrainObserver,
    cancel: &CancellationToken,
) -> Result<TrainedNetwork> {
    let world = plan.workers.clamp(1, ranks_max(plan, train.as_ref())?);
    let outcomes = gang::local::run("train", world, |mesh| {
        let place = Place { mesh, generation: 0, threads: 1, cancel };
        train_rank(plan, train.as_ref(), eval.as_deref(), observer, place)
    });
    let outcomes = outcomes.map_err(|failure| match failure {
        gang::local::Failure::Error { error, .. } => error,
        gang::local::Failure::Panic { rank, message } => {
            Error::invalid(format!("training worker {rank} stopped by a fault of the program: {message}"))
        }
    })?;
    match outcomes.into_iter().next().expect("a gang has a rank 0") {
        Outcome::Finished(trained) => Ok(trained),
        Outcome::Left => Err(Error::Cancelled),
    }
}

/// How many ranks can have work.
pub fn ranks_max(plan: &TrainPlan, train: &dyn ShardSet) -> Result<usize> {
    let parameters = Architecture::new(&plan.network)?.parameters();
    Ok(reduce::leaves(plan.batch_size, train.shards(), parameters))
}

/// What one rank does, wherever the others are; all end with the same network. Errors as [`train`].
pub fn train_rank(
    plan: &TrainPlan,
    train: &dyn ShardSet,
    eval: Option<&dyn ShardSet>,
    observer: &dyn TrainObserver,
    place: Place<'_>,
) -> Result<Outcome<TrainedNetwork>> {
    check(plan, train)?;
    let architecture = Architecture::new(&plan.network)?;
    let leaves = reduce::leaves(plan.batch_size, train.shards(), architecture.parameters());
    let course = order::Course::new(train, leaves, plan.batch_size);
    let run = rank::Run {
        plan,
        architecture: &architecture,
        course: &course,
        train,
        eval: eval.filter(|eval| eval.total_rows() > 0),
        identity: checkpoint::identity(plan, train, eval),
        observer,
        cancel: place.cancel,
        generation: place.generation,
        threads: place.threads,
    };
    Ok(match rank::train(&run, place.mesh)? {
        Outcome::Left => Outcome::Left,
        Outcome::Finished(finished) => Outcome::Finished(TrainedNetwork {
            network: Network::from_parameters(&plan.network, finished.parameters)?,
            history: finished.history,
            stopped_early: finished.stopped_early,
            steps: finished.steps,
        }),
    })
}

fn check(plan: &TrainPlan, train: &dyn ShardSet) -> Result<()> {
    if plan.batch_size == 0 {
        return Err(Error::invalid("BATCH_SIZE = 0: a step needs at least one row"));
    }
    if train.total_rows() == 0 {
        return Err(Error::invalid("there are no rows to train on"));
    }
    if train.layout() != &plan.network.inputs {
        return Err(Error::invalid("the training rows are laid out otherwise than the network's inputs"));
    }
    let rate = plan.schedule.base;
    if !(rate.is_finite() && rate > 0.0) {
        return Err(Error::invalid(format!("LEARN_RATE = {rate}: expected a positive number")));
    }
    for (name, value) in [("L1_REG", plan.l1), ("L2_REG", plan.l2), ("CLIP_NORM", plan.clip_norm.unwrap_or(0.0))] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(Error::invalid(format!("{name} = {value}: expected a number that is not negative")));
        }
    }
    Ok(())
}

/// What an exchange's failure means for the one who asked to train.
pub(crate) fn gang_error(error: GangError) -> Error {
    match error {
        GangError::Cancelled => Error::Cancelled,
        other => Error::invalid(other.to_string()),
    }
}

#[cfg(test)]
pub(crate) mod leaving;
#[cfg(test)]
mod tests;
