//! The networks whose training is measured, and random rows for them.

use std::sync::Arc;

use ml::kernel::ChosenKernel;
use ml::layer::Activation;
use ml::loss::Loss;
use ml::network::NetworkSpec;
use ml::optimizer::Optimizer;
use ml::random::Stream;
use ml::schedule::Schedule;
use ml::shards::{Block, FeatureLayout, MemoryShards};
use ml::train::TrainPlan;

/// NUM_SHARDS where nothing is said.
pub(crate) const SHARDS: usize = 16;

/// A network, its batch, and how many rows an epoch has.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) inputs: FeatureLayout,
    pub(crate) hidden: [usize; 2],
    pub(crate) outputs: usize,
    pub(crate) loss: Loss,
    pub(crate) batch_size: usize,
    pub(crate) rows: usize,
}

pub(crate) fn cases() -> [Case; 3] {
    let one_hot = FeatureLayout { dense: 12, groups: vec![16, 3, 104], ..FeatureLayout::default() };
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
pub(crate) fn rows(case: &Case, shards: usize) -> Arc<MemoryShards> {
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

pub(crate) fn plan(case: &Case, workers: usize, kernel: &ChosenKernel) -> TrainPlan {
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
