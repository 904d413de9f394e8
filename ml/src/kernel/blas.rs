//! The BLAS kernel: CBLAS of whatever provider the final binary links, on one thread.

use std::ffi::c_int;
use std::sync::Once;

use cblas_sys::{CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_dgemm, cblas_sgemm};

// The final binary links the provider; the unit tests of this crate have none, so they link the distribution's own.
#[cfg_attr(test, link(name = "openblas"))]
unsafe extern "C" {
    fn openblas_set_num_threads(threads: c_int);
}

/// One thread a product: two OpenBLAS threads give other bits than one, and parallelism is ours. Its own threads, which it
/// makes when it is loaded, are ended: while they have no work they ask for it, in turn with ours, for tenths of a second.
pub(super) fn use_one_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: setters of the library, called before any product; the second takes nothing, gives an int, and waits for
        // threads that have no work. Builds of OpenBLAS that make no threads do not have it.
        unsafe {
            openblas_set_num_threads(1);
            let shutdown = libc::dlsym(libc::RTLD_DEFAULT, c"blas_thread_shutdown_".as_ptr());
            if !shutdown.is_null() {
                let shutdown: unsafe extern "C" fn() -> c_int = std::mem::transmute(shutdown);
                shutdown();
            }
        }
    });
}

fn transpose(transposed: bool) -> CBLAS_TRANSPOSE {
    if transposed { CBLAS_TRANSPOSE::CblasTrans } else { CBLAS_TRANSPOSE::CblasNoTrans }
}

/// A dimension as BLAS wants it; leading dimensions must not be 0.
fn int(value: usize) -> i32 {
    i32::try_from(value).expect("matrices have fewer than 2^31 rows and columns")
}

macro_rules! gemm {
    ($name:ident, $cblas:ident, $float:ty) => {
        /// C = alpha * op(A) op(B) + beta * C; the caller has checked the lengths.
        #[inline]
        pub(super) fn $name(
            m: usize,
            n: usize,
            k: usize,
            alpha: $float,
            a: &[$float],
            a_transposed: bool,
            b: &[$float],
            b_transposed: bool,
            beta: $float,
            c: &mut [$float],
        ) {
            assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "operands shorter than their shapes");
            if m == 0 || n == 0 {
                return;
            }
            // SAFETY: by the assertion every element that the product touches lies inside the slices; C is borrowed
            // mutably, so it overlaps neither A nor B.
            unsafe {
                $cblas(
                    CBLAS_LAYOUT::CblasRowMajor,
                    transpose(a_transposed),
                    transpose(b_transposed),
                    int(m),
                    int(n),
                    int(k),
                    alpha,
                    a.as_ptr(),
                    int(if a_transposed { m } else { k }.max(1)),
                    b.as_ptr(),
                    int(if b_transposed { k } else { n }.max(1)),
                    beta,
                    c.as_mut_ptr(),
                    int(n),
                );
            }
        }
    };
}

gemm!(sgemm, cblas_sgemm, f32);
gemm!(dgemm, cblas_dgemm, f64);
