//! Delta Lake tables: a directory of Parquet files, and a log beside them that says which files the table consists of.
//!
//! ```text
//! read   log -> snapshot -> files with partition values -> the scan that Parquet files get
//! write  COPY's sink -> Parquet files in the table's directory -> one commit of `add` actions (and `remove`)
//! ```
//!
//! The log is read and written by `deltalake-core`, on the driver alone: what is planned is an ordinary scan of Parquet
//! files, which any runner executes. Our own commit protocol has no part in it: a Delta table is its log.

mod columns;
mod features;
mod log;
mod pruning;
mod statistics;
mod table;
mod write;

pub(crate) use columns::of_query as columns_of_query;
pub(crate) use log::Log;
pub(crate) use table::DeltaTable;
pub(crate) use write::{Begun, Change};

/// The name in `STORED AS`.
pub(crate) const NAME: &str = "DELTA";

/// Whether `STORED AS name` means a Delta table.
pub(crate) fn is_named(name: &str) -> bool {
    name.eq_ignore_ascii_case(NAME)
}
