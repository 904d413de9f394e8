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
use ml::shards::{MemoryShards, ShardSet};
use ml::train::{TrainPlan, ranks_max, train};
use tokio_util::sync::CancellationToken;

mod networks;

use networks::{Case, SHARDS, cases, plan, rows};

/// How often the two orders run in turn.
const ROUNDS: usize = 3;

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
