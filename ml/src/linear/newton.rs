//! Binary logistic regression by Newton's method, with coordinate descent on the quadratic model where there is an L1.

use engine::{Error, Result};

use super::gradient::{Parameters, mean_loss};
use super::gram::{Gram, Means, Share, Whole};
use super::inference::Inference;
use super::model::logistic;
use super::normal::COLLINEAR;
use super::penalty::{Penalty, soft_threshold};
use super::{LinearFit, LinearKind, Run, matrix};

/// A step that promises less than this part of the objective is the last: Newton's error squares with each step.
const LAST_STEP: f64 = 1e-11;
/// Good data takes 5 to 10; data that classes can be told apart on without error would go on for ever.
const ITERATIONS_MAX: usize = 50;
const HALVINGS_MAX: usize = 40;
/// Where classes are told apart without error the curvature along some input falls with each step, towards 0.
const SEPARATED: f64 = 1e-6;

/// Σω and the means of inputs and labels; zeros for the means when there is no intercept to take them up.
pub(super) fn means(run: &Run<'_>) -> Result<Means> {
    let layout = run.train.layout();
    let means = run.fold(run.train, || Means::zero(layout))?;
    if means.weight.is_nan() || means.weight <= 0.0 {
        return Err(Error::invalid("no row to train on has a weight"));
    }
    let means = means.divide();
    if means.dense.iter().any(|x| !x.is_finite()) || !means.label.is_finite() {
        return Err(Error::invalid("an input or a label is not a finite number"));
    }
    let kept = run.plan.fit_intercept;
    Ok(if kept { means } else { Means { weight: means.weight, ..Means::zero(layout) } })
}

pub(super) fn solve(mut run: Run<'_>) -> Result<LinearFit> {
    debug_assert_eq!(run.plan.kind, LinearKind::Binary, "one score, two classes");
    let plan = run.plan;
    let layout = run.train.layout();
    let (d, offsets) = (layout.dims(), layout.group_offsets());
    let n = d + 1;
    let penalty = Penalty { l1: plan.l1, l2: plan.l2 };
    let means = means(&run)?;
    // Row: ℓ = ln(1 + e^z) - y z, r = -dωℓ/dz (so that the vector points downhill), h = d²ωℓ/dz².
    let share = |z: f64, label: f64, weight: f64| {
        let (p, log) = logistic(z);
        Share { loss: weight * (log - label * z), h: weight * p * (1.0 - p), r: weight * (label - p) }
    };
    let evaluate = |run: &Run<'_>, at: &[f64]| -> Result<Whole> {
        Ok(run.fold(run.train, || Gram::zero(layout, &offsets, &means.dense, at, share))?.assemble())
    };
    let mut at = vec![0.0; n];
    if plan.fit_intercept && means.label > 0.0 && means.label < 1.0 {
        at[d] = (means.label / (1.0 - means.label)).ln(); // the best without inputs
    }
    let limit = plan.max_iterations.unwrap_or(ITERATIONS_MAX);
    let mut sums = evaluate(&run, &at)?;
    let mut objective = sums.loss + penalty.value(&at[..d]);
    if !objective.is_finite() {
        return Err(Error::invalid("an input or a label is not a finite number"));
    }
    let mut converged = false;
    let mut noted = false;
    let mut first: Option<matrix::Factor> = None;
    while !converged {
        let (mut hessian, mut downhill) = (sums.matrix.clone(), sums.vector.clone());
        for i in 0..d {
            hessian[i * n + i] += plan.l2;
            downhill[i] -= plan.l2 * at[i];
        }
        if !plan.fit_intercept {
            (0..n).for_each(|i| (hessian[i * n + d], hessian[d * n + i]) = (0.0, 0.0));
            downhill[d] = 0.0;
        }
        let (step, factor) = if plan.l1 > 0.0 {
            let linear: Vec<f64> = downhill.iter().map(|g| -g).collect();
            (coordinate_descent(n, &hessian, &linear, &at, plan.l1, d), None)
        } else {
            let factor = matrix::Factor::new(n, &hessian, COLLINEAR);
            (factor.solve(&downhill), Some(factor))
        };
        let step: Vec<f64> =
            if plan.l1 > 0.0 { step.iter().zip(&at).map(|(to, from)| to - from).collect() } else { step };
        let promised = promise(&downhill, &step, &at[..d], penalty.l1);
        converged = promised <= LAST_STEP * objective || objective <= 1e-12 * sums.weight;
        let before = objective;
        let mut t = 1.0;
        let mut halvings = 0;
        loop {
            let next: Vec<f64> = at.iter().zip(&step).map(|(x, d)| x + t * d).collect();
            if converged {
                at = next; // too small a step to be measured
                break;
            }
            let trial = evaluate(&run, &next)?;
            let reached = trial.loss + penalty.value(&next[..d]);
            if reached <= objective - 1e-4 * t * promised {
                (at, sums, objective) = (next, trial, reached);
                break;
            }
            if halvings == HALVINGS_MAX {
                converged = true;
                break;
            }
            halvings += 1;
            t *= 0.5;
        }
        if let (Some(first), Some(factor)) = (&first, &factor) {
            run.separated = factor.has_faded(first, SEPARATED);
        }
        if first.is_none() {
            first.clone_from(&factor);
        }
        if converged && let Some(factor) = &factor {
            if factor.rank() < n - usize::from(!plan.fit_intercept) && !noted {
                noted = true;
                run.notes.push(format!(
                    "the inputs are collinear (rank {} of {n}, with the intercept): took the coefficients of smallest norm",
                    factor.rank()
                ));
            }
            at = factor.smallest(&at, d);
        }
        let parameters = parameters(&at, &means);
        let loss = if converged { mean_loss(&run, run.train, &parameters)? } else { sums.loss / sums.weight };
        let more = run.record(&parameters, loss, Some(t), limit)?;
        let small_progress = plan.min_rel_progress.is_some_and(|least| before - objective < least * before);
        if converged || small_progress || more.is_break() {
            let inference = plan.p_values.then(|| {
                let mut hessian = evaluate(&run, &at)?.matrix;
                if !plan.fit_intercept {
                    (0..n).for_each(|i| (hessian[i * n + d], hessian[d * n + i]) = (0.0, 0.0));
                }
                Inference::of_likelihood(&run, &hessian, &means.dense, &parameters)
            });
            let inference = inference.transpose()?;
            let mut fit = run.finish(&parameters, converged || small_progress);
            fit.model.inference = inference;
            return Ok(fit);
        }
    }
    unreachable!("the loop returns in the iteration that converges")
}

