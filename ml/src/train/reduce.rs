//! The canonical binary tree in which gradients are summed, and who sums which part of it.
//!
//! Leaf g of G (a power of two) is the gradient of the batch's rows from one group of consecutive shards. Node (level, i)
//! is the sum of (level - 1, 2i) and (level - 1, 2i + 1). A rank folds the complete subtrees inside its range of leaves;
//! what is left, a few nodes of each rank, is folded in the same shape by the owner of each slice. So the additions, and
//! their bits, do not depend on the number of ranks:
//!
//! ```text
//!          (2,0)                rank 0 has leaves 0..3: it folds (1,0) = 0+1 and keeps leaf 2
//!        /       \              rank 1 has leaf 3
//!     (1,0)     (1,1)           the owner of a slice adds leaf 2 and leaf 3, then (1,0) and (1,1)
//!     /   \     /   \
//!    0     1   2     3
//! ```

use std::ops::Range;

use crate::simd;

/// Numbers of a slice that are folded and updated at a time: they stay in the first-level cache. Owners' cuts are
/// multiples of it, so that sums over chunks do not depend on the number of owners.
pub(super) const CHUNK: usize = 512;

/// How many leaves a batch is cut into: a power of two, at most the number of shards. Depends on the specification alone.
///
/// Few rows a leaf waste the matrix kernel and write the gradient too often, most so for a gradient that does not fit in
/// the cache; few leaves leave workers idle.
pub(super) fn leaves(batch_size: usize, shards: usize, parameters: usize) -> usize {
    let rows_min = if parameters > 1 << 19 { 64 } else { (batch_size / 8).clamp(16, 64) };
    let mut leaves = 1;
    while leaves * 2 <= shards && batch_size / (leaves * 2) >= rows_min {
        leaves *= 2;
    }
    leaves
}

/// Part `index` of `count` when `len` things are dealt out in order.
pub(crate) fn share(len: usize, index: usize, count: usize) -> Range<usize> {
    index * len / count..(index + 1) * len / count
}

/// Which slice of P parameters each rank owns: multiples of [`CHUNK`] but for the end.
pub(super) fn cuts(parameters: usize, world: usize) -> Vec<Range<usize>> {
    let chunks = parameters.div_ceil(CHUNK);
    (0..world)
        .map(|rank| {
            let share = share(chunks, rank, world);
            (share.start * CHUNK).min(parameters)..(share.end * CHUNK).min(parameters)
        })
        .collect()
}

/// Cuts a rank's leaves into branches: complete subtrees of at most `branch_max` leaves, as large as they can be. The
/// leaves of a branch go through the network together.
pub(super) fn branches(leaves: Range<usize>, branch_max: usize) -> Vec<Range<usize>> {
    let mut branches = Vec::new();
    let mut start = leaves.start;
    while start < leaves.end {
        let mut size = 1;
        while size * 2 <= branch_max && start.is_multiple_of(size * 2) && start + size * 2 <= leaves.end {
            size *= 2;
        }
        branches.push(start..start + size);
        start += size;
    }
    branches
}

/// A node of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    level: u32,
    index: usize,
}

impl Node {
    fn is_left_sibling_of(self, other: Node) -> bool {
        self.level == other.level && self.index.is_multiple_of(2) && other.index == self.index + 1
    }
}

/// How a sequence of nodes, put on a stack one after the other, is folded: after the i-th the two topmost are added
/// `merges[i]` times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folding {
    pub(super) merges: Vec<usize>,
    /// What is left on the stack at the end.
    pub(super) rest: Vec<Node>,
    /// The stack's greatest height.
    pub(super) height: usize,
}

impl Folding {
    fn of(nodes: impl IntoIterator<Item = Node>) -> Folding {
        let mut folding = Folding { merges: Vec::new(), rest: Vec::new(), height: 0 };
        for node in nodes {
            let stack = &mut folding.rest;
            stack.push(node);
            folding.height = folding.height.max(stack.len());
            let mut merges = 0;
            while let [.., left, right] = stack[..]
                && left.is_left_sibling_of(right)
            {
                stack.truncate(stack.len() - 2);
                stack.push(Node { level: left.level + 1, index: left.index / 2 });
                merges += 1;
            }
            folding.merges.push(merges);
        }
        folding
    }

    /// A rank's own: from its branches to the nodes that it offers. A rank that is alone leaves the last addition to the
    /// update, which reads the numbers anyway.
    pub(super) fn of_rank(leaves: usize, branch_max: usize, rank: usize, world: usize) -> Folding {
        let node = |branch: &Range<usize>| Node { level: branch.len().ilog2(), index: branch.start / branch.len() };
        let mut folding = Folding::of(branches(share(leaves, rank, world), branch_max).iter().map(node));
        if let (1, [root], Some(last)) = (world, &folding.rest[..], folding.merges.last_mut())
            && *last > 0
        {
            let level = root.level - 1;
            *last -= 1;
            folding.rest = vec![Node { level, index: 0 }, Node { level, index: 1 }];
        }
        folding
    }

    /// The owners': from all ranks' nodes to the root. What a rank offers depends on `branch_max` only when it is alone.
    pub(super) fn of_world(leaves: usize, branch_max: usize, world: usize) -> Folding {
        let offered = |rank| Folding::of_rank(leaves, branch_max, rank, world).rest;
        let folding = Folding::of((0..world).flat_map(offered));
        assert_eq!(folding.rest.len(), 1, "the nodes of all ranks make one tree");
        folding
    }

