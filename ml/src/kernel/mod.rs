//! Matrix products: which code computes them, whether it is right, and how fast.
//!
//! A [`Kernel`] multiplies contiguous row-major matrices with explicit transposes on the calling thread alone;
//! parallelism is the training loop's. [`choose`] checks the answers on fixed products and settles on one kernel for the
//! process: the one written in Rust where it knows the processor, so that a machine settles on the same one each time, busy or
//! not. Equal bits are promised on one kernel: its fingerprint says which one it was.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use engine::{Error, Result};
use serde::{Deserialize, Serialize};

#[cfg(feature = "blas")]
mod blas;
mod native;

/// What the user asked for: the option `kernel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelChoice {
    /// The one written in Rust, unless it answers wrong or has no instructions for the processor.
    #[default]
    Auto,
    /// The BLAS library that the program was linked with.
    Blas,
    /// The kernel written in Rust.
    Native,
}

impl std::str::FromStr for KernelChoice {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(KernelChoice::Auto),
            "blas" => Ok(KernelChoice::Blas),
            "native" => Ok(KernelChoice::Native),
            _ => {
                let error = Error::invalid(format!("matrix kernel '{text}' is not one of auto, blas, native"));
                Err(match engine::near(text, ["auto", "blas", "native"]) {
                    Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                    None => error,
                })
            }
        }
    }
}

/// A way to multiply matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The `gemm` crate, with AVX-512 where the processor has it.
    Native,
    /// CBLAS, on one thread.
    #[cfg(feature = "blas")]
    Blas,
}

impl Kernel {
    /// All kernels of this build.
    pub const ALL: &[Kernel] = &[
        Kernel::Native,
        #[cfg(feature = "blas")]
        Kernel::Blas,
    ];

    /// `native` or `blas`.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Native => "native",
            #[cfg(feature = "blas")]
            Kernel::Blas => "blas",
        }
    }

    /// C = alpha * op(A) op(B) + beta * C. Shapes: op(A) [m x k], op(B) [k x n], C [m x n], all row-major and contiguous;
    /// a transposed operand is stored as [k x m], [n x k]. With `beta` 0 the old C is not read.
    #[inline]
    pub fn gemm_f32(
        self,
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
        check_lengths((m, n, k), a.len(), b.len(), c.len());
        match self {
            Kernel::Native => native::sgemm(m, n, k, alpha, a, a_transposed, b, b_transposed, beta, c),
            #[cfg(feature = "blas")]
            Kernel::Blas => blas::sgemm(m, n, k, alpha, a, a_transposed, b, b_transposed, beta, c),
        }
    }

    /// The same in f64.
    #[inline]
    pub fn gemm_f64(
        self,
        m: usize,
        n: usize,
        k: usize,
        alpha: f64,
        a: &[f64],
        a_transposed: bool,
        b: &[f64],
        b_transposed: bool,
        beta: f64,
        c: &mut [f64],
    ) {
        check_lengths((m, n, k), a.len(), b.len(), c.len());
        match self {
            Kernel::Native => native::gemm(m, n, k, alpha, a, a_transposed, b, b_transposed, beta, c),
            #[cfg(feature = "blas")]
            Kernel::Blas => blas::dgemm(m, n, k, alpha, a, a_transposed, b, b_transposed, beta, c),
        }
    }

    /// The kernel for `choice`, checked and timed once per process.
    pub fn choose(choice: KernelChoice) -> Result<ChosenKernel> {
        choose(choice)
    }
}

/// The kernels read and write through raw pointers: these lengths are what makes that sound.
#[inline]
fn check_lengths((m, n, k): (usize, usize, usize), a: usize, b: usize, c: usize) {
    assert!(a == m * k && b == k * n && c == m * n, "a product of {m}x{k}x{n} over {a}, {b} and {c} elements");
}

