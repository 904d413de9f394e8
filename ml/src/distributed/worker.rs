//! What a worker does: makes its shards, takes its kernel, and is one rank of the training that one process would do.

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use engine::gang::{Ended, GangTask, Rank, Seat};
use engine::{Error, Result};
use storage::{Location, sha256_hex};
use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;

use super::order::{Done, DoneCurve, Order, Report, Work, decode, encode};
use super::score::NamedFile;
use crate::linear::{self, Iteration, LinearObserver};
use crate::materialize::{MadeShards, OwnShards, Workshop};
use crate::model::estimator::Trained;
use crate::shards::{Block, ShardSet};
use crate::train::{self, EpochRecord, Outcome, Place, TrainObserver, TrainProgress};

/// Name of the task.
pub(super) const NAME: &str = "train";
/// Part of a worker's memory that rows may take.
const ROWS_SHARE: f64 = 0.5;

/// See the module.
pub(crate) struct TrainTask;

impl GangTask for TrainTask {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fingerprint(&self, order: &[u8]) -> Result<String> {
        let order: Order = decode(order, "the order to train")?;
        Ok(format!("matrix kernel {}", order.kernel.here()?.fingerprint))
    }

    fn run(&self, order: &[u8], seat: &mut Seat<'_>) -> Result<Ended> {
        let order: Order = decode(order, "the order to train")?;
        let rank = seat.mesh.rank();
        let kernel = order.kernel.the_same_here(rank)?;
        let runtime = storage_runtime()?;
        let encoder = order.source.encoder.read()?;
        let encoded = |batch: &RecordBatch| encoder.encode(batch);
        let teller = Teller { rank, report: seat.report, cancel: seat.cancel.clone(), told: AtomicU64::new(0) };
        let progress = |done, all| teller.encoded(done, all);
        let workshop = workshop(seat, runtime.handle(), &progress, &encoded);
        let source = &order.source.rows;
        let rows = OwnShards::new(source, order.train, &workshop);
        let held_out = order.eval.map(|eval| OwnShards::new(source, eval, &workshop));
        let held_out = held_out.as_ref().map(|set| set as &dyn ShardSet);
        let kept = order.checkpoint.map(|keeping| keeping.open(seat.stores, runtime.handle())).transpose()?;
        let place =
            Place { mesh: &mut *seat.mesh, generation: seat.generation, threads: seat.cores, cancel: &seat.cancel };
        let finished = match order.work {
            Work::Network(work) => {
                let plan = work.plan(kernel, kept);
                match train::train_rank(&plan, &rows, held_out, &teller, place)? {
                    Outcome::Left => return Ok(Ended::Left),
                    Outcome::Finished(trained) => {
                        let (history, stopped_early, steps) = (trained.history, trained.stopped_early, trained.steps);
                        (Trained::Network(trained.network), DoneCurve::Network { history, stopped_early, steps })
                    }
                }
            }
            Work::Linear(plan) => {
                let keeping =
                    kept.as_ref().map(|kept| linear::Keeping { store: kept.store.as_ref(), every: kept.every });
                match linear::fit_rank(&plan, &rows, held_out, keeping, &teller, place)? {
                    Outcome::Left => return Ok(Ended::Left),
                    Outcome::Finished(fit) => {
                        let (history, converged, notes) = (fit.history, fit.converged, fit.notes);
                        let separated = fit.separated;
                        (Trained::Linear(fit.model), DoneCurve::Linear { history, converged, notes, separated })
                    }
                }
            }
        };
        if rank != 0 {
            return Ok(Ended::Done(Vec::new()));
        }
        leave(finished, &order.place, seat, &runtime)
    }
}

/// What a rank makes its shards with; all of them share a part of its memory.
pub(super) fn workshop<'a, 's: 'a>(
    seat: &Seat<'s>,
    runtime: &'a Handle,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    encode: &'a (dyn Fn(&RecordBatch) -> Result<Block> + Sync),
) -> Workshop<'a> {
    let memory = seat.memory.map(|bytes| (bytes as f64 * ROWS_SHARE) as u64);
    Workshop {
        stores: seat.stores,
        runtime,
        threads: seat.cores,
        made: seat.kept.get_or_make(|| MadeShards::new(memory)),
        scratch: seat.scratch,
        cancel: seat.cancel.clone(),
        progress,
        encode,
    }
}

/// Waits for the store; the thread of the rank computes.
pub(super) fn storage_runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.worker_threads(1).thread_name("gang-store").enable_all().build();
    built.map_err(|error| Error::invalid(format!("cannot start a thread for storage: {error}")))
}

/// Puts what was trained where the coordinator finds it.
fn leave((trained, curve): (Trained, DoneCurve), place: &str, seat: &Seat<'_>, runtime: &Runtime) -> Result<Ended> {
    // Of this generation alone: an older one that comes to life again must not replace it.
    let name = format!("trained-{}.safetensors", seat.generation);
    let bytes = trained.to_safetensors()?;
    let file = NamedFile { name, sha256: sha256_hex(&bytes) };
    let at = Location::parse(place)?.as_directory().join(&file.name);
    runtime.block_on(seat.stores.put_atomic(&at, bytes.into()))?;
    Ok(Ended::Done(encode(&Done { file, curve })))
}

/// Tells the coordinator what rank 0 sees.
struct Teller<'a> {
    rank: Rank,
    report: &'a (dyn Fn(Vec<u8>) + Send + Sync),
    cancel: CancellationToken,
    /// Twentieths of the rows that are known to be encoded.
    told: AtomicU64,
}

impl Teller<'_> {
    /// Some of this rank's rows are encoded.
    fn encoded(&self, done: u64, all: u64) {
        let part = 20 * done / all.max(1);
        if self.told.fetch_max(part, Ordering::Relaxed) < part {
            self.tell(&Report::Encoded { done, all });
        }
    }

    fn tell(&self, report: &Report) {
        if self.rank == 0 {
            (self.report)(encode(report));
        }
    }
}

impl TrainObserver for Teller<'_> {
    fn progress(&self, progress: &TrainProgress) {
        self.tell(&Report::Progress(*progress));
    }
    fn resumed(&self, count: u64, history: &[EpochRecord]) {
        self.tell(&Report::Resumed { done: count, history: history.to_vec() });
    }
    fn epoch(&self, record: &EpochRecord) {
        self.tell(&Report::Epoch(record.clone()));
    }
}

impl LinearObserver for Teller<'_> {
    fn resumed(&self, passes: usize) {
        self.tell(&Report::Resumed { done: passes as u64, history: Vec::new() });
    }
    fn iteration(&self, iteration: &Iteration) {
        self.tell(&Report::Iteration(iteration.clone()));
    }
    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
