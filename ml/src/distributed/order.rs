//! What the workers of a cluster are told, and what they tell.

use engine::gang::Rank;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::score::NamedFile;
use crate::checkpoint::Keeping;
use crate::encoder::WrittenEncoder;
use crate::kernel::{self, ChosenKernel, KernelChoice};
use crate::linear::{Iteration, LinearPlan};
use crate::materialize::{Outline, WorkerRows};
use crate::network::NetworkSpec;
use crate::optimizer::Optimizer;
use crate::schedule::Schedule;
use crate::train::{Checkpointing, EarlyStop, EpochRecord, TrainPlan, TrainProgress};

/// The order to train, the same for all ranks and generations.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) work: Work,
    pub(super) kernel: NamedKernel,
    pub(super) source: Source,
    pub(super) train: Outline,
    pub(super) eval: Option<Outline>,
    pub(super) checkpoint: Option<Keeping>,
    /// The directory where rank 0 leaves what was trained.
    pub(super) place: String,
}

/// What shards are made of, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) rows: WorkerRows,
    pub(super) encoder: WrittenEncoder,
}

/// What is to be trained.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Work {
    Network(NetworkWork),
    Linear(LinearPlan),
}

/// A [`TrainPlan`] without what each worker has of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NetworkWork {
    network: NetworkSpec,
    optimizer: Optimizer,
    schedule: Schedule,
    batch_size: usize,
    epochs: usize,
    seed: u64,
    l1: f64,
    l2: f64,
    clip_norm: Option<f64>,
    early_stop: Option<EarlyStop>,
}

impl NetworkWork {
    pub(super) fn of(plan: &TrainPlan) -> Self {
        NetworkWork {
            network: plan.network.clone(),
            optimizer: plan.optimizer,
            schedule: plan.schedule,
            batch_size: plan.batch_size,
            epochs: plan.epochs,
            seed: plan.seed,
            l1: plan.l1,
            l2: plan.l2,
            clip_norm: plan.clip_norm,
            early_stop: plan.early_stop,
        }
    }

    pub(super) fn plan(self, kernel: ChosenKernel, checkpoint: Option<Checkpointing>) -> TrainPlan {
        TrainPlan {
            network: self.network,
            optimizer: self.optimizer,
            schedule: self.schedule,
            batch_size: self.batch_size,
            epochs: self.epochs,
            seed: self.seed,
            l1: self.l1,
            l2: self.l2,
            clip_norm: self.clip_norm,
            early_stop: self.early_stop,
            workers: 1,
            kernel,
            checkpoint,
        }
    }
}

/// The matrix kernel that all workers must have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NamedKernel {
    name: String,
    fingerprint: String,
}

impl NamedKernel {
    pub(super) fn of(kernel: &ChosenKernel) -> Self {
        NamedKernel { name: kernel.kernel.name().into(), fingerprint: kernel.fingerprint.clone() }
    }

    /// This process's kernel of that name.
    pub(super) fn here(&self) -> Result<ChosenKernel> {
        kernel::choose(self.name.parse::<KernelChoice>()?)
    }

    /// As [`NamedKernel::here`], when its products are the coordinator's, bit for bit.
    pub(super) fn the_same_here(&self, rank: Rank) -> Result<ChosenKernel> {
        let own = self.here()?;
        if own.fingerprint == self.fingerprint {
            return Ok(own);
        }
        Err(Error::invalid(format!(
            "worker {rank} has the matrix kernel {}, the coordinator {}: their numbers would differ",
            own.fingerprint, self.fingerprint
        ))
        .with_hint(
            "run the same build on machines of one kind, or choose a kernel that is the same on all: --kernel native",
        ))
    }
}

/// What rank 0 says while it works.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It makes its shards: so many of its rows are encoded.
    Encoded {
        done: u64,
        all: u64,
    },
    /// A generation begins: so many steps or passes are known, and these epochs.
    Resumed {
        done: u64,
        history: Vec<EpochRecord>,
    },
    Progress(TrainProgress),
    Epoch(EpochRecord),
    Iteration(Iteration),
}

/// What rank 0 gives in the end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// In the order's place.
    pub(super) file: NamedFile,
    pub(super) curve: DoneCurve,
}

/// How it came about.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum DoneCurve {
    Network { history: Vec<EpochRecord>, stopped_early: bool, steps: u64 },
    Linear { history: Vec<Iteration>, converged: bool, notes: Vec<String>, separated: bool },
}

/// JSON of our own making.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is JSON")
}

/// What another process has made of our types.
pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::invalid(format!("{what} cannot be read: {error}"))
            .with_hint("all processes of a cluster must be of the same version")
    })
}
