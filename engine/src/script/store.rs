//! Running a plan into files of a table and publishing them: all of them or none, in a table of plain files (storage's
//! commit protocol) or in a Delta table (its log).

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use storage::manifest::Columns;
use storage::{Admission, Begun, Commit, CommitMode, Committed, Location, WrittenFile};

use super::run::Job;
use crate::delta;
use crate::error::{Error, Result};
use crate::events::Outcome;
use crate::extension::Finished;
use crate::runner::Gather;
use crate::sink::encoding::FileOptions;
use crate::sink::{NotNull, SinkNode, SinkSpec, with_rows, written_files};
use crate::source::fitting::{Arrival, Place};

/// Where rows are stored, and how.
pub(crate) struct Target {
    pub(crate) location: Location,
    /// A Delta table, not a table of plain files.
    pub(crate) delta: bool,
    pub(crate) mode: CommitMode,
    pub(crate) options: FileOptions,
    pub(crate) partition_by: Vec<String>,
    /// What the table that is there asks of rows.
    pub(crate) not_null: Option<NotNull>,
}

/// Runs a plan into files and publishes them; gives also how many bytes they have.
pub(crate) async fn store(job: &Job<'_>, plan: LogicalPlan, target: Target) -> Result<(Finished, u64)> {
    if target.delta {
        return store_in_delta(job, plan, target).await;
    }
    let Target { location, mode, options, partition_by, not_null, .. } = target;
    let commit = match job.begin(&location, mode).await? {
        Begun::New(commit) => commit,
        Begun::Done(done) => return Ok(committed(&location, &done)),
    };
    if !commit.is_single_file() && delta::Log::open(job.session.stores(), &location)?.exists().await? {
        commit.abort().await?;
        return Err(
            Error::invalid(format!("{location}: is a Delta table")).with_hint("write into it with STORED AS DELTA")
        );
    }
    if commit.is_single_file() && !partition_by.is_empty() {
        commit.abort().await?;
        return Err(Error::invalid(format!("PARTITIONED BY needs a directory, and {location} is one file"))
            .with_hint("end the place with /"));
    }
    let guard = match guard(job, &commit, &plan, mode, &options, &partition_by).await {
        Ok(guard) => guard,
        Err(error) => {
            commit.abort().await?;
            return Err(error);
        }
    };
    let spec = Arc::new(SinkSpec::new(&commit, options, partition_by).with_not_null(not_null));
    match write(job, plan, Arc::clone(&spec)).await {
        Ok(files) => {
            let files = with_rows(files);
            let commit = match guard {
                Some(guard) => commit.asking(guard.admission(&files)),
                None => *commit,
            };
            let done = commit.keeping(job.session.options().keep_versions).publish(files).await?;
            Ok(committed(&location, &done))
        }
        Err(error) => {
            // Tasks that are being stopped may still be writing: what they stage must be there to be removed.
            spec.all_stopped().await;
            if let Err(left) = commit.abort().await {
                tracing::warn!(%location, error = %left, "staged files could not be removed; the next commit will");
            }
            Err(error)
        }
    }
}

/// What is looked at before files become part of a table beside others.
struct Guard {
    place: Place,
    arrival: Arrival,
    mode: CommitMode,
    /// The version that was looked at before anything was written, and the columns that the table has then.
    seen: Option<(u64, Columns)>,
}

