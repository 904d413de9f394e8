//! A fitted linear model: coefficients, intercepts, predictions.

use serde::{Deserialize, Serialize};

use super::gradient::Parameters;
use super::inference::Inference;
use crate::shards::{Block, FeatureLayout, NO_CATEGORY};

/// What a linear model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinearKind {
    /// A number.
    Regression,
    /// One of two classes.
    Binary,
    /// One of C classes.
    Multinomial(usize),
}

impl LinearKind {
    /// C, the outputs: scores a row has before the link function.
    pub fn outputs(self) -> usize {
        match self {
            LinearKind::Regression | LinearKind::Binary => 1,
            LinearKind::Multinomial(classes) => classes,
        }
    }

    /// The loss as people know it, from the mean of ℓ: squared errors without the half.
    pub(super) fn shown_loss(self, loss: f64) -> f64 {
        if self == LinearKind::Regression { 2.0 * loss } else { loss }
    }
}

/// A fitted model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearModel {
    /// What it predicts.
    pub kind: LinearKind,
    /// The D inputs.
    pub layout: FeatureLayout,
    /// [D x C], row-major.
    pub coefficients: Vec<f64>,
    /// [C]; zeros without intercept.
    pub intercepts: Vec<f64>,
    /// How sure the coefficients are, when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<Inference>,
}

impl LinearModel {
    pub(super) fn new(kind: LinearKind, layout: FeatureLayout, parameters: &Parameters) -> Self {
        let (coefficients, intercepts) = (parameters.weights().to_vec(), parameters.intercepts().to_vec());
        LinearModel { kind, layout, coefficients, intercepts, inference: None }
    }

    /// [R x C] row-major, [R] for two classes: the number, the probability of class 1, or the probability of each class.
    pub fn predict(&self, block: &Block) -> Vec<f64> {
        let mut scores = self.scores(block);
        match self.kind {
            LinearKind::Regression => {}
            LinearKind::Binary => scores.iter_mut().for_each(|z| *z = logistic(*z).0),
            LinearKind::Multinomial(classes) => scores.chunks_exact_mut(classes).for_each(softmax),
        }
        scores
    }

    /// [R x C] row-major: x·w + b.
    pub fn scores(&self, block: &Block) -> Vec<f64> {
        let (c, dense, groups) = (self.kind.outputs(), self.layout.dense, self.layout.groups.len());
        let offsets = self.layout.group_offsets();
        let mut scores = Vec::with_capacity(block.rows * c);
        for row in 0..block.rows {
            let from = scores.len();
            scores.extend_from_slice(&self.intercepts);
            let scores = &mut scores[from..];
            let mut add = |x: f64, input: usize| {
                let weights = &self.coefficients[input * c..][..c];
                scores.iter_mut().zip(weights).for_each(|(score, w)| *score += x * w);
            };
            block.dense[row * dense..][..dense].iter().enumerate().for_each(|(input, x)| add(f64::from(*x), input));
            block.bags.of(row).iter().for_each(|place| add(1.0, dense + *place as usize));
            for (index, offset) in block.indices[row * groups..][..groups].iter().zip(&offsets) {
                if *index != NO_CATEGORY {
                    add(1.0, offset + *index as usize);
                }
            }
        }
        scores
    }
}

/// 1 / (1 + e^-z) and ln(1 + e^z), without overflow.
pub(super) fn logistic(z: f64) -> (f64, f64) {
    let e = (-z.abs()).exp();
    let p = if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) };
    (p, z.max(0.0) + e.ln_1p())
}

/// Probabilities from scores, in place.
pub(super) fn softmax(scores: &mut [f64]) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for z in scores.iter_mut() {
        *z = (*z - largest).exp();
        sum += *z;
    }
    scores.iter_mut().for_each(|z| *z /= sum);
}
