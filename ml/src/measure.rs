//! The metrics of whichever kind of model: folded from labels and scores, merged exactly, told as JSON.

use engine::{Error, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::kernel::Kernel;
use crate::metric::{ClassificationMetrics, RegressionMetrics};
use crate::model::estimator::Trained;
use crate::shards::ShardSet;
use crate::transform::LabelScale;

/// See the module.
#[expect(clippy::large_enum_variant, reason = "there are a few values a model, never a collection of them")]
pub(crate) enum Measure {
    Classes(ClassificationMetrics),
    Numbers(RegressionMetrics),
}

/// Labels, as training sees them, and scores of a shard's rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ScoredShard {
    pub(crate) labels: Vec<f32>,
    pub(crate) scores: Vec<f64>,
}

impl Measure {
    /// Of no rows; of a classifier with so many classes, or of a regressor.
    pub(crate) fn new(classes: Option<usize>) -> Self {
        match classes {
            Some(classes) => Measure::Classes(ClassificationMetrics::new(classes)),
            None => Measure::Numbers(RegressionMetrics::new()),
        }
    }

    /// Takes in rows, with their labels as training sees them.
    pub(crate) fn update(&mut self, labels: &[f32], scale: LabelScale, scores: &[f64]) -> Result<()> {
        match self {
            Measure::Classes(metrics) => {
                let classes: Vec<usize> = labels.iter().map(|class| *class as usize).collect();
                metrics.update(&classes, scores)
            }
            Measure::Numbers(metrics) => {
                let labels: Vec<f64> = labels.iter().map(|y| scale.back(f64::from(*y))).collect();
                metrics.update(&labels, scores)
            }
        }
    }

    /// Takes in the rows of a shard; gives their labels and scores, block after block.
    pub(crate) fn add_shard(
        &mut self,
        trained: &Trained,
        label: LabelScale,
        kernel: Kernel,
        set: &dyn ShardSet,
        shard: usize,
        cancel: &CancellationToken,
    ) -> Result<ScoredShard> {
        let rows = set.rows(shard);
        let mut all =
            ScoredShard { labels: Vec::with_capacity(rows), scores: Vec::with_capacity(rows * trained.outputs()) };
        for index in 0..set.blocks(shard) {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let block = set.block(shard, index)?;
            let scores = trained.scores(&block, kernel, label);
            self.update(&block.labels, label, &scores)?;
            all.labels.extend_from_slice(&block.labels);
            all.scores.extend(scores);
        }
        Ok(all)
    }

    /// Takes in the rows another one has seen.
    pub(crate) fn merge(&mut self, other: &Measure) -> Result<()> {
        match (self, other) {
            (Measure::Classes(own), Measure::Classes(more)) => own.merge(more),
            (Measure::Numbers(own), Measure::Numbers(more)) => {
                own.merge(more);
                Ok(())
            }
            _ => Err(Error::invalid("metrics of classes and of numbers cannot be merged")),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Measure::Classes(metrics) => metrics.to_bytes(),
            Measure::Numbers(metrics) => metrics.to_bytes(),
        }
    }

    /// Reads what [`Measure::to_bytes`] wrote for a model of this kind.
    pub(crate) fn read(classes: Option<usize>, mut bytes: &[u8]) -> Result<Self> {
        let read = match classes {
            Some(_) => ClassificationMetrics::read(&mut bytes).map(Measure::Classes),
            None => RegressionMetrics::read(&mut bytes).map(Measure::Numbers),
        };
        read.filter(|_| bytes.is_empty()).ok_or_else(|| Error::invalid("metrics of a worker cannot be read"))
    }

    /// As in `metrics.json`.
    pub(crate) fn finish(self) -> Value {
        match self {
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
        }
    }
}