/// Looks whether the rows fit the table, before anything is written. Nothing needs to fit into a single file.
async fn guard(
    job: &Job<'_>,
    commit: &Commit,
    plan: &LogicalPlan,
    mode: CommitMode,
    options: &FileOptions,
    partition_by: &[String],
) -> Result<Option<Guard>> {
    if commit.is_single_file() {
        return Ok(None);
    }
    let (state, stores) = (job.session.context().state(), job.session.stores().clone());
    let place = Place { state, stores, location: commit.location().clone() };
    let arrival = Arrival {
        schema: Arc::clone(plan.schema().inner()),
        partition_by: partition_by.to_vec(),
        format: options.format()?,
        compression: options.encoding.compression(),
        options: options.for_readers(),
    };
    let refused = |error: Error| {
        Error::Storage(storage::Error::Invalid { location: commit.location().to_string(), reason: error.to_string() })
    };
    let mut seen = None;
    match mode {
        CommitMode::Append => {
            let base = commit.base().await?;
            let version = base.as_ref().map(|base| base.version);
            let columns = place.admit(&arrival, base, &HashSet::new()).await.map_err(refused)?;
            seen = version.map(|version| (version, columns));
        }
        CommitMode::OverwritePartitions => place.admit_partitions(&arrival).await.map_err(refused)?,
        CommitMode::Overwrite | CommitMode::ErrorIfExists => {}
    }
    Ok(Some(Guard { place, arrival, mode, seen }))
}

impl Guard {
    /// Asked when these files are published: another commit may have been first, and which partitions they replace is known.
    fn admission(self, files: &[WrittenFile]) -> Admission {
        let written = files.iter().filter(|file| file.rows > 0 || file.relative.is_empty());
        let replaced: HashSet<String> = written.map(|file| file.relative.clone()).collect();
        let shared = Arc::new((self, replaced));
        Admission::new(move |base| {
            let shared = Arc::clone(&shared);
            Box::pin(async move {
                let (guard, replaced) = shared.as_ref();
                let none = HashSet::new();
                let replaced = match guard.mode {
                    CommitMode::Append => &none,
                    CommitMode::OverwritePartitions => replaced,
                    CommitMode::Overwrite | CommitMode::ErrorIfExists => return Ok(guard.arrival.said()),
                };
                if let Some((version, columns)) = &guard.seen
                    && *version == base.version
                {
                    return Ok(columns.clone());
                }
                guard.place.admit(&guard.arrival, Some(base), replaced).await.map_err(|error| error.to_string())
            })
        })
    }
}

/// As [`store`], into a Delta table.
async fn store_in_delta(job: &Job<'_>, plan: LogicalPlan, target: Target) -> Result<(Finished, u64)> {
    let Target { location, mode, options, partition_by, not_null, .. } = target;
    let log = delta::Log::open(job.session.stores(), &location)?;
    let change = match delta::Change::begin(log, plan.schema(), mode, partition_by, job.key()).await? {
        delta::Begun::New(change) => change,
        delta::Begun::Done(done) => return Ok(stored(&location, done.files, done.rows, done.bytes)),
    };
    let plan = change.fitted(plan)?;
    let partition_by = change.partition_by().to_vec();
    let spec = SinkSpec::in_place(change.location(), change.id(), options, partition_by).with_not_null(not_null);
    let spec = Arc::new(spec);
    match write(job, plan, Arc::clone(&spec)).await {
        Ok(files) => {
            let done = change.publish(&job.session.context().state(), files).await?;
            Ok(stored(&location, done.files, done.rows, done.bytes))
        }
        Err(error) => {
            // As above: no task may write a file after this has looked for them.
            spec.all_stopped().await;
            change.abort().await;
            Err(error)
        }
    }
}

fn committed(location: &Location, done: &Committed) -> (Finished, u64) {
    stored(location, done.files as u64, done.rows, done.bytes)
}

fn stored(location: &Location, files: u64, rows: u64, bytes: u64) -> (Finished, u64) {
    let outcome = Outcome::Committed { location: location.to_string(), files, rows, bytes };
    (Finished { rows: Some(rows), outcomes: vec![outcome], ..Finished::default() }, bytes)
}

async fn write(job: &Job<'_>, plan: LogicalPlan, spec: Arc<SinkSpec>) -> Result<Vec<WrittenFile>> {
    let plan = SinkNode::plan(plan, spec)?;
    let execution = job.session.runner().run(job.session, plan, Gather::One).await?;
    let mut partitions = execution.partitions;
    let stream = partitions.pop().expect("a gathered execution has one stream");
    let collected = async { Ok(stream.try_collect::<Vec<_>>().await?) };
    written_files(&job.watch(execution.gauge.as_ref(), collected).await?)
}
