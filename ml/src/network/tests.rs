//! The network against its naive twin: plain f64 loops over rows and units, and finite differences of them.

use super::*;
use crate::layer::dropout::Place;
use crate::shards::NO_CATEGORY;

const ROWS: usize = 9;

fn spec(activation: Activation, layer_norm: bool, loss: Loss, dropout: f32) -> NetworkSpec {
    let outputs = if loss == Loss::SoftmaxCrossEntropy { 4 } else { 1 };
    let inputs = FeatureLayout {
        dense: 3,
        groups: vec![2, 3],
        names: (0..8).map(|i| format!("x{i}")).collect(),
        ..FeatureLayout::default()
    };
    NetworkSpec { inputs, hidden: vec![5, 6], activation, dropout, layer_norm, outputs, loss }
}

fn block(loss: Loss) -> Block {
    let number = |i: usize| ((i * 29 % 31) as f32 - 15.0) / 9.0;
    Block {
        rows: ROWS,
        dense: (0..ROWS * 3).map(number).collect(),
        indices: (0..ROWS * 2).map(|i| if i % 5 == 4 { NO_CATEGORY } else { (i * 7 % (2 + i % 2)) as u32 }).collect(),
        labels: (0..ROWS)
            .map(|row| match loss {
                Loss::SoftmaxCrossEntropy => (row % 4) as f32,
                Loss::SigmoidCrossEntropy => (row % 2) as f32,
                _ => number(row + 3),
            })
            .collect(),
        weights: (0..ROWS).map(|row| 0.5 * (row % 3) as f32).collect(),
        ..Block::default()
    }
}

fn activate(activation: Activation, z: &[f64]) -> Vec<f64> {
    let each = |f: fn(f64) -> f64| z.iter().map(|z| f(*z)).collect::<Vec<f64>>();
    match activation {
        Activation::Relu => each(|z| z.max(0.0)),
        Activation::Relu6 => each(|z| z.clamp(0.0, 6.0)),
        Activation::Crelu => [each(|z| z.max(0.0)), each(|z| (-z).max(0.0))].concat(),
        Activation::Elu => each(|z| if z > 0.0 { z } else { z.exp_m1() }),
        Activation::Selu => {
            each(|z| 1.050_700_987_355_480_5 * if z > 0.0 { z } else { 1.673_263_242_354_377_2 * z.exp_m1() })
        }
        Activation::Sigmoid => each(|z| 1.0 / (1.0 + (-z).exp())),
        Activation::Tanh => each(f64::tanh),
        Activation::Gelu => each(|z| 0.5 * z * (1.0 + (0.797_884_560_802_865_4 * (z + 0.044715 * z.powi(3))).tanh())),
        Activation::Identity => z.to_vec(),
    }
}

/// One row through the network; `masks` are the row's, layer by layer.
fn naive_outputs(
    spec: &NetworkSpec,
    parameters: &[f64],
    dense: &[f32],
    indices: &[u32],
    masks: &[Vec<f64>],
) -> Vec<f64> {
    let mut x: Vec<f64> = dense.iter().map(|v| f64::from(*v)).collect();
    for (index, width) in indices.iter().zip(&spec.inputs.groups) {
        x.extend((0..*width).map(|column| f64::from(u8::from(column == *index))));
    }
    let mut at = 0;
    let mut next = |len: usize| {
        at += len;
        &parameters[at - len..at]
    };
    for layer in 0..=spec.hidden.len() {
        let width = *spec.hidden.get(layer).unwrap_or(&spec.outputs);
        let (weights, bias) = (next(x.len() * width), next(width));
        let mut z: Vec<f64> = (0..width)
            .map(|j| bias[j] + x.iter().enumerate().map(|(i, x)| x * weights[i * width + j]).sum::<f64>())
            .collect();
        if layer == spec.hidden.len() {
            return z;
        }
        if spec.layer_norm {
            let (gain, shift) = (next(width), next(width));
            let mean = z.iter().sum::<f64>() / width as f64;
            let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / width as f64;
            z = (0..width).map(|j| gain[j] * (z[j] - mean) / (variance + 1e-5).sqrt() + shift[j]).collect();
        }
        x = activate(spec.activation, &z);
        if let Some(mask) = masks.get(layer) {
            x.iter_mut().zip(mask).for_each(|(x, m)| *x *= m);
        }
    }
    unreachable!("the output layer returns")
}

