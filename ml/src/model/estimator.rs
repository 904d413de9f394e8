//! The trained part of a model: a network or a linear model, its tensors and how it scores a block.

use std::collections::BTreeMap;

use engine::{Error, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::kernel::Kernel;
use crate::linear::{Inference, LinearKind, LinearModel};
use crate::network::{Architecture, Network, NetworkSpec};
use crate::shards::{Block, FeatureLayout};
use crate::transform::LabelScale;

/// Tensors of a linear model that was trained with CALCULATE_P_VALUES.
const STANDARD_ERRORS: &str = "standard_errors";
const P_VALUES: &str = "p_values";
const COVARIANCES: &str = "covariances";
const FREEDOM: &str = "degrees_of_freedom";

/// What was trained.
#[derive(Debug, Clone)]
pub(crate) enum Trained {
    /// A feed-forward network.
    Network(Network),
    /// A linear model.
    Linear(LinearModel),
}

/// What was trained, without its numbers: what `model.json` says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TrainedShape {
    /// A feed-forward network.
    Network(NetworkSpec),
    /// A linear model.
    Linear {
        /// Regression, binary, multinomial.
        kind: LinearKind,
        /// Its inputs.
        inputs: FeatureLayout,
    },
}

impl Trained {
    /// Numbers in a row of scores: 1 for regressors and binary classifiers (the probability of the second class), C for
    /// more classes.
    pub(crate) fn outputs(&self) -> usize {
        match self {
            Trained::Network(network) => network.spec().outputs,
            Trained::Linear(model) => model.kind.outputs(),
        }
    }

    /// Scores of a block's rows, [R x outputs]; of regressors in the label's own units, of which networks know nothing.
    pub(crate) fn scores(&self, block: &Block, kernel: Kernel, label: LabelScale) -> Vec<f64> {
        match self {
            Trained::Network(network) => {
                network.predict(block, kernel).into_iter().map(|x| label.back(f64::from(x))).collect()
            }
            Trained::Linear(model) => model.predict(block),
        }
    }

    /// All but the numbers.
    pub(crate) fn shape(&self) -> TrainedShape {
        match self {
            Trained::Network(network) => TrainedShape::Network(network.spec().clone()),
            Trained::Linear(model) => TrainedShape::Linear { kind: model.kind, inputs: model.layout.clone() },
        }
    }

    /// `model.safetensors`: every tensor by name, nothing that changes from run to run.
    pub(crate) fn to_safetensors(&self) -> Result<Vec<u8>> {
        let tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = match self {
            Trained::Network(network) => network
                .views()
                .iter()
                .map(|view| {
                    let bytes = network.parameters()[view.range.clone()].iter().flat_map(|x| x.to_le_bytes()).collect();
                    (view.name.clone(), Dtype::F32, view.shape.clone(), bytes)
                })
                .collect(),
            Trained::Linear(model) => {
                let bytes = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
                let outputs = model.kind.outputs();
                let inputs = model.coefficients.len() / outputs.max(1);
                let mut tensors = vec![
                    ("coefficients".into(), Dtype::F64, vec![inputs, outputs], bytes(&model.coefficients)),
                    ("intercepts".into(), Dtype::F64, vec![outputs], bytes(&model.intercepts)),
                ];
                if let Some(Inference { standard_errors, p_values, covariances, freedom }) = &model.inference {
                    let parts: [(&str, &[f64]); 4] = [
                        (STANDARD_ERRORS, standard_errors),
                        (P_VALUES, p_values),
                        (COVARIANCES, covariances),
                        (FREEDOM, std::slice::from_ref(freedom)),
                    ];
                    for (name, values) in parts {
                        tensors.push((name.into(), Dtype::F64, vec![values.len()], bytes(values)));
                    }
                }
                tensors
            }
        };
        let views = tensors
            .iter()
            .map(|(name, kind, shape, bytes)| {
                let view = TensorView::new(*kind, shape.clone(), bytes).map_err(|e| damaged(&e))?;
                Ok((name.clone(), view))
            })
            .collect::<Result<BTreeMap<_, _>>>()?;
        safetensors::serialize(views, None).map_err(|e| damaged(&e))
    }

    /// Reads the tensors back.
    ///
    /// # Errors
    /// A file that does not hold what `shape` says.
    pub(crate) fn from_safetensors(shape: &TrainedShape, bytes: &[u8]) -> Result<Trained> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
        match shape {
            TrainedShape::Network(spec) => {
                let architecture = Architecture::new(spec)?;
                let mut parameters = vec![0f32; architecture.parameters()];
                for view in architecture.views() {
                    let values = tensor(&file, &view.name, Dtype::F32, &view.shape)?;
                    let floats = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                    parameters[view.range.clone()].iter_mut().zip(floats).for_each(|(p, x)| *p = x);
                }
                Ok(Trained::Network(Network::from_parameters(spec, parameters)?))
            }
            TrainedShape::Linear { kind, inputs } => {
                let outputs = kind.outputs();
                let floats = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
                    let bytes = tensor(&file, name, Dtype::F64, shape)?;
                    let number = |b: &[u8]| f64::from_le_bytes(b.try_into().expect("chunks of eight bytes"));
                    Ok(bytes.chunks_exact(8).map(number).collect())
                };
                // As many as there are coefficients, and one for the intercept when there is one.
                let inference = match file.tensor(STANDARD_ERRORS) {
                    Ok(view) => Some(Inference {
                        standard_errors: floats(STANDARD_ERRORS, view.shape())?,
                        p_values: floats(P_VALUES, view.shape())?,
                        covariances: match file.tensor(COVARIANCES) {
                            Ok(view) => floats(COVARIANCES, view.shape())?,
                            Err(_) => Vec::new(),
                        },
                        freedom: match file.tensor(FREEDOM) {
                            Ok(_) => floats(FREEDOM, &[1])?[0],
                            Err(_) => f64::INFINITY,
                        },
                    }),
                    Err(_) => None,
                };
                Ok(Trained::Linear(LinearModel {
                    kind: *kind,
                    layout: inputs.clone(),
                    coefficients: floats("coefficients", &[inputs.dims(), outputs])?,
                    intercepts: floats("intercepts", &[outputs])?,
                    inference,
                }))
            }
        }
    }
}

fn tensor<'a>(file: &'a SafeTensors, name: &str, kind: Dtype, shape: &[usize]) -> Result<&'a [u8]> {
    let view = file.tensor(name).map_err(|e| damaged(&e))?;
    if view.dtype() != kind || view.shape() != shape {
        return Err(damaged(&format!("{name} is {:?} {:?}, expected {kind:?} {shape:?}", view.dtype(), view.shape())));
    }
    Ok(view.data())
}

fn damaged(reason: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("model.safetensors: {reason}"))
}
