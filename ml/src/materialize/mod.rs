//! From a training query to canonical shards of numbers.
//!
//! ```text
//! query --stage--> raw rows + keys --split--> train / eval / test --build--> S shards, sorted by key
//!                  (memory, or IPC files)                                    (memory, or IPC files)
//! ```
//!
//! What always holds: which rows a part has, which shard a row is in and where it stands there depend on the row's
//! content, the seed and its number among its copies alone, never on input files, partitions, threads or on what was spilled. Fitting transforms and
//! encoding rows as numbers is left to the caller. With a cluster the raw rows go to files that all workers see, and each
//! worker builds the shards that it holds:
//!
//! ```text
//! query --spread--> raw rows + keys, by shard --each worker: split, build--> its own shards, sorted by key
//!                   (files that all see)                                     (memory, or IPC files)
//! ```

mod build;
mod content;
mod copies;
mod key_functions;
mod own_shards;
mod piece;
mod row_key;
mod sample;
mod spill;
mod spilled;
mod split;
mod spread;
mod spread_file;
mod staging;
mod training_rows;
mod written_split;

pub use build::{BuildPlan, build};
pub(crate) use key_functions::scalar_functions;
pub use own_shards::{MadeShards, Outline, OwnShards, WorkerRows, Workshop};
pub use row_key::{RowKey, RowKeys};
pub use split::{Part, Split, SplitMethod};
pub use spread::{PartCounts, SpreadRows};
pub use spread_file::SpreadFile;
pub use staging::{HeldRows, Staged, stage};
pub use training_rows::TrainingRows;