fn naive_loss(spec: &NetworkSpec, parameters: &[f64], block: &Block, masks: &[Vec<Vec<f64>>]) -> f64 {
    (0..block.rows)
        .map(|row| {
            let row_masks: &[Vec<f64>] = masks.get(row).map_or(&[], Vec::as_slice);
            let z = naive_outputs(
                spec,
                parameters,
                &block.dense[row * 3..][..3],
                &block.indices[row * 2..][..2],
                row_masks,
            );
            let y = f64::from(block.labels[row]);
            let loss = match spec.loss {
                Loss::MeanSquaredError => (z[0] - y).powi(2),
                Loss::Huber { delta } => {
                    let e = (z[0] - y).abs();
                    if e <= delta { 0.5 * e * e } else { delta * (e - 0.5 * delta) }
                }
                Loss::SoftmaxCrossEntropy => z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[y as usize],
                Loss::SigmoidCrossEntropy => (1.0 + z[0].exp()).ln() - y * z[0],
            };
            f64::from(block.weights[row]) * loss
        })
        .sum()
}

/// Compares loss and every gradient element with the naive twin's.
fn check_gradient(spec: &NetworkSpec) {
    let architecture = Architecture::new(spec).unwrap();
    let block = block(spec.loss);
    let mut parameters = architecture.initial(5);
    // Biases, gains and shifts away from their start, so that their gradients are met at a general point.
    for view in architecture.views().iter().filter(|view| view.shape.len() == 1) {
        for (i, value) in parameters[view.range.clone()].iter_mut().enumerate() {
            *value += 0.1 * (1.0 + i as f32).sin();
        }
    }
    let leaves = [Leaf { place: Place { epoch: 2, leaf: 1, first_row: 70 }, is_empty: false }];
    let branch = Branch { leaves: &leaves, seed: 3 };
    let mut tape = Tape::new(&architecture, ROWS, 1);
    let mut gradient = vec![f32::NAN; architecture.parameters()];
    let tile = Tile::of(&block, &spec.inputs, 0..ROWS);
    let mut losses = [f64::NAN];
    let mut target = Target { numbers: &mut gradient, first: 0, layer_done: None };
    architecture.gradient(Kernel::Native, &parameters, tile, branch, &mut tape, &mut losses, &mut target);
    let [loss] = losses;
    let masks: Vec<Vec<Vec<f64>>> = match spec.dropout {
        0.0 => Vec::new(),
        _ => (0..ROWS)
            .map(|row| {
                let of = |layer: &LayerTape| {
                    let width = layer.mask.len() / ROWS;
                    layer.mask[row * width..][..width].iter().map(|m| f64::from(*m)).collect()
                };
                tape.layers[..spec.hidden.len()].iter().map(of).collect()
            })
            .collect(),
    };
    // The twin's parameters lie from the first layer to the last.
    let in_order = |values: &[f32]| -> Vec<f64> {
        let of_view = |view: &View| values[view.range.clone()].to_vec();
        architecture.views().iter().flat_map(of_view).map(f64::from).collect()
    };
    let (wide, gradient) = (in_order(&parameters), in_order(&gradient));
    let expected = naive_loss(spec, &wide, &block, &masks);
    assert!((loss - expected).abs() < 1e-5 * expected.abs().max(1.0), "{spec:?}: loss {loss}, expected {expected}");
    let mut first = 0;
    for view in architecture.views() {
        for place in first..first + view.range.len() {
            let difference = |h: f64| {
                let at = |h: f64| {
                    let mut moved = wide.clone();
                    moved[place] += h;
                    naive_loss(spec, &moved, &block, &masks)
                };
                (at(h) - at(-h)) / (2.0 * h)
            };
            let (expected, got) = (difference(1e-6), gradient[place]);
            let name = &view.name;
            assert!(
                (got - expected).abs() < 2e-4 * expected.abs().max(0.1),
                "{name}[{}] of {:?}, norm {}, {:?}: {got}, expected {expected}",
                place - first,
                spec.activation,
                spec.layer_norm,
                spec.loss
            );
        }
        first += view.range.len();
    }
}

