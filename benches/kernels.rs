//! Matrix products of the shapes that training and prediction ask for, by each kernel, on one thread.
//!
//! ```text
//! cargo bench --bench kernels [-- FILTER]
//! ```
//!
//! An element is a floating-point operation (two for each term of a sum): `Gelem/s` reads as GFLOP/s.

// Links the BLAS provider.
use gristmill as _;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ml::kernel::{self, Kernel};
use ml::random::Stream;

/// m, n, k, and which operands are transposed.
const SHAPES: [(&str, usize, usize, usize, bool, bool); 8] = [
    ("first layer, a leaf of 2 rows", 2, 64, 784, false, false),
    ("first layer, batch 32", 32, 64, 784, false, false),
    ("its gradient", 784, 64, 32, true, false),
    ("first layer, 256 rows", 256, 64, 784, false, false),
    ("hidden layer, batch 32", 32, 64, 64, false, false),
    ("large layer, batch 256", 256, 1024, 1024, false, false),
    ("its gradient", 1024, 1024, 256, true, false),
    ("back through it", 256, 1024, 1024, false, true),
];

fn products(criterion: &mut Criterion) {
    kernel::use_one_thread();
    let mut group = criterion.benchmark_group("product");
    let random = |len: usize, stream: u64| -> Vec<f32> {
        let stream = Stream::new(1, stream);
        (0..len as u64).map(|i| 2.0 * stream.uniform(i) - 1.0).collect()
    };
    for (name, m, n, k, a_transposed, b_transposed) in SHAPES {
        let (a, b, mut c) = (random(m * k, 1), random(k * n, 2), vec![0.0f32; m * n]);
        group.throughput(Throughput::Elements((2 * m * n * k) as u64));
        for kernel in Kernel::ALL {
            group.bench_function(format!("{name}, {m}x{k} by {k}x{n}, {}", kernel.name()), |bench| {
                bench.iter(|| kernel.gemm_f32(m, n, k, 1.0, &a, a_transposed, &b, b_transposed, 0.0, &mut c));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = kernels;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = products
}
criterion_main!(kernels);
