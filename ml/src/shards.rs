//! What training reads: rows in a canonical order, as blocks of plain numbers.
//!
//! Only types live here; turning a query into shards is the materialising code's work, turning blocks into shuffled
//! batches is the training loop's. What always holds: the order of rows in a shard, and of blocks in a set, depends on
//! the rows and the seed alone, never on files, partitions or workers.
//!
//! Shapes: D logical inputs, R rows of a block, G one-hot groups.

use std::ops::Range;
use std::sync::Arc;

use engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// In a group's index column: no column of the group is set.
pub const NO_CATEGORY: u32 = u32::MAX;

/// How D logical inputs are laid out: `dense` columns first, then those of the bag, then the columns of each one-hot group in
/// order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FeatureLayout {
    /// Leading inputs that are given as numbers.
    pub dense: usize,
    /// Width of the bag: inputs that are 1 or 0, of which a row sets any number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bag: usize,
    /// Width of each one-hot group; a row sets at most one column of each.
    pub groups: Vec<u32>,
    /// Names of the D logical inputs, for weights and explanations.
    pub names: Vec<String>,
}

fn is_zero(width: &usize) -> bool {
    *width == 0
}

impl FeatureLayout {
    /// A layout of dense columns alone, named `f0`, `f1`, ...
    pub fn of_dense(dense: usize) -> Self {
        FeatureLayout { dense, names: (0..dense).map(|i| format!("f{i}")).collect(), ..FeatureLayout::default() }
    }

    /// D, the number of logical inputs.
    pub fn dims(&self) -> usize {
        self.dense + self.bag + self.groups.iter().map(|width| *width as usize).sum::<usize>()
    }

    /// First logical input of each group.
    pub fn group_offsets(&self) -> Vec<usize> {
        let mut next = self.dense + self.bag;
        self.groups
            .iter()
            .map(|width| {
                let first = next;
                next += *width as usize;
                first
            })
            .collect()
    }
}

/// For each row, which inputs of the bag are 1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bags {
    /// [R], or none where there is no bag: where a row's places begin and end.
    pub rows: Vec<(u32, u32)>,
    /// Inputs, from the first of the bag on.
    pub places: Vec<u32>,
}

impl Bags {
    /// The places of a row.
    pub fn of(&self, row: usize) -> &[u32] {
        self.borrowed(row..row + 1).of(0)
    }

    /// Adds a row.
    pub fn push(&mut self, places: impl IntoIterator<Item = u32>) {
        let begin = self.places.len() as u32;
        self.places.extend(places);
        self.rows.push((begin, self.places.len() as u32));
    }

    /// Some of the rows.
    pub fn borrowed(&self, rows: Range<usize>) -> BagRows<'_> {
        let rows = if self.rows.is_empty() { &[] } else { &self.rows[rows] };
        BagRows { rows, places: &self.places }
    }
}

/// Rows of [`Bags`].
#[derive(Debug, Clone, Copy, Default)]
pub struct BagRows<'a> {
    rows: &'a [(u32, u32)],
    places: &'a [u32],
}

impl<'a> BagRows<'a> {
    /// The places of a row.
    pub fn of(&self, row: usize) -> &'a [u32] {
        self.rows.get(row).map_or(&[], |(begin, end)| &self.places[*begin as usize..*end as usize])
    }

    /// The places of each row; none where there is no bag.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u32]> + use<'a> {
        let places = self.places;
        self.rows.iter().map(move |(begin, end)| &places[*begin as usize..*end as usize])
    }

    /// Some of the rows.
    pub fn part(&self, rows: Range<usize>) -> BagRows<'a> {
        BagRows { rows: if self.rows.is_empty() { &[] } else { &self.rows[rows] }, places: self.places }
    }
}

/// Some rows of one shard, in canonical order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block {
    /// R.
    pub rows: usize,
    /// [R x dense], row-major.
    pub dense: Vec<f32>,
    /// [R x G], row-major: the set column within its group, or [`NO_CATEGORY`].
    pub indices: Vec<u32>,
    /// Which inputs of the bag each row sets.
    pub bags: Bags,
    /// [R]: class index, or the value to predict.
    pub labels: Vec<f32>,
    /// [R]: weight of the row in the loss (class weights come this way); 0 for rows that do not count.
    pub weights: Vec<f32>,
}

