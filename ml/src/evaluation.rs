//! What a fresh model is worth: labels and scores of the held-out rows, kept with the model, and their metrics. Whoever
//! scores the rows, this process or the workers that have trained, the metrics are exact and the same.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use engine::Result;
use engine::extension::JobContext;
use serde_json::{Value, json};

use crate::distributed;
use crate::gathered::Sharded;
use crate::measure::{Measure, ScoredShard};
use crate::model::Predictor;
use crate::relation::{score_arrays, score_fields};
use crate::shards::ShardSet;

/// The held-out rows, measured.
pub(crate) struct HeldOut {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// `metrics.json`.
    pub(crate) metrics: Value,
}

/// Scores and metrics.
pub(crate) struct Scored {
    /// Of each shard of the rows that are kept, block after block.
    pub(crate) shards: Vec<ScoredShard>,
    pub(crate) kept: Measure,
    /// Of the test rows, where there are any.
    pub(crate) test: Option<Measure>,
}

/// The rows that evaluate: the training rows when none were held out.
pub(crate) fn kept_rows(rows: &Sharded) -> &dyn ShardSet {
    rows.eval.as_deref().unwrap_or(rows.train.as_ref())
}

/// Scores the evaluation rows (the training rows when none were held out), and measures the test rows.
pub(crate) fn held_out(
    predictor: &Predictor,
    weights: &[u8],
    rows: &Sharded,
    elsewhere: Option<&distributed::Place<'_>>,
    job: &JobContext,
) -> Result<HeldOut> {
    let Scored { shards, kept, test } = match elsewhere {
        Some(place) => place.score(predictor, weights)?,
        None => score(predictor, rows, job)?,
    };
    let (of, set) = (if rows.eval.is_some() { "evaluation" } else { "training" }, kept_rows(rows));
    let schema = Arc::new(Schema::new(score_fields(predictor.shape())));
    let mut batches = Vec::new();
    for shard in &shards {
        let blocks = shard.labels.chunks(set.block_rows());
        for (labels, scores) in blocks.zip(shard.scores.chunks(set.block_rows() * predictor.score_width())) {
            let columns = score_arrays(predictor, labels, scores.to_vec())?;
            let batch = RecordBatch::try_new(schema.clone(), columns);
            batches.push(batch.map_err(datafusion::error::DataFusionError::from)?);
        }
    }
    let mut metrics = json!({ "of": of, "rows": set.total_rows(), "metrics": kept.finish() });
    if let (Some(test), Some(set)) = (test, &rows.test) {
        metrics["test"] = json!({ "rows": set.total_rows(), "metrics": test.finish() });
    }
    Ok(HeldOut { schema, batches, metrics })
}

fn score(predictor: &Predictor, rows: &Sharded, job: &JobContext) -> Result<Scored> {
    let classes = predictor.shape().classes.as_ref().map(|classes| classes.len());
    let all = |set: &dyn ShardSet| -> Result<(Vec<ScoredShard>, Measure)> {
        let mut measure = Measure::new(classes);
        let (trained, kernel) = (predictor.trained(), predictor.kernel());
        let shards = (0..set.shards()).map(|shard| measure.add_shard(trained, kernel, set, shard, &job.cancel));
        Ok((shards.collect::<Result<_>>()?, measure))
    };
    let (shards, kept) = all(kept_rows(rows))?;
    let test = rows.test.as_deref().map(|test| all(test).map(|(_, measure)| measure)).transpose()?;
    Ok(Scored { shards, kept, test })
}
