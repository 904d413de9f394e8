//! Smooth objectives with many parameters by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4).
//!
//! The multinomial model starts from a Hessian that knows the inputs: at β = 0 it is (I - 11ᵀ/C)/C ⊗ Σ ω x̃ x̃ᵀ, of which
//! the block Σ ω x̃ x̃ᵀ / C + l2 is factored once and solved for each class. Scale and correlation of the inputs then do
//! not matter; 20 to 40 iterations do where plain L-BFGS takes hundreds.

use std::collections::VecDeque;

use engine::{Error, Result};

use super::curvature::Curvature;
use super::gradient::{Gradient, Parameters, gradient};
use super::{LinearFit, Run, matrix};

/// Pairs of steps and gradient changes that stand for the Hessian.
const MEMORY: usize = 12;
const ITERATIONS_MAX: usize = 300;
const TRIALS_MAX: usize = 40;
/// Done when no element of the mean loss' gradient exceeds this.
const GRADIENT_MAX: f64 = 1e-8;

struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// 1 / (step·change)
    rho: f64,
}

pub(super) fn solve(mut run: Run<'_>) -> Result<LinearFit> {
    let plan = run.plan;
    let evaluate = |run: &Run<'_>, at: &Parameters| -> Result<Gradient> {
        let mut gradient = gradient(run, at)?;
        gradient.add_ridge(plan.l2, at);
        Ok(gradient)
    };
    let data_loss = |sums: &Gradient, at: &Parameters| {
        (sums.loss - 0.5 * plan.l2 * matrix::dot(at.weights(), at.weights())) / sums.weight
    };
    let limit = plan.max_iterations.unwrap_or(ITERATIONS_MAX);
    let mut at = Parameters::zeros(run.train.layout().dims(), plan.kind.outputs());
    let mut sums = evaluate(&run, &at)?;
    if sums.weight.is_nan() || sums.weight <= 0.0 {
        return Err(Error::invalid("no row to train on has a weight"));
    }
    if !sums.loss.is_finite() || sums.gradient.values.iter().any(|g| !g.is_finite()) {
        return Err(Error::invalid("an input or a label is not a finite number"));
    }
    let curvature = Curvature::of(&run, 1.0 / plan.kind.outputs() as f64)?;
    let factor = curvature.as_ref().map(Curvature::factor);
    let estimate = |vector: Vec<f64>| match (&curvature, &factor) {
        (Some(curvature), Some(factor)) => curvature.solve(factor, &vector),
        _ => vector,
    };
    // Of equal solutions, as collinear inputs have them, the smallest.
    let smallest = |at: Parameters| match (&curvature, &factor) {
        (Some(curvature), Some(factor)) => curvature.smallest(factor, &at),
        _ => at,
    };
    let mut memory: VecDeque<Pair> = VecDeque::new();
    let mut standing = 0;
    loop {
        let mut direction = downhill(&memory, &sums.gradient.values, &estimate);
        let mut slope = matrix::dot(&direction, &sums.gradient.values);
        if slope >= 0.0 {
            memory.clear();
            direction = downhill(&memory, &sums.gradient.values, &estimate);
            slope = matrix::dot(&direction, &sums.gradient.values);
        }
        // Without a memory the direction has no scale: begin with a step of length 1.
        let mut t = if memory.is_empty() && curvature.is_none() { 1.0 / (-slope).sqrt().max(1.0) } else { 1.0 };
        let mut next = None;
        for _ in 0..TRIALS_MAX {
            let to = at.moved(t, &direction);
            let there = evaluate(&run, &to)?;
            if there.loss <= sums.loss + 1e-4 * t * slope {
                next = Some((to, there));
                break;
            }
            // The minimum of the parabola through both losses and the slope here, kept within a tenth and a half.
            let parabola = -slope * t * t / (2.0 * (there.loss - sums.loss - slope * t));
            t = if parabola.is_finite() { parabola.clamp(0.1 * t, 0.5 * t) } else { 0.1 * t };
        }
        let Some((to, there)) = next else {
            // No step lowers the loss: the last digit is reached.
            return Ok(run.finish(&smallest(at), true));
        };
        let step: Vec<f64> = to.values.iter().zip(&at.values).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = there.gradient.values.iter().zip(&sums.gradient.values).map(|(a, b)| a - b).collect();
        let curvature = matrix::dot(&step, &change);
        if curvature > 1e-14 * matrix::dot(&change, &change).sqrt() * matrix::dot(&step, &step).sqrt() {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Pair { step, change, rho: 1.0 / curvature });
        }
        let progress = (sums.loss - there.loss) / sums.loss.abs().max(f64::MIN_POSITIVE);
        (at, sums) = (to, there);
        let more = run.record(&at, data_loss(&sums, &at), Some(t), limit)?;
        let steepest = sums.gradient.values.iter().fold(0.0f64, |most, g| most.max(g.abs()));
        standing = if progress < 1e-14 { standing + 1 } else { 0 };
        let small_progress = plan.min_rel_progress.is_some_and(|least| progress < least);
        if steepest <= GRADIENT_MAX * sums.weight || standing == 3 || small_progress {
            return Ok(run.finish(&smallest(at), true));
        }
        if more.is_break() {
            return Ok(run.finish(&at, false));
        }
    }
}

/// -H g for the inverse Hessian H that the memory and, before it, `estimate` stand for: the two-loop recursion.
fn downhill(memory: &VecDeque<Pair>, gradient: &[f64], estimate: &dyn Fn(Vec<f64>) -> Vec<f64>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut alphas = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let alpha = pair.rho * matrix::dot(&pair.step, &q);
        matrix::add_scaled(-alpha, &pair.change, &mut q);
        alphas.push(alpha);
    }
    q = estimate(q);
    if let Some(last) = memory.back() {
        // The estimate's scale, so that it agrees with the last step.
        let scale = 1.0 / (last.rho * matrix::dot(&last.change, &estimate(last.change.clone())));
        q.iter_mut().for_each(|x| *x *= scale);
    }
    for (pair, alpha) in memory.iter().zip(alphas.iter().rev()) {
        let beta = pair.rho * matrix::dot(&pair.change, &q);
        matrix::add_scaled(alpha - beta, &pair.step, &mut q);
    }
    q
}
