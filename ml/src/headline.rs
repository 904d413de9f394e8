//! The figure by which a model is known in lists: the first that there is of the area under the ROC curve, accuracy, R² and the
//! mean squared error, and of how many rows it is.

use serde_json::Value;

/// A metric and what it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct Headline {
    /// The metric's name, as in ML.EVALUATE.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Rows that it was computed on.
    pub rows: u64,
    /// `evaluation` or `training`: which rows these are.
    pub of: String,
}

impl Headline {
    /// From what `metrics.json` holds.
    pub(crate) fn of(metrics: &Value) -> Option<Headline> {
        let values = metrics.get("metrics")?;
        let of = metrics.get("of")?.as_str()?.to_string();
        let rows = metrics.get("rows")?.as_u64()?;
        let names = ["roc_auc", "accuracy", "r2_score", "mean_squared_error"];
        let (name, value) = names.into_iter().find_map(|name| Some((name, values.get(name)?.as_f64()?)))?;
        Some(Headline { name, value, rows, of })
    }
}
