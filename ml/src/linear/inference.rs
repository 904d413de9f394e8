//! Standard errors and p-values: of linear regression from the residuals' variance and Student's t, of logistic regression
//! from the curvature of the likelihood and the normal distribution (Wald's test).

use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::gradient::Parameters;
use super::normal::COLLINEAR;
use super::{Run, matrix};

/// How sure the coefficients of an unpenalised model are: of linear regression under errors that are independent, normal
/// and of one variance, of logistic regression for many rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inference {
    /// [D], then the intercept's when there is one.
    pub standard_errors: Vec<f64>,
    /// [D], then the intercept's: the probability of a coefficient this far from 0 if the true one is 0 (two-sided).
    pub p_values: Vec<f64>,
    /// Covariances of [D] coefficients and the intercept, the lower triangle row by row; empty in models of before these were
    /// kept. They give the error of any combination, such as the intercept in other units.
    #[serde(default)]
    pub covariances: Vec<f64>,
    /// Degrees of freedom of Student's t; infinite for the normal distribution.
    #[serde(default)]
    pub freedom: f64,
}

impl Inference {
    /// The variance of Σ x β over (number of the coefficient, x); `None` without covariances.
    pub fn variance(&self, combination: &[(usize, f64)]) -> Option<f64> {
        let covariance = |i: usize, j: usize| self.covariances.get(i.max(j) * (i.max(j) + 1) / 2 + i.min(j));
        let mut sum = 0.0;
        for (i, x) in combination {
            for (j, y) in combination {
                sum += x * y * covariance(*i, *j)?;
            }
        }
        Some(sum)
    }

    /// The p-value of a coefficient with this standard error; `None` without covariances.
    pub fn p_value(&self, coefficient: f64, standard_error: f64) -> Option<f64> {
        let t = coefficient / standard_error;
        let p = if self.freedom.is_finite() { two_sided_p(t, self.freedom) } else { two_sided_normal(t) };
        (!self.covariances.is_empty()).then_some(p)
    }

    /// From the covariance of coefficients numbered alike, the intercept's number being the last.
    fn new(
        count: usize,
        freedom: f64,
        parameters: &Parameters,
        mut covariances_of: impl FnMut(usize) -> Vec<f64>,
    ) -> Self {
        let rows: Vec<Vec<f64>> = (0..count).map(&mut covariances_of).collect();
        let standard_errors: Vec<f64> = rows.iter().enumerate().map(|(i, row)| row[i].sqrt()).collect();
        let p = |t: f64| if freedom.is_finite() { two_sided_p(t, freedom) } else { two_sided_normal(t) };
        let p_values = standard_errors.iter().zip(&parameters.values).map(|(s, w)| p(w / s)).collect();
        let covariances = rows.iter().enumerate().flat_map(|(i, row)| row[..=i].iter().copied()).collect();
        Inference { standard_errors, p_values, covariances, freedom }
    }

    /// Of linear regression, from the factored, centred XᵀX, the inputs' means, the residual sum of squares and the number of
    /// rows.
    pub(super) fn of_least_squares(
        run: &Run<'_>,
        factor: &matrix::Factor,
        means: &[f64],
        parameters: &Parameters,
        residual_squares: f64,
        rows: f64,
    ) -> Result<Self> {
        let d = means.len();
        refuse_explained(run, factor.explained())?;
        let intercept = run.plan.fit_intercept;
        let freedom = rows - (d + usize::from(intercept)) as f64;
        if freedom <= 0.0 {
            return Err(Error::invalid(format!("p-values of {d} coefficients need more than {rows} rows")));
        }
        let variance = residual_squares / freedom;
        // b = ȳ - w·x̄, and ȳ is independent of w.
        let row = |i: usize| {
            let direction = match i < d {
                true => unit(d, i),
                false => means.iter().map(|mean| -mean).collect(),
            };
            let mut row = factor.solve(&direction);
            let with_intercept = -matrix::dot(means, &row) + if i < d { 0.0 } else { 1.0 / rows };
            row.push(with_intercept);
            row.iter().map(|value| variance * value).collect()
        };
        Ok(Inference::new(d + usize::from(intercept), freedom, parameters, row))
    }

    /// Of logistic regression, from the Hessian [n x n] at the minimum, n = D + 1, in which the dense inputs are relative to
    /// `means`.
    pub(super) fn of_likelihood(
        run: &Run<'_>,
        hessian: &[f64],
        means: &[f64],
        parameters: &Parameters,
    ) -> Result<Self> {
        let d = run.train.layout().dims();
        let n = d + 1;
        let intercept = run.plan.fit_intercept;
        let factor = matrix::Factor::new(n, hessian, COLLINEAR);
        refuse_explained(run, factor.explained().filter(|column| intercept || *column < d))?;
        // b = b' - w·x̄, b' the intercept of the inputs relative to their means.
        let direction = |i: usize| -> Vec<f64> {
            let mut direction = unit(n, i);
            if i == d {
                direction.iter_mut().zip(means).for_each(|(x, mean)| *x = -mean);
            }
            direction
        };
        let of_intercept = direction(d);
        let row = |i: usize| {
            let mut row = factor.solve(&direction(i));
            row[d] = matrix::dot(&of_intercept, &row);
            row
        };
        Ok(Inference::new(d + usize::from(intercept), f64::INFINITY, parameters, row))
    }
}

