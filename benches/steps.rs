//! Training steps, and the reduction of gradients between the threads of a process.
//!
//! ```text
//! cargo bench --bench steps [-- FILTER]
//! ```
//!
//! An element of `epoch` is a row, so that `Kelem/s` reads as thousands of samples a second; `reduction` is one step's two
//! exchanges. `train_step` compares orders of addition, `reduce` measures executors.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on fails")]

// Links the BLAS provider.
use gristmill as _;

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::gang::{GangError, Tag, local};
use ml::kernel::{self, KernelChoice};
use ml::train::train;
use tokio_util::sync::CancellationToken;

mod exchange;
mod networks;

use networks::{SHARDS, cases, plan, rows};

fn workers() -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 { vec![1] } else { vec![1, cores] }
}

fn epochs(criterion: &mut Criterion) {
    let kernel = kernel::choose(KernelChoice::Auto).unwrap();
    let mut group = criterion.benchmark_group("epoch");
    for case in cases() {
        let rows = rows(&case, SHARDS);
        group.throughput(Throughput::Elements(case.rows as u64));
        for workers in workers() {
            let name = format!("{}, batch {}, {workers} threads", case.name, case.batch_size);
            group.bench_function(name, |bench| {
                // The loop's own time: threads have started, memory is there.
                bench.iter_custom(|epochs| {
                    let mut plan = plan(&case, workers, &kernel);
                    plan.epochs = epochs as usize;
                    let trained = train(&plan, rows.clone(), None, &(), &CancellationToken::new()).unwrap();
                    trained.history.iter().map(|epoch| Duration::from_secs_f64(epoch.duration_ms / 1e3)).sum()
                });
            });
        }
    }
    group.finish();
}

fn reductions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reduction");
    let world = workers().pop().unwrap().max(2);
    for (network, parameters) in [("784-64-64-10", 55_050), ("784-1024-1024-10", 1_863_690)] {
        group.throughput(Throughput::Bytes(4 * parameters as u64));
        group.bench_function(format!("{network}, {world} threads"), |bench| {
            bench.iter_custom(|steps| seconds(world, parameters, steps));
        });
    }
    group.finish();
}

/// What so many steps take.
fn seconds(world: usize, parameters: usize, steps: u64) -> Duration {
    let cuts = exchange::cuts(parameters, world);
    let taken = local::run("reduction", world, |mesh| {
        let (gradient, mut sums) = (vec![1.0; parameters], vec![0.0; parameters]);
        let mut begun = Instant::now();
        // The first is not counted: memory is touched by it.
        for step in 0..=steps {
            let tags = [0, 1].map(|round| Tag { generation: 0, step, round });
            exchange::step(mesh, tags, [0.0], &gradient, &mut sums, &cuts)?;
            if step == 0 {
                begun = Instant::now();
            }
        }
        assert!(sums.iter().all(|sum| *sum == world as f32), "a sum of {world} ones");
        Ok::<_, GangError>(begun.elapsed())
    });
    match taken {
        Ok(taken) => taken.into_iter().max().unwrap(),
        Err(failure) => panic!("{failure:?}"),
    }
}

criterion_group! {
    name = steps;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    targets = epochs, reductions
}
criterion_main!(steps);
