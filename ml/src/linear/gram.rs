//! Σ h x̃ x̃ᵀ and Σ r x̃ over rows, x̃ = (x, 1): the matrix and the vector of the normal equation and of Newton's method.
//!
//! One-hot groups are kept as tables: a row touches one line of its group's table against the dense inputs, and one
//! element of the table of each pair of groups.

use std::slice::from_mut;

use engine::Result;

use super::fold::Sum;
use super::matrix;
use crate::shards::{Block, FeatureLayout, NO_CATEGORY};

/// Up to this many dense inputs the sum is a loop over rows; beyond, a matrix product for each tile of rows.
const DENSE_BY_ROWS_MAX: usize = 32;
const TILE_ROWS: usize = 128;
/// Numbers that are worked on at a time.
const LANES: usize = 8;

/// Column means over the training rows, by weight.
#[derive(Debug, Clone)]
pub(super) struct Means {
    /// Σ ω.
    pub(super) weight: f64,
    /// Of the dense inputs.
    pub(super) dense: Vec<f64>,
    /// Of the labels.
    pub(super) label: f64,
}

impl Means {
    pub(super) fn zero(layout: &FeatureLayout) -> Self {
        Means { weight: 0.0, dense: vec![0.0; layout.dense], label: 0.0 }
    }

    /// From sums to means.
    pub(super) fn divide(mut self) -> Self {
        self.dense.iter_mut().for_each(|sum| *sum /= self.weight);
        self.label /= self.weight;
        self
    }
}

impl Sum for Means {
    fn add(&mut self, block: &Block) -> Result<()> {
        for row in 0..block.rows {
            let weight = f64::from(block.weights[row]);
            self.weight += weight;
            self.label += weight * f64::from(block.labels[row]);
            let inputs = &block.dense[row * self.dense.len()..][..self.dense.len()];
            self.dense.iter_mut().zip(inputs).for_each(|(sum, x)| *sum += weight * f64::from(*x));
        }
        Ok(())
    }

    fn numbers(&mut self) -> Vec<&mut [f64]> {
        vec![from_mut(&mut self.weight), from_mut(&mut self.label), &mut self.dense]
    }
}

/// What a row gives to the sums: its loss ωℓ, h and r.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) loss: f64,
    pub(super) h: f64,
    pub(super) r: f64,
}

/// The sums, for rows whose shares are `share(x̃·β, label, weight)`; the dense inputs are taken relative to `means`.
#[derive(Clone)]
pub(super) struct Gram<'a, F> {
    share: F,
    /// β: D coefficients, then the intercept.
    at: &'a [f64],
    means: &'a [f64],
    layout: &'a FeatureLayout,
    offsets: &'a [usize],
    /// Dense inputs, the constant 1, and zeros up to a multiple of [`LANES`].
    width: usize,
    loss: f64,
    weight: f64,
    /// [width x width].
    dense: Vec<f64>,
    /// [Σ group widths x width]: one-hot columns against the dense inputs and 1.
    cross: Vec<f64>,
    /// For each pair of groups a < b: [width a x width b].
    pairs: Vec<Vec<f64>>,
    /// [width].
    dense_vector: Vec<f64>,
    /// [Σ group widths].
    group_vector: Vec<f64>,
    tile: Tile,
}

/// The assembled sums; n = D + 1, inputs in the layout's order and the constant last.
pub(super) struct Whole {
    /// Σ ωℓ.
    pub(super) loss: f64,
    /// Σ ω.
    pub(super) weight: f64,
    /// Σ h x̃ x̃ᵀ [n x n].
    pub(super) matrix: Vec<f64>,
    /// Σ r x̃ [n].
    pub(super) vector: Vec<f64>,
}

/// Room for a tile of rows.
#[derive(Clone, Default)]
struct Tile {
    /// [rows x width]: inputs relative to their means, 1, and zeros.
    inputs: Vec<f64>,
    /// The same times h.
    scaled: Vec<f64>,
    shares: Vec<Share>,
    /// A group's index of each row.
    lines: Vec<u32>,
}

