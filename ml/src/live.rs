//! The loss curve of a run that is still training, for ML.TRAINING_INFO in other sessions: a notice on the warehouse's board
//! `_training`, which says of which model and version, and is replaced as the curve grows. It is no part of any model, hangs
//! only while the run's process lives, and is taken down when the run has ended, well or not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::{Result, Session};
use serde::{Deserialize, Serialize};
use storage::{Location, Notice};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::history::EpochRecord;
use crate::spec::ModelType;

/// Between two states of a notice; what happens meanwhile is told together.
const PAUSE: Duration = Duration::from_millis(200);

/// What a notice says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// The model in training.
    pub(crate) model: String,
    /// The version that it will be, unless another run of the same model is faster.
    pub(crate) version: u64,
    /// Which kind of model.
    pub(crate) model_type: ModelType,
    /// What it predicts.
    pub(crate) label: String,
    /// The curve so far.
    pub(crate) history: Vec<EpochRecord>,
}

fn board(session: &Session) -> Location {
    session.warehouse().join("_training").as_directory()
}

/// The runs of a model that are training now, those of the highest version last.
pub(crate) async fn running(session: &Session, model: &str) -> Result<Vec<Running>> {
    let notices = storage::notices(session.stores(), &board(session)).await?;
    // A notice of another version of this program says nothing to us.
    let read = notices.iter().filter_map(|bytes| serde_json::from_slice::<Running>(bytes).ok());
    let mut runs: Vec<Running> = read.filter(|run| run.model == model).collect();
    runs.sort_by_key(|run| (run.version, run.history.len()));
    Ok(runs)
}

/// Where a trainer's iterations go; cheap to clone.
#[derive(Clone)]
pub(crate) struct Curve {
    told: Arc<watch::Sender<Vec<EpochRecord>>>,
}

impl Curve {
    /// A curve that nobody reads.
    pub(crate) fn unread() -> Self {
        Curve { told: Arc::new(watch::Sender::default()) }
    }

    /// Begins again: these points are known.
    pub(crate) fn begin(&self, known: Vec<EpochRecord>) {
        self.told.send_if_modified(|history| {
            let changes = *history != known;
            *history = known;
            changes
        });
    }

    /// Adds a point. Does not wait: may be called from threads that compute.
    pub(crate) fn add(&self, record: EpochRecord) {
        self.told.send_modify(|history| history.push(record));
    }
}

/// The notice of one run.
pub(crate) struct Live {
    curve: Curve,
    stop: CancellationToken,
    writer: Option<JoinHandle<Notice>>,
}

impl Live {
    /// Hangs the notice. A board that cannot be written is not the end of the training.
    pub(crate) async fn post(session: &Session, run: Running) -> Self {
        let (told, heard) = watch::channel(run.history.clone());
        let stop = CancellationToken::new();
        let writer = match Notice::post(session.stores(), &board(session), bytes(&run)).await {
            Ok(notice) => Some(tokio::spawn(write(notice, run, heard, stop.clone()))),
            Err(error) => {
                tracing::warn!("the loss curve cannot be read while {} trains: {error}", run.model);
                None
            }
        };
        Live { curve: Curve { told: Arc::new(told) }, stop, writer }
    }

    /// For the trainer.
    pub(crate) fn curve(&self) -> Curve {
        self.curve.clone()
    }

    /// Takes the notice down.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        let Some(writer) = self.writer else { return };
        match writer.await {
            Ok(notice) => {
                if let Err(error) = notice.take_down().await {
                    tracing::warn!("cannot remove the notice of a training run: {error}");
                }
            }
            Err(error) => tracing::warn!("the notice of a training run: {error}"),
        }
    }
}

async fn write(
    notice: Notice,
    mut run: Running,
    mut heard: watch::Receiver<Vec<EpochRecord>>,
    stop: CancellationToken,
) -> Notice {
    loop {
        tokio::select! {
            () = stop.cancelled() => return notice,
            changed = heard.changed() => if changed.is_err() { return notice },
        }
        run.history.clone_from(&heard.borrow_and_update());
        if let Err(error) = notice.replace(bytes(&run)).await {
            tracing::warn!("the loss curve of {} cannot be told: {error}", run.model);
        }
        tokio::select! {
            () = stop.cancelled() => return notice,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn bytes(run: &Running) -> Bytes {
    Bytes::from(serde_json::to_vec(run).expect("names and numbers are JSON"))
}
