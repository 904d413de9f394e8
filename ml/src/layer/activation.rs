//! Activation functions, fused with the bias on the way forward and with the bias gradient on the way back.

use serde::{Deserialize, Serialize};

use super::math;

/// The function after a hidden layer's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// max(0, x)
    #[default]
    Relu,
    /// min(max(0, x), 6)
    Relu6,
    /// max(0, x) and max(0, -x) side by side: the layer's width doubles. Shang et al. (2016).
    Crelu,
    /// x, below 0 e^x - 1. Clevert et al. (2016).
    Elu,
    /// Scaled ELU that keeps mean 0 and variance 1. Klambauer et al. (2017).
    Selu,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// x times the normal distribution function, in the tanh form. Hendrycks and Gimpel (2016).
    Gelu,
    /// x
    Identity,
}

impl Activation {
    /// Names of the SQL option `ACTIVATION_FN`.
    pub const NAMES: [&str; 9] = ["RELU", "RELU6", "CRELU", "ELU", "SELU", "SIGMOID", "TANH", "GELU", "IDENTITY"];

    const ALL: [Activation; 9] = [
        Activation::Relu,
        Activation::Relu6,
        Activation::Crelu,
        Activation::Elu,
        Activation::Selu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::Identity,
    ];

    /// The activation of a name from [`Activation::NAMES`]; letters' case does not matter.
    pub fn by_name(name: &str) -> Option<Activation> {
        Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|index| Self::ALL[index])
    }

    /// Outputs for `width` sums.
    pub fn outputs(self, width: usize) -> usize {
        if self == Activation::Crelu { 2 * width } else { width }
    }

    /// Whether the output needs a place of its own, because backward needs the sum or the width changes.
    pub fn keeps_input(self) -> bool {
        matches!(self, Activation::Crelu | Activation::Gelu)
    }

    /// z += bias (when given), then the activation. In place in `z` [R x H], or from `z` into `out` [R x outputs(H)]
    /// when [`Activation::keeps_input`].
    pub fn forward(self, z: &mut [f32], bias: Option<&[f32]>, width: usize, out: &mut [f32]) {
        match self {
            Activation::Relu => in_place::<Relu>(z, bias, width),
            Activation::Relu6 => in_place::<Relu6>(z, bias, width),
            Activation::Elu => in_place::<Elu>(z, bias, width),
            Activation::Selu => in_place::<Selu>(z, bias, width),
            Activation::Sigmoid => in_place::<Sigmoid>(z, bias, width),
            Activation::Tanh => in_place::<Tanh>(z, bias, width),
            Activation::Identity => in_place::<Identity>(z, bias, width),
            Activation::Gelu => gelu_forward(z, bias, width, out),
            Activation::Crelu => crelu_forward(z, bias, width, out),
        }
    }

    /// From the gradient of the outputs to that of the sums: `out = delta * slope`, and its column sums to
    /// `bias_gradient` [H]. `kept` is what forward left: its result, or the sums when [`Activation::keeps_input`].
    /// `delta` is [R x outputs(H)], `out` [R x H].
    pub fn backward(self, kept: &[f32], delta: &[f32], width: usize, out: &mut [f32], bias_gradient: &mut [f32]) {
        match self {
            Activation::Relu => backward::<Relu>(kept, delta, width, out, bias_gradient),
            Activation::Relu6 => backward::<Relu6>(kept, delta, width, out, bias_gradient),
            Activation::Elu => backward::<Elu>(kept, delta, width, out, bias_gradient),
            Activation::Selu => backward::<Selu>(kept, delta, width, out, bias_gradient),
            Activation::Sigmoid => backward::<Sigmoid>(kept, delta, width, out, bias_gradient),
            Activation::Tanh => backward::<Tanh>(kept, delta, width, out, bias_gradient),
            Activation::Identity => backward::<Identity>(kept, delta, width, out, bias_gradient),
            Activation::Gelu => backward::<Gelu>(kept, delta, width, out, bias_gradient),
            Activation::Crelu => crelu_backward(kept, delta, width, out, bias_gradient),
        }
    }
}

/// One scalar function and its slope, the latter from what forward keeps.
trait Function {
    fn value(z: f32) -> f32;
    fn slope(kept: f32) -> f32;
}

struct Relu;
impl Function for Relu {
    // The comparison is this way round so that NaN stays NaN.
    #[inline(always)]
    fn value(z: f32) -> f32 {
        if z < 0.0 { 0.0 } else { z }
    }
    #[inline(always)]
    fn slope(a: f32) -> f32 {
        if a > 0.0 { 1.0 } else { 0.0 }
    }
}

