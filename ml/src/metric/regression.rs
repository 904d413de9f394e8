//! Metrics of regressors from labels and predictions.

use engine::{Error, Result};

use crate::exact::{ExactMoments, ExactSum};
use crate::tally::Tally;

/// Accumulates labels and predictions. Memory: 16 bytes for each distinct absolute error (for its exact median).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegressionMetrics {
    labels: ExactMoments,
    /// label - prediction.
    errors: ExactMoments,
    absolute_sum: ExactSum,
    absolute: Tally,
    /// Squares of ln(1 + label) - ln(1 + prediction) where both exist.
    log_squares: ExactSum,
    /// Rows where one of the logarithms does not exist.
    without_log: u64,
}

/// The columns of `ML.EVALUATE` for regressors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegressionReport {
    /// Rows.
    pub rows: u64,
    /// Mean of |y - p|.
    pub mean_absolute_error: f64,
    /// Mean of (y - p)².
    pub mean_squared_error: f64,
    /// Mean of (ln(1 + y) - ln(1 + p))²; `None` when a label or a prediction is -1 or less.
    pub mean_squared_log_error: Option<f64>,
    /// Median of |y - p|.
    pub median_absolute_error: f64,
    /// 1 - Σ(y - p)² / Σ(y - ȳ)²; for constant labels 1 when all are met, else 0. `None` of one row.
    pub r2_score: Option<f64>,
    /// 1 - Var(y - p) / Var(y); for constant labels 1 when the error is constant, else 0. `None` of one row.
    pub explained_variance: Option<f64>,
}

impl RegressionMetrics {
    /// Of no rows yet.
    pub fn new() -> Self {
        RegressionMetrics::default()
    }

    /// Takes in rows; fails when there are not as many predictions as labels.
    pub fn update(&mut self, labels: &[f64], predictions: &[f64]) -> Result<()> {
        if labels.len() != predictions.len() {
            return Err(Error::invalid(format!("{} predictions for {} labels", predictions.len(), labels.len())));
        }
        let errors: Vec<f64> = labels.iter().zip(predictions).map(|(y, p)| y - p).collect();
        let absolute: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        let logs: Vec<f64> = labels
            .iter()
            .zip(predictions)
            .filter(|(y, p)| **y > -1.0 && **p > -1.0)
            .map(|(y, p)| y.ln_1p() - p.ln_1p())
            .collect();
        self.labels.add_slice(labels);
        self.errors.add_slice(&errors);
        self.absolute_sum.add_slice(&absolute);
        self.absolute.add_slice(&absolute);
        self.without_log += (labels.len() - logs.len()) as u64;
        self.log_squares.add_squares(&logs);
        Ok(())
    }

    /// Takes in the rows another one has seen.
    pub fn merge(&mut self, other: &RegressionMetrics) {
        self.labels.merge(&other.labels);
        self.errors.merge(&other.errors);
        self.absolute_sum.merge(&other.absolute_sum);
        self.absolute.merge(&other.absolute);
        self.log_squares.merge(&other.log_squares);
        self.without_log += other.without_log;
    }

    /// All metrics; `None` of no rows.
    pub fn finish(&mut self) -> Option<RegressionReport> {
        let n = self.errors.count as f64;
        let unexplained = |error: f64, total: f64| match (error == 0.0, total == 0.0) {
            (_, false) => 1.0 - error / total,
            (true, true) => 1.0,
            (false, true) => 0.0,
        };
        let variation = self.labels.squared_deviations()?;
        // One row has no variation to be explained.
        let varies = self.errors.count > 1;
        Some(RegressionReport {
            rows: self.errors.count,
            mean_absolute_error: self.absolute_sum.value() / n,
            mean_squared_error: self.errors.sum_of_squares() / n,
            mean_squared_log_error: (self.without_log == 0).then(|| self.log_squares.value() / n),
            median_absolute_error: self.absolute.quantiles(&[0.5])?[0],
            r2_score: varies.then(|| unexplained(self.errors.sum_of_squares(), variation)),
            explained_variance: varies.then_some(unexplained(self.errors.squared_deviations()?, variation)),
        })
    }

    /// Heap bytes.
    pub fn size(&self) -> usize {
        self.absolute.size()
    }

    /// The state, equal for equal rows however partitioned.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.without_log.to_le_bytes().to_vec();
        bytes.extend(self.labels.to_bytes());
        bytes.extend(self.errors.to_bytes());
        bytes.extend(self.absolute_sum.to_bytes());
        bytes.extend(self.log_squares.to_bytes());
        bytes.extend(self.absolute.to_bytes());
        bytes
    }

    /// Reads what [`RegressionMetrics::to_bytes`] wrote from the front of `bytes` and moves past it.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let without_log = u64::from_le_bytes(crate::exact::take(bytes)?);
        let (labels, errors) = (ExactMoments::read(bytes)?, ExactMoments::read(bytes)?);
        let (absolute_sum, log_squares) = (ExactSum::read(bytes)?, ExactSum::read(bytes)?);
        let absolute = Tally::read(bytes)?;
        Some(RegressionMetrics { labels, errors, absolute_sum, absolute, log_squares, without_log })
    }
}
