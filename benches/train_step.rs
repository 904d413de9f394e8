//! How many rows a second the training loop takes, on random rows that are already in memory.
//!
//! ```text
//! cargo bench --bench train_step [-- founding|flights|large] [WORKERS] [auto|blas|native] [order]
//! ```
//!
//! Prints the best and the median epoch: on a machine with other work the best is the figure to compare.
//!
//! `order` asks what the canonical order of addition costs: the same rows are dealt to 16 shards, whose batches have as many
//! leaves as the specification says, and to one shard for each worker, which leaves no more than one leaf to each: its whole
//! share of the batch is one product, and its gradient is never added to another of its own. Both run in turn.
#![allow(clippy::print_stdout)] // a bench speaks on stdout

// Links the BLAS provider.
use gristmill as _;

use std::sync::Arc;

use ml::kernel::{self, ChosenKernel, KernelChoice};
use ml::layer::Activation;
use ml::loss::Loss;
use ml::network::NetworkSpec;
use ml::optimizer::Optimizer;
use ml::random::Stream;
use ml::schedule::Schedule;
use ml::shards::{Block, FeatureLayout, MemoryShards, ShardSet};
use ml::train::{TrainPlan, ranks_max, train};
use tokio_util::sync::CancellationToken;

/// NUM_SHARDS where nothing is said.
const SHARDS: usize = 16;
/// How often the two orders run in turn.
const ROUNDS: usize = 3;

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

/// Random rows in so many shards.
fn rows(case: &Case, shards: usize) -> Arc<MemoryShards> {
    let classes = case.outputs.max(2) as u64;
    let rows = case.rows / shards;
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
    let shards = (0..shards as u64).map(shard).collect();
    Arc::new(MemoryShards::from_whole(case.inputs.clone(), 4096, shards).expect("random rows fit their layout"))
}

fn plan(case: &Case, workers: usize, kernel: &ChosenKernel) -> TrainPlan {
    TrainPlan {
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
    }
}

/// Rows a second of each epoch, the best first.
fn rates(plan: &TrainPlan, rows: &Arc<MemoryShards>) -> Vec<f64> {
    let trained =
        train(plan, rows.clone(), None, &(), &CancellationToken::new()).expect("random rows can be trained on");
    let count = rows.total_rows() as f64;
    let mut rates: Vec<f64> = trained.history.iter().map(|epoch| count / epoch.duration_ms * 1e3).collect();
    rates.sort_by(|a, b| b.total_cmp(a));
    rates
}

fn print_rates(case: &Case, workers: usize, kernel: &ChosenKernel, rows: &Arc<MemoryShards>) {
    let rates = rates(&plan(case, workers, kernel), rows);
    println!(
        "{:>8} batch {:>3}, {workers} workers: best {:>9.0} samples/s, median {:>9.0}",
        case.name,
        case.batch_size,
        rates[0],
        rates[rates.len() / 2],
    );
}

/// What the canonical order costs: the best epoch of some rounds, both ways in turn.
fn print_price(case: &Case, workers: usize, kernel: &ChosenKernel, canonical: &Arc<MemoryShards>) {
    let plan = plan(case, workers, kernel);
    let free = rows(case, workers);
    let leaves = |rows: &Arc<MemoryShards>| ranks_max(&plan, rows.as_ref()).expect("the network is valid");
    let head = format!("{:>8} batch {:>3}, {workers} workers", case.name, case.batch_size);
    if leaves(&free) != workers {
        return println!("{head}: {workers} shards make {} leaves, a free order has one a worker", leaves(&free));
    }
    let mut best = [0.0f64; 2];
    for _ in 0..ROUNDS {
        for (best, rows) in best.iter_mut().zip([canonical, &free]) {
            *best = best.max(rates(&plan, rows)[0]);
        }
    }
    let [ours, theirs] = best;
    println!(
        "{head}: canonical order, {} leaves {ours:.0}, free order, {} leaves {theirs:.0} samples/s: it costs {:.1} %",
        leaves(canonical),
        leaves(&free),
        (theirs / ours - 1.0) * 100.0,
    );
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
        let canonical = rows(case, SHARDS);
        let both = [1, std::thread::available_parallelism().map_or(1, usize::from)];
        for workers in workers.map_or_else(|| both.to_vec(), |workers| vec![workers]) {
            let print = if words.iter().any(|word| word == "order") { print_price } else { print_rates };
            print(case, workers, &kernel, &canonical);
        }
    }
}
