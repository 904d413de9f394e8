//! The loss and its gradient over all rows, in one pass.

use std::slice::from_mut;

use engine::Result;

use super::fold::Sum;
use super::model::{LinearKind, logistic};
use super::{Run, matrix};
use crate::shards::{BagRows, Block, FeatureLayout, NO_CATEGORY, ShardSet};

/// Rows that are worked on at a time: their numbers as `f64` stay in the cache.
const TILE_ROWS: usize = 128;

/// Coefficients [D x C], row-major, then intercepts [C]; gradients have the same shape.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    pub(super) values: Vec<f64>,
    /// D C, where the intercepts begin.
    weights: usize,
}

impl Parameters {
    pub(super) fn zeros(inputs: usize, outputs: usize) -> Self {
        Parameters { values: vec![0.0; (inputs + 1) * outputs], weights: inputs * outputs }
    }

    pub(super) fn weights(&self) -> &[f64] {
        &self.values[..self.weights]
    }

    pub(super) fn weights_mut(&mut self) -> &mut [f64] {
        &mut self.values[..self.weights]
    }

    pub(super) fn intercepts(&self) -> &[f64] {
        &self.values[self.weights..]
    }

    pub(super) fn intercepts_mut(&mut self) -> &mut [f64] {
        &mut self.values[self.weights..]
    }

    /// self + t direction.
    pub(super) fn moved(&self, t: f64, direction: &[f64]) -> Self {
        let values = self.values.iter().zip(direction).map(|(x, d)| x + t * d).collect();
        Parameters { values, weights: self.weights }
    }
}

/// Σ ωℓ, its gradient and Σ ω at some parameters.
#[derive(Debug, Clone)]
pub(super) struct Gradient {
    /// Σ ωᵢ ℓᵢ.
    pub(super) loss: f64,
    /// Σ ωᵢ.
    pub(super) weight: f64,
    /// Of Σ ωᵢ ℓᵢ; of the intercepts, 0 when there shall be none.
    pub(super) gradient: Parameters,
}

impl Gradient {
    /// The loss alone with the penalties' smooth part and its gradient added: l2/2 ‖w‖².
    pub(super) fn add_ridge(&mut self, l2: f64, at: &Parameters) {
        if l2 > 0.0 {
            self.loss += 0.5 * l2 * matrix::dot(at.weights(), at.weights());
            self.gradient.weights_mut().iter_mut().zip(at.weights()).for_each(|(g, w)| *g += l2 * w);
        }
    }
}

/// Loss and gradient at `parameters` over the training rows.
pub(super) fn gradient(run: &Run<'_>, parameters: &Parameters) -> Result<Gradient> {
    let pass = run.fold(run.train, || Pass::new(run.plan.kind, run.train.layout(), parameters, true))?;
    let mut gradient = pass.gradient;
    if !run.plan.fit_intercept {
        gradient.intercepts_mut().fill(0.0);
    }
    Ok(Gradient { loss: pass.loss, weight: pass.weight, gradient })
}

/// Σ ωℓ / Σ ω at `parameters` over `rows`.
pub(super) fn mean_loss(run: &Run<'_>, rows: &dyn ShardSet, parameters: &Parameters) -> Result<f64> {
    let pass = run.fold(rows, || Pass::new(run.plan.kind, rows.layout(), parameters, false))?;
    Ok(pass.loss / pass.weight)
}

/// The sums of one shard, and room to work in.
struct Pass<'a> {
    kind: LinearKind,
    dense: usize,
    offsets: Vec<usize>,
    parameters: &'a Parameters,
    with_gradient: bool,
    loss: f64,
    weight: f64,
    gradient: Parameters,
    /// [tile x dense].
    inputs: Vec<f64>,
    /// [tile x C]: scores, then residuals dωℓ/dz.
    scores: Vec<f64>,
}

impl<'a> Pass<'a> {
    fn new(kind: LinearKind, layout: &FeatureLayout, parameters: &'a Parameters, with_gradient: bool) -> Self {
        Pass {
            kind,
            dense: layout.dense,
            offsets: layout.group_offsets(),
            parameters,
            with_gradient,
            loss: 0.0,
            weight: 0.0,
            gradient: Parameters::zeros(layout.dims(), kind.outputs()),
            inputs: Vec::new(),
            scores: Vec::new(),
        }
    }

    fn add_tile(&mut self, block: &Block, start: usize, rows: usize) {
        let (p, c, groups) = (self.dense, self.kind.outputs(), self.offsets.len());
        self.inputs.clear();
        self.inputs.extend(block.dense[start * p..][..rows * p].iter().map(|x| f64::from(*x)));
        let indices = &block.indices[start * groups..][..rows * groups];
        self.set_scores(rows, indices);
        let bags = block.bags.borrowed(start..start + rows);
        self.add_bag_scores(bags);
        let (labels, weights) = (&block.labels[start..][..rows], &block.weights[start..][..rows]);
        for ((z, label), weight) in self.scores.chunks_exact_mut(c).zip(labels).zip(weights) {
            let (label, weight) = (f64::from(*label), f64::from(*weight));
            self.loss += weight * loss_and_residual(self.kind, z, label);
            self.weight += weight;
            z.iter_mut().for_each(|r| *r *= weight);
        }
        if self.with_gradient {
            self.add_gradient(rows, indices);
            self.add_bag_gradient(bags);
        }
    }