/// A kernel that has answered right, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenKernel {
    /// The kernel.
    pub kernel: Kernel,
    /// Its mean speed over the probed shapes, one thread, f32.
    pub gflops: f64,
    /// Name and hash of a few fixed products: equal fingerprints promise equal bits.
    pub fingerprint: String,
}

impl std::fmt::Display for ChosenKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:.0} GFLOP/s a core)", self.kernel.name(), self.gflops)
    }
}

/// What is known of the kernels of this build on this machine.
struct Probed {
    kernels: Vec<(Kernel, Result<ChosenKernel, String>)>,
    /// The one for [`KernelChoice::Auto`].
    auto: Result<ChosenKernel, String>,
}

impl Probed {
    fn new() -> Self {
        let products: Vec<Checked> = CHECKED.iter().copied().map(Checked::new).collect();
        let kernels: Vec<_> = Kernel::ALL.iter().map(|kernel| (*kernel, probe(*kernel, &products))).collect();
        let auto = preferred(&kernels, native_knows_the_processor());
        Probed { kernels, auto }
    }
}

/// The first that answers right: the kernel written in Rust where it has instructions for this processor, else another. Speeds
/// are not asked: two kernels of about one speed would win in turns, and each makes other bytes.
fn preferred(kernels: &[(Kernel, Result<ChosenKernel, String>)], native_first: bool) -> Result<ChosenKernel, String> {
    let native = kernels.iter().filter(|(kernel, _)| *kernel == Kernel::Native);
    let others = kernels.iter().filter(|(kernel, _)| *kernel != Kernel::Native);
    let in_order: Vec<_> = if native_first { native.chain(others).collect() } else { others.chain(native).collect() };
    let right = in_order.iter().find_map(|(_, probed)| probed.as_ref().ok());
    right.cloned().ok_or_else(|| kernels[0].1.clone().err().unwrap_or_default())
}

/// Whether the native kernel has vector instructions for this processor.
fn native_knows_the_processor() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// The kernel for `choice`; the probing is done once per process.
pub fn choose(choice: KernelChoice) -> Result<ChosenKernel> {
    static PROBED: OnceLock<Probed> = OnceLock::new();
    let probed = PROBED.get_or_init(Probed::new);
    let wanted = |name: &str| -> Result<ChosenKernel> {
        match probed.kernels.iter().find(|(kernel, _)| kernel.name() == name) {
            Some((_, Ok(chosen))) => Ok(chosen.clone()),
            Some((_, Err(reason))) => Err(Error::invalid(reason.clone())),
            None => Err(Error::invalid(format!("matrix kernel '{name}' is not part of this build"))
                .with_hint("use kernel 'native' or 'auto'")),
        }
    };
    match choice {
        KernelChoice::Native => wanted("native"),
        KernelChoice::Blas => wanted("blas"),
        KernelChoice::Auto => probed.auto.clone().map_err(Error::invalid),
    }
}

/// Products whose bits make the fingerprint, and whose answers are checked: a long sum, a batch of rows through a layer
/// and back in both transposed forms, a narrow one, a single row.
const CHECKED: &[(usize, usize, usize, bool, bool)] = &[
    (32, 64, 784, false, false),
    (16, 64, 784, false, false),
    (784, 64, 16, true, false),
    (16, 64, 10, false, true),
    (5, 3, 2100, false, false),
    (1, 37, 129, false, false),
    (70, 65, 67, true, false),
];

/// Shapes that are timed: a small batch through a wide input, the weight gradient of the same, a large layer.
const TIMED: &[(usize, usize, usize, bool, bool)] =
    &[(32, 64, 784, false, false), (784, 64, 32, true, false), (256, 512, 512, false, false)];

/// How long each shape is timed.
const TIMED_FOR: Duration = Duration::from_micros(1500);

/// Ends the threads that a BLAS library has made for itself. To be called when a program begins, so that they do not take
/// time from ours; products are on one thread in any case.
pub fn use_one_thread() {
    #[cfg(feature = "blas")]
    blas::use_one_thread();
}

