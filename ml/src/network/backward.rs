//! The way back: from a tile's outputs to the gradient, summed over the leaves of its branch in the order of the tree.
//!
//! The products that go through the weights are shared by all leaves: the kernel packs the weights once. Each leaf's own
//! gradient is a product over its rows alone, so a sum's terms do not depend on who computes which leaves.
//!
//! Shapes: R rows of a tile, I and H a layer's inputs and sums.

use std::ops::Range;

use super::{Architecture, Branch, Layer, LayerTape, Tape, Tile, scaled};
use crate::kernel::Kernel;
use crate::layer::{activation, dense, dropout, norm};
use crate::simd;

impl Architecture {
    /// Forward and backward of a tile that is a complete subtree of the gradient tree: writes the gradient of the summed
    /// weighted loss to `target` and each leaf's sum of weighted losses to `losses`. The leaves share the products
    /// that go through the weights; their own gradients are added as the tree says, layer by layer.
    pub fn gradient(
        &self,
        kernel: Kernel,
        parameters: &[f32],
        tile: Tile<'_>,
        branch: Branch<'_>,
        tape: &mut Tape,
        losses: &mut [f64],
        target: &mut Target<'_>,
    ) {
        let leaves = branch.leaves;
        assert!(leaves.len().is_power_of_two() && losses.len() == leaves.len(), "a branch is a complete subtree");
        self.forward(kernel, parameters, tile, Some(branch), tape);
        let part = tile.rows / leaves.len();
        let rows_of = |leaf: usize| leaf * part..(leaf + 1) * part;
        let outputs = tape.outputs_mut(tile.rows * self.spec.outputs);
        for (number, leaf) in leaves.iter().enumerate() {
            let rows = rows_of(number);
            let outputs = &mut outputs[scaled(rows.clone(), self.spec.outputs)];
            let (labels, weights) = (&tile.labels[rows.clone()], &tile.weights[rows]);
            losses[number] =
                if leaf.is_empty { 0.0 } else { self.spec.loss.gradient(outputs, self.spec.outputs, labels, weights) };
        }
        let Tape { layers, delta, slopes, nodes } = tape;
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let (before, here) = layers.split_at_mut(index);
            let (before, here) = (before.last(), &here[0]);
            if here.dropping {
                let outputs = tile.rows * layer.outputs();
                dropout::backward(&mut delta[..outputs], &here.mask[..outputs]);
            }
            let mut stack = NodeStack { root: target.layer(layer), above: nodes };
            for (number, leaf) in leaves.iter().enumerate() {
                let place = stack.place(number);
                if leaf.is_empty {
                    place.fill(0.0);
                } else {
                    let step = Backward { architecture: self, kernel, parameters, tile, layer, before, here };
                    step.leaf(rows_of(number), delta, slopes, place);
                }
                stack.merge(number);
            }
            target.done(layer, losses);
            if before.is_some() {
                let sums = tile.rows * layer.width;
                let dz = if layer.activation.is_some() { &slopes[..sums] } else { &here.z[..sums] };
                let (weights, dx) = (&parameters[layer.weight.clone()], &mut delta[..tile.rows * layer.inputs]);
                dense::input_gradient(kernel, tile.rows, layer.inputs, layer.width, dz, weights, dx);
            }
        }
    }

    /// Whether leaves of `rows` rows may go through the network `leaves` at a time: whether the kernel gives a row the
    /// same bits in the larger tile, which depends on how it cuts such products. Tried, for every layer.
    pub fn joins(&self, kernel: Kernel, rows: usize, leaves: usize) -> bool {
        // Fixed numbers that are no short binary fractions.
        let pattern = |len: usize| -> Vec<f32> {
            (0..len as u32).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 8) as f32 / 16_777_216.0 - 0.48).collect()
        };
        let same = |outputs: usize, inputs: usize, transposed: bool| {
            let (x, weights) = (pattern(rows * leaves * inputs), pattern(inputs * outputs));
            let product = |rows: usize, x: &[f32]| {
                let mut z = vec![0.0; rows * outputs];
                kernel.gemm_f32(rows, outputs, inputs, 1.0, x, false, &weights, transposed, 0.0, &mut z);
                z
            };
            let parts = x.chunks_exact((rows * inputs).max(1)).flat_map(|x| product(rows, x));
            parts.map(f32::to_bits).eq(product(rows * leaves, &x).into_iter().map(f32::to_bits))
        };
        self.layers.iter().enumerate().all(|(index, layer)| {
            let inputs = if index == 0 { self.spec.inputs.dense } else { layer.inputs };
            (inputs == 0 || same(layer.width, inputs, false)) && (index == 0 || same(layer.inputs, layer.width, true))
        })
    }
}

