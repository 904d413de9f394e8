//! Small dense linear algebra on slices, row-major: products, and symmetric positive definite systems.

use gemm::Parallelism;

/// Σ aᵢ bᵢ, in eight interleaved sums so that the processor need not wait for one before the next.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])) + rest
}

/// y += t x.
#[inline(always)]
pub(super) fn add_scaled(t: f64, x: &[f64], y: &mut [f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += t * x);
}

/// c [m x n] += a [m x k] b [k x n].
pub(super) fn add_product(m: usize, n: usize, k: usize, a: &[f64], b: &[f64], c: &mut [f64]) {
    strided_product(m, n, k, (a, k, 1), (b, n, 1), c);
}

/// c [m x n] += aᵀ b for a [k x m], b [k x n].
pub(super) fn add_transposed_product(m: usize, n: usize, k: usize, a: &[f64], b: &[f64], c: &mut [f64]) {
    strided_product(m, n, k, (a, 1, m), (b, n, 1), c);
}

/// c [m x n] += a b, operands as (elements, row stride, column stride).
fn strided_product(
    m: usize,
    n: usize,
    k: usize,
    (a, a_row, a_column): (&[f64], usize, usize),
    (b, b_row, b_column): (&[f64], usize, usize),
    c: &mut [f64],
) {
    assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "operands are smaller than their shapes");
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    // SAFETY: the slices hold m k, k n and m n elements (asserted), the strides are those of whole row-major matrices or
    // their transposes, and `c` is borrowed mutably, so it overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            true,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None, // one thread for each product: other splits round otherwise
        );
    }
}

/// A column of which earlier ones explain all but this part is looked at twice.
const SUSPICIOUS: f64 = 1e-6;
/// Of the square of a number, the square of what rounding it to 32 bits takes away, at most: 2⁻⁴⁸, and as much again for
/// what the sums themselves are rounded by.
const ROUNDING: f64 = 2.0 / (1u64 << 48) as f64;

/// A symmetric positive semidefinite matrix in factors: columns that earlier ones explain are set aside, the rest is
/// factored by Cholesky.
#[derive(Debug, Clone)]
pub(super) struct Factor {
    /// n, the size of the whole.
    size: usize,
    /// The columns that were factored, ascending; r of them.
    kept: Vec<usize>,
    /// Rows of the triangular factor, one for each kept column: row k has k + 1 elements.
    rows: Vec<Vec<f64>>,
    /// One vector v [n] with A v = 0 for each column set aside.
    null: Vec<Vec<f64>>,
}

impl Factor {
    /// Factors `a` [n x n], of which the lower triangle is read. A column is set aside when what earlier columns do not
    /// explain of it is at most `tolerance` times its diagonal element, or no more than the rounding of the inputs to 32 bits
    /// could have left: of a column Σ c x it is Σ c² times that of each x.
    pub(super) fn new(n: usize, a: &[f64], tolerance: f64) -> Self {
        let mut factor = Factor { size: n, kept: Vec::new(), rows: Vec::new(), null: Vec::new() };
        for i in 0..n {
            let mut row = Vec::with_capacity(factor.kept.len() + 1);
            for (k, j) in factor.kept.iter().enumerate() {
                let rest = a[i * n + j] - dot(&row, &factor.rows[k][..k]);
                row.push(rest / factor.rows[k][k]);
            }
            let pivot = a[i * n + i] - dot(&row, &row);
            let diagonal = a[i * n + i];
            let is_clear = pivot > SUSPICIOUS * diagonal;
            // Column i = Σ cₖ column kept[k]  with  Lᵀ c = row.
            let mut combination = if is_clear { Vec::new() } else { row.clone() };
            factor.solve_upper(&mut combination);
            let squares = combination.iter().zip(&factor.kept).map(|(c, j)| c * c * a[j * n + j]);
            let rounding = ROUNDING * (diagonal + squares.sum::<f64>());
            if is_clear || (pivot > tolerance * diagonal && pivot > rounding) {
                row.push(pivot.sqrt());
                factor.kept.push(i);
                factor.rows.push(row);
            } else {
                let mut null = vec![0.0; n];
                null[i] = 1.0;
                combination.iter().zip(&factor.kept).for_each(|(c, j)| null[*j] = -c);
                factor.null.push(null);
            }
        }
        factor
    }

    /// How many columns are not explained by others.
    pub(super) fn rank(&self) -> usize {
        self.kept.len()
    }

    /// Whether what earlier columns do not explain of some column is less than `part` of what it was in another factor of the
    /// same columns.
    pub(super) fn has_faded(&self, before: &Self, part: f64) -> bool {
        let pivot = |factor: &Self, place: usize| factor.rows[place].last().map_or(0.0, |root| root * root);
        let has_faded = |(place, column): (usize, &usize)| {
            let now = self.kept.binary_search(column).map(|place| pivot(self, place));
            now.is_ok_and(|now| now < part * pivot(before, place))
        };
        before.kept.iter().enumerate().any(has_faded)
    }

    /// The first column that others explain.
    pub(super) fn explained(&self) -> Option<usize> {
        (0..self.size).find(|i| self.kept.binary_search(i).is_err())
    }