    /// scores [rows x C] = X W + b.
    fn set_scores(&mut self, rows: usize, indices: &[u32]) {
        let (p, c) = (self.dense, self.kind.outputs());
        let (weights, intercepts) = (self.parameters.weights(), self.parameters.intercepts());
        self.scores.clear();
        (0..rows).for_each(|_| self.scores.extend_from_slice(intercepts));
        if c == 1 {
            for (z, x) in self.scores.iter_mut().zip(self.inputs.chunks_exact(p.max(1))) {
                *z += matrix::dot(x, &weights[..p]);
            }
        } else {
            matrix::add_product(rows, c, p, &self.inputs, &weights[..p * c], &mut self.scores);
        }
        if self.offsets.is_empty() {
            return;
        }
        for (z, indices) in self.scores.chunks_exact_mut(c).zip(indices.chunks_exact(self.offsets.len())) {
            for (index, offset) in indices.iter().zip(&self.offsets).filter(|(index, _)| **index != NO_CATEGORY) {
                let row = &weights[(offset + *index as usize) * c..][..c];
                z.iter_mut().zip(row).for_each(|(z, w)| *z += w);
            }
        }
    }

    /// scores += the weights of each row's places in the bag.
    fn add_bag_scores(&mut self, bags: BagRows<'_>) {
        let (p, c, weights) = (self.dense, self.kind.outputs(), self.parameters.weights());
        for (z, places) in self.scores.chunks_exact_mut(c).zip(bags.iter()) {
            for place in places {
                let row = &weights[(p + *place as usize) * c..][..c];
                z.iter_mut().zip(row).for_each(|(z, w)| *z += w);
            }
        }
    }

    /// gradient += the bag's part of Xᵀ residuals.
    fn add_bag_gradient(&mut self, bags: BagRows<'_>) {
        let (p, c) = (self.dense, self.kind.outputs());
        let gradient = self.gradient.weights_mut();
        for (r, places) in self.scores.chunks_exact(c).zip(bags.iter()) {
            for place in places {
                let row = &mut gradient[(p + *place as usize) * c..][..c];
                row.iter_mut().zip(r).for_each(|(g, r)| *g += r);
            }
        }
    }

    /// gradient += Xᵀ residuals, one-hot columns by scattering.
    fn add_gradient(&mut self, rows: usize, indices: &[u32]) {
        let (p, c) = (self.dense, self.kind.outputs());
        for r in self.scores.chunks_exact(c) {
            self.gradient.intercepts_mut().iter_mut().zip(r).for_each(|(g, r)| *g += r);
        }
        let gradient = self.gradient.weights_mut();
        if c == 1 {
            for (r, x) in self.scores.iter().zip(self.inputs.chunks_exact(p.max(1))) {
                matrix::add_scaled(*r, x, &mut gradient[..p]);
            }
        } else {
            matrix::add_transposed_product(p, c, rows, &self.inputs, &self.scores, &mut gradient[..p * c]);
        }
        if self.offsets.is_empty() {
            return;
        }
        for (r, indices) in self.scores.chunks_exact(c).zip(indices.chunks_exact(self.offsets.len())) {
            for (index, offset) in indices.iter().zip(&self.offsets).filter(|(index, _)| **index != NO_CATEGORY) {
                let row = &mut gradient[(offset + *index as usize) * c..][..c];
                row.iter_mut().zip(r).for_each(|(g, r)| *g += r);
            }
        }
    }
}

impl Sum for Pass<'_> {
    fn add(&mut self, block: &Block) -> Result<()> {
        for start in (0..block.rows).step_by(TILE_ROWS) {
            self.add_tile(block, start, TILE_ROWS.min(block.rows - start));
        }
        Ok(())
    }

    fn numbers(&mut self) -> Vec<&mut [f64]> {
        vec![from_mut(&mut self.loss), from_mut(&mut self.weight), &mut self.gradient.values]
    }
}

/// ℓ of one row with scores `z` [C]; turns them into the residuals dℓ/dz.
fn loss_and_residual(kind: LinearKind, z: &mut [f64], label: f64) -> f64 {
    match kind {
        LinearKind::Regression => {
            z[0] -= label;
            0.5 * z[0] * z[0]
        }
        LinearKind::Binary => {
            let score = z[0];
            let (p, log) = logistic(score);
            z[0] = p - label;
            log - label * score
        }
        LinearKind::Multinomial(_) => {
            let label = label as usize;
            let largest = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let distance = largest - z[label];
            let mut sum = 0.0;
            for z in z.iter_mut() {
                *z = (*z - largest).exp();
                sum += *z;
            }
            z.iter_mut().for_each(|z| *z /= sum);
            z[label] -= 1.0;
            sum.ln() + distance
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residuals_are_the_derivative_of_the_loss() {
        let cases: [(LinearKind, &[f64], f64); 6] = [
            (LinearKind::Regression, &[1.5], -2.0),
            (LinearKind::Binary, &[0.3], 1.0),
            (LinearKind::Binary, &[-2.0], 0.0),
            (LinearKind::Binary, &[40.0], 1.0),
            (LinearKind::Multinomial(3), &[0.1, -1.0, 2.0], 1.0),
            (LinearKind::Multinomial(3), &[700.0, -700.0, 0.0], 0.0),
        ];
        for (kind, z, label) in cases {
            let mut residual = z.to_vec();
            loss_and_residual(kind, &mut residual, label);
            for i in 0..z.len() {
                let at = |step: f64| {
                    let mut z = z.to_vec();
                    z[i] += step;
                    loss_and_residual(kind, &mut z, label)
                };
                let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((residual[i] - difference).abs() < 1e-8, "{kind:?} {z:?}: {} and {difference}", residual[i]);
            }
        }
    }
}
