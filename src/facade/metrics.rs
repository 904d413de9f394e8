//! How good a model is: named numbers.

use std::fmt;
use std::ops::Index;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use engine::{Error, Result};

/// The metrics of a model on some rows, under the names of `ML.EVALUATE`'s columns and in their order.
///
/// Classifiers: `precision`, `recall`, `accuracy`, `f1_score`, `log_loss`, `roc_auc`, all from 0 to 1 but for the log loss, which is
/// in nats. Regressors: `mean_absolute_error` and `median_absolute_error` in the label's unit, `mean_squared_error` in its
/// square, `mean_squared_log_error`, `r2_score`, `explained_variance`.
///
/// ```
/// # fn example(metrics: gristmill::Metrics) {
/// assert!(metrics["roc_auc"] > 0.9);
/// println!("{metrics}"); // accuracy 0.9012, roc_auc 0.9533, ...
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    values: Vec<(String, Option<f64>)>,
}

impl Metrics {
    /// Of the one row that `ML.EVALUATE` gives.
    pub(super) fn of_rows(batches: &[RecordBatch]) -> Result<Self> {
        let Some(row) = batches.iter().find(|batch| batch.num_rows() > 0) else {
            return Err(Error::invalid("the evaluation gave no row"));
        };
        let mut values = Vec::with_capacity(row.num_columns());
        for (field, column) in row.schema().fields().iter().zip(row.columns()) {
            let column = cast(column, &DataType::Float64).map_err(datafusion::error::DataFusionError::from)?;
            let numbers = column.as_primitive::<Float64Type>();
            values.push((field.name().clone(), numbers.is_valid(0).then(|| numbers.value(0))));
        }
        Ok(Metrics { values })
    }

    /// A metric by its name; `None` when there is none of the name, or when it is not defined on these rows (the AUC of rows
    /// of one class).
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).and_then(|(_, value)| *value)
    }

    /// All of them with their names; `None` is a metric that is not defined on these rows.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl Index<&str> for Metrics {
    type Output = f64;

    /// # Panics
    /// When there is no such metric; the message names those that there are. [`Metrics::get`] does not.
    fn index(&self, name: &str) -> &f64 {
        let found = self.values.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.as_ref());
        found.unwrap_or_else(|| panic!("there is no metric {name}; there are {self}"))
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.values.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            match value {
                Some(value) => write!(f, "{comma}{name} {value:.4}")?,
                None => write!(f, "{comma}{name} undefined")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array};

    use super::*;

    #[test]
    fn metrics_are_named_numbers() {
        let auc: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.91234)]));
        let rows: ArrayRef = Arc::new(Int64Array::from(vec![7]));
        let undefined: ArrayRef = Arc::new(Float64Array::from(vec![None]));
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("roc_auc", auc, true),
            ("rows", rows, true),
            ("log_loss", undefined, true),
        ]);
        let metrics = Metrics::of_rows(&[batch.unwrap()]).unwrap();
        assert_eq!(metrics["roc_auc"], 0.91234);
        assert_eq!((metrics.get("rows"), metrics.get("log_loss"), metrics.get("other")), (Some(7.0), None, None));
        assert_eq!(metrics.to_string(), "roc_auc 0.9123, rows 7.0000, log_loss undefined");
        assert!(Metrics::of_rows(&[]).is_err());
    }
}
