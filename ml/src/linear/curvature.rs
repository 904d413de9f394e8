//! A fixed estimate of the multinomial loss' Hessian, the same block for each class.
//!
//! The Hessian is Σ ω (diag p - p pᵀ) ⊗ x̃ x̃ᵀ. At β = 0 the first factor is (I - 11ᵀ/C)/C, everywhere it is at most I/2
//! (Böhning, 1992). Either way one matrix of D + 1 rows says how the inputs are scaled and correlated, and solvers that
//! measure steps by it need tens of iterations where plain ones take thousands.

use engine::Result;

use super::gradient::Parameters;
use super::gram::{Gram, Means, Share};
use super::newton::{coordinate_descent, means};
use super::normal::COLLINEAR;
use super::{LinearKind, MATRIX_PARAMETERS_MAX, Run, matrix};

/// The matrix A = scale Σ ω x̃ x̃ᵀ + l2 (not for the intercept), for x relative to its mean.
pub(super) struct Curvature {
    inputs: usize,
    classes: usize,
    intercept: bool,
    means: Means,
    /// A [n x n], n = D + 1.
    matrix: Vec<f64>,
}

impl Curvature {
    /// The estimate; `None` where it does not apply or would be too large.
    pub(super) fn of(run: &Run<'_>, scale: f64) -> Result<Option<Self>> {
        let layout = run.train.layout();
        let LinearKind::Multinomial(classes) = run.plan.kind else { return Ok(None) };
        let (inputs, offsets) = (layout.dims(), layout.group_offsets());
        if inputs >= MATRIX_PARAMETERS_MAX {
            return Ok(None);
        }
        let n = inputs + 1;
        let means = means(run)?;
        let origin = vec![0.0; n];
        let share = |_: f64, _: f64, weight: f64| Share { loss: 0.0, h: weight, r: 0.0 };
        let sums = run.fold(run.train, || Gram::zero(layout, &offsets, &means.dense, &origin, share))?;
        let mut matrix = sums.assemble().matrix;
        matrix.iter_mut().for_each(|x| *x *= scale);
        (0..inputs).for_each(|i| matrix[i * n + i] += run.plan.l2);
        let intercept = run.plan.fit_intercept;
        if !intercept {
            (0..n).for_each(|i| (matrix[i * n + inputs], matrix[inputs * n + i]) = (0.0, 0.0));
        }
        Ok(Some(Curvature { inputs, classes, intercept, means, matrix }))
    }

    pub(super) fn factor(&self) -> matrix::Factor {
        matrix::Factor::new(self.inputs + 1, &self.matrix, COLLINEAR)
    }

    /// A⁻¹ g for each class of a gradient.
    pub(super) fn solve(&self, factor: &matrix::Factor, gradient: &[f64]) -> Vec<f64> {
        let mut direction = vec![0.0; gradient.len()];
        for class in 0..self.classes {
            let step = factor.solve(&self.centred_gradient(gradient, class));
            self.set_class(&mut direction, class, self.uncentred(step));
        }
        direction
    }

    /// The smallest of the parameters that give the same scores as `at` in all rows.
    pub(super) fn smallest(&self, factor: &matrix::Factor, at: &Parameters) -> Parameters {
        let mut smallest = at.clone();
        for class in 0..self.classes {
            let w = factor.smallest(&self.centred(&at.values, class), self.inputs);
            self.set_class(&mut smallest.values, class, self.uncentred(w));
        }
        smallest
    }

    /// argmin over u of t g·(u - at) + (u - at)ᵀ A (u - at)/2 + t l1 ‖u‖₁, for each class.
    pub(super) fn proximal_step(&self, at: &Parameters, gradient: &[f64], t: f64, l1: f64) -> Parameters {
        let mut next = at.clone();
        for class in 0..self.classes {
            let mut g = self.centred_gradient(gradient, class);
            g.iter_mut().for_each(|g| *g *= t);
            let from = self.centred(&at.values, class);
            let to = coordinate_descent(self.inputs + 1, &self.matrix, &g, &from, t * l1, self.inputs);
            self.set_class(&mut next.values, class, self.uncentred(to));
        }
        next
    }

    /// dᵀ A d, summed over the classes.
    pub(super) fn length(&self, step: &[f64]) -> f64 {
        let of_class = |class| {
            let d = self.centred(step, class);
            matrix::dot(&d, &matrix::symmetric_times(self.inputs + 1, &self.matrix, &d))
        };
        (0..self.classes).map(of_class).sum()
    }

    /// Multiplies A.
    pub(super) fn scale(&mut self, by: f64) {
        self.matrix.iter_mut().for_each(|x| *x *= by);
    }

    /// One class of parameters [(D + 1) x C], for x relative to its mean: the intercept is b' = b + w·x̄.
    fn centred(&self, values: &[f64], class: usize) -> Vec<f64> {
        let mut w = self.class(values, class);
        w[self.inputs] += matrix::dot(&w[..self.means.dense.len()], &self.means.dense);
        w
    }

    /// Back: b = b' - w·x̄.
    fn uncentred(&self, mut w: Vec<f64>) -> Vec<f64> {
        w[self.inputs] -= matrix::dot(&w[..self.means.dense.len()], &self.means.dense);
        if !self.intercept {
            w[self.inputs] = 0.0;
        }
        w
    }

    /// One class of a gradient, for x relative to its mean: g_w' = g_w - x̄ g_b.
    fn centred_gradient(&self, gradient: &[f64], class: usize) -> Vec<f64> {
        let mut g = self.class(gradient, class);
        let g_b = g[self.inputs];
        matrix::add_scaled(-g_b, &self.means.dense, &mut g[..self.means.dense.len()]);
        g
    }

    fn class(&self, values: &[f64], class: usize) -> Vec<f64> {
        values[class..].iter().step_by(self.classes).copied().collect()
    }

    fn set_class(&self, values: &mut [f64], class: usize, column: Vec<f64>) {
        values[class..].iter_mut().step_by(self.classes).zip(column).for_each(|(value, x)| *value = x);
    }
}