impl Tile {
    fn fill(&mut self, dense: &[f32], p: usize, q: usize, rows: usize, means: &[f64]) {
        self.inputs.clear();
        self.inputs.resize(rows * q, 0.0);
        let given = dense.chunks(p.max(1)).chain(std::iter::repeat(&[][..]));
        for (x, given) in self.inputs.chunks_exact_mut(q).zip(given) {
            x.iter_mut().zip(given).zip(means).for_each(|((x, given), mean)| *x = f64::from(*given) - mean);
            x[p] = 1.0;
        }
    }
}

/// y += t x, for lengths that are a multiple of [`LANES`].
#[inline(always)]
fn add_scaled(t: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(x.as_chunks::<LANES>().0) {
        (0..LANES).for_each(|lane| y[lane] += t * x[lane]);
    }
}

vectorized! {
    /// The first `lines` lines of a [width x width] matrix: += Σ h x xᵀ, row after row.
    fn add_squares(width: usize, lines: usize, inputs: &[f64], shares: &[Share], dense: &mut [f64]) {
        for (x, share) in inputs.chunks_exact(width).zip(shares) {
            for (line, x_i) in dense.chunks_exact_mut(width).zip(&x[..lines]) {
                add_scaled(share.h * x_i, x, line);
            }
        }
    }
}

vectorized! {
    /// sum += Σ r x.
    fn add_vectors(width: usize, inputs: &[f64], shares: &[Share], sum: &mut [f64]) {
        for (x, share) in inputs.chunks_exact(width).zip(shares) {
            add_scaled(share.r, x, sum);
        }
    }
}

vectorized! {
    /// The line of a row's category += h x.
    fn add_lines(width: usize, inputs: &[f64], shares: &[Share], categories: &[u32], lines: &mut [f64]) {
        for ((x, share), category) in inputs.chunks_exact(width).zip(shares).zip(categories) {
            if *category != NO_CATEGORY {
                add_scaled(share.h, x, &mut lines[*category as usize * width..][..width]);
            }
        }
    }
}

