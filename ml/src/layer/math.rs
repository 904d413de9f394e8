//! Transcendental functions in f32 that vectorise and give the same bits everywhere: polynomials without fused
//! multiply-add, branches as selections. Errors are a few units in the last place (tested against f64).
//!
//! Reductions and coefficients after S. Moshier's Cephes library (`expf`, `logf`, `tanhf`).

/// e^x; below -87.3 the smallest normal number, above 88.3 the largest power that fits. NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: n * LN2_HIGH is exact for the n that occur.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > 88.3 { 88.3 } else { x };
    let x = if x < -87.3 { -87.3 } else { x };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_65;
    p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    value * scale
}

/// Natural logarithm of a positive normal number.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
    let offset = bits.wrapping_sub(0x3F35_04F3);
    let e = (offset as i32 >> 23) as f32;
    let m = f32::from_bits((offset & 0x007F_FFFF).wrapping_add(0x3F35_04F3)) - 1.0;
    let mut p = 7.037_683_6e-2;
    p = p * m - 0.115_146_1;
    p = p * m + 0.116_769_984;
    p = p * m - 0.124_201_41;
    p = p * m + 0.142_493_23;
    p = p * m - 0.166_680_58;
    p = p * m + 0.200_007_15;
    p = p * m - 0.249_999_94;
    p = p * m + 0.333_333_3;
    let square = m * m;
    let tail = p * m * square - 2.121_944_4e-4 * e - 0.5 * square;
    m + tail + 0.693_359_4 * e
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    let e = exp(-x.abs());
    let small = if x < 0.0 { e } else { 1.0 };
    let value = small / (1.0 + e);
    if x.is_nan() { x } else { value }
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let e = exp(-2.0 * magnitude);
    let far = (1.0 - e) / (1.0 + e);
    let square = x * x;
    let mut p = -5.704_988_4e-3;
    p = p * square + 2.063_908_8e-2;
    p = p * square - 5.373_971_5e-2;
    p = p * square + 0.133_314_42;
    p = p * square - 0.333_332_8;
    let near = p * square * x + x;
    let signed = if x < 0.0 { -far } else { far };
    if magnitude < 0.625 { near } else { signed }
}

/// ln(1 + e^-|x|), the part of the logistic loss that decays.
#[inline(always)]
pub fn ln_one_plus_exp_of_minus_abs(x: f32) -> f32 {
    ln(1.0 + exp(-x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worst error over `range`, relative to the value or to `floor` where the value is smaller.
    fn worst(name: &str, range: (f64, f64), floor: f64, fast: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let n = 200_000;
        let mut worst: f64 = 0.0;
        for i in 0..=n {
            let x = (range.0 + (range.1 - range.0) * f64::from(i) / f64::from(n)) as f32;
            let expected = exact(f64::from(x));
            let error = (f64::from(fast(x)) - expected).abs() / expected.abs().max(floor);
            assert!(!error.is_nan(), "{name}({x}) is {}", fast(x));
            worst = worst.max(error);
        }
        worst
    }

    #[test]
    fn functions_are_within_a_few_units_in_the_last_place() {
        let sigmoid64 = |x: f64| 1.0 / (1.0 + (-x).exp());
        let softplus64 = |x: f64| (-x.abs()).exp().ln_1p();
        let cases: [(&str, (f64, f64), f64, fn(f32) -> f32, fn(f64) -> f64); 6] = [
            ("exp", (-87.0, 88.0), 0.0, exp, f64::exp),
            ("ln", (1e-6, 4.0), 1e-3, ln, f64::ln),
            ("ln", (1.0, 1e6), 1e-3, ln, f64::ln),
            ("sigmoid", (-80.0, 80.0), 1e-37, sigmoid, sigmoid64),
            ("tanh", (-12.0, 12.0), 1e-37, tanh, f64::tanh),
            ("softplus", (-60.0, 60.0), 0.3, ln_one_plus_exp_of_minus_abs, softplus64),
        ];
        for (name, range, floor, fast, exact) in cases {
            let error = worst(name, range, floor, fast, exact);
            assert!(error < 6e-7, "{name} over {range:?} is off by {error:e}");
        }
    }

    #[test]
    fn extremes_saturate_and_nan_stays_nan() {
        assert_eq!((tanh(1e30), tanh(-1e30), sigmoid(1e30), exp(0.0)), (1.0, -1.0, 1.0, 1.0));
        assert!(sigmoid(-1e30) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
    }
}
