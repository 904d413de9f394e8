//! From the columns of a query to the inputs of a model: TRANSFORM clauses, and what happens without one.
//!
//! A [`TransformSpec`] is what was written (or chosen by column type): a list of steps, each a stateless SQL expression or
//! a function whose statistics must be fitted. [`TransformSpec::fit`] asks for all statistics of a level in one aggregate
//! query over the training split and gives a [`FrozenTransform`], which is the one evaluator: training, SQL and
//! serving turn rows into a [`Block`](crate::shards::Block) through [`FrozenTransform::apply`].
//!
//! Left to others: the split, the shards, what is done with a row without a label. Always holds: the statistics do not
//! depend on how the rows were partitioned, a row's features do not depend on the rows beside it, and a transform read
//! back from its JSON computes the same bits as the one that was written.

mod apply;
mod array_moments;
mod automatic;
mod categories;
mod evaluate;
mod exact_float;
mod fit;
mod fitted;
mod frozen;
mod info;
mod input;
mod label;
mod parse;
pub(crate) mod planning;
mod spec;
mod statistics;
mod steps;
mod target;

pub use automatic::{AutomaticOptions, CATEGORIES_MAX, CategoryEncoding};
pub use categories::{Categories, Others};
pub use fit::FitOptions;
pub use fitted::Fitted;
pub use frozen::{Feature, FrozenTransform, Inputs};
pub use info::FeatureInfo;
pub use input::InputColumn;
pub use label::{FittedLabel, LabelEncoding, LabelScale, LabelTask};
pub use parse::Source;
pub use spec::{LabelColumn, LabelSource, LabelSpec, Step, TransformSpec, Work};
pub use statistics::Find;
pub use target::{Target, TargetEncodings};

pub(crate) use categories::as_text;
pub(crate) use fitted::{as_list, as_numbers, fitted_function};
pub(crate) use parse::of_the_clause;
pub(crate) use spec::{
    BucketFormat, CategoryLimit, FitFunction, Imputation, element_type, engine_error, is_number, is_text,
};

use std::sync::Arc;

/// Aggregate functions of this module, to register with a session.
pub fn aggregates() -> Vec<Arc<datafusion::logical_expr::AggregateUDF>> {
    vec![array_moments::array_moments()]
}

#[cfg(test)]
mod tests;
