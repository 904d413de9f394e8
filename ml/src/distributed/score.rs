//! What a worker does after the training: it scores its shards of the held-out rows by the model, as any prediction does,
//! and folds the metrics, which are exact: that several have folded them does not show.

use arrow::array::RecordBatch;
use engine::gang::{Ended, GangTask, Seat, Tag};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use storage::{Location, sha256_hex};

use super::order::{NamedKernel, Source, decode, encode};
use super::worker::{storage_runtime, workshop};
use crate::materialize::{Outline, OwnShards};
use crate::measure::{Measure, ScoredShard};
use crate::model::estimator::{Trained, TrainedShape};
use crate::shards::ShardSet;
use crate::train::{gather, share};

/// Name of the task.
pub(super) const NAME: &str = "score";

/// The order to score, the same for all ranks and generations.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScoreOrder {
    pub(super) kernel: NamedKernel,
    pub(super) shape: TrainedShape,
    /// The tensors, in the order's place.
    pub(super) file: NamedFile,
    /// Of a classifier.
    pub(super) classes: Option<usize>,
    pub(super) source: Source,
    /// Rows whose scores are kept.
    pub(super) kept: Outline,
    /// Rows that are measured alone.
    pub(super) test: Option<Outline>,
    pub(super) place: String,
}

/// A file whose bytes are known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NamedFile {
    pub(super) name: String,
    pub(super) sha256: String,
}

impl NamedFile {
    /// Its bytes, when they are those.
    pub(super) fn check(&self, at: &Location, bytes: &[u8]) -> Result<()> {
        let got = sha256_hex(bytes);
        if got == self.sha256 {
            return Ok(());
        }
        let reason = format!("is damaged: its SHA-256 is {got}, {} was written", self.sha256);
        Err(storage::Error::Damaged { location: at.to_string(), reason }.into())
    }
}

/// What one rank has found.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ScoredPart {
    /// Shard and the file with its labels and scores.
    pub(super) scores: Vec<(usize, NamedFile)>,
    /// State of the metrics.
    pub(super) kept: Vec<u8>,
    pub(super) test: Option<Vec<u8>>,
}

/// See the module.
pub(crate) struct ScoreTask;

impl GangTask for ScoreTask {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fingerprint(&self, order: &[u8]) -> Result<String> {
        let order: ScoreOrder = decode(order, "the order to score")?;
        Ok(format!("matrix kernel {}", order.kernel.here()?.fingerprint))
    }

    fn run(&self, order: &[u8], seat: &mut Seat<'_>) -> Result<Ended> {
        let order: ScoreOrder = decode(order, "the order to score")?;
        let (rank, world) = (seat.mesh.rank(), seat.mesh.world());
        let kernel = order.kernel.the_same_here(rank)?.kernel;
        let runtime = storage_runtime()?;
        let place = Location::parse(&order.place)?.as_directory();
        let at = place.join(&order.file.name);
        let bytes = runtime.block_on(seat.stores.get(&at))?;
        order.file.check(&at, &bytes)?;
        let trained = Trained::from_safetensors(&order.shape, &bytes)?;
        let encoder = order.source.encoder.read()?;
        let label = encoder.labels.scale();
        let encoded = |batch: &RecordBatch| encoder.encode(batch);
        let workshop = workshop(seat, runtime.handle(), &|_, _| (), &encoded);
        let made = |outline: Outline| -> Result<OwnShards<'_>> {
            let own = OwnShards::new(&order.source.rows, outline, &workshop);
            own.hold(share(own.shards(), rank, world))?;
            Ok(own)
        };

        let kept = made(order.kept)?;
        let mut measure = Measure::new(order.classes);
        let mut scores = Vec::new();
        for shard in share(kept.shards(), rank, world) {
            let of_shard = measure.add_shard(&trained, label, kernel, &kept, shard, &seat.cancel)?;
            let bytes = to_bytes(&of_shard);
            // Equal for all generations: whoever comes later writes the same bytes.
            let file = NamedFile { name: format!("scores-{shard}"), sha256: sha256_hex(&bytes) };
            runtime.block_on(seat.stores.put_atomic(&place.join(&file.name), bytes.into()))?;
            scores.push((shard, file));
        }
        drop(kept);
        let test = order.test.map(made).transpose()?;
        let mut test_measure = test.as_ref().map(|_| Measure::new(order.classes));
        if let (Some(test), Some(measure)) = (&test, &mut test_measure) {
            for shard in share(test.shards(), rank, world) {
                measure.add_shard(&trained, label, kernel, test, shard, &seat.cancel)?;
            }
        }
        let part = ScoredPart { scores, kept: measure.to_bytes(), test: test_measure.map(|m| m.to_bytes()) };
        let tag = Tag { generation: seat.generation, step: 0, round: 0 };
        let parts = gather(&mut *seat.mesh, tag, &encode(&part))?;
        let parts: Result<Vec<ScoredPart>> = parts.iter().map(|part| decode(part, "a worker's scores")).collect();
        Ok(Ended::Done(if rank == 0 { encode(&parts?) } else { Vec::new() }))
    }
}

/// Labels as little-endian f32, then scores as little-endian f64.
fn to_bytes(scored: &ScoredShard) -> Vec<u8> {
    let labels = scored.labels.iter().flat_map(|label| label.to_le_bytes());
    labels.chain(scored.scores.iter().flat_map(|score| score.to_le_bytes())).collect()
}

/// The labels and scores of a shard of so many rows.
pub(super) fn from_bytes(bytes: &[u8], rows: usize) -> Result<ScoredShard> {
    let cut_short = || Error::invalid("a file of scores is cut short");
    let (labels, scores) = bytes.split_at_checked(4 * rows).ok_or_else(cut_short)?;
    let (labels, _) = labels.as_chunks::<4>();
    let (scores, []) = scores.as_chunks::<8>() else { return Err(cut_short()) };
    Ok(ScoredShard {
        labels: labels.iter().map(|label| f32::from_le_bytes(*label)).collect(),
        scores: scores.iter().map(|score| f64::from_le_bytes(*score)).collect(),
    })
}