impl<'a, F: Fn(f64, f64, f64) -> Share> Gram<'a, F> {
    pub(super) fn zero(
        layout: &'a FeatureLayout,
        offsets: &'a [usize],
        means: &'a [f64],
        at: &'a [f64],
        share: F,
    ) -> Self {
        let width = (layout.dense + 1).next_multiple_of(LANES);
        let one_hot = layout.dims() - layout.dense;
        let groups = &layout.groups;
        let pairs = (0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b)));
        Gram {
            share,
            at,
            means,
            layout,
            offsets,
            width,
            loss: 0.0,
            weight: 0.0,
            dense: vec![0.0; width * width],
            cross: vec![0.0; one_hot * width],
            pairs: pairs.map(|(a, b)| vec![0.0; groups[a] as usize * groups[b] as usize]).collect(),
            dense_vector: vec![0.0; width],
            group_vector: vec![0.0; one_hot],
            tile: Tile::default(),
        }
    }

    fn add_tile(&mut self, block: &Block, start: usize, rows: usize) {
        let (p, q, groups) = (self.layout.dense, self.width, self.layout.groups.len());
        let mut tile = std::mem::take(&mut self.tile);
        tile.fill(&block.dense[start * p..], p, q, rows, self.means);
        let indices = &block.indices[start * groups..][..rows * groups];
        tile.shares.clear();
        for (row, x) in tile.inputs.chunks_exact(q).enumerate() {
            let of_row = indices[row * groups..][..groups].iter().zip(self.offsets);
            let mut z = matrix::dot(&x[..p], &self.at[..p]) + self.at[self.at.len() - 1];
            of_row
                .filter(|(index, _)| **index != NO_CATEGORY)
                .for_each(|(index, offset)| z += self.at[offset + *index as usize]);
            let weight = f64::from(block.weights[start + row]);
            let share = (self.share)(z, f64::from(block.labels[start + row]), weight);
            self.loss += share.loss;
            self.weight += weight;
            tile.shares.push(share);
        }
        if q <= DENSE_BY_ROWS_MAX {
            add_squares(q, p + 1, &tile.inputs, &tile.shares, &mut self.dense);
        } else {
            tile.scaled.clear();
            let rows_of = || tile.inputs.chunks_exact(q).zip(&tile.shares);
            tile.scaled.extend(rows_of().flat_map(|(x, share)| x.iter().map(|x| share.h * x)));
            matrix::add_transposed_product(q, q, rows, &tile.inputs, &tile.scaled, &mut self.dense);
        }
        add_vectors(q, &tile.inputs, &tile.shares, &mut self.dense_vector);
        for (group, offset) in self.offsets.iter().enumerate() {
            let lines = &mut self.cross[(offset - p) * q..];
            let of_group = indices.chunks_exact(groups).map(|of_row| of_row[group]);
            tile.lines.clear();
            tile.lines.extend(of_group);
            add_lines(q, &tile.inputs, &tile.shares, &tile.lines, lines);
        }
        self.add_indices(indices, &tile.shares);
        self.tile = tile;
    }

    /// The sums of one-hot columns alone: r of each, and h of each pair.
    fn add_indices(&mut self, indices: &[u32], shares: &[Share]) {
        let (p, groups) = (self.layout.dense, self.layout.groups.len());
        for (indices, share) in indices.chunks_exact(groups.max(1)).zip(shares) {
            let mut pair = 0;
            for a in 0..groups {
                if indices[a] == NO_CATEGORY {
                    pair += groups - a - 1;
                    continue;
                }
                self.group_vector[self.offsets[a] - p + indices[a] as usize] += share.r;
                for b in a + 1..groups {
                    if indices[b] != NO_CATEGORY {
                        let place = indices[a] as usize * self.layout.groups[b] as usize + indices[b] as usize;
                        self.pairs[pair][place] += share.h;
                    }
                    pair += 1;
                }
            }
        }
    }

    /// The sums as a whole.
    pub(super) fn assemble(&self) -> Whole {
        let (d, p, q, groups) = (self.layout.dims(), self.layout.dense, self.width, &self.layout.groups);
        let n = d + 1;
        let mut matrix = vec![0.0; n * n];
        let mut set = |i: usize, j: usize, value: f64| {
            matrix[i * n + j] = value;
            matrix[j * n + i] = value;
        };
        // Dense input i, or the constant for i = p, stands at this place of the whole.
        let place = |i: usize| if i == p { d } else { i };
        for i in 0..=p {
            (0..=i).for_each(|j| set(place(i), place(j), self.dense[i * q + j]));
        }
        for column in 0..d - p {
            (0..=p).for_each(|j| set(p + column, place(j), self.cross[column * q + j]));
            set(p + column, p + column, self.cross[column * q + p]);
        }
        let mut pairs = self.pairs.iter();
        for a in 0..groups.len() {
            for b in a + 1..groups.len() {
                let table = pairs.next().expect("a table for every pair of groups");
                for (place, value) in table.iter().enumerate() {
                    let (i, j) = (place / groups[b] as usize, place % groups[b] as usize);
                    set(self.offsets[a] + i, self.offsets[b] + j, *value);
                }
            }
        }
        let mut vector = self.dense_vector[..p].to_vec();
        vector.extend_from_slice(&self.group_vector);
        vector.push(self.dense_vector[p]);
        Whole { loss: self.loss, weight: self.weight, matrix, vector }
    }
}

