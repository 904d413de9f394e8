//! Bytes: locations, stores, globs, the commit protocol and immutable artifacts.

pub mod error;

pub use error::{Error, Result};
