//! The loss curve: what a training run was like, iteration by iteration.

use serde::{Deserialize, Serialize};

/// One epoch of a network, one iteration of a linear model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub iteration: usize,
    /// Mean training loss.
    pub loss: f64,
    /// Mean loss of the evaluation rows, when there are any.
    pub eval_loss: Option<f64>,
    /// At the end of the iteration, where there is one.
    pub learning_rate: Option<f64>,
    /// Wall time.
    pub duration_ms: f64,
}
