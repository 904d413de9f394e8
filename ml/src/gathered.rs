//! The training query's rows, gathered where they are needed: in this process, or, for the workers of a cluster, in files
//! that all of them see. From here on nothing asks which, until they become shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use datafusion::dataframe::DataFrame;
use engine::extension::JobContext;
use engine::{Result, Session};
use storage::Location;

use crate::encoder::{LABEL, RowEncoder};
use crate::materialize::{
    self, BuildPlan, HeldRows, Outline, Part, PartCounts, Split, SpreadRows, TrainingRows, WorkerRows,
};
use crate::model::golden;
use crate::shards::ShardSet;
use crate::spec::CheckedSpec;
use crate::training::tell;

/// See the module.
pub(crate) enum Gathered {
    Held(HeldRows),
    Spread(SpreadRows),
}

/// Gathered rows of which all is known that shards need.
pub(crate) enum Counted {
    Held(HeldRows),
    Spread { rows: WorkerRows, counts: PartCounts, golden: RecordBatch },
}

/// What training reads.
pub(crate) struct Sharded {
    /// Rows to train on.
    pub(crate) train: Arc<dyn ShardSet>,
    /// Rows that evaluate; `None` when there are none.
    pub(crate) eval: Option<Arc<dyn ShardSet>>,
    /// Rows that test; `None` when there are none.
    pub(crate) test: Option<Arc<dyn ShardSet>>,
    /// Some rows of the query, without the label that was put beside them.
    pub(crate) golden: RecordBatch,
    /// Where the workers that hold the shards find their rows; then the sets are mere outlines here.
    pub(crate) elsewhere: Option<Elsewhere>,
}

/// What the workers that hold shards are told of them.
pub(crate) struct Elsewhere {
    pub(crate) rows: WorkerRows,
    pub(crate) train: Outline,
    pub(crate) eval: Option<Outline>,
    pub(crate) test: Option<Outline>,
}

impl Gathered {
    /// Runs a query whose column [`LABEL`] is the label; its rows stay here, or go to `place`.
    pub(crate) async fn of(
        session: &Session,
        query: DataFrame,
        spec: &CheckedSpec,
        place: Option<&Location>,
        job: &JobContext,
    ) -> Result<Self> {
        if let Some(place) = place {
            let rows = SpreadRows::write(session, query, LABEL, spec.seed, spec.shards, place, job).await?;
            return Ok(Gathered::Spread(rows));
        }
        let progress = {
            let job = job.clone();
            Arc::new(move |rows: u64| tell(&job, "read", rows, None))
        };
        let (pool, directory) = (session.memory_pool(), session.temp_dir());
        let labels = [LABEL.to_string()];
        let schema = Arc::new(query.schema().as_arrow().clone());
        let streams = session.execute(query).await?;
        let rows =
            materialize::stage(schema, streams, &labels, spec.seed, &pool, &directory, &job.cancel, progress).await?;
        Ok(Gathered::Held(HeldRows::new(rows, session.context())))
    }

    pub(crate) fn rows(&self) -> &dyn TrainingRows {
        match self {
            Gathered::Held(rows) => rows,
            Gathered::Spread(rows) => rows,
        }
    }

    /// Finds out what else must be asked of all rows.
    pub(crate) async fn counted(self, split: &Split) -> Result<Counted> {
        match self {
            Gathered::Held(rows) => Ok(Counted::Held(rows)),
            Gathered::Spread(rows) => {
                let (counts, golden) = futures::try_join!(rows.counts(split), rows.sample(golden::ROWS))?;
                let golden = without_label(&golden)?;
                let rows = WorkerRows { files: rows.files().to_vec(), split: split.clone() };
                Ok(Counted::Spread { rows, counts, golden })
            }
        }
    }
}

impl Counted {
    /// The shards: made here, or told of to the workers who will make them.
    pub(crate) fn shards(
        self,
        session: &Session,
        spec: &CheckedSpec,
        split: &Split,
        encoder: &RowEncoder,
        job: &JobContext,
    ) -> Result<Sharded> {
        match self {
            Counted::Held(rows) => built(session, spec, &rows, split, encoder, job),
            Counted::Spread { rows, counts, golden } => Ok(outlined(rows, counts, golden, encoder)),
        }
    }
}

fn built(
    session: &Session,
    spec: &CheckedSpec,
    rows: &HeldRows,
    split: &Split,
    encoder: &RowEncoder,
    job: &JobContext,
) -> Result<Sharded> {
    let before = AtomicU64::new(0);
    let build = |part: Part| -> Result<Arc<dyn ShardSet>> {
        let done = before.load(Ordering::Relaxed);
        let plan = BuildPlan {
            layout: encoder.transform.layout(),
            shards: spec.shards,
            workers: session.threads(),
            pool: session.memory_pool(),
            directory: session.temp_dir(),
            cancel: job.cancel.clone(),
            progress: &|part_done| tell(job, "transform", done + part_done, Some(rows.rows())),
            encode: &|batch| encoder.encode(batch),
        };
        let set = materialize::build(rows.staged(), split, part, &plan)?;
        before.fetch_add(set.total_rows() as u64, Ordering::Relaxed);
        Ok(set)
    };
    let filled = |part: Part| -> Result<Option<Arc<dyn ShardSet>>> {
        let set = if *split == Split::None { None } else { Some(build(part)?) };
        Ok(set.filter(|set| set.total_rows() > 0))
    };
    let (train, eval, test) = (build(Part::Train)?, filled(Part::Eval)?, filled(Part::Test)?);
    let golden = without_label(&rows.staged().sample(golden::ROWS)?)?;
    Ok(Sharded { train, eval, test, golden, elsewhere: None })
}

fn outlined(rows: WorkerRows, counts: PartCounts, golden: RecordBatch, encoder: &RowEncoder) -> Sharded {
    let outline = |part: Part, rows: Vec<usize>| Outline::new(part, rows, encoder.transform.layout().clone());
    let filled = |part: Part, rows: Vec<usize>| {
        let is_filled = rows.iter().any(|rows| *rows > 0);
        is_filled.then(|| outline(part, rows))
    };
    let train = outline(Part::Train, counts.train);
    let (eval, test) = (filled(Part::Eval, counts.eval), filled(Part::Test, counts.test));
    let shared = |outline: &Outline| Arc::new(outline.clone()) as Arc<dyn ShardSet>;
    Sharded {
        train: shared(&train),
        eval: eval.as_ref().map(shared),
        test: test.as_ref().map(shared),
        golden,
        elsewhere: Some(Elsewhere { rows, train, eval, test }),
    }
}

fn without_label(rows: &RecordBatch) -> Result<RecordBatch> {
    let own = rows.schema_ref().fields().iter().enumerate().filter(|(_, field)| field.name() != LABEL);
    let own: Vec<usize> = own.map(|(index, _)| index).collect();
    Ok(rows.project(&own).map_err(datafusion::error::DataFusionError::from)?)
}
