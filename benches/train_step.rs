//! How many rows a second the training loop takes, on random rows that are already in memory.
//!
//! ```text
//! cargo bench --bench train_step [-- founding|flights|large] [WORKERS] [auto|blas|native]
//! ```
//!
//! Prints the best and the median epoch: on a machine with other work the best is the figure to compare.
#![allow(clippy::print_stdout)] // a bench speaks on stdout

// Links the BLAS provider.
use gristmill as _;

use std::sync::Arc;

use ml::kernel::{self, KernelChoice};
use ml::layer::Activation;
use ml::loss::Loss;
use ml::network::NetworkSpec;
use ml::optimizer::Optimizer;
use ml::random::Stream;
use ml::schedule::Schedule;
use ml::shards::{Block, FeatureLayout, MemoryShards};
use ml::train::{TrainPlan, train};
use tokio_util::sync::CancellationToken;

/// A network, its batch, and how many rows an epoch has.
struct Case {
    name: &'static str,
    inputs: FeatureLayout,
    hidden: [usize; 2],
    outputs: usize,
    loss: Loss,
    batch_size: usize,
    rows: usize,
}

fn cases() -> [Case; 3] {
    let one_hot = FeatureLayout { dense: 12, groups: vec![16, 3, 104], names: Vec::new() };
    [
        Case {
            name: "founding",
            inputs: FeatureLayout::of_dense(784),
            hidden: [64, 64],
            outputs: 10,
            loss: Loss::SoftmaxCrossEntropy,
            batch_size: 32,
            rows: 60_000,
        },
        Case {
            name: "flights",
            inputs: one_hot,
            hidden: [64, 64],
            outputs: 1,
            loss: Loss::SigmoidCrossEntropy,
            batch_size: 256,
            rows: 270_000,
        },
        Case {
            name: "large",
            inputs: FeatureLayout::of_dense(784),
            hidden: [1024, 1024],
            outputs: 10,
            loss: Loss::SoftmaxCrossEntropy,
            batch_size: 256,
            rows: 16_000,
        },
    ]
}

/// 16 shards of random rows.
fn shards(case: &Case) -> MemoryShards {
    let classes = case.outputs.max(2) as u64;
    let rows = case.rows / 16;
    let shard = |shard: u64| {
        let chance = Stream::new(1, shard);
        let mut block = Block { rows, weights: vec![1.0; rows], ..Block::default() };
        block.dense = (0..(rows * case.inputs.dense) as u64).map(|i| 2.0 * chance.uniform(i) - 1.0).collect();
        for row in 0..rows as u64 {
            let draw = |i: usize, below: u64| chance.word64(row * 8 + i as u64) % below;
            block
                .indices
                .extend(case.inputs.groups.iter().enumerate().map(|(i, width)| draw(i, u64::from(*width)) as u32));
            block.labels.push(draw(7, classes) as f32);
        }
        block
    };
    let shards = (0..16).map(shard).collect();
    MemoryShards::from_whole(case.inputs.clone(), 4096, shards).expect("random rows fit their layout")
}

fn main() {
    // cargo passes `--bench` to every bench.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let workers = words.iter().find_map(|word| word.parse::<usize>().ok());
    let choice = words.iter().find_map(|word| word.parse::<KernelChoice>().ok()).unwrap_or_default();
    let kernel = kernel::choose(choice).expect("a kernel answers right");
    println!("kernel {kernel}");
    let all = cases();
    let named = |case: &&Case| {
        !all.iter().any(|other| words.iter().any(|word| word == other.name))
            || words.iter().any(|word| word == case.name)
    };
    for case in all.iter().filter(named) {
        let rows: Arc<MemoryShards> = Arc::new(shards(case));
        let both = [1, std::thread::available_parallelism().map_or(1, usize::from)];
        let counts = workers.map_or_else(|| both.to_vec(), |workers| vec![workers]);
        for workers in counts {
            let plan = TrainPlan {
                network: NetworkSpec {
                    inputs: case.inputs.clone(),
                    hidden: case.hidden.to_vec(),
                    activation: Activation::Relu,
                    dropout: 0.0,
                    layer_norm: false,
                    outputs: case.outputs,
                    loss: case.loss,
                },
                optimizer: Optimizer::ADAM,
                schedule: Schedule::constant(1e-3),
                batch_size: case.batch_size,
                epochs: 6,
                seed: 1,
                l1: 0.0,
                l2: 0.0,
                clip_norm: None,
                early_stop: None,
                workers,
                kernel: kernel.clone(),
                checkpoint: None,
            };
            let trained = train(&plan, rows.clone(), None, &(), &CancellationToken::new())
                .expect("random rows can be trained on");
            let mut times: Vec<f64> = trained.history.iter().map(|epoch| epoch.duration_ms).collect();
            times.sort_by(f64::total_cmp);
            let rate = |time: f64| case.rows as f64 / time * 1e3;
            println!(
                "{:>8} batch {:>3}, {workers} workers: best {:>9.0} samples/s, median {:>9.0}",
                case.name,
                case.batch_size,
                rate(times[0]),
                rate(times[times.len() / 2]),
            );
        }
    }
}