/// A product with its right answer.
struct Checked {
    shape: (usize, usize, usize, bool, bool),
    a: Vec<f32>,
    b: Vec<f32>,
    expected: Vec<(f64, f64)>,
}

impl Checked {
    fn new(shape: (usize, usize, usize, bool, bool)) -> Self {
        let (m, n, k, a_transposed, b_transposed) = shape;
        let (a, b) = (pattern(m * k, 1), pattern(k * n, 2));
        let expected = product(m, n, k, &a, a_transposed, &b, b_transposed);
        Checked { shape, a, b, expected }
    }
}

fn probe(kernel: Kernel, products: &[Checked]) -> Result<ChosenKernel, String> {
    #[cfg(feature = "blas")]
    if kernel == Kernel::Blas {
        blas::use_one_thread();
    }
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for Checked { shape: (m, n, k, a_transposed, b_transposed), a, b, expected } in products {
        let mut c = vec![0.0; m * n];
        kernel.gemm_f32(*m, *n, *k, 1.0, a, *a_transposed, b, *b_transposed, 0.0, &mut c);
        for (got, (value, magnitude)) in c.iter().zip(expected) {
            let error = (f64::from(*got) - value).abs();
            if error.is_nan() || error > 1e-6 * magnitude {
                let name = kernel.name();
                return Err(format!(
                    "matrix kernel '{name}' answers {got} instead of {value} in a {m}x{n}x{k} product"
                ));
            }
            hash.update(&got.to_le_bytes());
        }
    }
    Ok(ChosenKernel { kernel, gflops: speed(kernel), fingerprint: format!("{}-{:016x}", kernel.name(), hash.digest()) })
}

/// Mean GFLOP/s over the timed shapes.
fn speed(kernel: Kernel) -> f64 {
    TIMED.iter().map(|shape| time(kernel, *shape)).sum::<f64>() / TIMED.len() as f64
}