struct Relu6;
impl Function for Relu6 {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        let low = if z < 0.0 { 0.0 } else { z };
        if low > 6.0 { 6.0 } else { low }
    }
    #[inline(always)]
    fn slope(a: f32) -> f32 {
        let inside = (a > 0.0) & (a < 6.0);
        if inside { 1.0 } else { 0.0 }
    }
}

struct Elu;
impl Function for Elu {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        let low = math::exp(if z > 0.0 { 0.0 } else { z }) - 1.0;
        if z > 0.0 { z } else { low }
    }
    #[inline(always)]
    fn slope(a: f32) -> f32 {
        if a > 0.0 { 1.0 } else { a + 1.0 }
    }
}

const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_SCALE: f32 = 1.050_701;

struct Selu;
impl Function for Selu {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        let low = SELU_SCALE * SELU_ALPHA * (math::exp(if z > 0.0 { 0.0 } else { z }) - 1.0);
        if z > 0.0 { SELU_SCALE * z } else { low }
    }
    #[inline(always)]
    fn slope(a: f32) -> f32 {
        if a > 0.0 { SELU_SCALE } else { a + SELU_SCALE * SELU_ALPHA }
    }
}

struct Sigmoid;
impl Function for Sigmoid {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        math::sigmoid(z)
    }
    #[inline(always)]
    fn slope(a: f32) -> f32 {
        a * (1.0 - a)
    }
}

struct Tanh;
impl Function for Tanh {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        math::tanh(z)
    }
    #[inline(always)]
    fn slope(a: f32) -> f32 {
        1.0 - a * a
    }
}

struct Identity;
impl Function for Identity {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        z
    }
    #[inline(always)]
    fn slope(_: f32) -> f32 {
        1.0
    }
}

/// sqrt(2 / pi)
const GELU_C: f32 = 0.797_884_6;
const GELU_CUBE: f32 = 0.044_715;

struct Gelu;
impl Function for Gelu {
    #[inline(always)]
    fn value(z: f32) -> f32 {
        0.5 * z * (1.0 + math::tanh(GELU_C * (z + GELU_CUBE * z * z * z)))
    }
    #[inline(always)]
    fn slope(z: f32) -> f32 {
        let t = math::tanh(GELU_C * (z + GELU_CUBE * z * z * z));
        0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * GELU_C * (1.0 + 3.0 * GELU_CUBE * z * z)
    }
}

vectorized! {
    fn in_place<F: Function>(z: &mut [f32], bias: Option<&[f32]>, width: usize) {
        match bias {
            Some(bias) => {
                for row in z.chunks_exact_mut(width) {
                    for (z, b) in row.iter_mut().zip(bias) {
                        *z = F::value(*z + *b);
                    }
                }
            }
            None => {
                for z in z {
                    *z = F::value(*z);
                }
            }
        }
    }
}

/// Adds the bias to every row, when there is one.
#[inline(always)]
fn add_bias(z: &mut [f32], bias: Option<&[f32]>, width: usize) {
    if let Some(bias) = bias {
        for row in z.chunks_exact_mut(width) {
            for (z, b) in row.iter_mut().zip(bias) {
                *z += *b;
            }
        }
    }
}

vectorized! {
    fn gelu_forward(z: &mut [f32], bias: Option<&[f32]>, width: usize, out: &mut [f32]) {
        add_bias(z, bias, width);
        for (out, z) in out.iter_mut().zip(z) {
            *out = Gelu::value(*z);
        }
    }
}

vectorized! {
    fn crelu_forward(z: &mut [f32], bias: Option<&[f32]>, width: usize, out: &mut [f32]) {
        add_bias(z, bias, width);
        for (out, row) in out.chunks_exact_mut(2 * width).zip(z.chunks_exact(width)) {
            let (positive, negative) = out.split_at_mut(width);
            for ((p, n), z) in positive.iter_mut().zip(negative).zip(row) {
                *p = Relu::value(*z);
                *n = Relu::value(-*z);
            }
        }
    }
}

vectorized! {
    fn backward<F: Function>(kept: &[f32], delta: &[f32], width: usize, out: &mut [f32], bias_gradient: &mut [f32]) {
        bias_gradient.fill(0.0);
        for ((out, delta), kept) in out.chunks_exact_mut(width).zip(delta.chunks_exact(width)).zip(kept.chunks_exact(width)) {
            for (((o, d), k), b) in out.iter_mut().zip(delta).zip(kept).zip(bias_gradient.iter_mut()) {
                let value = *d * F::slope(*k);
                *o = value;
                *b += value;
            }
        }
    }
}

