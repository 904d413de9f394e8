//! What ML.FEATURE_INFO tells about each raw column that features are made of.

use serde::{Deserialize, Serialize};

use super::exact_float;
use super::statistics::ColumnStatistics;

/// Statistics of a raw column over the training rows; `None` where they make no sense for its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureInfo {
    /// The column.
    pub input: String,
    /// Smallest value, or element of an array.
    #[serde(with = "exact_float::option")]
    pub min: Option<f64>,
    /// Largest value, or element of an array.
    #[serde(with = "exact_float::option")]
    pub max: Option<f64>,
    /// Mean of the values, or of all elements.
    #[serde(with = "exact_float::option")]
    pub mean: Option<f64>,
    /// Median; none for arrays and where medians were not asked for.
    #[serde(with = "exact_float::option")]
    pub median: Option<f64>,
    /// Standard deviation of the population.
    #[serde(with = "exact_float::option")]
    pub stddev: Option<f64>,
    /// Distinct values of a categorical column.
    pub category_count: Option<u64>,
    /// Rows with NULL.
    pub null_count: u64,
    /// Elements of each array.
    pub dimension: Option<u64>,
}

impl FeatureInfo {
    pub(crate) fn of(input: &str, found: &ColumnStatistics) -> Self {
        let moments = found.moments.clone().unwrap_or_default();
        FeatureInfo {
            input: input.to_owned(),
            min: moments.min,
            max: moments.max,
            mean: moments.mean,
            median: found.quantile(0.5),
            stddev: moments.stddev,
            category_count: found.categories.as_ref().map(|categories| categories.counts.len() as u64),
            null_count: found.nulls,
            dimension: found.lengths.map(|(length, _)| length as u64),
        }
    }
}
