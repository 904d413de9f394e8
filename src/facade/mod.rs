//! Models for Rust programs: what statements about models do, as functions and values.

mod metrics;
mod model;
mod transform;

pub use metrics::Metrics;
pub use model::{Model, train, train_with};
pub use transform::Transform;
