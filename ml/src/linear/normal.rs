//! Linear regression by the normal equation: two passes, one for the means, one for the centred matrix.

use engine::{Error, Result};

use super::gradient::{Parameters, mean_loss};
use super::gram::{Gram, Share};
use super::inference::Inference;
use super::{LinearFit, Run, matrix, newton};

/// A column is collinear when others explain all but this part of its variance.
pub(super) const COLLINEAR: f64 = 1e-12;

pub(super) fn solve(mut run: Run<'_>) -> Result<LinearFit> {
    let plan = run.plan;
    let layout = run.train.layout();
    let (d, offsets) = (layout.dims(), layout.group_offsets());
    let n = d + 1;
    let means = newton::means(&run)?;
    // y relative to its mean, x·β with β = 0: h = ω, r = ω y.
    let origin = vec![0.0; n];
    let label_mean = means.label;
    let share = |_: f64, label: f64, weight: f64| {
        let y = label - label_mean;
        Share { loss: 0.5 * weight * y * y, h: weight, r: weight * y }
    };
    let sums = run.fold(run.train, || Gram::zero(layout, &offsets, &means.dense, &origin, share))?.assemble();
    let (whole, vector) = (&sums.matrix, &sums.vector);
    // Eliminating the intercept takes the means out: A = XᵀX - s sᵀ/Σω, b = Xᵀy - s Σy/Σω, s = Σ x.
    let (mut a, mut b) = (vec![0.0; d * d], vector[..d].to_vec());
    let column_sums = &whole[d * n..][..d];
    for i in 0..d {
        a[i * d..][..d].copy_from_slice(&whole[i * n..][..d]);
        if plan.fit_intercept {
            matrix::add_scaled(-column_sums[i] / sums.weight, column_sums, &mut a[i * d..][..d]);
            b[i] -= column_sums[i] * vector[d] / sums.weight;
        }
    }
    if a.iter().chain(&b).any(|x| !x.is_finite()) {
        return Err(Error::invalid("an input or a label is not a finite number"));
    }
    let varies = (0..d).map(|i| a[i * d + i] > COLLINEAR * whole[i * n + i]).collect::<Vec<_>>();
    // What centring left of a constant column is rounding: such a column explains nothing.
    for i in (0..d).filter(|i| !varies[*i]) {
        (0..d).for_each(|j| (a[i * d + j], a[j * d + i]) = (0.0, 0.0));
        b[i] = 0.0;
    }
    (0..d).for_each(|i| a[i * d + i] += plan.l2);
    let mut inference = None;
    let weights = if plan.l1 > 0.0 {
        newton::coordinate_descent(d, &a, &b.iter().map(|b| -b).collect::<Vec<_>>(), &vec![0.0; d], plan.l1, d)
    } else {
        let factor = matrix::Factor::new(d, &a, COLLINEAR);
        if factor.rank() < d {
            run.notes.push(format!(
                "the inputs are collinear (rank {} of {d}): took the coefficients of smallest norm",
                factor.rank()
            ));
        }
        let weights = factor.smallest(&factor.solve(&b), d);
        if plan.p_values {
            let centre: Vec<f64> = means
                .dense
                .iter()
                .copied()
                .chain(column_sums[layout.dense..].iter().map(|s| s / sums.weight))
                .collect();
            inference = Some((factor, centre));
        }
        weights
    };
    let mut parameters = Parameters::zeros(d, 1);
    parameters.weights_mut().copy_from_slice(&weights);
    if plan.fit_intercept {
        // Sums relative to the means: ȳ' - x̄'·w, then back to the inputs as they are.
        let residual_mean = (vector[d] - matrix::dot(column_sums, &weights)) / sums.weight;
        parameters.intercepts_mut()[0] =
            label_mean + residual_mean - matrix::dot(&means.dense, &weights[..layout.dense]);
    }
    let loss = mean_loss(&run, run.train, &parameters)?;
    // Of the intercept as it will be told.
    let mut told = parameters.clone();
    told.intercepts_mut().iter_mut().for_each(|b| *b += plan.label_offset);
    let inference = inference
        .map(|(factor, centre)| {
            Inference::of_least_squares(&run, &factor, &centre, &told, 2.0 * loss * sums.weight, sums.weight)
        })
        .transpose()?;
    let _ = run.record(&parameters, loss, None, usize::MAX)?;
    let mut fit = run.finish(&parameters, true);
    fit.model.inference = inference;
    Ok(fit)
}
