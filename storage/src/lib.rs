//! Bytes: locations, stores, globs, the commit protocol and immutable artifacts.
//!
//! This crate knows nothing of tables' schemas, queries or models. What is newest is told by numbers, never by time; who is
//! alive is told by locks, and by signs of life only where a store has no locks (see `lease.rs`).

/// Text -> [`Location`].
pub mod location;

/// What stores are told.
pub mod settings;

/// [`Location`] -> object store.
pub mod store;

/// The one place where a store is built.
pub mod backend;

/// Who asks: keys, tokens, profiles.
mod credentials;

/// How requests reach a store over HTTP.
mod transport;

/// Stores behind a network, as steady as files.
mod steady;

/// What a store's refusal means.
mod answer;

/// Requests and bytes, counted.
pub mod instrument;

/// Which files a file name, a directory or a glob means.
pub mod glob;

/// Tables appear whole or not at all.
pub mod commit;

/// Which files a table consists of.
pub mod manifest;

/// Which versions of a table there are.
pub mod versions;

/// Immutable, versioned directories: models.
pub mod artifact;

/// What writers at work say of themselves while they live.
pub mod notice;

/// What is at a place, for people.
pub mod survey;

/// What works between this machine and a store.
pub mod doctor;

/// Files that go when the work is done.
pub mod scratch;

/// Files that one process writes for others to read while it lives.
pub mod workspace;

/// JSON that notices a flipped byte.
pub mod sealed;

/// What can go wrong with bytes.
pub mod error;

/// Places where a test may kill the process.
pub mod fault;

/// Files on this machine's disks as an object store.
mod local;

/// Files that are there after a power cut.
mod durable;

/// The readers' view: what is visible and committed.
mod committed;

/// What a statement has listed.
mod listings;

/// A place in a store, and what commits do with it.
mod directory;

/// Who is alive.
mod lease;

/// What a commit may write to.
mod target;

/// Cleaning up after the dead.
mod leftovers;

/// A version of an artifact, published.
mod publish;

/// One suite that every store passes.
#[cfg(any(test, feature = "testing"))]
pub mod conformance;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod testing;

pub use artifact::{Artifact, ArtifactStore};
pub use commit::{Admission, Base, Begun, Commit, CommitMode, Committed, WrittenFile, roll_back};
pub use committed::is_hidden;
pub use error::{Error, Result};
pub use glob::{FoundFile, expand};
pub use instrument::Counters;
pub use location::{Location, Scheme};
pub use notice::{Notice, notices};
pub use object_store;
pub use scratch::Scratch;
pub use sealed::{Hashing, sha256_hex};
pub use settings::{STORE_KEYS, StoreKey, StoreSettings, is_store_variable, masked, redacted, store_option};
pub use store::Stores;
pub use workspace::Workspace;
