//! The `ML.*` functions of SQL: their names and arguments, and those that work row by row.
//!
//! A scalar function is registered under its upper-case name (`ML.BUCKETIZE`) with lower-case and plain aliases
//! (`ml.bucketize`, `ml_bucketize`): the planner looks a function up by the text of its name as written. Analytic
//! functions live in [`crate::transform`]; relations (`ML.PREDICT`, ...) are planned elsewhere.

pub(crate) mod buckets;
mod catalogue;
pub(crate) mod constants;
mod cross;
mod hash;
mod ngrams;
mod normalizer;
mod polynomial;
mod row_function;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub use catalogue::{Kind, Usage, all, named};

/// Every scalar function of this crate's SQL surface, to register with a session.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        row_function::udf(buckets::Bucketize),
        row_function::udf(hash::HashBucketize),
        row_function::udf(cross::FeatureCross),
        row_function::udf(polynomial::PolynomialExpand),
        row_function::udf(normalizer::Normalizer),
        row_function::udf(ngrams::Ngrams),
        crate::transform::fitted_function(),
    ]
}
