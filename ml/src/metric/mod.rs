//! How good predictions are: metrics of classifiers and regressors, equal to scikit-learn's.
//!
//! [`ClassificationMetrics`] and [`RegressionMetrics`] are plain accumulators over rows; [`aggregates`] offers them to
//! SQL as mergeable aggregate functions, of which `ML.EVALUATE`, `ML.CONFUSION_MATRIX` and `ML.ROC_CURVE` are made.
//! Which class a label is, and what a prediction is, is decided by the caller.
//!
//! Always holds: rows may come in any order and any partitioning; state and results are the same bits.

mod aggregate;
mod classification;
mod regression;

pub use aggregate::{ClassifierAggregate, RegressorAggregate, aggregates};
pub(crate) use aggregate::{EVALUATION, REGRESSION};
pub use classification::{ClassificationMetrics, ClassificationReport, RocPoint, predicted_class};
pub use regression::{RegressionMetrics, RegressionReport};

#[cfg(test)]
mod tests;
