//! What a fresh model is worth: labels and scores of the held-out rows, kept with the model, and their metrics.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use engine::extension::JobContext;
use engine::{Error, Result};
use serde_json::{Value, json};

use crate::metric::{ClassificationMetrics, RegressionMetrics};
use crate::model::Predictor;
use crate::relation::{score_arrays, score_fields};
use crate::shards::ShardSet;
use crate::training::Sharded;

/// The held-out rows, measured.
pub(crate) struct HeldOut {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: Vec<RecordBatch>,
    /// `metrics.json`.
    pub(crate) metrics: Value,
}

/// Scores the evaluation rows (the training rows when none were held out), and measures the test rows.
pub(crate) fn held_out(predictor: &Predictor, rows: &Sharded, job: &JobContext) -> Result<HeldOut> {
    let (of, set) = match &rows.eval {
        Some(eval) => ("evaluation", eval),
        None => ("training", &rows.train),
    };
    let schema = Arc::new(Schema::new(score_fields(predictor.shape())));
    let mut batches = Vec::new();
    let (count, metrics) = measure(predictor, set.as_ref(), job, |labels, scores| {
        let columns = score_arrays(predictor, labels, scores)?;
        batches.push(RecordBatch::try_new(schema.clone(), columns).map_err(datafusion::error::DataFusionError::from)?);
        Ok(())
    })?;
    let mut metrics = json!({ "of": of, "rows": count, "metrics": metrics });
    if let Some(test) = &rows.test {
        let (count, test) = measure(predictor, test.as_ref(), job, |_, _| Ok(()))?;
        metrics["test"] = json!({ "rows": count, "metrics": test });
    }
    Ok(HeldOut { schema, batches, metrics })
}

#[expect(clippy::large_enum_variant, reason = "there is one value a model, never a collection of them")]
enum Measure {
    Classes(ClassificationMetrics),
    Numbers(RegressionMetrics),
}

fn measure(
    predictor: &Predictor,
    set: &dyn ShardSet,
    job: &JobContext,
    mut keep: impl FnMut(&[f32], Vec<f64>) -> Result<()>,
) -> Result<(usize, Value)> {
    let mut measure = match predictor.shape().classes.as_ref() {
        Some(classes) => Measure::Classes(ClassificationMetrics::new(classes.len())),
        None => Measure::Numbers(RegressionMetrics::new()),
    };
    let mut count = 0;
    for shard in 0..set.shards() {
        for index in 0..set.blocks(shard) {
            if job.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let block = set.block(shard, index)?;
            count += block.rows;
            let scores = predictor.block_scores(&block);
            match &mut measure {
                Measure::Classes(metrics) => {
                    let classes: Vec<usize> = block.labels.iter().map(|class| *class as usize).collect();
                    metrics.update(&classes, &scores)?;
                }
                Measure::Numbers(metrics) => {
                    let labels: Vec<f64> = block.labels.iter().map(|y| f64::from(*y)).collect();
                    metrics.update(&labels, &scores)?;
                }
            }
            keep(&block.labels, scores)?;
        }
    }
    let metrics = match measure {
        Measure::Classes(mut metrics) => match metrics.finish(0.5) {
            Some(report) => json!({
                "precision": report.precision,
                "recall": report.recall,
                "accuracy": report.accuracy,
                "f1_score": report.f1_score,
                "log_loss": report.log_loss,
                "roc_auc": report.roc_auc,
            }),
            None => Value::Null,
        },
        Measure::Numbers(mut metrics) => match metrics.finish() {
            Some(report) => json!({
                "mean_absolute_error": report.mean_absolute_error,
                "mean_squared_error": report.mean_squared_error,
                "mean_squared_log_error": report.mean_squared_log_error,
                "median_absolute_error": report.median_absolute_error,
                "r2_score": report.r2_score,
                "explained_variance": report.explained_variance,
            }),
            None => Value::Null,
        },
    };
    Ok((count, metrics))
}