vectorized! {
    fn crelu_backward(z: &[f32], delta: &[f32], width: usize, out: &mut [f32], bias_gradient: &mut [f32]) {
        bias_gradient.fill(0.0);
        for ((out, delta), z) in out.chunks_exact_mut(width).zip(delta.chunks_exact(2 * width)).zip(z.chunks_exact(width)) {
            let (positive, negative) = delta.split_at(width);
            for ((((o, p), n), z), b) in out.iter_mut().zip(positive).zip(negative).zip(z).zip(bias_gradient.iter_mut()) {
                let rising = if *z > 0.0 { *p } else { 0.0 };
                let value = if *z < 0.0 { -*n } else { rising };
                *o = value;
                *b += value;
            }
        }
    }
}

/// Column sums of `delta` [R x H], row after row.
pub fn column_sums(delta: &[f32], width: usize, sums: &mut [f32]) {
    columns(delta, width, sums);
}

vectorized! {
    fn columns(delta: &[f32], width: usize, sums: &mut [f32]) {
        sums.fill(0.0);
        for row in delta.chunks_exact(width) {
            for (s, d) in sums.iter_mut().zip(row) {
                *s += *d;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The naive twin: the textbook function in f64.
    fn naive(activation: Activation, z: f64) -> Vec<f64> {
        match activation {
            Activation::Relu => vec![z.max(0.0)],
            Activation::Relu6 => vec![z.clamp(0.0, 6.0)],
            Activation::Crelu => vec![z.max(0.0), (-z).max(0.0)],
            Activation::Elu => vec![if z > 0.0 { z } else { z.exp_m1() }],
            Activation::Selu => {
                let (alpha, scale) = (1.673_263_242_354_377_2, 1.050_700_987_355_480_5);
                vec![scale * if z > 0.0 { z } else { alpha * z.exp_m1() }]
            }
            Activation::Sigmoid => vec![1.0 / (1.0 + (-z).exp())],
            Activation::Tanh => vec![z.tanh()],
            Activation::Gelu => {
                vec![0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3))).tanh())]
            }
            Activation::Identity => vec![z],
        }
    }

    #[test]
    fn every_activation_agrees_with_its_naive_twin_and_its_finite_differences() {
        let sums: Vec<f32> = (0..60).map(|i| (i as f32 - 29.7) * 0.25).collect();
        let (width, rows) = (20, 3);
        let bias: Vec<f32> = (0..width).map(|j| 0.01 * j as f32).collect();
        for activation in Activation::ALL {
            let wide = activation.outputs(1);
            let (mut z, mut out) = (sums.clone(), vec![0.0; wide * sums.len()]);
            activation.forward(&mut z, Some(&bias), width, &mut out);
            let result = if activation.keeps_input() { &out } else { &z };
            let delta: Vec<f32> = (0..result.len()).map(|i| 1.0 + 0.1 * (i % 7) as f32).collect();
            let (mut back, mut bias_gradient) = (vec![0.0; sums.len()], vec![f32::NAN; width]);
            activation.backward(&z, &delta, width, &mut back, &mut bias_gradient);
            let mut columns = vec![0.0; width];
            for row in 0..rows {
                for j in 0..width {
                    let x = f64::from(sums[row * width + j] + bias[j]);
                    let h = 1e-5;
                    let (low, mid, high) = (naive(activation, x - h), naive(activation, x), naive(activation, x + h));
                    let mut slope = 0.0;
                    for part in 0..wide {
                        let at = row * width * wide + part * width + j;
                        assert!((f64::from(result[at]) - mid[part]).abs() < 2e-6, "{activation:?}({x})");
                        slope += f64::from(delta[at]) * (high[part] - low[part]) / (2.0 * h);
                    }
                    let got = f64::from(back[row * width + j]);
                    assert!((got - slope).abs() < 2e-5, "slope of {activation:?} at {x}: {got}, expected {slope}");
                    columns[j] += got;
                }
            }
            for (got, expected) in bias_gradient.iter().zip(columns) {
                assert!((f64::from(*got) - expected).abs() < 1e-5, "bias gradient of {activation:?}");
            }
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(Activation::by_name("selu"), Some(Activation::Selu));
        assert_eq!(Activation::by_name("GELU"), Some(Activation::Gelu));
        assert_eq!(Activation::by_name("swish"), None);
    }
}
