//! Losses: value, and gradient with respect to the network's raw outputs (logits, for classifiers).
//!
//! Both are sums over rows, each row times its weight; nothing is averaged here. Shapes: R rows, C outputs.

use serde::{Deserialize, Serialize};

use crate::layer::math;

/// What training makes small.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Loss {
    /// Squared error (y' - y)^2.
    MeanSquaredError,
    /// Huber (1964): e^2 / 2 up to |e| = delta, delta * (|e| - delta / 2) beyond.
    Huber {
        /// Where the square becomes a line, in the label's unit.
        delta: f64,
    },
    /// Cross-entropy of softmax over C logits; the label is a class index.
    SoftmaxCrossEntropy,
    /// Cross-entropy of the sigmoid of one logit; the label is 0 or 1.
    SigmoidCrossEntropy,
}

impl Loss {
    /// Whether the outputs are probabilities of classes.
    pub fn is_classification(self) -> bool {
        matches!(self, Loss::SoftmaxCrossEntropy | Loss::SigmoidCrossEntropy)
    }

    /// Sum over rows of weight * loss; `logits` [R x C] become their gradient.
    pub fn gradient(self, logits: &mut [f32], outputs: usize, labels: &[f32], weights: &[f32]) -> f64 {
        match self {
            Loss::MeanSquaredError => squared(logits, outputs, labels, weights),
            Loss::Huber { delta } => huber(delta as f32, logits, outputs, labels, weights),
            Loss::SoftmaxCrossEntropy => softmax_gradient(logits, outputs, labels, weights),
            Loss::SigmoidCrossEntropy => sigmoid_gradient(logits, labels, weights),
        }
    }

    /// From raw outputs to predictions, in place: probabilities for classifiers, values for regressors.
    pub fn predictions(self, logits: &mut [f32], outputs: usize) {
        match self {
            Loss::MeanSquaredError | Loss::Huber { .. } => {}
            Loss::SoftmaxCrossEntropy => softmax(logits, outputs),
            Loss::SigmoidCrossEntropy => sigmoid(logits),
        }
    }
}

fn squared(outputs: &mut [f32], width: usize, labels: &[f32], weights: &[f32]) -> f64 {
    let mut sum = 0.0;
    for ((outputs, y), weight) in outputs.chunks_exact_mut(width).zip(labels).zip(weights) {
        for output in outputs {
            let error = *output - *y;
            sum += f64::from(*weight) * f64::from(error) * f64::from(error);
            *output = 2.0 * *weight * error;
        }
    }
    sum
}

fn huber(delta: f32, outputs: &mut [f32], width: usize, labels: &[f32], weights: &[f32]) -> f64 {
    let mut sum = 0.0;
    for ((outputs, y), weight) in outputs.chunks_exact_mut(width).zip(labels).zip(weights) {
        for output in outputs {
            let error = *output - *y;
            let size = f64::from(error.abs());
            let loss = if error.abs() <= delta {
                0.5 * size * size
            } else {
                f64::from(delta) * (size - 0.5 * f64::from(delta))
            };
            sum += f64::from(*weight) * loss;
            // Written so that NaN stays NaN.
            let high = if error > delta { delta } else { error };
            *output = *weight * if high < -delta { -delta } else { high };
        }
    }
    sum
}

vectorized! {
    /// Subtracts each row's largest logit and leaves e^ of the rest in `logits`, the shifted logit of the label's class
    /// aside: the caller has read it before.
    fn exponentials(logits: &mut [f32]) {
        for z in logits {
            *z = math::exp(*z);
        }
    }
}

/// Subtracts each row's largest logit. NaN anywhere in a row makes the row NaN later, through the sum.
fn shift_rows(logits: &mut [f32], width: usize) {
    for row in logits.chunks_exact_mut(width) {
        let top = row.iter().fold(f32::NEG_INFINITY, |top, z| if *z > top { *z } else { top });
        for z in row {
            *z -= top;
        }
    }
}

fn softmax(logits: &mut [f32], width: usize) {
    shift_rows(logits, width);
    exponentials(logits);
    for row in logits.chunks_exact_mut(width) {
        let scale = 1.0 / row.iter().sum::<f32>();
        for z in row {
            *z *= scale;
        }
    }
}

fn softmax_gradient(logits: &mut [f32], width: usize, labels: &[f32], weights: &[f32]) -> f64 {
    shift_rows(logits, width);
    // loss = ln(sum of e^z) - z of the label's class, both after the shift.
    let mut loss = 0.0;
    for ((row, label), weight) in logits.chunks_exact(width).zip(labels).zip(weights) {
        loss -= f64::from(*weight) * f64::from(row[*label as usize]);
    }
    exponentials(logits);
    for ((row, label), weight) in logits.chunks_exact_mut(width).zip(labels).zip(weights) {
        let sum = row.iter().sum::<f32>();
        loss += f64::from(*weight) * f64::from(math::ln(sum)) + if sum.is_nan() { f64::NAN } else { 0.0 };
        let scale = *weight / sum;
        for z in row.iter_mut() {
            *z *= scale;
        }
        row[*label as usize] -= *weight;
    }
    loss
}

vectorized! {
    fn sigmoid(logits: &mut [f32]) {
        for z in logits {
            *z = math::sigmoid(*z);
        }
    }
}