impl<F: Fn(f64, f64, f64) -> Share + Send> Sum for Gram<'_, F> {
    fn add(&mut self, block: &Block) -> Result<()> {
        for start in (0..block.rows).step_by(TILE_ROWS) {
            self.add_tile(block, start, TILE_ROWS.min(block.rows - start));
        }
        Ok(())
    }

    fn numbers(&mut self) -> Vec<&mut [f64]> {
        let Gram { loss, weight, dense, cross, dense_vector, group_vector, pairs, .. } = self;
        let sums = [from_mut(loss), from_mut(weight), dense, cross, dense_vector, group_vector];
        sums.into_iter().chain(pairs.iter_mut().map(Vec::as_mut_slice)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;
    use crate::simd::tests::at_every_level;

    fn rows(layout: &FeatureLayout, rows: usize) -> Block {
        let chance = Stream::new(3, 1);
        let mut block = Block { rows, ..Block::default() };
        block.dense = (0..(rows * layout.dense) as u64).map(|i| 4.0 * chance.uniform(i) - 1.0).collect();
        for row in 0..rows as u64 {
            for (group, width) in layout.groups.iter().enumerate() {
                let category = (chance.word64(8 * row + group as u64) % (u64::from(*width) + 1)) as u32;
                block.indices.push(if category == *width { NO_CATEGORY } else { category });
            }
            block.labels.push((chance.word64(8 * row + 6) % 2) as f32);
            block.weights.push(0.5 + chance.uniform(1_000_000 + row));
        }
        block
    }

    /// A row as it would be written out: dense inputs relative to their means, one-hot columns, 1.
    fn written_out(block: &Block, row: usize, layout: &FeatureLayout, means: &[f64]) -> Vec<f64> {
        let (p, groups) = (layout.dense, layout.groups.len());
        let mut x: Vec<f64> = (0..p)
            .map(|i| f64::from(block.dense[row * p + i]) - means[i])
            .chain(vec![0.0; layout.dims() - p])
            .collect();
        let indices = &block.indices[row * groups..][..groups];
        for (offset, index) in layout.group_offsets().iter().zip(indices).filter(|(_, index)| **index != NO_CATEGORY) {
            x[offset + *index as usize] = 1.0;
        }
        x.push(1.0);
        x
    }

    #[test]
    fn sums_are_those_of_rows_written_out_with_the_same_bits_at_every_level() {
        for (dense, groups) in [(0, vec![4, 3]), (1, vec![]), (14, vec![16, 3, 104]), (31, vec![5]), (45, vec![2, 2])] {
            let layout = FeatureLayout { dense, groups, names: Vec::new(), ..FeatureLayout::default() };
            let (block, offsets, n) = (rows(&layout, 333), layout.group_offsets(), layout.dims() + 1);
            let means: Vec<f64> = (0..dense).map(|i| 0.1 * i as f64).collect();
            let at: Vec<f64> = (0..n).map(|i| (i as f64).sin()).collect();
            let share =
                |z: f64, label: f64, weight: f64| Share { loss: z * z, h: weight * (1.0 + z * z), r: label - z };
            let sums = at_every_level(|_| {
                let mut gram = Gram::zero(&layout, &offsets, &means, &at, share);
                gram.add(&block).unwrap();
                gram
            });
            let bits = |gram: &Gram<'_, _>| -> Vec<u64> {
                gram.clone().numbers().concat().iter().map(|number| number.to_bits()).collect()
            };
            assert!(sums.iter().all(|gram| bits(gram) == bits(&sums[0])), "{layout:?}");

            let (mut matrix, mut vector, mut loss) = (vec![0.0; n * n], vec![0.0; n], 0.0);
            for row in 0..block.rows {
                let x = written_out(&block, row, &layout, &means);
                let z: f64 = x.iter().zip(&at).map(|(x, at)| x * at).sum();
                let share = share(z, f64::from(block.labels[row]), f64::from(block.weights[row]));
                loss += share.loss;
                (0..n).for_each(|i| vector[i] += share.r * x[i]);
                (0..n * n).for_each(|place| matrix[place] += share.h * x[place / n] * x[place % n]);
            }
            let whole = sums[0].assemble();
            let is_near = |got: &[f64], expected: &[f64]| {
                let scale = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
                got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-11 * scale)
            };
            assert!(is_near(&whole.matrix, &matrix), "{layout:?}");
            assert!(is_near(&whole.vector, &vector), "{layout:?}");
            assert!(is_near(&[whole.loss, whole.weight], &[loss, block.weights.iter().map(|w| f64::from(*w)).sum()]));
        }
    }
}
