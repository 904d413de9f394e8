//! The seam between a gang and what it is for: a [`GangTask`] says what a rank does, a [`Seat`] is all that a rank is
//! given, and [`Gangs`] forms gangs, again if need be, until the task has ended. Whether ranks are threads of this
//! process or processes of a cluster changes nothing above this line.

use std::any::Any;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use storage::Stores;
use tokio_util::sync::CancellationToken;

use super::{Mesh, Rank};
use crate::error::Result;

/// What a rank does. Known by its name to every process, through [`crate::Extension::gang_tasks`].
pub trait GangTask: Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What must be alike for all ranks if their numbers are to be, such as the matrix kernel, in words: ranks that
    /// differ refuse each other and name both.
    ///
    /// # Errors
    /// An order that this process cannot serve.
    fn fingerprint(&self, _order: &[u8]) -> Result<String> {
        Ok(String::new())
    }

    /// Runs one rank, on a thread of its own. `order` is what the coordinator wrote, the same for all ranks and all
    /// generations: where to go on is in the task's own checkpoint.
    ///
    /// # Errors
    /// Those of the mesh, whose end the gang knows itself; any other error, or a panic, ends the run with its cause.
    fn run(&self, order: &[u8], seat: &mut Seat<'_>) -> Result<Ended>;
}

/// How a rank ends well; all ranks of a generation end alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The task is done; what rank 0 gives is the run's result.
    Done(Vec<u8>),
    /// [`Mesh::leaving`] said that a worker must go: there is a checkpoint of this very step, and the next generation
    /// goes on from it.
    Left,
}

/// Where a rank sits.
pub struct Seat<'a> {
    /// To the other ranks.
    pub mesh: &'a mut dyn Mesh,
    /// Names the run; the same for all ranks and generations, and for no other run.
    pub run: &'a str,
    /// Counts from 1; ranks and their number change with it.
    pub generation: u32,
    /// Threads that this rank may keep busy.
    pub cores: usize,
    /// The stores of this process.
    pub stores: &'a Stores,
    /// A directory on this machine's disk that outlives the generation, not the process.
    pub scratch: &'a Path,
    /// What is kept in this process's memory as long as that directory.
    pub kept: &'a Kept,
    /// Bytes that this rank may hold; `None` is no limit.
    pub memory: Option<u64>,
    /// Set when the run was cancelled or this generation is over: a rank that does not exchange for long looks at it.
    pub cancel: CancellationToken,
    /// Takes words to the coordinator, in order.
    pub report: &'a (dyn Fn(Vec<u8>) + Send + Sync),
}

/// One value that a rank leaves in its process for its successor of the next generation: what it would only make again.
#[derive(Default)]
pub struct Kept(Mutex<Option<Arc<dyn Any + Send + Sync>>>);

impl Kept {
    /// The value; made when there is none of its type.
    pub fn get_or_make<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.clone().and_then(|value| value.downcast::<T>().ok()) {
            return known;
        }
        let made = Arc::new(make());
        *kept = Some(Arc::clone(&made) as _);
        made
    }
}

/// What a coordinator asks for.
#[derive(Debug, Clone)]
pub struct GangOrder {
    /// Name of the [`GangTask`].
    pub task: String,
    /// For every rank.
    pub order: Vec<u8>,
    /// At least and at most so many workers. Fewer than the least do not begin; after a loss a run goes on with any number.
    pub workers: RangeInclusive<usize>,
    /// How long to wait while there are not as many as the least.
    pub wait: Duration,
}

/// What a coordinator hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GangEvent {
    /// The workers are there but work for others: so many runs come first.
    Queued {
        /// Runs that hold workers or wait before this one.
        ahead: usize,
    },
    /// A generation begins.
    Formed {
        /// From 1.
        generation: u32,
        /// Names, in rank order.
        workers: Vec<String>,
    },
    /// What a rank reported.
    Report {
        /// Which one.
        rank: Rank,
        /// Its words.
        bytes: Vec<u8>,
    },
    /// A worker is lost; the next generation does without it.
    Lost {
        /// Its name.
        worker: String,
        /// How that was noticed.
        cause: String,
        /// The newest step of the generation that is known to have ended.
        step: Option<u64>,
    },
    /// A worker leaves because its process was told to end; no step is lost.
    Leaving {
        /// Its name.
        worker: String,
    },
}

/// Forms gangs.
#[async_trait]
pub trait Gangs: Send + Sync {
    /// Runs a task to its end, through as many generations as it takes; gives what rank 0 gave. Dropping the future stops
    /// the ranks.
    ///
    /// # Errors
    /// A rank's own error or panic; too few workers; a cluster that is lost; three generations that end at one step.
    async fn run(
        &self,
        order: GangOrder,
        cancel: &CancellationToken,
        watch: &(dyn Fn(GangEvent) + Send + Sync),
    ) -> Result<Vec<u8>>;

    /// How many workers a gang could have now: threads of this process, or executors of the cluster.
    ///
    /// # Errors
    /// A cluster that cannot be reached.
    async fn available(&self) -> Result<usize>;

    /// Whether ranks are threads of this process.
    fn is_local(&self) -> bool;
}

/// The task of that name.
pub(crate) fn find(tasks: &[Arc<dyn GangTask>], name: &str) -> Option<Arc<dyn GangTask>> {
    tasks.iter().find(|task| task.name() == name).map(Arc::clone)
}
