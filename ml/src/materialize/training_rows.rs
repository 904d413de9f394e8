//! The rows of a training query, kept for the passes that follow, wherever they are: in this process, or in files that the
//! workers of a cluster see. What is asked of all of them is asked here.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use engine::Result;

use super::row_key::RowKey;
use super::split::{HELD_OUT, Part, Split};
use crate::statistics::Rows;

/// The name of the key's column beside the query's; it comes last.
pub(super) const KEY_COLUMN: &str = "__gristmill_row_key";

/// How many of the smallest keys are asked for: those that AUTO_SPLIT holds out, and the next, which tells whether the last
/// of them stands alone.
pub(super) const SMALLEST_KEYS: usize = HELD_OUT + 1;

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

    /// The smallest keys of all rows, ascending: at most [`HELD_OUT`] and the next.
    async fn smallest_keys(&self) -> Result<Vec<RowKey>>;

    /// Of the rows with this very key, which are equal rows, some are held out: how many of each piece of the rows, `wanted`
    /// in all. `None` wants all of them.
    async fn ties(&self, key: RowKey, wanted: Option<usize>) -> Result<Arc<[usize]>>;
}
