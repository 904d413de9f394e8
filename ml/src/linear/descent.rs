//! Gradient descent over all rows: plain with constant or searched steps, and accelerated for L1 without a matrix.
//!
//! Steps are taken on the mean objective J / Σω, so that a learning rate means the same for any number of rows. L1 is
//! met by its proximal operator, soft thresholding.

use engine::{Error, Result};

use super::curvature::Curvature;
use super::gradient::{Gradient, Parameters, gradient};
use super::penalty::Penalty;
use super::{LinearFit, Run, StepSize, matrix};

const ITERATIONS_MAX: usize = 1000;
const ACCELERATED_ITERATIONS_MAX: usize = 5000;
const HALVINGS_MAX: usize = 60;
/// A loss that has grown by this factor is on its way to infinity.
const DIVERGED: f64 = 1e6;

/// A point with all that is known of it; sums divided by Σω.
struct Point {
    at: Parameters,
    /// Mean loss, without penalties.
    loss: f64,
    /// Mean smooth part: loss + l2/2 ‖w‖².
    smooth: f64,
    /// Smooth part and l1 ‖w‖₁.
    objective: f64,
    /// Of the smooth part.
    gradient: Vec<f64>,
}

/// Evaluates points, with penalties per row.
struct Objective {
    weight: f64,
    penalty: Penalty,
    /// What steps are measured by, when not by their plain length: an upper bound of the Hessian of the smooth part.
    metric: Option<Curvature>,
}

impl Objective {
    fn start(run: &Run<'_>) -> Result<(Self, Point)> {
        let at = Parameters::zeros(run.train.layout().dims(), run.plan.kind.outputs());
        let sums = gradient(run, &at)?;
        if sums.weight.is_nan() || sums.weight <= 0.0 {
            return Err(Error::invalid("no row to train on has a weight"));
        }
        let penalty = Penalty { l1: run.plan.l1 / sums.weight, l2: run.plan.l2 / sums.weight };
        let objective = Objective { weight: sums.weight, penalty, metric: None };
        let point = objective.point(at, sums);
        if !point.objective.is_finite() || point.gradient.iter().any(|g| !g.is_finite()) {
            return Err(Error::invalid("an input or a label is not a finite number"));
        }
        Ok((objective, point))
    }

    fn point(&self, at: Parameters, mut sums: Gradient) -> Point {
        sums.loss /= self.weight;
        sums.gradient.values.iter_mut().for_each(|g| *g /= self.weight);
        let loss = sums.loss;
        sums.add_ridge(self.penalty.l2, &at);
        let l1 = Penalty { l2: 0.0, ..self.penalty }.value(at.weights());
        Point { loss, smooth: sums.loss, objective: sums.loss + l1, gradient: sums.gradient.values, at }
    }

    fn evaluate(&self, run: &Run<'_>, at: Parameters) -> Result<Point> {
        let sums = gradient(run, &at)?;
        Ok(self.point(at, sums))
    }

    /// prox(from - t gradient).
    fn step(&self, from: &Point, t: f64) -> Parameters {
        if let Some(metric) = &self.metric {
            return metric.proximal_step(&from.at, &from.gradient, t, self.penalty.l1);
        }
        let mut to = from.at.moved(-t, &from.gradient);
        to.weights_mut().iter_mut().for_each(|w| *w = self.penalty.shrink(*w, t));
        to
    }

    /// Steps from `from`, halving `t` until the smooth part lies below its quadratic bound: f(to) <= f + ∇f·d + d²/2t.
    fn search(&self, run: &Run<'_>, from: &Point, mut t: f64) -> Result<Option<(Point, f64)>> {
        for _ in 0..HALVINGS_MAX {
            let to = self.evaluate(run, self.step(from, t))?;
            let step: Vec<f64> = to.at.values.iter().zip(&from.at.values).map(|(a, b)| a - b).collect();
            let length = self.metric.as_ref().map_or_else(|| matrix::dot(&step, &step), |metric| metric.length(&step));
            let bound = from.smooth + matrix::dot(&from.gradient, &step) + 0.5 * length / t;
            // The last digits of the loss are noise; a step must not fail for them.
            if to.smooth <= bound + 1e-14 * from.smooth.abs() {
                return Ok(Some((to, t)));
            }
            t *= 0.5;
        }
        Ok(None)
    }
}

