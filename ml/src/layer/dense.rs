//! The dense layer's products, and the first layer's one-hot inputs, which are rows of the weight matrix to gather and to
//! scatter to, never zeros to multiply by.
//!
//! Weights are [I x H], so that a one-hot column's weights lie together.

use crate::kernel::Kernel;
use crate::shards::{BagRows, NO_CATEGORY};

/// z = x W. Shapes: x [R x I], W [I x H], z [R x H].
pub fn forward(kernel: Kernel, rows: usize, inputs: usize, outputs: usize, x: &[f32], weights: &[f32], z: &mut [f32]) {
    if inputs == 0 {
        z.fill(0.0);
        return;
    }
    kernel.gemm_f32(rows, outputs, inputs, 1.0, x, false, weights, false, 0.0, z);
}

/// dW = x^T dz.
pub fn weight_gradient(
    kernel: Kernel,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[f32],
    dz: &[f32],
    dw: &mut [f32],
) {
    if inputs > 0 {
        kernel.gemm_f32(inputs, outputs, rows, 1.0, x, true, dz, false, 0.0, dw);
    }
}

/// dx = dz W^T.
pub fn input_gradient(
    kernel: Kernel,
    rows: usize,
    inputs: usize,
    outputs: usize,
    dz: &[f32],
    weights: &[f32],
    dx: &mut [f32],
) {
    kernel.gemm_f32(rows, inputs, outputs, 1.0, dz, false, weights, true, 0.0, dx);
}

/// Adds to each row of z [R x H] the weight row of each group's set column. `offsets` are the groups' first rows in
/// `weights`; `indices` is [R x groups].
pub fn gather(offsets: &[usize], indices: &[u32], weights: &[f32], outputs: usize, z: &mut [f32]) {
    if !offsets.is_empty() {
        gather_rows(offsets, indices, weights, outputs, z);
    }
}

/// The gradient of [`gather`]: adds each row of dz to its weight rows, row after row. The caller has zeroed them.
pub fn scatter(offsets: &[usize], indices: &[u32], dz: &[f32], outputs: usize, dw: &mut [f32]) {
    if !offsets.is_empty() {
        scatter_rows(offsets, indices, dz, outputs, dw);
    }
}

/// As [`gather`], of the bag, whose first row in `weights` is `first`.
pub fn gather_bags(first: usize, bags: BagRows<'_>, weights: &[f32], outputs: usize, z: &mut [f32]) {
    for (z, places) in z.chunks_exact_mut(outputs).zip(bags.iter()) {
        gather_bag(first, places, weights, outputs, z);
    }
}

/// As [`scatter`], of the bag.
pub fn scatter_bags(first: usize, bags: BagRows<'_>, dz: &[f32], outputs: usize, dw: &mut [f32]) {
    for (dz, places) in dz.chunks_exact(outputs).zip(bags.iter()) {
        scatter_bag(first, places, dz, outputs, dw);
    }
}

vectorized! {
    fn gather_bag(first: usize, places: &[u32], weights: &[f32], outputs: usize, z: &mut [f32]) {
        for place in places {
            let start = (first + *place as usize) * outputs;
            for (z, w) in z.iter_mut().zip(&weights[start..start + outputs]) {
                *z += *w;
            }
        }
    }
}

vectorized! {
    fn scatter_bag(first: usize, places: &[u32], dz: &[f32], outputs: usize, dw: &mut [f32]) {
        for place in places {
            let start = (first + *place as usize) * outputs;
            for (w, d) in dw[start..start + outputs].iter_mut().zip(dz) {
                *w += *d;
            }
        }
    }
}

vectorized! {
    fn gather_rows(offsets: &[usize], indices: &[u32], weights: &[f32], outputs: usize, z: &mut [f32]) {
        for (z, indices) in z.chunks_exact_mut(outputs).zip(indices.chunks_exact(offsets.len())) {
            for (offset, index) in offsets.iter().zip(indices) {
                if *index != NO_CATEGORY {
                    let start = (offset + *index as usize) * outputs;
                    for (z, w) in z.iter_mut().zip(&weights[start..start + outputs]) {
                        *z += *w;
                    }
                }
            }
        }
    }
}

vectorized! {
    fn scatter_rows(offsets: &[usize], indices: &[u32], dz: &[f32], outputs: usize, dw: &mut [f32]) {
        for (dz, indices) in dz.chunks_exact(outputs).zip(indices.chunks_exact(offsets.len())) {
            for (offset, index) in offsets.iter().zip(indices) {
                if *index != NO_CATEGORY {
                    let start = (offset + *index as usize) * outputs;
                    for (w, d) in dw[start..start + outputs].iter_mut().zip(dz) {
                        *w += *d;
                    }
                }
            }
        }
    }
}
