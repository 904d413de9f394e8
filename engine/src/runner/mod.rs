//! How a plan is executed. A logical plan goes in, a stream of rows comes out, and one can ask how far it is; whether
//! the work was done in this process or elsewhere is the runner's own affair.

mod analyze;
mod cluster;
mod local;
mod place;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionConfig;

pub use cluster::ClusterRunner;
pub use local::LocalRunner;
pub(crate) use place::IN_DRIVER;

use crate::error::Result;
use crate::gang::Gangs;
use crate::session::Session;

/// Executes plans.
#[async_trait]
pub trait Runner: Send + Sync {
    /// In one word, for tests and messages.
    fn name(&self) -> &'static str;

    /// How many partitions plans have unless the user says otherwise; `None` leaves it to the session's threads.
    fn partitions(&self) -> Option<usize> {
        None
    }

    /// Whether plans are executed by processes that see nothing of this one's memory.
    fn is_remote(&self) -> bool {
        false
    }

    /// Adjusts the query engine's configuration to where plans are executed.
    fn configure(&self, config: SessionConfig) -> SessionConfig {
        config
    }

    /// Where gangs of a session are formed; `None` is this process.
    fn gangs(&self) -> Option<Arc<dyn Gangs>> {
        None
    }

    /// Plans and begins. Dropping the streams stops the work.
    async fn run(&self, session: &Session, plan: LogicalPlan, gather: Gather) -> Result<Execution>;
}

/// How the result is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// As one stream, in the order of an ORDER BY, or in one process of the files that the rows come from.
    One,
    /// As many streams as the plan has partitions.
    Partitions,
    /// The same, whose rows one after the other are in the order of an ORDER BY, or of the files that they come from.
    PartitionsInOrder,
}

/// A plan that is being executed.
pub struct Execution {
    /// The result's partitions, each to be read by its own task or one after the other.
    pub partitions: Vec<SendableRecordBatchStream>,
    /// Asks how far it is.
    pub gauge: Arc<dyn Gauge>,
}

/// Tells how far a running plan is; cheap enough to be asked ten times a second.
pub trait Gauge: Send + Sync {
    /// As of now.
    fn read(&self) -> Reading;
}

/// How far a plan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Rows that left the scans.
    pub rows_scanned: u64,
    /// Rows that the scans will give, where the files say so.
    pub rows_to_scan: Option<u64>,
    /// Rows that reached the sink.
    pub rows_written: u64,
    /// Bytes that operators moved to disk for want of memory.
    pub bytes_spilled: u64,
}