fn unit(n: usize, i: usize) -> Vec<f64> {
    let mut unit = vec![0.0; n];
    unit[i] = 1.0;
    unit
}

/// An input that others explain has no coefficient of its own. `column` is D for the intercept.
fn refuse_explained(run: &Run<'_>, column: Option<usize>) -> Result<()> {
    let Some(column) = column else { return Ok(()) };
    let layout = run.train.layout();
    let what = match layout.names.get(column) {
        Some(name) => format!("input {name} is constant or a combination of the inputs before it"),
        None if column == layout.dims() => "some inputs always add up to a constant, as the intercept is".to_string(),
        None => format!("input number {column} is constant or a combination of the inputs before it"),
    };
    Err(Error::invalid(format!("p-values are not defined: {what}"))
        .with_hint("leave such inputs out; use category_encoding_method = 'DUMMY_ENCODING'"))
}

/// P(|Z| >= |z|) for the standard normal distribution.
fn two_sided_normal(z: f64) -> f64 {
    if z.is_nan() {
        return f64::NAN;
    }
    erfc(z.abs() * std::f64::consts::FRAC_1_SQRT_2)
}

/// 1 - erf(x) for x >= 0: the series of erf, all of whose terms are positive, or Laplace's continued fraction (Abramowitz
/// and Stegun, 7.1.6 and 7.1.14).
fn erfc(x: f64) -> f64 {
    let bell = (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI;
    if x < 2.0 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > 1e-17 * sum {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 1.0 - bell * sum;
    }
    let tail = (1..=100).rev().fold(x, |below, k| x + 0.5 * f64::from(k) / below);
    0.5 * bell / tail
}

/// P(|T| >= |t|) for Student's T with `freedom` degrees: I_x(ν/2, 1/2), x = ν / (ν + t²).
fn two_sided_p(t: f64, freedom: f64) -> f64 {
    if t.is_nan() {
        return f64::NAN;
    }
    incomplete_beta(freedom / (freedom + t * t), 0.5 * freedom, 0.5)
}

/// The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Press et al., Numerical Recipes,
/// 6.4).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(x, a, b) / a
    } else {
        1.0 - front * fraction(1.0 - x, b, a) / b
    }
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let not_zero = |x: f64| if x.abs() < 1e-300 { 1e-300 } else { x };
    let (mut c, mut d) = (1.0, 1.0 / not_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut product = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / not_zero(1.0 + even * d);
        c = not_zero(1.0 + even / c);
        product *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / not_zero(1.0 + odd * d);
        c = not_zero(1.0 + odd / c);
        product *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    product
}

/// ln Γ(x) for x > 0: Stirling's series after shifting x above 10.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / (x * x);
    let series = (1.0 / 12.0
        - inverse * (1.0 / 360.0 - inverse * (1.0 / 1260.0 - inverse * (1.0 / 1680.0 - inverse / 1188.0))))
        / x;
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_as_scipy() {
        // scipy.stats.norm.sf(z) * 2
        let cases = [
            (0.0, 1.0),
            (-0.3, 0.7641771556220948),
            (1.0, 0.31731050786291415),
            (1.96, 0.04999579029644087),
            (-2.9, 0.003731626600768075),
            (5.5, 3.797912493177536e-8),
            (12.0, 3.552964224155306e-33),
        ];
        for (z, expected) in cases {
            let p = two_sided_normal(z);
            assert!((p / expected - 1.0).abs() < 1e-12, "z {z}: {p}, expected {expected}");
        }
    }

    #[test]
    fn student_as_scipy() {
        // scipy.stats.t.sf(t, freedom) * 2
        let cases = [
            (0.0, 5.0, 1.0),
            (1.0, 1.0, 0.5000000000000001),
            (2.5, 10.0, 0.03144684423660882),
            (-2.5, 10.0, 0.03144684423660882),
            (1.96, 270_000.0, 0.04999681729316851),
            (12.0, 30.0, 5.580185415199261e-13),
        ];
        for (t, freedom, expected) in cases {
            let p = two_sided_p(t, freedom);
            assert!((p / expected - 1.0).abs() < 1e-9, "t {t}, {freedom}: {p}, expected {expected}");
        }
    }
}
