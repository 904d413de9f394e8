//! What a job did, statement by statement and in all.

use std::time::Duration;

use crate::events::StatementReport;
use crate::metrics::Usage;

/// The end of a job that went well.
#[derive(Debug, Clone, Default)]
pub struct JobReport {
    /// One for each statement that ran, in order.
    pub statements: Vec<StatementReport>,
    /// Wall time of the whole.
    pub elapsed: Duration,
    /// Processor time that the job used and the process's peak memory.
    pub usage: Usage,
    /// Bytes read from object stores.
    pub bytes_read: u64,
    /// Bytes written to object stores.
    pub bytes_written: u64,
    /// Requests made to object stores.
    pub requests: u64,
    /// The most memory that queries had reserved at once.
    pub peak_reserved_bytes: u64,
}
