//! A feed-forward network: its shape, its one flat parameter vector with named views, forward and backward.
//!
//! The gradient is one flat vector too, so that reduction, optimizer, clipping, checkpoints and files are plain loops over
//! slices. A [`Tape`] holds all that a pass needs; nothing is allocated during one. Gradients are sums over rows.
//!
//! Shapes: R rows of a tile, D inputs, H a layer's sums, C outputs, P parameters.

use std::ops::Range;

use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::kernel::Kernel;
use crate::layer::{Activation, dense, dropout, norm};
use crate::loss::Loss;
use crate::random::Stream;
use crate::shards::{BagRows, Block, FeatureLayout};

mod backward;

pub use backward::{LayerDone, Target};

/// What a network is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The D inputs.
    pub inputs: FeatureLayout,
    /// Sums of each hidden layer.
    pub hidden: Vec<usize>,
    /// After every hidden layer.
    pub activation: Activation,
    /// Share of hidden outputs dropped while training, in [0, 1).
    pub dropout: f32,
    /// Whether every hidden layer's sums are normalised before the activation.
    pub layer_norm: bool,
    /// C: classes, or 1.
    pub outputs: usize,
    /// What training makes small; also says what predictions are.
    pub loss: Loss,
}

impl NetworkSpec {
    /// Says what is wrong with the numbers of the specification, if anything.
    pub fn check(&self) -> Result<()> {
        if self.inputs.dims() == 0 {
            return Err(Error::invalid("a network needs at least one feature column"));
        }
        if self.hidden.contains(&0) {
            return Err(Error::invalid(format!(
                "HIDDEN_UNITS = {:?}: every layer needs at least one unit",
                self.hidden
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::invalid(format!("DROPOUT = {} is not in [0, 1)", self.dropout)));
        }
        let outputs_fit = match self.loss {
            Loss::SoftmaxCrossEntropy => self.outputs >= 2,
            _ => self.outputs == 1,
        };
        if !outputs_fit {
            return Err(Error::invalid(format!("{} outputs do not fit the loss {:?}", self.outputs, self.loss)));
        }
        Ok(())
    }
}

/// A named part of the flat parameter vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// `layer0.weight`, `layer0.bias`, `layer0.norm_gain`, `layer0.norm_shift`, ..., `output.weight`, `output.bias`.
    pub name: String,
    /// [I, H] for weights, [H] for the rest.
    pub shape: Vec<usize>,
    /// Where in the flat vector, in which the last layer comes first.
    pub range: Range<usize>,
    /// Whether penalties and weight decay apply: to weights alone.
    pub penalised: bool,
}

/// One dense layer with what follows it.
#[derive(Debug, Clone)]
struct Layer {
    inputs: usize,
    width: usize,
    weight: Range<usize>,
    bias: Range<usize>,
    norm: Option<(Range<usize>, Range<usize>)>,
    /// None for the output layer.
    activation: Option<Activation>,
}

impl Layer {
    /// All its parameters: they lie together.
    fn range(&self) -> Range<usize> {
        self.weight.start..self.norm.as_ref().map_or(self.bias.end, |(_, shift)| shift.end)
    }

    /// Numbers that a row has behind the activation.
    fn outputs(&self) -> usize {
        self.activation.map_or(self.width, |function| function.outputs(self.width))
    }
}

/// The shape of a network: where everything is.
#[derive(Debug, Clone)]
pub struct Architecture {
    spec: NetworkSpec,
    layers: Vec<Layer>,
    views: Vec<View>,
    parameters: usize,
    group_offsets: Vec<usize>,
}

/// Where the random streams of a seed are used.
mod streams {
    /// Initial weights of layer l: INITIAL + l.
    pub(super) const INITIAL: u64 = 1 << 32;
    /// Dropout of layer l: DROPOUT + l.
    pub(super) const DROPOUT: u64 = 2 << 32;
}

impl Architecture {
    /// Lays the parameters out, the last layer first: its gradient is known first, so that what is known is always the
    /// beginning of the vector.
    pub fn new(spec: &NetworkSpec) -> Result<Self> {
        spec.check()?;
        let mut shapes = Vec::new();
        let mut inputs = spec.inputs.dims();
        for width in spec.hidden.iter().copied() {
            shapes.push((inputs, width, Some(spec.activation)));
            inputs = spec.activation.outputs(width);
        }
        shapes.push((inputs, spec.outputs, None));
        let norms = |activation: &Option<Activation>| spec.layer_norm && activation.is_some();
        let count = |(inputs, width, activation): &(usize, usize, Option<Activation>)| {
            width * (inputs + if norms(activation) { 3 } else { 1 })
        };
        let parameters = shapes.iter().map(count).sum();
        let (mut layers, mut views, mut end) = (Vec::new(), Vec::new(), parameters);
        for (index, shape) in shapes.iter().enumerate() {
            end -= count(shape);
            let (inputs, width, activation) = *shape;
            let name = if activation.is_some() { format!("layer{index}") } else { "output".to_owned() };
            let mut next = end;
            let mut view = |part: &str, shape: Vec<usize>| -> Range<usize> {
                let range = next..next + shape.iter().product::<usize>();
                next = range.end;
                let penalised = shape.len() == 2;
                views.push(View { name: format!("{name}.{part}"), shape, range: range.clone(), penalised });
                range
            };
            layers.push(Layer {
                inputs,
                width,
                weight: view("weight", vec![inputs, width]),
                bias: view("bias", vec![width]),
                norm: norms(&activation).then(|| (view("norm_gain", vec![width]), view("norm_shift", vec![width]))),
                activation,
            });
        }
        Ok(Architecture { group_offsets: spec.inputs.group_offsets(), spec: spec.clone(), layers, views, parameters })
    }

