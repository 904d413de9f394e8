//! From a training query to canonical shards of numbers.
//!
//! ```text
//! query --stage--> raw rows + keys --split--> train / eval / test --build--> S shards, sorted by key
//!                  (memory, or IPC files)                                    (memory, or IPC files)
//! ```
//!
//! What always holds: which rows a part has, which shard a row is in and where it stands there depend on the row's
//! content and the seed alone, never on input files, partitions, threads or on what was spilled. Fitting transforms and
//! encoding rows as numbers is left to the caller. For the workers of a cluster the shards are written to files that all of
//! them see.

mod build;
mod row_key;
mod sample;
mod spill;
mod split;
mod staging;
mod stored;

pub use build::{BuildPlan, build};
pub use row_key::{RowKey, RowKeys};
pub use split::{Part, Split, SplitMethod};
pub use staging::{Staged, stage};
pub use stored::{StoredSet, StoredShards, store};
