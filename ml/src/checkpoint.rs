//! Checkpoints of a training run in the warehouse, under the model's name and the run's id: a hash of all that decides the
//! run's bytes. A run that was killed and is started again finds its own. A run that ends removes those of its model, also
//! what runs left that were killed and never started again in the same way.

use std::sync::Arc;

use bytes::Bytes;
use engine::{Error, Result, Session};
use storage::{Location, Scratch, Stores};

use crate::estimate::SharedCheckpoints;
use crate::train::CheckpointStore;

/// Steps between two checkpoints, unless `ml.checkpoint_steps` says otherwise.
const EVERY_STEPS: u64 = 5_000;

/// Where one run keeps its checkpoint.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    place: Option<Place>,
    every_steps: u64,
}

#[derive(Clone)]
struct Place {
    stores: Stores,
    /// Directory of the model.
    model: Scratch,
    /// Directory of the run, in the model's.
    directory: Location,
    runtime: tokio::runtime::Handle,
}

impl Checkpoints {
    /// Those of the run with this id, which makes this model.
    pub(crate) fn new(session: &Session, model: &str, run: &str) -> Result<Self> {
        let every_steps = match session.setting("ml.checkpoint_steps") {
            None => EVERY_STEPS,
            Some(text) => text.parse().map_err(|_| {
                Error::Usage(format!("ml.checkpoint_steps: expected a whole number of at least 0, got `{text}`"))
            })?,
        };
        let model = Scratch::new(session.stores(), session.warehouse(), &format!("_runs/{model}"))?;
        let directory = model.location().join(run).as_directory();
        let runtime = tokio::runtime::Handle::current();
        let place = Place { stores: session.stores().clone(), model, directory, runtime };
        Ok(Checkpoints { place: Some(place), every_steps })
    }

    /// A run that keeps none.
    pub(crate) fn none() -> Self {
        Checkpoints { place: None, every_steps: 0 }
    }

    /// Steps between two.
    pub(crate) fn every_steps(&self) -> u64 {
        self.every_steps
    }

    /// For the trainer; `None` when nothing is kept.
    pub(crate) fn store(&self) -> Option<SharedCheckpoints> {
        let place = self.place.clone()?;
        (self.every_steps > 0).then(|| Arc::new(place) as SharedCheckpoints)
    }

    /// Removes what this run and earlier ones of the same model have kept.
    pub(crate) async fn remove(&self) {
        let Some(place) = &self.place else { return };
        if let Err(error) = place.model.remove().await {
            tracing::warn!("cannot remove the checkpoints in {}: {error}", place.model.location());
        }
    }
}

impl Place {
    fn file(&self) -> Location {
        self.directory.join("checkpoint")
    }
}

impl CheckpointStore for Place {
    fn save(&self, bytes: &[u8]) -> Result<()> {
        let bytes = Bytes::copy_from_slice(bytes);
        let put = || self.runtime.block_on(self.stores.put_atomic(&self.file(), bytes.clone()));
        match put() {
            // Another process that made the same model has just removed the directory.
            Err(storage::Error::NotFound { .. }) => Ok(put()?),
            put => Ok(put?),
        }
    }

    fn load(&self) -> Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.stores.get(&self.file())) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(storage::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