    /// Folds numbers, one for each node.
    pub(super) fn scalar(&self, values: impl Iterator<Item = f64>, stack: &mut Vec<f64>) -> f64 {
        stack.clear();
        for (value, merges) in values.zip(&self.merges) {
            stack.push(value);
            for _ in 0..*merges {
                let right = stack.pop().expect("a merge has two nodes");
                *stack.last_mut().expect("a merge has two nodes") += right;
            }
        }
        stack[0]
    }

    /// Folds a chunk of each node; `stack` has room for `height` chunks of [`CHUNK`].
    pub(super) fn chunk<'a>(&self, mut planes: impl Iterator<Item = &'a [f32]>, stack: &'a mut [f32]) -> &'a [f32] {
        // The usual cases read each plane once, where it lies.
        if let [_] = self.merges[..] {
            return planes.next().expect("one node is one plane");
        }
        let mut depth = 0;
        let mut size = 0;
        // A plane waits here until it is known whether its sibling comes next.
        let mut waiting: Option<&[f32]> = None;
        for (plane, merges) in planes.zip(&self.merges) {
            size = plane.len();
            if *merges == 0 {
                if let Some(earlier) = waiting.replace(plane) {
                    stack[depth * CHUNK..depth * CHUNK + size].copy_from_slice(earlier);
                    depth += 1;
                }
                continue;
            }
            match waiting.take() {
                Some(left) => {
                    simd::add(&mut stack[depth * CHUNK..depth * CHUNK + size], left, plane);
                    depth += 1;
                }
                None => simd::add_assign(&mut stack[(depth - 1) * CHUNK..(depth - 1) * CHUNK + size], plane),
            }
            for _ in 1..*merges {
                depth -= 1;
                let (left, right) = stack.split_at_mut(depth * CHUNK);
                simd::add_assign(&mut left[(depth - 1) * CHUNK..(depth - 1) * CHUNK + size], &right[..size]);
            }
        }
        debug_assert!(depth == 1 && waiting.is_none(), "one root is left");
        &stack[..size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_follow_from_the_specification() {
        let cases = [
            ((32, 16, 55_000), 2),
            ((64, 16, 55_000), 4),
            ((256, 16, 13_000), 8),
            ((1024, 16, 13_000), 16),
            ((256, 16, 2_000_000), 4),
            ((1, 16, 10), 1),
            ((100_000, 1, 10), 1),
            ((256, 6, 10), 4),
        ];
        for ((batch, shards, parameters), expected) in cases {
            assert_eq!(leaves(batch, shards, parameters), expected, "{batch} rows, {shards} shards, {parameters}");
        }
    }

    #[test]
    fn cuts_cover_the_vector_in_whole_chunks() {
        for parameters in [1, 511, 512, 513, 12_929, 54_922] {
            for world in [1, 2, 3, 7] {
                let cuts = cuts(parameters, world);
                let mut next = 0;
                for cut in &cuts {
                    assert_eq!(cut.start, next);
                    assert!(cut.start % CHUNK == 0 || cut.start == parameters);
                    next = cut.end;
                }
                assert_eq!(next, parameters);
            }
        }
    }

    #[test]
    fn branches_are_complete_subtrees() {
        let cases = [
            ((0..8, 4), vec![0..4, 4..8]),
            ((0..24, 8), vec![0..8, 8..16, 16..24]),
            ((1..6, 4), vec![1..2, 2..4, 4..6]),
            ((2..4, 1), vec![2..3, 3..4]),
            ((3..3, 4), vec![]),
        ];
        for ((leaves, branch_max), expected) in cases {
            assert_eq!(branches(leaves.clone(), branch_max), expected, "{leaves:?} by {branch_max}");
        }
    }

    /// The naive twin: the tree as a recursive function.
    fn root(values: &[f32]) -> f32 {
        match values {
            [one] => *one,
            _ => {
                let (left, right) = values.split_at(values.len() / 2);
                root(left) + root(right)
            }
        }
    }

    #[test]
    fn any_number_of_ranks_adds_in_the_same_order() {
        for leaves in [1usize, 2, 4, 8, 16] {
            // Numbers of such different size that another order would give another sum.
            let values: Vec<f32> =
                (0..leaves).map(|i| (1.0 + i as f32 * 0.37) * 10f32.powi(i as i32 * 7 % 9 - 4)).collect();
            for (world, branch_max) in (1..=leaves).flat_map(|world| [1, 2, 4, 16].map(|size| (world, size))) {
                let mut nodes: Vec<Vec<f32>> = Vec::new();
                for rank in 0..world {
                    let range = share(leaves, rank, world);
                    let folding = Folding::of_rank(leaves, branch_max, rank, world);
                    let mut stack: Vec<f32> = Vec::new();
                    for (branch, merges) in branches(range, branch_max).into_iter().zip(&folding.merges) {
                        stack.push(root(&values[branch]));
                        for _ in 0..*merges {
                            let right = stack.pop().unwrap();
                            *stack.last_mut().unwrap() += right;
                        }
                    }
                    assert_eq!(stack.len(), folding.rest.len());
                    nodes.extend(stack.into_iter().map(|value| vec![value; 5]));
                }
                let folding = Folding::of_world(leaves, branch_max, world);
                let mut stack = vec![0.0; folding.height * CHUNK];
                let sum = folding.chunk(nodes.iter().map(Vec::as_slice), &mut stack);
                assert_eq!(sum, [root(&values); 5], "{leaves} leaves, {world} ranks, branches of {branch_max}");
                let scalar = folding.scalar(nodes.iter().map(|node| f64::from(node[0])), &mut Vec::new());
                assert!((scalar - f64::from(root(&values))).abs() <= 1e-6 * scalar.abs());
            }
        }
    }
}