/// Plain batch gradient descent.
pub(super) fn batch(mut run: Run<'_>, step: StepSize) -> Result<LinearFit> {
    let (objective, mut point) = Objective::start(&run)?;
    let limit = run.plan.max_iterations.unwrap_or(ITERATIONS_MAX);
    let least_progress = run.plan.min_rel_progress.unwrap_or(1e-6);
    let first = point.objective;
    let mut rate = match step {
        StepSize::Constant(rate) | StepSize::LineSearch(rate) => rate,
    };
    loop {
        let next = match step {
            StepSize::Constant(_) => objective.evaluate(&run, objective.step(&point, rate))?,
            StepSize::LineSearch(_) => {
                let from = if run.history.is_empty() { rate } else { 2.0 * rate };
                let Some((next, t)) = objective.search(&run, &point, from)? else {
                    return Ok(run.finish(&point.at, true));
                };
                rate = t;
                next
            }
        };
        let diverged = !next.objective.is_finite() || next.objective > DIVERGED * first.max(f64::MIN_POSITIVE);
        if diverged {
            return Err(Error::invalid(format!(
                "the loss diverged in iteration {}: {} with learn_rate = {rate}",
                run.history.len() + 1,
                next.objective
            ))
            .with_hint("choose a smaller learn_rate, or learn_rate_strategy = 'LINE_SEARCH'"));
        }
        let progress = (point.objective - next.objective) / point.objective.abs().max(f64::MIN_POSITIVE);
        point = next;
        let more = run.record(&point.at, point.loss, Some(rate), limit)?;
        if progress.abs() < least_progress {
            return Ok(run.finish(&point.at, true));
        }
        if more.is_break() {
            return Ok(run.finish(&point.at, false));
        }
    }
}

/// Accelerated proximal gradient descent (FISTA, Beck and Teboulle 2009) with restarts where the objective
/// rises (O'Donoghue and Candès, 2015); the multinomial loss in the metric of its Hessian's bound.
pub(super) fn accelerated(mut run: Run<'_>) -> Result<LinearFit> {
    let (mut objective, mut ahead) = Objective::start(&run)?;
    objective.metric = Curvature::of(&run, 0.5)?;
    if let Some(metric) = &mut objective.metric {
        metric.scale(1.0 / objective.weight);
    }
    let limit = run.plan.max_iterations.unwrap_or(ACCELERATED_ITERATIONS_MAX);
    let least_progress = run.plan.min_rel_progress.unwrap_or(1e-15);
    let (mut last, mut last_objective) = (ahead.at.clone(), ahead.objective);
    let (mut rate, mut momentum, mut standing) = (1.0, 1.0f64, 0);
    loop {
        let Some((point, t)) = objective.search(&run, &ahead, rate)? else {
            return Ok(run.finish(&last, true));
        };
        let step: Vec<f64> = point.at.values.iter().zip(&last.values).map(|(a, b)| a - b).collect();
        let restart = point.objective > last_objective;
        let next_momentum = if restart { 1.0 } else { 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt()) };
        let carry = if restart { 0.0 } else { (momentum - 1.0) / next_momentum };
        let progress = (last_objective - point.objective).abs() / last_objective.abs().max(f64::MIN_POSITIVE);
        let more = run.record(&point.at, point.loss, Some(t), limit)?;
        standing = if progress < least_progress { standing + 1 } else { 0 };
        if standing == 5 || (run.plan.min_rel_progress.is_some() && standing == 1) {
            return Ok(run.finish(&point.at, true));
        }
        if more.is_break() {
            return Ok(run.finish(&point.at, false));
        }
        // A slightly longer step is tried again now and then.
        (rate, momentum, last_objective) = (t * 1.05, next_momentum, point.objective);
        last = point.at.clone();
        ahead = if carry == 0.0 { point } else { objective.evaluate(&run, last.moved(carry, &step))? };
    }
}
