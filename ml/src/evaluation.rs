//! What a fresh model is worth: labels and scores of the held-out rows, kept with the model, and their metrics. Whoever
//! scores the rows, this process or the workers that have trained, the metrics are exact and the same.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use engine::Result;
use engine::extension::JobContext;
use serde_json::{Value, json};

use crate::distributed;
use crate::gathered::Sharded;
use crate::measure::{Measure, ScoredShard};
use crate::model::Predictor;
use crate::relation::{score_arrays, score_fields};
use crate::shards::ShardSet;
use crate::spec::ClassWeights;

/// The held-out rows, measured.
pub(crate) struct HeldOut {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// `metrics.json`.
    pub(crate) metrics: Value,
}

impl HeldOut {
    /// A sentence when the mean of the labels, or their most frequent class, would have predicted better. Where classes
    /// have weights of their own the rows that count less may be predicted worse.
    pub(crate) fn worse_than_nothing(&self, predictor: &Predictor) -> Option<String> {
        let (of, metrics) = (self.metrics["of"].as_str()?, &self.metrics["metrics"]);
        let label = &predictor.shape().label;
        if let Some(r2) = metrics["r2_score"].as_f64() {
            let what = format!("the model predicts {label} worse than its mean: r2_score is {r2:.3} on the {of} rows");
            return (r2 < -1e-6).then_some(what);
        }
        let accuracy = metrics["accuracy"].as_f64()?;
        let mut counts = vec![0usize; predictor.labels.classes()?.len()];
        for batch in &self.batches {
            for class in batch.column(0).as_primitive_opt::<Int64Type>()?.values() {
                *counts.get_mut(*class as usize)? += 1;
            }
        }
        let most = *counts.iter().max()? as f64 / counts.iter().sum::<usize>().max(1) as f64;
        let is_worse = accuracy < most - 1e-9 && predictor.record.spec.class_weights == ClassWeights::Equal;
        is_worse.then(|| {
            format!(
                "the model predicts {label} worse than its most frequent class alone: accuracy is {accuracy:.3} on the \
                 {of} rows, of which {most:.3} are of that class"
            )
        })
    }
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
            let scale = predictor.labels.scale();
            let labels: Vec<f64> = labels.iter().map(|label| scale.back(f64::from(*label))).collect();
            let columns = score_arrays(predictor, &labels, scores.to_vec())?;
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
        let (trained, label, kernel) = (predictor.trained(), predictor.labels.scale(), predictor.kernel());
        let shards = (0..set.shards()).map(|shard| measure.add_shard(trained, label, kernel, set, shard, &job.cancel));
        Ok((shards.collect::<Result<_>>()?, measure))
    };
    let (shards, kept) = all(kept_rows(rows))?;
    let test = rows.test.as_deref().map(|test| all(test).map(|(_, measure)| measure)).transpose()?;
    Ok(Scored { shards, kept, test })
}
