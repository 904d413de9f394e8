//! Shards whose bags are written out as numbers, for solvers that keep a matrix of all inputs: there are few enough then. The
//! inputs stay in their order.

use std::ops::Range;
use std::sync::Arc;

use engine::Result;

use crate::shards::{Bags, Block, FeatureLayout, ShardSet};

/// See the module.
pub(super) struct WrittenOut<'a> {
    set: &'a dyn ShardSet,
    layout: FeatureLayout,
}

impl<'a> WrittenOut<'a> {
    pub(super) fn new(set: &'a dyn ShardSet) -> Self {
        let layout = set.layout();
        let layout = FeatureLayout { dense: layout.dense + layout.bag, bag: 0, ..layout.clone() };
        WrittenOut { set, layout }
    }
}

impl ShardSet for WrittenOut<'_> {
    fn layout(&self) -> &FeatureLayout {
        &self.layout
    }
    fn shards(&self) -> usize {
        self.set.shards()
    }
    fn rows(&self, shard: usize) -> usize {
        self.set.rows(shard)
    }
    fn block_rows(&self) -> usize {
        self.set.block_rows()
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        let block = self.set.block(shard, index)?;
        let (given, width) = (self.set.layout().dense, self.layout.dense);
        let mut dense = vec![0.0; block.rows * width];
        for (row, inputs) in dense.chunks_exact_mut(width).enumerate() {
            inputs[..given].copy_from_slice(&block.dense[row * given..][..given]);
            block.bags.of(row).iter().for_each(|place| inputs[given + *place as usize] = 1.0);
        }
        Ok(Arc::new(Block {
            rows: block.rows,
            dense,
            indices: block.indices.clone(),
            bags: Bags::default(),
            labels: block.labels.clone(),
            weights: block.weights.clone(),
        }))
    }
    fn in_memory(&self) -> bool {
        self.set.in_memory()
    }
    fn hold(&self, shards: Range<usize>) -> Result<()> {
        self.set.hold(shards)
    }
}
