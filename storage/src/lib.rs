//! Bytes: locations, stores, globs, the commit protocol and immutable artifacts.
//!
//! This crate knows nothing of tables' schemas, queries or models. Time is not part of any protocol here: who is alive is
//! told by locks, and what is newest by numbers.

/// Immutable, versioned directories: models.
pub mod artifact;
/// Tables appear whole or not at all.
pub mod commit;
/// What can go wrong with bytes.
pub mod error;
/// Which files a file name, a directory or a glob means.
pub mod glob;
/// Requests and bytes, counted.
pub mod instrument;
/// Text -> [`Location`].
pub mod location;
/// Which files a table consists of.
pub mod manifest;
/// JSON that notices a flipped byte.
pub mod sealed;
/// [`Location`] -> object store.
pub mod store;

mod committed;
mod directory;
mod lease;
mod leftovers;
mod local;

/// Places where a test may kill the process.
pub mod fault;

/// One suite that every store passes.
#[cfg(any(test, feature = "testing"))]
pub mod conformance;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod testing;

pub use artifact::{Artifact, ArtifactStore};
pub use commit::{Commit, CommitMode, Committed, WrittenFile};
pub use committed::is_hidden;
pub use error::{Error, Result};
pub use glob::{FoundFile, expand};
pub use instrument::Counters;
pub use location::{Location, Scheme};
pub use object_store;
pub use sealed::sha256_hex;
pub use store::Stores;
