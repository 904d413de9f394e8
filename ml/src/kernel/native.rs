//! The kernel written in Rust: the `gemm` crate on the calling thread.

use std::any::Any;
use std::cell::RefCell;

/// Bytes after which addresses fall into the same set of a first-level cache.
const ALIAS_BYTES: usize = 4096;
/// Numbers between the rows of a copy whose rows do not: a line of the cache more.
const PADDING: usize = 16;
/// Rows of A from which on B is packed, so that a copy of it saves more than it costs.
const ROWS_MIN: usize = 8;

thread_local! {
    /// Keeps its room from step to step.
    static PADDED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// C = alpha * op(A) op(B) + beta * C; the caller has checked the lengths.
pub(super) fn sgemm(
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    a: &[f32],
    a_transposed: bool,
    b: &[f32],
    b_transposed: bool,
    beta: f32,
    c: &mut [f32],
) {
    // B^T is read down its columns. Where those are a power of two apart, every line that is read displaces another that is
    // still needed: 70 instead of 100 GFLOP/s for 256 rows through a layer of 1024 by 1024, on a processor with 110.
    let is_aliased = b_transposed && k > 0 && (k * size_of::<f32>()).is_multiple_of(ALIAS_BYTES) && m >= ROWS_MIN;
    if !is_aliased {
        return gemm(m, n, k, alpha, a, a_transposed, b, b_transposed, beta, c);
    }
    PADDED.with_borrow_mut(|padded| {
        let stride = k + PADDING;
        padded.resize((n * stride).max(padded.len()), 0.0);
        for (row, copy) in b.chunks_exact(k).zip(padded.chunks_exact_mut(stride)) {
            copy[..k].copy_from_slice(row);
        }
        strided(m, n, k, alpha, a, strides(m, k, a_transposed), &padded[..n * stride], (stride as isize, 1), beta, c);
    });
}

/// The same in any type.
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
    strided(m, n, k, alpha, a, strides(m, k, a_transposed), b, strides(k, n, b_transposed), beta, c);
}

/// How far the next column and the next row of an operand are.
fn strides(rows: usize, columns: usize, transposed: bool) -> (isize, isize) {
    if transposed { (rows as isize, 1) } else { (1, columns as isize) }
}

/// Operands whose columns and rows are so far apart.
#[inline]
fn strided<T: Copy + PartialEq + Default + Any>(
    m: usize,
    n: usize,
    k: usize,
    alpha: T,
    a: &[T],
    (a_column, a_row): (isize, isize),
    b: &[T],
    (b_column, b_row): (isize, isize),
    beta: T,
    c: &mut [T],
) {
    let end = |rows: usize, columns: usize, (column, row): (isize, isize)| match rows * columns {
        0 => 0,
        _ => (rows - 1) * row as usize + (columns - 1) * column as usize + 1,
    };
    let fits = a.len() >= end(m, k, (a_column, a_row)) && b.len() >= end(k, n, (b_column, b_row)) && c.len() >= m * n;
    assert!(fits, "operands shorter than their shapes");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_copy_changes_no_bit() {
        for (m, n, k) in [(ROWS_MIN, 48, 1024), (33, 1, 2048), (40, 1030, 1024)] {
            let number = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5;
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..n * k).map(|i| number(i + 5)).collect();
            let (mut padded, mut plain) = (vec![0.5f32; m * n], vec![0.5f32; m * n]);
            sgemm(m, n, k, 0.5, &a, false, &b, true, 2.0, &mut padded);
            gemm(m, n, k, 0.5, &a, false, &b, true, 2.0, &mut plain);
            assert!(padded.iter().zip(&plain).all(|(x, y)| x.to_bits() == y.to_bits()), "{m}x{n}x{k}");
        }
    }
}