    /// What it was made from.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// P.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The named parts of the parameter vector, from the first layer to the last.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// Initial parameters: weights uniform in +-sqrt(6 / (I + H)) (Glorot and Bengio 2010; for SELU +-sqrt(3 / I)),
    /// biases 0, gains 1.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut parameters = vec![0.0; self.parameters];
        for (index, layer) in self.layers.iter().enumerate() {
            let stream = Stream::new(seed, streams::INITIAL + index as u64);
            let bound = match layer.activation {
                Some(Activation::Selu) => (3.0 / layer.inputs as f64).sqrt(),
                _ => (6.0 / (layer.inputs + layer.width) as f64).sqrt(),
            } as f32;
            for (place, weight) in parameters[layer.weight.clone()].iter_mut().enumerate() {
                *weight = bound * (2.0 * stream.uniform(place as u64) - 1.0);
            }
            if let Some((gain, _)) = &layer.norm {
                parameters[gain.clone()].fill(1.0);
            }
        }
        parameters
    }

    /// The network's raw outputs for a tile are left in the tape. A branch turns dropout on.
    pub fn forward(
        &self,
        kernel: Kernel,
        parameters: &[f32],
        tile: Tile<'_>,
        branch: Option<Branch<'_>>,
        tape: &mut Tape,
    ) {
        let rows = tile.rows;
        for (index, layer) in self.layers.iter().enumerate() {
            let (before, here) = tape.layers.split_at_mut(index);
            let here = &mut here[0];
            let weights = &parameters[layer.weight.clone()];
            let z = &mut here.z[..rows * layer.width];
            match before.last() {
                None => {
                    let dense_inputs = self.spec.inputs.dense;
                    let dense_weights = &weights[..dense_inputs * layer.width];
                    dense::forward(kernel, rows, dense_inputs, layer.width, tile.dense, dense_weights, z);
                    dense::gather(&self.group_offsets, tile.indices, weights, layer.width, z);
                    dense::gather_bags(dense_inputs, tile.bags, weights, layer.width, z);
                }
                Some(before) => {
                    let x = &before.output()[..rows * layer.inputs];
                    dense::forward(kernel, rows, layer.inputs, layer.width, x, weights, z);
                }
            }
            let mut bias = Some(&parameters[layer.bias.clone()]);
            if let (Some((gain, shift)), Some(b)) = (&layer.norm, bias) {
                let (gain, shift) = (&parameters[gain.clone()], &parameters[shift.clone()]);
                let normal = &mut here.normal[..rows * layer.width];
                norm::forward(z, b, gain, shift, normal, &mut here.inverse[..rows]);
                bias = None;
            }
            let Some(function) = layer.activation else {
                Activation::Identity.forward(z, bias, layer.width, &mut []);
                continue;
            };
            let width = function.outputs(layer.width);
            let kept = if function.keeps_input() { rows * width } else { 0 };
            function.forward(z, bias, layer.width, &mut here.a[..kept]);
            here.dropping = false;
            if let (Some(branch), true) = (branch, self.spec.dropout > 0.0) {
                let stream = Stream::new(branch.seed, streams::DROPOUT + index as u64);
                let mask = &mut here.mask[..rows * width];
                let part = rows / branch.leaves.len() * width;
                for (leaf, mask) in branch.leaves.iter().zip(mask.chunks_exact_mut(part)) {
                    dropout::draw(stream, leaf.place, self.spec.dropout, width, mask);
                }
                let values = if function.keeps_input() { &here.a[..rows * width] } else { &here.z[..rows * width] };
                dropout::apply(values, mask, &mut here.dropped[..rows * width]);
                here.dropping = true;
            }
        }
    }

