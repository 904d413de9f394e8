//! Layer normalisation over the H sums of a row (Ba, Kiros, Hinton 2016): y = gain * (z - mean) / sqrt(var + eps) + shift.

/// Added to the variance.
pub const EPSILON: f32 = 1e-5;

/// Lanes of the row sums: named, so that every machine folds alike.
const LANES: usize = 16;

/// Sum of `f(i)` over a row in a fixed order.
#[inline(always)]
fn row_sum(len: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    let mut start = 0;
    while start < whole {
        for lane in 0..LANES {
            lanes[lane] += f(start + lane);
        }
        start += LANES;
    }
    for i in whole..len {
        lanes[i - whole] += f(i);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

vectorized! {
    /// Normalises z + bias in place; leaves the normalised rows in `normal` [R x H] and 1 / sqrt(var + eps) in
    /// `inverse` [R] for the way back.
    pub fn forward(z: &mut [f32], bias: &[f32], gain: &[f32], shift: &[f32], normal: &mut [f32], inverse: &mut [f32]) {
        let width = bias.len();
        for ((z, normal), inverse) in z.chunks_exact_mut(width).zip(normal.chunks_exact_mut(width)).zip(inverse) {
            for (z, b) in z.iter_mut().zip(bias) {
                *z += *b;
            }
            let mean = row_sum(width, |i| z[i]) / width as f32;
            let variance = row_sum(width, |i| (z[i] - mean) * (z[i] - mean)) / width as f32;
            *inverse = 1.0 / (variance + EPSILON).sqrt();
            for (((z, n), g), s) in z.iter_mut().zip(normal).zip(gain).zip(shift) {
                *n = (*z - mean) * *inverse;
                *z = *n * *g + *s;
            }
        }
    }
}

vectorized! {
    /// `delta` [R x H], the gradient of the result, becomes that of the sums; adds up `gain_gradient` and
    /// `shift_gradient` [H].
    pub fn backward(delta: &mut [f32], gain: &[f32], normal: &[f32], inverse: &[f32], gain_gradient: &mut [f32], shift_gradient: &mut [f32]) {
        let width = gain.len();
        gain_gradient.fill(0.0);
        shift_gradient.fill(0.0);
        for ((delta, normal), inverse) in delta.chunks_exact_mut(width).zip(normal.chunks_exact(width)).zip(inverse) {
            for (((d, n), g), s) in delta.iter().zip(normal).zip(gain_gradient.iter_mut()).zip(shift_gradient.iter_mut()) {
                *g += *d * *n;
                *s += *d;
            }
            // dz = inverse * (h - mean(h) - normal * mean(h * normal)) with h = delta * gain.
            let mean = row_sum(width, |i| delta[i] * gain[i]) / width as f32;
            let along = row_sum(width, |i| delta[i] * gain[i] * normal[i]) / width as f32;
            for ((d, n), g) in delta.iter_mut().zip(normal).zip(gain) {
                *d = *inverse * (*d * *g - mean - *n * along);
            }
        }
    }
}
