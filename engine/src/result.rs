//! Where the rows of a SELECT go: the command line prints them, a program or a test collects them.

use std::sync::{Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use crate::error::Result;

/// Takes the rows of a statement that has a result.
#[async_trait]
pub trait ResultSink: Send + Sync {
    /// Reads the stream to its end, or for as long as rows are wanted, and says how many rows there were. `number` is
    /// the statement's 1-based number in its script.
    async fn accept(&self, number: usize, rows: SendableRecordBatchStream) -> Result<u64>;
}

/// Keeps all results in memory.
#[derive(Debug, Default)]
pub struct Collected {
    results: Mutex<Vec<Vec<RecordBatch>>>,
}

impl Collected {
    /// The results so far, one list of batches for each SELECT.
    pub fn take(&self) -> Vec<Vec<RecordBatch>> {
        std::mem::take(&mut self.results.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl ResultSink for Collected {
    async fn accept(&self, _number: usize, rows: SendableRecordBatchStream) -> Result<u64> {
        let schema = rows.schema();
        let mut batches: Vec<RecordBatch> = rows.try_collect().await?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        let count = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        self.results.lock().unwrap_or_else(PoisonError::into_inner).push(batches);
        Ok(count)
    }
}