    /// An x that minimises xᵀ A x / 2 - b·x: zero for the columns set aside.
    pub(super) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = self.kept.iter().map(|j| b[*j]).collect();
        for k in 0..x.len() {
            x[k] = (x[k] - dot(&self.rows[k][..k], &x[..k])) / self.rows[k][k];
        }
        self.solve_upper(&mut x);
        let mut whole = vec![0.0; self.size];
        x.iter().zip(&self.kept).for_each(|(x, j)| whole[*j] = *x);
        whole
    }

    /// x of Lᵀ x = b, in place, for the leading part of L that has b's length.
    fn solve_upper(&self, b: &mut [f64]) {
        for k in (0..b.len()).rev() {
            b[k] /= self.rows[k][k];
            let x = b[k];
            add_scaled(-x, &self.rows[k][..k], &mut b[..k]);
        }
    }

    /// Of the vectors that differ from `x` by some v with A v = 0, the one whose first `counted` elements have the
    /// smallest norm.
    pub(super) fn smallest(&self, x: &[f64], counted: usize) -> Vec<f64> {
        let k = self.null.len();
        let mut gram = vec![0.0; k * k];
        for (i, u) in self.null.iter().enumerate() {
            for (j, v) in self.null.iter().enumerate() {
                gram[i * k + j] = dot(&u[..counted], &v[..counted]);
            }
        }
        let along: Vec<f64> = self.null.iter().map(|v| dot(&v[..counted], &x[..counted])).collect();
        let mut smallest = x.to_vec();
        for (t, v) in Factor::new(k, &gram, 1e-14).solve(&along).iter().zip(&self.null) {
            add_scaled(-t, v, &mut smallest);
        }
        smallest
    }
}

/// y = A x for a symmetric `a` [n x n], both triangles filled.
pub(super) fn symmetric_times(n: usize, a: &[f64], x: &[f64]) -> Vec<f64> {
    a.chunks_exact(n.max(1)).map(|row| dot(row, x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u64) -> Vec<f64> {
        let draw =
            |i: u64| ((i.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64) / 8_388_608.0 - 1.0;
        (0..n as u64).map(draw).collect()
    }

    fn naive(m: usize, n: usize, k: usize, at_a: impl Fn(usize, usize) -> f64, b: &[f64]) -> Vec<f64> {
        (0..m * n).map(|ij| (0..k).map(|l| at_a(ij / n, l) * b[l * n + ij % n]).sum()).collect()
    }

    #[test]
    fn products_agree_with_three_loops() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (33, 10, 17), (5, 1, 9), (4, 3, 0)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let mut plain = vec![1.0; m * n];
            add_product(m, n, k, &a, &b, &mut plain);
            let mut transposed = vec![1.0; m * n];
            add_transposed_product(m, n, k, &a, &b, &mut transposed);
            let expected = [naive(m, n, k, |i, l| a[i * k + l], &b), naive(m, n, k, |i, l| a[l * m + i], &b)];
            for (got, expected) in [plain, transposed].iter().zip(&expected) {
                got.iter().zip(expected).for_each(|(x, y)| assert!((x - 1.0 - y).abs() < 1e-12));
            }
        }
        let (a, b) = (numbers(29, 3), numbers(29, 4));
        assert!((dot(&a, &b) - a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>()).abs() < 1e-13);
    }

    fn gram(rows: usize, n: usize, x: &[f64]) -> Vec<f64> {
        let mut a = vec![0.0; n * n];
        add_transposed_product(n, n, rows, x, x, &mut a);
        a
    }

    #[test]
    fn a_system_of_full_rank_is_solved() {
        let n = 13;
        let a = gram(40, n, &numbers(40 * n, 5));
        let x = numbers(n, 6);
        let factor = Factor::new(n, &a, 1e-12);
        assert_eq!(factor.rank(), n);
        let solution = factor.solve(&symmetric_times(n, &a, &x));
        solution.iter().zip(&x).for_each(|(got, x)| assert!((got - x).abs() < 1e-10));
        assert_eq!(factor.smallest(&x, n), x);
    }

    #[test]
    fn the_smallest_of_many_solutions() {
        // Columns u, v, u again, u - 2 v and a constant zero: rank 2.
        let columns: Vec<f64> =
            numbers(50 * 2, 8).chunks(2).flat_map(|r| [r[0], r[1], r[0], r[0] - 2.0 * r[1], 0.0]).collect();
        let a = gram(50, 5, &columns);
        let x = [0.3, -1.0, 0.5, 2.0, 7.0];
        let b = symmetric_times(5, &a, &x);
        let factor = Factor::new(5, &a, 1e-12);
        assert_eq!(factor.rank(), 2);
        let smallest = factor.smallest(&factor.solve(&b), 5);
        symmetric_times(5, &a, &smallest).iter().zip(&b).for_each(|(got, b)| assert!((got - b).abs() < 1e-10));
        // The smallest is at right angles to everything that A does not see.
        for v in [[1.0, 0.0, -1.0, 0.0, 0.0], [1.0, -2.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]] {
            assert!(dot(&smallest, &v).abs() < 1e-10, "{smallest:?}");
        }
    }

    #[test]
    fn what_rounding_has_left_of_a_column_is_no_column() {
        let rounded = |x: f64| f64::from(x as f32);
        let rows = numbers(200 * 3, 9);
        // w = 300 u + v, and v again: what the two others do not explain of v is the rounding of w.
        let explained = |r: &[f64]| {
            let (u, v) = (rounded(r[0]), rounded(r[1]));
            [u, rounded(300.0 * u + v), v]
        };
        let others: Vec<f64> = rows.chunks(3).flat_map(explained).collect();
        assert_eq!(Factor::new(3, &gram(200, 3, &others), 1e-12).rank(), 2);
        // v has something of its own, a thousandth.
        let own = |r: &[f64]| {
            let [u, w, v] = explained(r);
            [u, w, rounded(v + 1e-3 * r[2])]
        };
        let own: Vec<f64> = rows.chunks(3).flat_map(own).collect();
        assert_eq!(Factor::new(3, &gram(200, 3, &own), 1e-12).rank(), 3);
    }
}
