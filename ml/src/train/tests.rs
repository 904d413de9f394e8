//! Training as a whole: the bytes, the interruptions, the reasons to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::kernel::{Kernel, KernelChoice};
use crate::layer::Activation;
use crate::loss::Loss;
use crate::random::Stream;
use crate::schedule::Shape;
use crate::shards::{Block, FeatureLayout, MemoryShards, NO_CATEGORY};
use crate::simd::tests::at_every_level;

fn layout() -> FeatureLayout {
    FeatureLayout {
        dense: 5,
        groups: vec![3, 4],
        names: (0..12).map(|i| format!("x{i}")).collect(),
        ..FeatureLayout::default()
    }
}

/// Rows whose class (of three) follows from their features; shards of unequal length.
fn rows(shards: usize, rows: usize, seed: u64) -> MemoryShards {
    let chance = Stream::new(seed, 0);
    let mut next = 0;
    let mut draw = || {
        next += 1;
        2.0 * chance.uniform(next) - 1.0
    };
    let shard = |shard: usize| {
        let mut block = Block { rows: rows / shards + shard % 5, ..Block::default() };
        for _ in 0..block.rows {
            let x: Vec<f32> = (0..5).map(|_| draw()).collect();
            let groups = [((draw() + 1.0) * 1.49) as u32, ((draw() + 1.0) * 1.99) as u32];
            let score = x[0] + x[1] * x[2] + 0.5 * groups[0] as f32 - 0.4;
            block.labels.push(if score < 0.0 {
                0.0
            } else if score < 0.6 {
                1.0
            } else {
                2.0
            });
            block.weights.push(0.5 + 0.5 * (groups[1] % 2) as f32);
            block.indices.extend([groups[0], if groups[1] == 3 { NO_CATEGORY } else { groups[1] }]);
            block.dense.extend(x);
        }
        block
    };
    MemoryShards::from_whole(layout(), 50, (0..shards).map(shard).collect()).unwrap()
}

/// The same shards as if they lay on a disk.
struct OnDisk(MemoryShards);

impl ShardSet for OnDisk {
    fn layout(&self) -> &FeatureLayout {
        self.0.layout()
    }
    fn shards(&self) -> usize {
        self.0.shards()
    }
    fn rows(&self, shard: usize) -> usize {
        self.0.rows(shard)
    }
    fn block_rows(&self) -> usize {
        self.0.block_rows()
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        self.0.block(shard, index)
    }
}

fn plan() -> TrainPlan {
    TrainPlan {
        network: NetworkSpec {
            inputs: layout(),
            hidden: vec![33, 16],
            activation: Activation::Relu,
            dropout: 0.0,
            layer_norm: false,
            outputs: 3,
            loss: Loss::SoftmaxCrossEntropy,
        },
        optimizer: Optimizer::ADAM,
        schedule: Schedule::constant(0.01),
        batch_size: 128,
        epochs: 3,
        seed: 11,
        l1: 0.0,
        l2: 0.0,
        clip_norm: None,
        early_stop: None,
        workers: 1,
        kernel: crate::kernel::choose(KernelChoice::Native).unwrap(),
        checkpoint: None,
    }
}

/// A plan with everything turned on.
fn full_plan(optimizer: Optimizer) -> TrainPlan {
    let base = plan();
    TrainPlan {
        network: NetworkSpec { dropout: 0.2, layer_norm: true, activation: Activation::Gelu, ..base.network.clone() },
        optimizer,
        schedule: Schedule { base: 0.02, shape: Shape::Cosine { final_fraction: 0.1 }, warmup_steps: 5 },
        l1: 1e-4,
        l2: 1e-3,
        clip_norm: Some(0.7),
        early_stop: Some(EarlyStop { min_rel_progress: 0.001, patience: 2 }),
        ..base
    }
}

fn run(plan: &TrainPlan, set: &MemoryShards) -> TrainedNetwork {
    let eval: Arc<dyn ShardSet> = Arc::new(rows(7, 300, 77));
    train(plan, Arc::new(set.clone()), Some(eval), &(), &CancellationToken::new()).unwrap()
}

fn bits(trained: &TrainedNetwork) -> Vec<u32> {
    trained.network.parameters().iter().map(|p| p.to_bits()).collect()
}

/// What two runs of one plan must share.
fn essence(trained: &TrainedNetwork) -> (Vec<u32>, Vec<(u64, Option<u64>)>, u64) {
    let losses = trained.history.iter().map(|r| (r.loss.to_bits(), r.eval_loss.map(f64::to_bits))).collect();
    (bits(trained), losses, trained.steps)
}

