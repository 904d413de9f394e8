//! Layers: forward and backward written by hand over row-major tiles.
//!
//! Every function here works on the calling thread, allocates nothing and gives the same bits on every machine; only the
//! matrix products, which belong to the kernel, may differ. Shapes: R rows, I inputs, H outputs.

pub mod activation;
pub mod dense;
pub mod dropout;
pub mod math;
pub mod norm;

pub use activation::Activation;