/// The decrease that a step promises to first order: -∇J·d, with the L1 term's own change.
fn promise(downhill: &[f64], step: &[f64], weights: &[f64], l1: f64) -> f64 {
    let smooth = matrix::dot(downhill, step);
    let l1_change: f64 = weights.iter().zip(step).map(|(w, d)| (w + d).abs() - w.abs()).sum();
    smooth - l1 * l1_change
}

/// From inputs relative to their means back to the inputs as they are: b = b' - w·x̄.
fn parameters(at: &[f64], means: &Means) -> Parameters {
    let d = at.len() - 1;
    let mut parameters = Parameters::zeros(d, 1);
    parameters.weights_mut().copy_from_slice(&at[..d]);
    parameters.intercepts_mut()[0] = at[d] - matrix::dot(&at[..means.dense.len()], &means.dense);
    parameters
}

/// The x [n] that minimises (x - x₀)ᵀ A (x - x₀)/2 + c·(x - x₀) + l1 Σ_{j < penalised} |xⱼ|, by cyclic coordinate
/// descent. An unpenalised last element (n = penalised + 1) is eliminated first: an intercept is correlated with all
/// inputs, and descent by coordinates would crawl along it.
pub(super) fn coordinate_descent(n: usize, a: &[f64], c: &[f64], from: &[f64], l1: f64, penalised: usize) -> Vec<f64> {
    let free = n - 1;
    if penalised == n || a[free * n + free] <= 0.0 {
        return descend(n, a, c, from, l1);
    }
    // For the best last element given the rest, A and c become their Schur complements.
    let (pivot, last) = (a[free * n + free], &a[free * n..][..free]);
    let (mut reduced, mut c_reduced) = (vec![0.0; free * free], c[..free].to_vec());
    for i in 0..free {
        let row = &mut reduced[i * free..][..free];
        row.copy_from_slice(&a[i * n..][..free]);
        matrix::add_scaled(-last[i] / pivot, last, row);
        c_reduced[i] -= last[i] * c[free] / pivot;
    }
    let mut x = descend(free, &reduced, &c_reduced, &from[..free], l1);
    let moved: f64 = x.iter().zip(from).zip(last).map(|((x, from), a)| a * (x - from)).sum();
    x.push(from[free] - (c[free] + moved) / pivot);
    x
}

/// The descent itself, all elements penalised. An element without curvature stays.
fn descend(n: usize, a: &[f64], c: &[f64], from: &[f64], l1: f64) -> Vec<f64> {
    let mut x = from.to_vec();
    let mut gradient = c.to_vec(); // c + A (x - x₀)
    let mut largest_ever = 0.0f64;
    for _ in 0..100_000 {
        let mut largest = 0.0f64;
        for j in 0..n {
            let curvature = a[j * n + j];
            if curvature <= 0.0 {
                continue;
            }
            let best = x[j] - gradient[j] / curvature;
            let to = soft_threshold(best, l1 / curvature);
            let by = to - x[j];
            if by != 0.0 {
                x[j] = to;
                matrix::add_scaled(by, &a[j * n..][..n], &mut gradient);
                largest = largest.max(curvature * by * by);
            }
        }
        largest_ever = largest_ever.max(largest);
        if largest <= 1e-24 * largest_ever {
            break;
        }
    }
    x
}