#[test]
fn any_number_of_workers_gives_the_same_bytes() {
    let set = rows(16, 1500, 1);
    for plan in [plan(), full_plan(Optimizer::ADAMW), full_plan(Optimizer::FTRL), full_plan(Optimizer::MOMENTUM)] {
        let alone = run(&plan, &set);
        assert!(alone.history.len() == plan.epochs || alone.stopped_early);
        for workers in [2, 3, 4, 7, 100] {
            let together = run(&TrainPlan { workers, ..plan.clone() }, &set);
            assert!(essence(&together) == essence(&alone), "{workers} workers, {:?}", plan.optimizer);
        }
    }
}

#[test]
fn reading_from_disk_gives_the_same_bytes() {
    let set = rows(16, 1500, 1);
    let expected = run(&plan(), &set);
    for workers in [1, 3] {
        let plan = TrainPlan { workers, ..plan() };
        let eval: Arc<dyn ShardSet> = Arc::new(OnDisk(rows(7, 300, 77)));
        let got = train(&plan, Arc::new(OnDisk(set.clone())), Some(eval), &(), &CancellationToken::new()).unwrap();
        assert!(essence(&got) == essence(&expected), "{workers} workers");
    }
}

#[test]
fn every_vector_unit_gives_the_same_bytes() {
    let set = rows(8, 800, 2);
    let results = at_every_level(|_| essence(&run(&full_plan(Optimizer::ADAM), &set)));
    assert!(results.iter().all(|result| *result == results[0]));
}

#[test]
fn the_seed_changes_the_bytes() {
    let set = rows(8, 800, 2);
    let other = TrainPlan { seed: 12, ..plan() };
    assert_ne!(bits(&run(&plan(), &set)), bits(&run(&other, &set)));
}

/// Keeps checkpoints in memory and fails after `alive` of them, as a killed process would.
struct Mortal {
    kept: Arc<MemoryCheckpoints>,
    alive: AtomicUsize,
}

impl CheckpointStore for Mortal {
    fn save(&self, bytes: &[u8]) -> Result<()> {
        if self.alive.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(Error::invalid("no space left on device"));
        }
        self.kept.save(bytes)
    }
    fn load(&self) -> Result<Option<Vec<u8>>> {
        self.kept.load()
    }
}

#[test]
fn stopping_anywhere_and_going_on_gives_the_same_bytes() {
    let set = rows(16, 700, 3);
    for plan in
        [full_plan(Optimizer::ADAM), full_plan(Optimizer::FTRL), TrainPlan { optimizer: Optimizer::Sgd, ..plan() }]
    {
        let expected = run(&plan, &set);
        let chance = Stream::new(99, 1);
        for round in 0..6u64 {
            let kept = Arc::new(MemoryCheckpoints::default());
            let every_steps = 1 + chance.word64(round) % 4;
            let mut lives = 0;
            // Dies again and again, each time with another number of workers, until it comes through.
            let got = loop {
                let alive = AtomicUsize::new((chance.word64(100 * round + lives) % 4 + 1) as usize);
                lives += 1;
                let store = Arc::new(Mortal { kept: kept.clone(), alive });
                let checkpoint = Some(Checkpointing { store, every_steps, every: Duration::ZERO });
                let plan = TrainPlan { checkpoint, workers: 1 + (lives as usize) % 4, ..plan.clone() };
                let eval: Arc<dyn ShardSet> = Arc::new(rows(7, 300, 77));
                match train(&plan, Arc::new(set.clone()), Some(eval), &(), &CancellationToken::new()) {
                    Ok(trained) => break trained,
                    Err(error) => assert_eq!(error.to_string(), "no space left on device"),
                }
            };
            assert!(lives > 1, "the run was interrupted");
            assert!(essence(&got) == essence(&expected), "round {round}, {lives} lives, every {every_steps} steps");
        }
    }
}

