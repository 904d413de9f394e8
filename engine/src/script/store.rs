//! Running a plan into files of a table and publishing them: all of them or none, in a table of plain files (storage's
//! commit protocol) or in a Delta table (its log).

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use storage::{Begun, CommitMode, Committed, Location, WrittenFile};

use super::run::Job;
use crate::delta;
use crate::error::{Error, Result};
use crate::events::Outcome;
use crate::extension::Finished;
use crate::runner::Gather;
use crate::sink::encoding::FileOptions;
use crate::sink::{NotNull, SinkNode, SinkSpec, with_rows, written_files};

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
    let spec = Arc::new(SinkSpec::new(&commit, options, partition_by).with_not_null(not_null));
    match write(job, plan, Arc::clone(&spec)).await {
        Ok(files) => {
            let done = commit.publish(with_rows(files)).await?;
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