/// Where a gradient goes: [P] numbers of `numbers` from `first` on. What lies elsewhere is the caller's.
pub struct Target<'a> {
    /// Room for the gradient, and perhaps for others.
    pub numbers: &'a mut [f32],
    /// Where the gradient begins.
    pub first: usize,
    /// Told of each layer whose gradient is known, the last layer first: all numbers, the range of the layer's in the
    /// gradient, and the losses.
    pub layer_done: Option<LayerDone<'a>>,
}

/// See [`Target`].
pub type LayerDone<'a> = &'a mut dyn FnMut(&mut [f32], Range<usize>, &[f64]);

impl Target<'_> {
    fn layer(&mut self, layer: &Layer) -> &mut [f32] {
        let range = layer.range();
        &mut self.numbers[self.first + range.start..self.first + range.end]
    }

    fn done(&mut self, layer: &Layer, losses: &[f64]) {
        if let Some(layer_done) = &mut self.layer_done {
            layer_done(self.numbers, layer.range(), losses);
        }
    }
}

/// The way back through one layer.
struct Backward<'a> {
    architecture: &'a Architecture,
    kernel: Kernel,
    parameters: &'a [f32],
    tile: Tile<'a>,
    layer: &'a Layer,
    /// None for the first layer.
    before: Option<&'a LayerTape>,
    here: &'a LayerTape,
}

impl Backward<'_> {
    /// The layer's gradient from one leaf's rows, into `target`, which lies as [`Layer::range`]. The gradient of the
    /// layer's sums is left in `slopes`, that of the output layer the loss has left in its tape.
    fn leaf(&self, rows: Range<usize>, delta: &[f32], slopes: &mut [f32], target: &mut [f32]) {
        let Backward { kernel, layer, here, .. } = *self;
        let (weight_gradient, rest) = target.split_at_mut(layer.weight.len());
        let (bias_gradient, norm_gradient) = rest.split_at_mut(layer.width);
        let sums = scaled(rows.clone(), layer.width);
        let dz = match layer.activation {
            None => {
                activation::column_sums(&here.z[sums.clone()], layer.width, bias_gradient);
                &here.z[sums]
            }
            Some(function) => {
                let delta = &delta[scaled(rows.clone(), layer.outputs())];
                let slopes = &mut slopes[sums.clone()];
                function.backward(&here.z[sums.clone()], delta, layer.width, slopes, bias_gradient);
                if let Some((gain, _)) = &layer.norm {
                    let (gain_gradient, shift_gradient) = norm_gradient.split_at_mut(layer.width);
                    let (gain, inverse) = (&self.parameters[gain.clone()], &here.inverse[rows.clone()]);
                    norm::backward(slopes, gain, &here.normal[sums], inverse, gain_gradient, shift_gradient);
                    activation::column_sums(slopes, layer.width, bias_gradient);
                }
                &*slopes
            }
        };
        if let Some(before) = self.before {
            let x = &before.output()[scaled(rows.clone(), layer.inputs)];
            dense::weight_gradient(kernel, rows.len(), layer.inputs, layer.width, x, dz, weight_gradient);
            return;
        }
        let (inputs, offsets) = (&self.architecture.spec.inputs, &self.architecture.group_offsets);
        let tile = self.tile.part(inputs, rows);
        let (dense_part, one_hot_part) = weight_gradient.split_at_mut(inputs.dense * layer.width);
        dense::weight_gradient(kernel, tile.rows, inputs.dense, layer.width, tile.dense, dz, dense_part);
        one_hot_part.fill(0.0);
        dense::scatter(offsets, tile.indices, dz, layer.width, weight_gradient);
        dense::scatter_bags(inputs.dense, tile.bags, dz, layer.width, weight_gradient);
    }
}

/// The nodes of a layer's gradient tree that wait for their siblings: the first in its final place, the others in room of
/// the tape. Before leaf i there are as many as i has ones in binary.
struct NodeStack<'a> {
    root: &'a mut [f32],
    above: &'a mut [Vec<f32>],
}

impl NodeStack<'_> {
    /// Where leaf `number` goes.
    fn place(&mut self, number: usize) -> &mut [f32] {
        match number.count_ones() as usize {
            0 => self.root,
            depth => &mut self.above[depth - 1][..self.root.len()],
        }
    }

    /// Adds up what leaf `number` completes.
    fn merge(&mut self, number: usize) {
        let mut depth = number.count_ones() as usize;
        for _ in 0..number.trailing_ones() {
            let (left, right) = self.above.split_at_mut(depth - 1);
            let right = &right[0][..self.root.len()];
            let left = left.last_mut().map_or(&mut *self.root, |left| &mut left[..right.len()]);
            simd::add_assign(left, right);
            depth -= 1;
        }
    }
}
