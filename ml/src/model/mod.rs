//! A trained model as it lies on disk and as it is used. [`files`] knows the layout of the directory, [`predictor`] turns
//! rows into predictions: the only way to predict, in SQL and elsewhere.

pub(crate) mod estimator;
pub(crate) mod files;
pub(crate) mod golden;
pub mod predictor;
pub(crate) mod shape;

pub use predictor::Predictor;
pub use shape::ModelShape;
