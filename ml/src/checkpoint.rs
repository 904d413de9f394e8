//! Checkpoints of a training run in the warehouse, under the model's name and the run's id: a hash of all that decides the
//! run's bytes. A run that was killed and is started again finds its own. A run that ends removes those of its model, also
//! what runs left that were killed and never started again in the same way.
//!
//! Who writes them is rank 0, in this process or on an executor. A rank that was taken for dead and comes to life again can
//! write one more, an older one: it is one of the same run all the same, and who goes on from it comes to the same bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{Error, Result, Session};
use serde::{Deserialize, Serialize};
use storage::{Location, Scratch, Stores};
use tokio::runtime::Handle;

use crate::train::{CheckpointStore, Checkpointing};

/// Seconds between two checkpoints, unless `ml.checkpoint_seconds` says otherwise.
const EVERY_SECONDS: f64 = 10.0;

/// Where one run keeps its checkpoint.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    stores: Stores,
    /// Directory of the model; `None` keeps nothing.
    model: Option<Scratch>,
    keeping: Option<Keeping>,
}

/// Where and how often, in a form that travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Keeping {
    file: String,
    every_steps: u64,
    every_ms: u64,
}

impl Checkpoints {
    /// Those of the run with this id, which makes this model.
    pub(crate) fn new(session: &Session, model: &str, run: &str) -> Result<Self> {
        let every_steps = match session.setting("ml.checkpoint_steps") {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                Error::Usage(format!("ml.checkpoint_steps: expected a whole number of at least 0, got `{text}`"))
            })?,
        };
        let seconds = match session.setting("ml.checkpoint_seconds") {
            None => EVERY_SECONDS,
            Some(text) => text.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds)).ok_or_else(|| {
                Error::Usage(format!("ml.checkpoint_seconds: expected a number of at least 0, got `{text}`"))
            })?,
        };
        let model = Scratch::new(session.stores(), session.warehouse(), &format!("_runs/{model}"))?;
        let file = model.location().join(run).as_directory().join("checkpoint");
        let every_ms = (seconds * 1e3).ceil() as u64;
        let keeping = Keeping { file: file.to_string(), every_steps, every_ms };
        let keeping = (every_steps > 0 || every_ms > 0).then_some(keeping);
        Ok(Checkpoints { stores: session.stores().clone(), model: Some(model), keeping })
    }

    /// A run that keeps none.
    pub(crate) fn none(session: &Session) -> Self {
        Checkpoints { stores: session.stores().clone(), model: None, keeping: None }
    }

    /// For a trainer elsewhere; `None` when nothing is kept.
    pub(crate) fn keeping(&self) -> Option<Keeping> {
        self.keeping.clone()
    }

    /// For a trainer in this process; call it where there is a runtime.
    pub(crate) fn here(&self) -> Result<Option<Checkpointing>> {
        self.keeping.as_ref().map(|keeping| keeping.open(&self.stores, &Handle::current())).transpose()
    }

    /// Removes what this run and earlier ones of the same model have kept.
    pub(crate) async fn remove(&self) {
        let Some(model) = &self.model else { return };
        if let Err(error) = model.remove().await {
            tracing::warn!("cannot remove the checkpoints in {}: {error}", model.location());
        }
    }
}

impl Keeping {
    /// In this process.
    pub(crate) fn open(&self, stores: &Stores, runtime: &Handle) -> Result<Checkpointing> {
        let file = Location::parse(&self.file)?;
        let store = Arc::new(KeptFile { stores: stores.clone(), file, runtime: runtime.clone() });
        Ok(Checkpointing { store, every_steps: self.every_steps, every: Duration::from_millis(self.every_ms) })
    }
}

/// One file, replaced whole each time.
struct KeptFile {
    stores: Stores,
    file: Location,
    runtime: Handle,
}

impl CheckpointStore for KeptFile {
    fn save(&self, bytes: &[u8]) -> Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        let put = || self.runtime.block_on(self.stores.put_atomic(&self.file, bytes.clone()));
        match put() {
            // Another process that made the same model has just removed the directory.
            Err(storage::Error::NotFound { .. }) => Ok(put()?),
            put => Ok(put?),
        }
    }

    fn load(&self) -> Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.stores.get(&self.file)) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(storage::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