const LOSSES: [Loss; 4] =
    [Loss::MeanSquaredError, Loss::Huber { delta: 0.6 }, Loss::SoftmaxCrossEntropy, Loss::SigmoidCrossEntropy];

#[test]
fn gradients_equal_finite_differences_for_every_activation_norm_and_loss() {
    for name in Activation::NAMES {
        let activation = Activation::by_name(name).unwrap();
        for layer_norm in [false, true] {
            for loss in LOSSES {
                check_gradient(&spec(activation, layer_norm, loss, 0.0));
            }
        }
    }
}

#[test]
fn a_branch_gives_the_bits_of_its_leaves_added_as_the_tree_says() {
    let mut tried = 0;
    for kernel in Kernel::ALL.iter().copied() {
        for (hidden, dropout) in [(vec![64, 32], 0.3), (vec![200, 96], 0.0)] {
            let spec = spec(Activation::Relu, true, Loss::SoftmaxCrossEntropy, dropout);
            let spec = NetworkSpec { hidden, ..spec };
            let architecture = Architecture::new(&spec).unwrap();
            if ![2, 4].iter().all(|leaves| architecture.joins(kernel, ROWS, *leaves)) {
                continue;
            }
            tried += 1;
            let parameters = architecture.initial(5);
            let one = block(spec.loss);
            let four = Block {
                rows: 4 * ROWS,
                dense: (0..4 * ROWS * 3).map(|i| (1.7 * i as f32).sin()).collect(),
                indices: one.indices.repeat(4),
                labels: one.labels.repeat(4),
                weights: one.weights.repeat(4),
                ..Block::default()
            };
            // The third leaf has no rows.
            let leaf = |number: usize| Leaf {
                place: Place { epoch: 2, leaf: number as u32, first_row: 70 },
                is_empty: number == 2,
            };
            let gradient = |leaves: Range<usize>| {
                let tile = Tile::of(&four, &spec.inputs, leaves.start * ROWS..leaves.end * ROWS);
                let leaves: Vec<Leaf> = leaves.map(leaf).collect();
                let branch = Branch { leaves: &leaves, seed: 3 };
                let mut tape = Tape::new(&architecture, tile.rows, leaves.len());
                let mut gradient = vec![f32::NAN; architecture.parameters()];
                let mut losses = vec![f64::NAN; leaves.len()];
                let mut known = 0;
                let mut target = Target {
                    numbers: &mut gradient,
                    first: 0,
                    layer_done: Some(&mut |_, range, _| {
                        assert_eq!(range.start, known, "what is known is the beginning of the vector");
                        known = range.end;
                    }),
                };
                architecture.gradient(kernel, &parameters, tile, branch, &mut tape, &mut losses, &mut target);
                assert_eq!(known, gradient.len());
                (gradient, losses)
            };
            let single = [0, 1, 2, 3].map(|leaf| gradient(leaf..leaf + 1));
            let sum =
                |left: &[f32], right: &[f32]| -> Vec<f32> { left.iter().zip(right).map(|(l, r)| l + r).collect() };
            let left = sum(&single[0].0, &single[1].0);
            let right = sum(&single[2].0, &single[3].0);
            assert_eq!(gradient(0..2).0, left);
            let (joint, losses) = gradient(0..4);
            assert_eq!(joint, sum(&left, &right));
            assert_eq!(losses, single.map(|(_, losses)| losses[0]));
        }
    }
    assert!(tried >= 2, "the native kernel joins tiles of these shapes");
}

