//! Numbers: model statements, transforms, layers, training, evaluation, prediction.

/// One source, three machine codes: loops compiled for the baseline, AVX2 and AVX-512.
#[macro_use]
pub mod simd;

/// Sums that do not depend on the order of their terms.
pub mod exact;
/// The `ML.*` functions of SQL: which there are, and those that work row by row.
pub mod function;
/// Matrix products: checked, timed, chosen.
pub mod kernel;
/// Layers with hand-written backward.
pub mod layer;
/// Linear and logistic regression.
pub mod linear;
/// Losses and their gradients.
pub mod loss;
/// How good predictions are.
pub mod metric;
/// Networks: one flat parameter vector, forward and backward.
pub mod network;
/// Optimizers.
pub mod optimizer;
/// Counter-based random numbers and permutations.
pub mod random;
/// Learning rates.
pub mod schedule;
/// What training reads: canonical shards of plain numbers.
pub mod shards;
/// Aggregate functions of SQL that transforms are fitted with.
pub mod statistics;
/// How often each distinct number occurs.
pub mod tally;
/// Minibatch training on any number of workers, to the same bytes.
pub mod train;
/// From the columns of a query to the inputs of a model: TRANSFORM clauses, and what happens without one.
pub mod transform;

/// The loss curve.
pub mod history;
/// Where a model comes from.
pub mod lineage;

/// The figure by which a model is known.
mod headline;

/// What leaves a model to chance.
mod chance;
/// From a training query to canonical shards.
pub mod materialize;
/// A trained model, on disk and in use.
pub mod model;
/// Names of models.
pub mod name;
/// The models of a warehouse.
pub mod registry;
/// Training a model again from its lineage.
pub mod reproduce;
/// What a model shall be: as written, and checked.
pub mod spec;
/// The statements about models.
pub mod statement;

mod bits;
mod checkpoint;
mod distributed;
mod encoder;
mod estimate;
mod evaluation;
mod extension;
mod gathered;
mod live;
mod measure;
mod relation;
mod training;

#[cfg(test)]
mod end_to_end;

pub use extension::{extension, option_names};
pub use headline::Headline;
pub use model::Predictor;
pub use name::ModelName;
pub use registry::predict_file;
pub use reproduce::{Reproduction, reproduce};
pub use spec::{CheckedSpec, IfExists, ModelSpec};
pub use training::train as train_model;
