//! The same program as scheduler and executors. Plans are executed by Ballista; what makes a batch product of it is here:
//! one environment for all sides, plans that carry our sink, failures that keep their nouns, tasks that stop when told,
//! jobs that outlive their submitter.
//!
//! ```text
//! driver (session, runner/cluster.rs)  --physical plan-->  scheduler  --stages, tasks-->  executors
//!        ^------------------ rows of the last stage, straight from the executors -----------'
//! ```
//!
//! The driver plans: the scheduler gets the physical plan that one process would have run and cuts it into stages. So
//! there is one planner, and what a plan means cannot differ.

mod address;
pub mod api;
mod client;
mod codec;
mod connections;
mod cores;
mod driver;
mod environment;
mod executor;
mod failure;
mod guard;
mod joins;
mod journal;
mod lending;
mod line;
mod order;
mod portable;
mod presence;
mod probe;
mod reception;
mod scheduler;
mod stages;
mod state_lock;
mod subqueries;
mod task;
mod travel;
mod whole;
mod windows;

use std::time::Duration;

pub use address::ClusterAddress;
pub use client::{ClusterClient, Submission};
pub use driver::{JobFace, Jobs, jobs_directory};
pub use environment::Environment;
pub(crate) use environment::{for_cluster, without_dynamic_filters};
pub use executor::{ExecutorSettings, run_executor};
pub(crate) use joins::plan_for_tasks;
pub use line::Tell;
pub(crate) use portable::{NO_FILES, keeps_at_home, reads_json_array};
pub use scheduler::{Scheduler, SchedulerSettings};
pub(crate) use stages::cuts_badly;
pub use state_lock::StateLock;
pub(crate) use subqueries::{ScalarSubqueries, scalar_subqueries, values_first};
pub(crate) use travel::{Travelled, written};

/// How often an executor tells the scheduler that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// After this long without a heartbeat an executor is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(20);
/// The largest message, plans and rows alike, that any side sends or takes.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// How long finished rows wait on executors for a driver that does not fetch them; a driver that does removes them.
const RESULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
