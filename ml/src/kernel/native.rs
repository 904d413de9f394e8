//! The kernel written in Rust: the `gemm` crate on the calling thread.

use std::any::Any;

/// C = alpha * op(A) op(B) + beta * C; the caller has checked the lengths.
#[inline]
pub(super) fn gemm<T: Copy + PartialEq + Default + Any>(
    m: usize,
    n: usize,
    k: usize,
    alpha: T,
    a: &[T],
    a_transposed: bool,
    b: &[T],
    b_transposed: bool,
    beta: T,
    c: &mut [T],
) {
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "operands shorter than their shapes");
    let strides = |rows: usize, columns: usize, transposed: bool| -> (isize, isize) {
        if transposed { (rows as isize, 1) } else { (1, columns as isize) }
    };
    let (a_column, a_row) = strides(m, k, a_transposed);
    let (b_column, b_row) = strides(k, n, b_transposed);
    // The crate's `alpha` scales what is in C, its `beta` the product.
    // SAFETY: with these strides every element that the product touches lies inside the slices, by the assertion above,
    // and C is borrowed mutably, so it overlaps neither A nor B.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            beta != T::default(),
            a.as_ptr(),
            a_column,
            a_row,
            b.as_ptr(),
            b_column,
            b_row,
            beta,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