    /// Sum over rows of weight * loss, without dropout.
    pub fn loss(&self, kernel: Kernel, parameters: &[f32], tile: Tile<'_>, tape: &mut Tape) -> f64 {
        self.forward(kernel, parameters, tile, None, tape);
        let outputs = tape.outputs_mut(tile.rows * self.spec.outputs);
        self.spec.loss.gradient(outputs, self.spec.outputs, tile.labels, tile.weights)
    }

    /// Predictions of a tile, [R x C].
    pub fn predictions<'t>(&self, kernel: Kernel, parameters: &[f32], tile: Tile<'_>, tape: &'t mut Tape) -> &'t [f32] {
        self.forward(kernel, parameters, tile, None, tape);
        let outputs = tape.outputs_mut(tile.rows * self.spec.outputs);
        self.spec.loss.predictions(outputs, self.spec.outputs);
        outputs
    }
}

/// A range of rows as a range of numbers.
fn scaled(rows: Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Rows that go through a network together; borrowed from a block or from a batch.
#[derive(Debug, Clone, Copy)]
pub struct Tile<'a> {
    /// R.
    pub rows: usize,
    /// [R x dense]
    pub dense: &'a [f32],
    /// [R x groups]
    pub indices: &'a [u32],
    /// [R], or none without a bag.
    pub bags: BagRows<'a>,
    /// [R]; may be empty when only predicting.
    pub labels: &'a [f32],
    /// [R]; may be empty when only predicting.
    pub weights: &'a [f32],
}

impl<'a> Tile<'a> {
    /// Rows `range` of a block.
    pub fn of(block: &'a Block, layout: &FeatureLayout, range: Range<usize>) -> Self {
        let groups = layout.groups.len();
        let labels = if block.labels.is_empty() { 0..0 } else { range.clone() };
        let weights = if block.weights.is_empty() { 0..0 } else { range.clone() };
        Tile {
            rows: range.len(),
            dense: &block.dense[range.start * layout.dense..range.end * layout.dense],
            indices: &block.indices[range.start * groups..range.end * groups],
            bags: block.bags.borrowed(range),
            labels: &block.labels[labels],
            weights: &block.weights[weights],
        }
    }

    /// Some of its rows, without labels and weights.
    fn part(&self, layout: &FeatureLayout, rows: Range<usize>) -> Tile<'a> {
        Tile {
            rows: rows.len(),
            dense: &self.dense[scaled(rows.clone(), layout.dense)],
            indices: &self.indices[scaled(rows.clone(), layout.groups.len())],
            bags: self.bags.part(rows),
            labels: &[],
            weights: &[],
        }
    }
}

/// One leaf of the gradient tree: equal parts of a tile's rows, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Leaf {
    /// Which rows these are, as far as chance is concerned.
    pub place: dropout::Place,
    /// Whether all its rows are padding.
    pub is_empty: bool,
}

/// A complete subtree of the gradient tree, whose leaves go through the network as one tile.
#[derive(Debug, Clone, Copy)]
pub struct Branch<'a> {
    /// A power of two.
    pub leaves: &'a [Leaf],
    /// The model's; dropout follows from it.
    pub seed: u64,
}

/// What one layer leaves for its successor and for the way back.
#[derive(Debug, Clone, Default)]
struct LayerTape {
    /// [R x H]: the sums; the outputs too where the activation works in place.
    z: Vec<f32>,
    /// [R x outputs]: the outputs where the activation keeps its input, else empty.
    a: Vec<f32>,
    /// [R x H] and [R]: layer normalisation's.
    normal: Vec<f32>,
    inverse: Vec<f32>,
    /// [R x outputs]: dropout's mask, and the outputs after it.
    mask: Vec<f32>,
    dropped: Vec<f32>,
    /// Whether the last pass dropped.
    dropping: bool,
}

impl LayerTape {
    fn output(&self) -> &[f32] {
        if self.dropping {
            &self.dropped
        } else if self.a.is_empty() {
            &self.z
        } else {
            &self.a
        }
    }
}

