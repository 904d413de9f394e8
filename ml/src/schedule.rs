//! Learning rates: a pure function of the step, in f64.

use serde::{Deserialize, Serialize};

/// How the learning rate changes while training goes on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Shape {
    /// The base rate throughout.
    #[default]
    Constant,
    /// Multiplied by `factor` after every `every` epochs.
    Step {
        /// Epochs between two drops.
        every: f64,
        /// What the rate is multiplied by.
        factor: f64,
    },
    /// Multiplied by `factor` once an epoch, smoothly: base * factor^epochs.
    Exponential {
        /// What an epoch multiplies the rate by.
        factor: f64,
    },
    /// Half a cosine from the base rate down to `final_fraction` of it at the last step.
    Cosine {
        /// What is left of the base rate at the end.
        final_fraction: f64,
    },
}

/// A base rate, its shape, and a linear warm-up before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The learning rate that the shape starts from.
    pub base: f64,
    /// What comes after the warm-up.
    #[serde(default)]
    pub shape: Shape,
    /// Steps over which the rate rises linearly to the base: step t of them uses base * (t + 1) / warmup_steps.
    #[serde(default)]
    pub warmup_steps: u64,
}

impl Schedule {
    /// The same rate at every step.
    pub fn constant(base: f64) -> Self {
        Schedule { base, shape: Shape::Constant, warmup_steps: 0 }
    }

    /// The rate at `step` (from 0) of a run with `steps_per_epoch` and `total_steps`.
    pub fn rate(&self, step: u64, steps_per_epoch: u64, total_steps: u64) -> f64 {
        if step < self.warmup_steps {
            return self.base * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let done = (step - self.warmup_steps) as f64;
        let epochs = done / steps_per_epoch.max(1) as f64;
        match self.shape {
            Shape::Constant => self.base,
            Shape::Step { every, factor } => self.base * factor.powi((epochs / every).floor() as i32),
            Shape::Exponential { factor } => self.base * factor.powf(epochs),
            Shape::Cosine { final_fraction } => {
                let span = (total_steps.saturating_sub(self.warmup_steps + 1)).max(1) as f64;
                let fall = 0.5 * (1.0 + (std::f64::consts::PI * (done / span).min(1.0)).cos());
                self.base * (final_fraction + (1.0 - final_fraction) * fall)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(shape: Shape, warmup_steps: u64, steps: &[u64]) -> Vec<f64> {
        let schedule = Schedule { base: 0.1, shape, warmup_steps };
        steps.iter().map(|step| schedule.rate(*step, 10, 41)).collect()
    }

    #[test]
    fn rates_follow_their_shape() {
        let cases: [(Shape, u64, &[u64], &[f64]); 5] = [
            (Shape::Constant, 0, &[0, 40], &[0.1, 0.1]),
            (Shape::Constant, 4, &[0, 1, 3, 4], &[0.025, 0.05, 0.1, 0.1]),
            (Shape::Step { every: 2.0, factor: 0.5 }, 0, &[0, 19, 20, 40], &[0.1, 0.1, 0.05, 0.025]),
            (Shape::Exponential { factor: 0.25 }, 0, &[0, 5, 10], &[0.1, 0.05, 0.025]),
            (Shape::Cosine { final_fraction: 0.2 }, 0, &[0, 20, 40], &[0.1, 0.06, 0.02]),
        ];
        for (shape, warmup, steps, expected) in cases {
            for (got, expected) in rates(shape, warmup, steps).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12, "{shape:?}: {got}, expected {expected}");
            }
        }
    }
}