impl Block {
    /// Checks that all parts have the lengths and indices that `layout` asks for.
    pub fn check(&self, layout: &FeatureLayout) -> Result<()> {
        let parts = [
            ("dense", self.dense.len(), self.rows * layout.dense),
            ("indices", self.indices.len(), self.rows * layout.groups.len()),
            ("labels", self.labels.len(), self.rows),
            ("weights", self.weights.len(), self.rows),
            ("bags", self.bags.rows.len(), if layout.bag > 0 { self.rows } else { 0 }),
        ];
        for (part, got, expected) in parts {
            if got != expected {
                return Err(Error::invalid(format!(
                    "a block of {} rows has {got} {part}, expected {expected}",
                    self.rows
                )));
            }
        }
        if let Some(place) = self.bags.places.iter().find(|place| **place as usize >= layout.bag) {
            return Err(Error::invalid(format!("place {place} of the bag, which has {} columns", layout.bag)));
        }
        for (row, indices) in self.indices.chunks_exact(layout.groups.len().max(1)).enumerate() {
            for (group, (index, width)) in indices.iter().zip(&layout.groups).enumerate() {
                if index >= width && *index != NO_CATEGORY {
                    return Err(Error::invalid(format!(
                        "row {row}: category {index} of one-hot group {group}, which has {width} columns"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// S shards of rows in canonical order. Block `i` of a shard holds its rows from `i * block_rows()` on; only a shard's
/// last block is shorter.
pub trait ShardSet: Send + Sync {
    /// What a row is made of.
    fn layout(&self) -> &FeatureLayout;
    /// S.
    fn shards(&self) -> usize;
    /// Rows of one shard.
    fn rows(&self, shard: usize) -> usize;
    /// Rows of every block but a shard's last.
    fn block_rows(&self) -> usize;
    /// One block; may read from disk.
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>>;
    /// Whether `block` returns at once. When it does not, the training loop reads ahead on threads of its own.
    fn in_memory(&self) -> bool {
        false
    }
    /// Says which shards will be read again and again: a set that caches may load them now.
    fn hold(&self, _shards: Range<usize>) -> Result<()> {
        Ok(())
    }
    /// Blocks of one shard.
    fn blocks(&self, shard: usize) -> usize {
        self.rows(shard).div_ceil(self.block_rows())
    }
    /// Rows of all shards.
    fn total_rows(&self) -> usize {
        (0..self.shards()).map(|shard| self.rows(shard)).sum()
    }
}

/// Shards that fit in memory.
#[derive(Debug, Clone)]
pub struct MemoryShards {
    layout: FeatureLayout,
    block_rows: usize,
    shards: Vec<Vec<Arc<Block>>>,
    rows: Vec<usize>,
}

impl MemoryShards {
    /// Takes each shard as its blocks; checks every block against `layout` and `block_rows`.
    pub fn new(layout: FeatureLayout, block_rows: usize, shards: Vec<Vec<Arc<Block>>>) -> Result<Self> {
        if block_rows == 0 {
            return Err(Error::invalid("shards with blocks of 0 rows"));
        }
        for blocks in &shards {
            for (index, block) in blocks.iter().enumerate() {
                block.check(&layout)?;
                let last = index + 1 == blocks.len();
                if block.rows > block_rows || block.rows == 0 || (!last && block.rows != block_rows) {
                    return Err(Error::invalid(format!("a block of {} rows among blocks of {block_rows}", block.rows)));
                }
            }
        }
        let rows = shards.iter().map(|blocks| blocks.iter().map(|block| block.rows).sum()).collect();
        Ok(MemoryShards { layout, block_rows, shards, rows })
    }

    /// Cuts each shard, given as one long block, into blocks of `block_rows`.
    pub fn from_whole(layout: FeatureLayout, block_rows: usize, shards: Vec<Block>) -> Result<Self> {
        let (dense, groups) = (layout.dense, layout.groups.len());
        for shard in &shards {
            shard.check(&layout)?;
        }
        let cut = |shard: Block| -> Vec<Arc<Block>> {
            (0..shard.rows)
                .step_by(block_rows.max(1))
                .map(|start| {
                    let end = (start + block_rows).min(shard.rows);
                    Arc::new(Block {
                        rows: end - start,
                        dense: shard.dense[start * dense..end * dense].to_vec(),
                        indices: shard.indices[start * groups..end * groups].to_vec(),
                        bags: bags_of(&shard.bags, start..end),
                        labels: shard.labels[start..end].to_vec(),
                        weights: shard.weights[start..end].to_vec(),
                    })
                })
                .collect()
        };
        let shards = shards.into_iter().map(cut).collect();
        Self::new(layout, block_rows, shards)
    }
}

fn bags_of(bags: &Bags, rows: Range<usize>) -> Bags {
    let mut part = Bags::default();
    bags.borrowed(rows).iter().for_each(|places| part.push(places.iter().copied()));
    part
}

impl ShardSet for MemoryShards {
    fn layout(&self) -> &FeatureLayout {
        &self.layout
    }
    fn shards(&self) -> usize {
        self.shards.len()
    }
    fn rows(&self, shard: usize) -> usize {
        self.rows[shard]
    }
    fn block_rows(&self) -> usize {
        self.block_rows
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        Ok(self.shards[shard][index].clone())
    }
    fn in_memory(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(rows: usize) -> Block {
        Block {
            rows,
            dense: vec![0.5; rows * 2],
            indices: vec![1; rows],
            labels: vec![0.0; rows],
            weights: vec![1.0; rows],
            ..Block::default()
        }
    }

    fn layout() -> FeatureLayout {
        FeatureLayout {
            dense: 2,
            groups: vec![3],
            names: ["a", "b", "c=x", "c=y", "c=z"].map(String::from).to_vec(),
            ..FeatureLayout::default()
        }
    }

    #[test]
    fn dims_and_offsets_count_every_group() {
        let layout = FeatureLayout { dense: 2, groups: vec![3, 5], names: vec![], ..FeatureLayout::default() };
        assert_eq!(layout.dims(), 10);
        assert_eq!(layout.group_offsets(), [2, 5]);
    }

    #[test]
    fn a_whole_shard_is_cut_into_blocks() {
        let set = MemoryShards::from_whole(layout(), 4, vec![block(10), block(0), block(4)]).unwrap();
        assert_eq!((0..3).map(|s| set.blocks(s)).collect::<Vec<_>>(), [3, 0, 1]);
        assert_eq!(set.block(0, 2).unwrap().rows, 2);
        assert_eq!(set.total_rows(), 14);
    }

    #[test]
    fn wrong_lengths_and_indices_are_refused() {
        let mut short = block(3);
        short.labels.pop();
        let mut wild = block(3);
        wild.indices[2] = 3;
        for (bad, expected) in [(short, "2 labels, expected 3"), (wild, "row 2: category 3 of one-hot group 0")] {
            let error = MemoryShards::new(layout(), 4, vec![vec![Arc::new(bad)]]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut none = block(3);
        none.indices[2] = NO_CATEGORY;
        MemoryShards::new(layout(), 4, vec![vec![Arc::new(none)]]).unwrap();
    }
}