#[test]
fn leaving_at_any_step_and_going_on_gives_the_same_bytes() {
    let set = rows(16, 700, 3);
    let eval = rows(7, 300, 77);
    for plan in [full_plan(Optimizer::ADAM), TrainPlan { optimizer: Optimizer::Sgd, ..plan() }] {
        let expected = run(&plan, &set);
        let cancel = CancellationToken::new();
        let store = Arc::new(MemoryCheckpoints::default());
        let checkpoint = Some(Checkpointing { store, every_steps: 0, every: Duration::ZERO });
        let plan = TrainPlan { checkpoint, ..plan.clone() };
        let mut gangs = 0;
        let got = loop {
            gangs += 1;
            // Steps are counted from 0: the first gang leaves after its first step, the next ones after two more.
            let leave_at = 2 * (gangs as u64 - 1);
            let ranks = gang::local::run("train", 1 + gangs % 4, |mesh| {
                let mut mesh = leaving::Leaving::at(mesh, leave_at);
                let place =
                    Place { mesh: &mut mesh, generation: gangs as u32, threads: 1 + gangs % 3, cancel: &cancel };
                train_rank(&plan, &set, Some(&eval), &(), place)
            });
            let mut ranks = ranks.map_err(|failure| format!("{failure:?}")).unwrap().into_iter();
            match ranks.next().unwrap() {
                Outcome::Finished(trained) => break trained,
                Outcome::Left => assert!(ranks.all(|rank| matches!(rank, Outcome::Left)), "all leave"),
            }
        };
        assert!(gangs > 3, "{gangs} gangs");
        assert!(essence(&got) == essence(&expected), "{:?}", plan.optimizer);
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let set = rows(4, 200, 3);
    let store = Arc::new(MemoryCheckpoints::default());
    let checkpoint = Some(Checkpointing { store, every_steps: 2, every: Duration::ZERO });
    run(&TrainPlan { checkpoint: checkpoint.clone(), ..plan() }, &set);
    let other = TrainPlan { checkpoint, seed: 12, ..plan() };
    let error = train(&other, Arc::new(set), None, &(), &CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains("another training run"), "{error}");
}

#[test]
fn a_loss_that_is_not_finite_stops_with_step_and_learning_rate() {
    let set = rows(16, 1500, 1);
    for workers in [1, 3] {
        for clip_norm in [None, Some(1.0)] {
            let plan = TrainPlan {
                schedule: Schedule::constant(1e20),
                optimizer: Optimizer::Sgd,
                workers,
                // A clipped step is short in the gradient's measure, but not with this rate.
                clip_norm,
                ..plan()
            };
            let error = train(&plan, Arc::new(set.clone()), None, &(), &CancellationToken::new()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("diverged") && text.contains(" at step ") && text.contains("of epoch 1"), "{text}");
            assert!(text.contains("learning rate 1e20"), "{text}");
            assert!(matches!(error, Error::Invalid { hint: Some(hint), .. } if hint.contains("LEARN_RATE")));
        }
    }
}

/// Keeps what it is told; may cancel after the first epoch.
#[derive(Default)]
struct Watch {
    epochs: Mutex<Vec<EpochRecord>>,
    cancel: Option<CancellationToken>,
}

impl TrainObserver for Watch {
    fn epoch(&self, record: &EpochRecord) {
        self.epochs.lock().unwrap().push(record.clone());
        if let Some(cancel) = &self.cancel {
            cancel.cancel();
        }
    }
}

#[test]
fn it_learns_and_its_history_says_so() {
    let (set, held_out) = (rows(16, 4000, 4), rows(1, 1000, 5));
    let watch = Watch::default();
    let plan = TrainPlan { epochs: 15, batch_size: 64, workers: 2, ..plan() };
    let eval: Arc<dyn ShardSet> = Arc::new(held_out.clone());
    let trained = train(&plan, Arc::new(set), Some(eval), &watch, &CancellationToken::new()).unwrap();
    assert_eq!(*watch.epochs.lock().unwrap(), trained.history);
    let (first, last) = (&trained.history[0], trained.history.last().unwrap());
    assert!(last.loss < 0.5 * first.loss && last.eval_loss < first.eval_loss, "{:?}", trained.history);
    assert_eq!((last.iteration, last.learning_rate, trained.stopped_early), (14, 0.01, false));
    let (mut right, mut count) = (0, 0);
    for index in 0..held_out.blocks(0) {
        let block = held_out.block(0, index).unwrap();
        let predictions = trained.network.predict(&block, Kernel::Native);
        for (p, label) in predictions.chunks_exact(3).zip(&block.labels) {
            let best = (0..3).max_by(|a, b| p[*a].total_cmp(&p[*b])).unwrap();
            right += usize::from(best == *label as usize);
            count += 1;
        }
    }
    assert!(right as f64 / count as f64 > 0.93, "{right} of {count}");
}

#[test]
fn early_stopping_ends_when_nothing_improves_and_keeps_the_best() {
    let set = rows(8, 400, 6);
    let early_stop = Some(EarlyStop { min_rel_progress: 0.01, patience: 1 });
    let stopping = TrainPlan { early_stop, epochs: 200, batch_size: 32, ..plan() };
    let trained = run(&stopping, &set);
    let epochs = trained.history.len();
    assert!(trained.stopped_early && epochs < 200, "{epochs} epochs");
    let losses: Vec<f64> = trained.history.iter().map(|r| r.eval_loss.unwrap()).collect();
    let improved = |i: usize| losses[i] < losses[..i].iter().copied().fold(f64::INFINITY, f64::min) * 0.99;
    assert!((1..epochs - 1).all(improved) && !improved(epochs - 1), "{losses:?}");
    // The parameters are those of the best epoch: a run that ends there has them too.
    let best = (0..epochs).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    let shorter = run(&TrainPlan { epochs: best + 1, early_stop: None, ..stopping }, &set);
    assert_eq!(bits(&shorter), bits(&trained));
}

#[test]
fn class_weights_come_as_row_weights() {
    // Labels do not depend on the features, one row in ten is of class 1: with weights that make both classes equally
    // heavy the network says one half.
    let chance = Stream::new(8, 8);
    let make = |heavy: f32| {
        let count = 4000;
        let labels: Vec<f32> = (0..count).map(|i| f32::from(u8::from(i % 10 == 0))).collect();
        let weights = labels.iter().map(|y| if *y == 1.0 { heavy } else { 1.0 }).collect();
        let dense = (0..count as u64 * 2).map(|i| chance.uniform(i)).collect();
        let block = Block { rows: count, dense, indices: vec![], labels, weights, ..Block::default() };
        MemoryShards::from_whole(FeatureLayout::of_dense(2), 1000, vec![block]).unwrap()
    };
    for (heavy, expected) in [(1.0, 0.1), (9.0, 0.5)] {
        let network = NetworkSpec {
            inputs: FeatureLayout::of_dense(2),
            hidden: vec![],
            outputs: 1,
            loss: Loss::SigmoidCrossEntropy,
            ..plan().network
        };
        let plan = TrainPlan { network, epochs: 20, ..plan() };
        let trained = train(&plan, Arc::new(make(heavy)), None, &(), &CancellationToken::new()).unwrap();
        let middle = Block { rows: 1, dense: vec![0.5, 0.5], ..Block::default() };
        let p = trained.network.predict(&middle, Kernel::Native)[0];
        assert!((p - expected).abs() < 0.04, "weight {heavy}: {p}, expected {expected}");
    }
}

#[test]
fn cancelling_ends_the_run() {
    let cancel = CancellationToken::new();
    let watch = Watch { cancel: Some(cancel.clone()), ..Watch::default() };
    let plan = TrainPlan { epochs: 1_000_000, workers: 2, ..plan() };
    let error = train(&plan, Arc::new(rows(16, 1500, 1)), None, &watch, &cancel).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(watch.epochs.lock().unwrap().len(), 1);
}

#[test]
fn small_sets_and_odd_batches_are_trained_on_whole() {
    for (shards, count, batch_size) in [(1, 1, 32), (16, 3, 32), (3, 40, 7), (16, 200, 1), (5, 77, 100)] {
        let set = rows(shards, count, 9);
        let plan = TrainPlan { batch_size, workers: 2, ..plan() };
        let trained = train(&plan, Arc::new(set), None, &(), &CancellationToken::new()).unwrap();
        assert!(trained.history.iter().all(|record| record.loss.is_finite()), "{shards} {count} {batch_size}");
    }
}

#[test]
fn what_cannot_be_trained_is_refused_with_its_nouns() {
    let empty = MemoryShards::from_whole(layout(), 10, vec![Block::default()]).unwrap();
    let good = rows(1, 20, 1);
    let cases: [(TrainPlan, &MemoryShards, &str); 4] = [
        (plan(), &empty, "no rows to train on"),
        (TrainPlan { batch_size: 0, ..plan() }, &good, "BATCH_SIZE = 0"),
        (TrainPlan { schedule: Schedule::constant(-1.0), ..plan() }, &good, "LEARN_RATE = -1"),
        (TrainPlan { l2: f64::NAN, ..plan() }, &good, "L2_REG = NaN"),
    ];
    for (plan, set, expected) in cases {
        let error = train(&plan, Arc::new(set.clone()), None, &(), &CancellationToken::new()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A block that cannot be read.
struct Broken(MemoryShards, bool);

impl ShardSet for Broken {
    fn layout(&self) -> &FeatureLayout {
        self.0.layout()
    }
    fn shards(&self) -> usize {
        self.0.shards()
    }
    fn rows(&self, shard: usize) -> usize {
        self.0.rows(shard)
    }
    fn block_rows(&self) -> usize {
        self.0.block_rows()
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        if shard == 3 && index == 1 {
            return Err(Error::invalid("spill file 3 is truncated"));
        }
        self.0.block(shard, index)
    }
    fn in_memory(&self) -> bool {
        self.1
    }
}

#[test]
fn a_block_that_cannot_be_read_ends_the_run_with_its_reason() {
    for in_memory in [true, false] {
        let plan = TrainPlan { workers: 3, ..plan() };
        let set = Arc::new(Broken(rows(16, 1500, 1), in_memory));
        let error = train(&plan, set, None, &(), &CancellationToken::new()).unwrap_err();
        assert_eq!(error.to_string(), "spill file 3 is truncated");
    }
}