vectorized! {
    /// loss = max(z, 0) - z y + ln(1 + e^-|z|); gradient = sigmoid(z) - y.
    fn sigmoid_gradient(logits: &mut [f32], labels: &[f32], weights: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 16];
        let mut tile = [0.0f32; 16];
        for ((logits, labels), weights) in logits.chunks_mut(16).zip(labels.chunks(16)).zip(weights.chunks(16)) {
            for (((t, z), y), w) in tile.iter_mut().zip(logits.iter_mut()).zip(labels).zip(weights) {
                let positive = if *z < 0.0 { 0.0 } else { *z };
                *t = *w * (positive - *z * *y + math::ln_one_plus_exp_of_minus_abs(*z));
                *z = *w * (math::sigmoid(*z) - *y);
            }
            for (lane, t) in lanes.iter_mut().zip(&tile[..logits.len()]) {
                *lane += f64::from(*t);
            }
        }
        let mut width = 8;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive twin: the loss of one row in f64.
    fn naive(loss: Loss, z: &[f64], y: f64) -> f64 {
        match loss {
            Loss::MeanSquaredError => z.iter().map(|z| (z - y).powi(2)).sum(),
            Loss::Huber { delta } => z
                .iter()
                .map(|z| {
                    let e = (z - y).abs();
                    if e <= delta { 0.5 * e * e } else { delta * (e - 0.5 * delta) }
                })
                .sum(),
            Loss::SoftmaxCrossEntropy => z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[y as usize],
            Loss::SigmoidCrossEntropy => (1.0 + z[0].exp()).ln() - y * z[0],
        }
    }

    #[test]
    fn losses_agree_with_their_naive_twins_and_finite_differences() {
        let cases: [(Loss, usize, fn(usize) -> f32); 4] = [
            (Loss::MeanSquaredError, 1, |row| row as f32 * 0.3 - 2.0),
            (Loss::Huber { delta: 0.7 }, 1, |row| row as f32 * 0.3 - 2.0),
            (Loss::SoftmaxCrossEntropy, 5, |row| (row % 5) as f32),
            (Loss::SigmoidCrossEntropy, 1, |row| (row % 2) as f32),
        ];
        let rows = 21;
        for (loss, width, label) in cases {
            let logits: Vec<f32> = (0..rows * width).map(|i| ((i * 37 % 23) as f32 - 11.0) * 0.31).collect();
            let labels: Vec<f32> = (0..rows).map(label).collect();
            let weights: Vec<f32> = (0..rows).map(|row| (row % 4) as f32 * 0.5).collect();
            let mut gradient = logits.clone();
            let value = loss.gradient(&mut gradient, width, &labels, &weights);
            let mut expected = 0.0;
            for row in 0..rows {
                let z: Vec<f64> = logits[row * width..(row + 1) * width].iter().map(|z| f64::from(*z)).collect();
                let (y, w) = (f64::from(labels[row]), f64::from(weights[row]));
                expected += w * naive(loss, &z, y);
                for j in 0..width {
                    let h = 1e-6;
                    let (mut low, mut high) = (z.clone(), z.clone());
                    low[j] -= h;
                    high[j] += h;
                    let slope = w * (naive(loss, &high, y) - naive(loss, &low, y)) / (2.0 * h);
                    let got = f64::from(gradient[row * width + j]);
                    assert!((got - slope).abs() < 3e-6, "{loss:?} row {row} output {j}: {got}, expected {slope}");
                }
            }
            assert!((value - expected).abs() < 1e-5, "{loss:?}: {value}, expected {expected}");
        }
    }

    #[test]
    fn large_logits_neither_overflow_nor_lose_the_loss() {
        let mut logits = [1000.0, 0.0, -1000.0];
        let loss = Loss::SoftmaxCrossEntropy.gradient(&mut logits, 3, &[1.0], &[1.0]);
        assert!((loss - 1000.0).abs() < 1e-3, "{loss}");
        let mut logits = [-500.0, 500.0];
        let loss = Loss::SigmoidCrossEntropy.gradient(&mut logits, 1, &[1.0, 0.0], &[1.0, 1.0]);
        assert!((loss - 1000.0).abs() < 1e-3, "{loss}");
        assert_eq!(logits, [-1.0, 1.0]);
    }

    #[test]
    fn a_nan_output_makes_the_loss_nan() {
        for (loss, width) in [
            (Loss::MeanSquaredError, 1),
            (Loss::Huber { delta: 1.0 }, 1),
            (Loss::SoftmaxCrossEntropy, 2),
            (Loss::SigmoidCrossEntropy, 1),
        ] {
            let mut outputs = vec![0.5; 4];
            outputs[1] = f32::NAN;
            let rows = 4 / width;
            assert!(loss.gradient(&mut outputs, width, &vec![0.0; rows], &vec![1.0; rows]).is_nan(), "{loss:?}");
        }
    }

    #[test]
    fn predictions_are_probabilities_or_values() {
        let mut z = [0.0, f32::ln(3.0), 1.0, 1.0];
        Loss::SoftmaxCrossEntropy.predictions(&mut z, 2);
        for (got, expected) in z.iter().zip([0.25, 0.75, 0.5, 0.5]) {
            assert!((got - expected).abs() < 1e-6);
        }
        let mut z = [0.0];
        Loss::SigmoidCrossEntropy.predictions(&mut z, 1);
        assert_eq!(z, [0.5]);
        let mut z = [1.5];
        Loss::MeanSquaredError.predictions(&mut z, 1);
        assert_eq!(z, [1.5]);
    }
}
