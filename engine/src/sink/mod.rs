//! Writing rows as files, in parallel: one task for each partition of the plan, each writing its own uniquely named
//! files into the commit's staging directory. The plan gives back one row for each file; whoever runs it publishes them.
//!
//! ```text
//! COPY -> SinkNode (logical) -> SinkExec (physical, one task a partition) -> rows (path, directory, rows, bytes) -> Commit
//! ```
//!
//! Nothing here knows where tasks run: the specification is plain data and the commit stays with the driver.

pub(crate) mod encoding;
mod exec;
mod node;
mod parquet;
pub(crate) mod partition;
mod room;
mod spec;
mod write;
mod writer;

pub(crate) use exec::{NODE_NAME, ROWS_WRITTEN, SinkExec};
pub(crate) use node::{SinkNode, SinkPlanner};
pub(crate) use spec::{NotNull, SinkSpec, with_rows, written_files};