#[test]
fn gradients_through_dropout_equal_finite_differences_with_its_mask() {
    for activation in [Activation::Relu, Activation::Tanh, Activation::Crelu, Activation::Gelu] {
        check_gradient(&spec(activation, true, Loss::SoftmaxCrossEntropy, 0.3));
    }
}

#[test]
fn networks_without_hidden_layers_or_dense_inputs_work() {
    let linear = NetworkSpec { hidden: vec![], ..spec(Activation::Relu, false, Loss::MeanSquaredError, 0.0) };
    check_gradient(&linear);
    let inputs = FeatureLayout { dense: 0, groups: vec![4], names: vec![], ..FeatureLayout::default() };
    let one_hot = NetworkSpec { inputs, ..spec(Activation::Tanh, false, Loss::SigmoidCrossEntropy, 0.0) };
    let network = Network::initial(&one_hot, 1).unwrap();
    let block = Block { rows: 5, indices: vec![0, 1, 2, 3, NO_CATEGORY], ..Block::default() };
    let predictions = network.predict(&block, Kernel::Native);
    assert_eq!(predictions.len(), 5);
    assert_eq!(predictions[4], 0.5);
    assert!(predictions[..4].iter().all(|p| *p != 0.5));
}

#[test]
fn predictions_of_long_blocks_are_probabilities_row_by_row() {
    let spec = spec(Activation::Relu, false, Loss::SoftmaxCrossEntropy, 0.5);
    let network = Network::initial(&spec, 1).unwrap();
    let short = block(spec.loss);
    let copies = 100;
    let long = Block {
        rows: ROWS * copies,
        dense: short.dense.repeat(copies),
        indices: short.indices.repeat(copies),
        labels: vec![],
        weights: vec![],
        ..Block::default()
    };
    let (few, many) = (network.predict(&short, Kernel::Native), network.predict(&long, Kernel::Native));
    assert_eq!(many.len(), ROWS * copies * 4);
    for (i, p) in many.iter().enumerate() {
        assert!((p - few[i % few.len()]).abs() < 1e-6);
    }
    for row in few.chunks_exact(4) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn wrong_specifications_are_refused_with_their_nouns() {
    let good = spec(Activation::Relu, false, Loss::SoftmaxCrossEntropy, 0.0);
    let cases = [
        (NetworkSpec { hidden: vec![4, 0], ..good.clone() }, "HIDDEN_UNITS"),
        (NetworkSpec { dropout: 1.0, ..good.clone() }, "DROPOUT = 1"),
        (NetworkSpec { outputs: 1, ..good.clone() }, "1 outputs do not fit"),
        (NetworkSpec { inputs: FeatureLayout::default(), ..good.clone() }, "at least one feature"),
    ];
    for (spec, expected) in cases {
        let error = Architecture::new(&spec).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Network::from_parameters(&good, vec![0.0; 7]).unwrap_err().to_string();
    assert!(error.contains("the model file 7"), "{error}");
}

#[test]
fn views_name_every_parameter_once() {
    let architecture = Architecture::new(&spec(Activation::Crelu, true, Loss::MeanSquaredError, 0.0)).unwrap();
    let names: Vec<&str> = architecture.views().iter().map(|view| view.name.as_str()).collect();
    assert_eq!(names[..5], ["layer0.weight", "layer0.bias", "layer0.norm_gain", "layer0.norm_shift", "layer1.weight"]);
    assert_eq!(architecture.views()[4].shape, [10, 6]);
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for view in architecture.views() {
        assert_eq!(view.range.len(), view.shape.iter().product::<usize>());
        ranges.push(view.range.clone());
    }
    // The last layer comes first.
    assert_eq!(ranges.iter().min_by_key(|range| range.start), ranges.iter().rev().nth(1));
    ranges.sort_by_key(|range| range.start);
    assert_eq!((ranges[0].start, ranges.last().unwrap().end), (0, architecture.parameters()));
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
}
