//! Checkpoints of a training run in the warehouse, under the run's id: a hash of all that decides the run's bytes. A run
//! that was killed and is started again finds its own; a run that ends removes it.

use std::sync::Arc;

use bytes::Bytes;
use engine::{Error, Result, Session};
use storage::{Location, Stores};

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
    /// Directory of the run.
    directory: Location,
    runtime: tokio::runtime::Handle,
}

impl Checkpoints {
    /// Those of the run with this id.
    pub(crate) fn new(session: &Session, run: &str) -> Result<Self> {
        let every_steps = match session.setting("ml.checkpoint_steps") {
            None => EVERY_STEPS,
            Some(text) => text.parse().map_err(|_| {
                Error::Usage(format!("ml.checkpoint_steps: expected a whole number of at least 0, got `{text}`"))
            })?,
        };
        let directory = session.warehouse().join("_runs").join(run).as_directory();
        let place = Place { stores: session.stores().clone(), directory, runtime: tokio::runtime::Handle::current() };
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

    /// Removes what the run has kept.
    pub(crate) async fn remove(&self) {
        let Some(place) = &self.place else { return };
        if let Err(error) = place.stores.delete_prefix(&place.directory).await {
            tracing::warn!("cannot remove the checkpoints in {}: {error}", place.directory);
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
        Ok(self.runtime.block_on(self.stores.put_atomic(&self.file(), bytes))?)
    }

    fn load(&self) -> Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.stores.get(&self.file())) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(storage::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