/// GFLOP/s of one shape: the best call of those that fit the time.
fn time(kernel: Kernel, (m, n, k, a_transposed, b_transposed): (usize, usize, usize, bool, bool)) -> f64 {
    let (a, b) = (pattern(m * k, 1), pattern(k * n, 2));
    let mut c = vec![0.0; m * n];
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed() < TIMED_FOR {
        let start = Instant::now();
        kernel.gemm_f32(m, n, k, 1.0, &a, a_transposed, &b, b_transposed, 0.0, &mut c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (m * n * k) as f64 / best.max(1e-9) * 1e-9
}

/// Fixed numbers in [-1, 1) that are no short binary fractions.
fn pattern(len: usize, stream: u64) -> Vec<f32> {
    let stream = crate::random::Stream::new(0x6B65_726E, stream);
    let numbers = (0..len.div_ceil(4) as u64).flat_map(|place| stream.uniforms(place));
    numbers.map(|number| 2.0 * number - 1.0).take(len).collect()
}

/// The product in f64, and the sum of the absolute terms that its error is measured against.
fn product(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    a_transposed: bool,
    b: &[f32],
    b_transposed: bool,
) -> Vec<(f64, f64)> {
    let mut c = vec![(0.0, 0.0); m * n];
    // Row by row of B, so that what is read and added to lies side by side.
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        for l in 0..k {
            let left = f64::from(a[if a_transposed { l * m + i } else { i * k + l }]);
            for (j, (sum, magnitude)) in row.iter_mut().enumerate() {
                let term = left * f64::from(b[if b_transposed { j * k + l } else { l * n + j }]);
                *sum += term;
                *magnitude += term.abs();
            }
        }
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_agree_with_the_naive_product_for_every_shape_and_transpose() {
        for kernel in Kernel::ALL.iter().copied() {
            for (m, n, k) in [(1, 1, 1), (3, 5, 7), (16, 64, 12), (17, 1, 33), (1, 64, 300), (64, 10, 2), (33, 48, 530)]
            {
                for (at, bt) in [(false, false), (true, false), (false, true), (true, true)] {
                    let (a, b, old) = (pattern(m * k, 5), pattern(k * n, 6), pattern(m * n, 7));
                    let mut c = old.clone();
                    kernel.gemm_f32(m, n, k, 0.5, &a, at, &b, bt, 2.0, &mut c);
                    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
                    let mut c64 = wide(&old);
                    kernel.gemm_f64(m, n, k, 0.5, &wide(&a), at, &wide(&b), bt, 2.0, &mut c64);
                    for (i, (sum, magnitude)) in product(m, n, k, &a, at, &b, bt).into_iter().enumerate() {
                        let expected = 0.5 * sum + 2.0 * f64::from(old[i]);
                        let scale = magnitude + 2.0;
                        assert!((f64::from(c[i]) - expected).abs() < 1e-6 * scale, "{kernel:?} {m}x{n}x{k} {at} {bt}");
                        assert!((c64[i] - expected).abs() < 1e-14 * scale, "{kernel:?} f64 {m}x{n}x{k} {at} {bt}");
                    }
                }
            }
        }
    }

    #[test]
    fn beta_zero_does_not_read_the_old_result() {
        for kernel in Kernel::ALL.iter().copied() {
            let mut c = [f32::NAN; 4];
            kernel.gemm_f32(2, 2, 1, 1.0, &[1.0, 2.0], false, &[3.0, 4.0], false, 0.0, &mut c);
            assert_eq!(c, [3.0, 4.0, 6.0, 8.0]);
            let mut c = [f32::NAN; 2];
            kernel.gemm_f32(2, 1, 0, 1.0, &[], false, &[], false, 0.0, &mut c);
            assert_eq!(c, [0.0, 0.0]);
        }
    }

    #[test]
    fn the_chosen_kernel_has_a_name_a_speed_and_a_fingerprint() {
        let native = choose(KernelChoice::Native).unwrap();
        assert_eq!(native.kernel, Kernel::Native);
        assert!(native.gflops > 0.0);
        assert!(native.fingerprint.starts_with("native-"));
        assert_eq!(choose(KernelChoice::Native).unwrap(), native);
        choose(KernelChoice::Auto).unwrap();
        let error = "blass".parse::<KernelChoice>().unwrap_err();
        assert!(matches!(error, Error::Invalid { hint: Some(hint), .. } if hint.contains("'blas'")));
    }

    #[test]
    fn the_automatic_kernel_does_not_depend_on_speed() {
        let native = choose(KernelChoice::Native).unwrap();
        for gflops in [0.001, 1e9] {
            let right = [(Kernel::Native, Ok(ChosenKernel { gflops, ..native.clone() }))];
            assert_eq!(preferred(&right, true).unwrap().kernel, Kernel::Native);
            assert_eq!(preferred(&right, false).unwrap().kernel, Kernel::Native, "there is no other");
        }
        let wrong = [(Kernel::Native, Err("wrong".to_string()))];
        assert_eq!(preferred(&wrong, true), Err("wrong".to_string()));
        #[cfg(feature = "blas")]
        {
            let blas = ChosenKernel { kernel: Kernel::Blas, ..native.clone() };
            let both = [(Kernel::Native, Ok(native.clone())), (Kernel::Blas, Ok(blas.clone()))];
            assert_eq!(preferred(&both, true).unwrap().kernel, Kernel::Native);
            assert_eq!(preferred(&both, false).unwrap().kernel, Kernel::Blas);
            let one = [(Kernel::Native, Err("wrong".to_string())), (Kernel::Blas, Ok(blas))];
            assert_eq!(preferred(&one, true).unwrap().kernel, Kernel::Blas);
        }
    }

    #[cfg(not(feature = "blas"))]
    #[test]
    fn a_build_without_blas_says_so() {
        assert!(choose(KernelChoice::Blas).unwrap_err().to_string().contains("not part of this build"));
    }
}