/// Room for one pass over up to `rows` rows.
#[derive(Debug, Clone)]
pub struct Tape {
    layers: Vec<LayerTape>,
    /// [R x widest]: gradient of a layer's outputs.
    delta: Vec<f32>,
    /// [R x widest]: gradient of a layer's sums.
    slopes: Vec<f32>,
    /// Nodes of a layer's gradient tree that wait for their siblings.
    nodes: Vec<Vec<f32>>,
}

impl Tape {
    /// Room for tiles of up to `rows` rows in up to `leaves` leaves through `architecture`.
    pub fn new(architecture: &Architecture, rows: usize, leaves: usize) -> Self {
        let spec = &architecture.spec;
        let room = |layer: &Layer| -> LayerTape {
            let outputs = layer.activation.map_or(0, |function| function.outputs(layer.width));
            let when = |needed: bool, width: usize| vec![0.0; if needed { rows * width } else { 0 }];
            let keeps = layer.activation.is_some_and(Activation::keeps_input);
            let drops = layer.activation.is_some() && spec.dropout > 0.0;
            LayerTape {
                z: vec![0.0; rows * layer.width],
                a: when(keeps, outputs),
                normal: when(layer.norm.is_some(), layer.width),
                inverse: when(layer.norm.is_some(), 1),
                mask: when(drops, outputs),
                dropped: when(drops, outputs),
                dropping: false,
            }
        };
        let layers: Vec<LayerTape> = architecture.layers.iter().map(room).collect();
        let widest = |width: fn(&Layer) -> usize| architecture.layers.iter().map(width).max().unwrap_or(0);
        // The first layer's inputs get no gradient.
        let widest_input = architecture.layers.iter().skip(1).map(|layer| layer.inputs).max().unwrap_or(0);
        let largest = architecture.layers.iter().map(|layer| layer.range().len()).max().unwrap_or(0);
        Tape {
            layers,
            delta: vec![0.0; rows * widest_input],
            slopes: vec![0.0; rows * widest(|layer| layer.width)],
            nodes: vec![vec![0.0; largest]; leaves.max(1).ilog2() as usize],
        }
    }

    fn outputs_mut(&mut self, len: usize) -> &mut [f32] {
        let last = self.layers.len() - 1;
        &mut self.layers[last].z[..len]
    }
}

/// A network with parameters: what training gives and prediction takes.
#[derive(Debug, Clone)]
pub struct Network {
    architecture: Architecture,
    parameters: Vec<f32>,
}

/// Rows that are predicted or evaluated together.
pub const PREDICTION_TILE: usize = 256;

impl Network {
    /// A network that has not been trained.
    pub fn initial(spec: &NetworkSpec, seed: u64) -> Result<Self> {
        let architecture = Architecture::new(spec)?;
        let parameters = architecture.initial(seed);
        Ok(Network { architecture, parameters })
    }

    /// A network with the parameters of a file; [P], where [`Architecture::views`] says.
    pub fn from_parameters(spec: &NetworkSpec, parameters: Vec<f32>) -> Result<Self> {
        let architecture = Architecture::new(spec)?;
        if parameters.len() != architecture.parameters() {
            let (got, expected) = (parameters.len(), architecture.parameters());
            return Err(Error::invalid(format!("the network has {expected} parameters, the model file {got}")));
        }
        Ok(Network { architecture, parameters })
    }

    /// Its shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// What it was made from.
    pub fn spec(&self) -> &NetworkSpec {
        self.architecture.spec()
    }

    /// [P]
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The named parts of the parameter vector.
    pub fn views(&self) -> &[View] {
        self.architecture.views()
    }

    /// [R x C]: probabilities for classifiers (sigmoid: of class 1), values for regressors. A row's prediction does not
    /// depend on the rows around it as far as the network goes; the kernel may round otherwise in a tile of another
    /// size.
    pub fn predict(&self, block: &Block, kernel: Kernel) -> Vec<f32> {
        let layout = &self.spec().inputs;
        let mut tape = Tape::new(&self.architecture, block.rows.min(PREDICTION_TILE), 1);
        let mut predictions = Vec::with_capacity(block.rows * self.spec().outputs);
        for start in (0..block.rows).step_by(PREDICTION_TILE) {
            let tile = Tile::of(block, layout, start..(start + PREDICTION_TILE).min(block.rows));
            predictions.extend_from_slice(self.architecture.predictions(kernel, &self.parameters, tile, &mut tape));
        }
        predictions
    }
}

#[cfg(test)]
mod tests;
