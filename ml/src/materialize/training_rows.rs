//! The rows of a training query, kept for the passes that follow, wherever they are: in this process, or in files that the
//! workers of a cluster see. What is asked of all of them is asked here.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use engine::Result;

use super::row_key::RowKey;
use super::split::{Part, Split};
use crate::statistics::Rows;

/// The name of the key's column beside the query's; it comes last.
pub(super) const KEY_COLUMN: &str = "__gristmill_row_key";

/// See the module. Rows without a label are counted and not among them.
#[async_trait]
pub trait TrainingRows: Send + Sync {
    /// The training query's columns, with the label's beside them.
    fn schema(&self) -> &SchemaRef;

    /// Rows of all parts.
    fn rows(&self) -> u64;

    /// Rows that were left out because their label is NULL.
    fn null_labels(&self) -> u64;

    /// The rows of one part, for the queries that fit transforms.
    async fn part(&self, split: &Split, part: Part) -> Result<Rows>;

    /// The smallest keys of all rows, at most `count`, ascending. No two rows have the same.
    async fn smallest_keys(&self, count: usize) -> Result<Vec<RowKey>>;
}
