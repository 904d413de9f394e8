//! Training by the workers of a cluster: the rows lie in files that all of them see, the order goes to each of them, and each
//! makes its own shards; what comes back is read from files that they have left. What a rank does is [`worker`]'s and
//! [`score`]'s, what is heard of it [`watch`]'s; the arithmetic is that of one process, and so are the bytes.

mod order;
mod score;
mod watch;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use engine::events::Event;
use engine::extension::JobContext;
use engine::gang::{GangOrder, GangTask};
use engine::{Error, Result, Session};
use storage::{Location, Scheme, Workspace, sha256_hex};
use tokio::runtime::Handle;

use order::{Done, DoneCurve, NamedKernel, NetworkWork, Order, Report, Source, Work, decode, encode};
use score::{NamedFile, ScoreOrder, ScoreTask, ScoredPart};
use watch::Watch;
use worker::TrainTask;

use crate::checkpoint::Checkpoints;
use crate::encoder::RowEncoder;
use crate::evaluation::{Scored, kept_rows};
use crate::gathered::{Elsewhere, Sharded};
use crate::kernel::ChosenKernel;
use crate::linear::{LinearFit, LinearObserver, LinearPlan};
use crate::measure::{Measure, ScoredShard};
use crate::model::Predictor;
use crate::model::estimator::{Trained, TrainedShape};
use crate::spec::CheckedSpec;
use crate::train::{self, TrainObserver, TrainPlan, TrainedNetwork};

/// Seconds to wait for workers, unless `ml.worker_wait_seconds` says otherwise.
const WAIT_SECONDS: u64 = 60;

/// What the ranks of gangs can do.
pub(crate) fn tasks() -> Vec<Arc<dyn GangTask>> {
    vec![Arc::new(TrainTask), Arc::new(ScoreTask)]
}

/// A cluster that trains, and a workspace that all of its workers see. To be closed in the end.
pub(crate) struct Cluster {
    session: Session,
    /// As the option NUM_WORKERS says.
    workers: Option<usize>,
    wait: Duration,
    runtime: Handle,
    space: Workspace,
}

impl Cluster {
    /// That of the session, if it has one that can see the session's warehouse.
    pub(crate) async fn of(session: &Session, spec: &CheckedSpec) -> Result<Option<Self>> {
        let wait = match session.setting("ml.worker_wait_seconds") {
            None => WAIT_SECONDS,
            Some(text) => text.parse().map_err(|_| {
                Error::Usage(format!("ml.worker_wait_seconds: expected a whole number of at least 0, got `{text}`"))
            })?,
        };
        if session.gangs().is_local() || session.warehouse().scheme() == Scheme::Memory {
            return Ok(None);
        }
        let board = session.warehouse().join("_shards").as_directory();
        let space = Workspace::open(session.stores(), &board).await?;
        let (wait, runtime) = (Duration::from_secs(wait), Handle::current());
        Ok(Some(Cluster { session: session.clone(), workers: spec.workers, wait, runtime, space }))
    }

    /// Where its workers find the rows.
    pub(crate) fn place(&self) -> &Location {
        self.space.location()
    }

    /// Removes the workspace.
    pub(crate) async fn close(self) {
        let at = self.space.location().clone();
        if let Err(error) = self.space.remove().await {
            tracing::warn!("cannot remove the shards of a training run in {at}: {error}");
        }
    }
}

/// Where a model is trained and scored when it is not in this process.
pub(crate) struct Place<'a> {
    cluster: &'a Cluster,
    rows: &'a Sharded,
    elsewhere: &'a Elsewhere,
    source: Source,
    kernel: &'a ChosenKernel,
    checkpoints: &'a Checkpoints,
    job: &'a JobContext,
}

impl<'a> Place<'a> {
    /// On a cluster, for rows that its workers hold.
    pub(crate) fn of(
        cluster: &'a Cluster,
        rows: &'a Sharded,
        encoder: &RowEncoder,
        kernel: &'a ChosenKernel,
        checkpoints: &'a Checkpoints,
        job: &'a JobContext,
    ) -> Result<Option<Self>> {
        let Some(elsewhere) = &rows.elsewhere else { return Ok(None) };
        let source = Source { rows: elsewhere.rows.clone(), encoder: encoder.written()? };
        Ok(Some(Place { cluster, rows, elsewhere, source, kernel, checkpoints, job }))
    }

    fn space(&self) -> &Workspace {
        &self.cluster.space
    }

    /// Runs a task on as many workers as have work, at most `most`; gives what rank 0 gave.
    fn run(
        &self,
        task: &str,
        order: Vec<u8>,
        most: usize,
        unit: &'static str,
        hear: &(dyn Fn(Report) + Send + Sync),
    ) -> Result<Vec<u8>> {
        let workers = match self.cluster.workers {
            None => 1..=most,
            Some(wanted) => wanted.min(most)..=wanted.min(most),
        };
        let order = GangOrder { task: task.into(), order, workers, wait: self.cluster.wait };
        let watch = Watch::new(self.job, unit, hear);
        let gangs = self.cluster.session.gangs();
        self.cluster.runtime.block_on(gangs.run(order, &self.job.cancel, &|event| watch.event(event)))
    }

    /// The bytes of a file that a worker has left.
    fn read(&self, file: &NamedFile) -> Result<Vec<u8>> {
        let at = self.space().location().as_directory().join(&file.name);
        let bytes = self.cluster.runtime.block_on(self.cluster.session.stores().get(&at))?;
        file.check(&at, &bytes)?;
        Ok(bytes.to_vec())
    }

    /// As [`train::train`].
    pub(crate) fn network(&self, plan: &TrainPlan, observer: &dyn TrainObserver) -> Result<TrainedNetwork> {
        let most = train::ranks_max(plan, self.rows.train.as_ref())?;
        let shape = TrainedShape::Network(plan.network.clone());
        let hear = |report| match report {
            Report::Resumed { done, history } => observer.resumed(done, &history),
            Report::Progress(progress) => observer.progress(&progress),
            Report::Epoch(record) => observer.epoch(&record),
            Report::Iteration(_) | Report::Encoded { .. } => {}
        };
        let (trained, curve) = self.train(Work::Network(NetworkWork::of(plan)), &shape, most, "step", &hear)?;
        match (trained, curve) {
            (Trained::Network(network), DoneCurve::Network { history, stopped_early, steps }) => {
                Ok(TrainedNetwork { network, history, stopped_early, steps })
            }
            _ => Err(Error::invalid("the workers trained a linear model, a network was asked for")),
        }
    }

    /// As [`crate::linear::fit`].
    pub(crate) fn linear(&self, plan: &LinearPlan, observer: &dyn LinearObserver) -> Result<LinearFit> {
        let rows = &self.rows.train;
        let shape = TrainedShape::Linear { kind: plan.kind, inputs: rows.layout().clone() };
        let hear = |report| match report {
            Report::Resumed { done, .. } => observer.resumed(done as usize),
            Report::Iteration(iteration) => observer.iteration(&iteration),
            Report::Progress(_) | Report::Epoch(_) | Report::Encoded { .. } => {}
        };
        let (trained, curve) = self.train(Work::Linear(plan.clone()), &shape, rows.shards(), "pass", &hear)?;
        match (trained, curve) {
            (Trained::Linear(model), DoneCurve::Linear { history, converged, notes, separated }) => {
                Ok(LinearFit { model, history, converged, notes, separated })
            }
            _ => Err(Error::invalid("the workers trained a network, a linear model was asked for")),
        }
    }

    fn train(
        &self,
        work: Work,
        shape: &TrainedShape,
        most: usize,
        unit: &'static str,
        hear: &(dyn Fn(Report) + Send + Sync),
    ) -> Result<(Trained, DoneCurve)> {
        let order = Order {
            work,
            kernel: NamedKernel::of(self.kernel),
            source: self.source.clone(),
            train: self.elsewhere.train.clone(),
            eval: self.elsewhere.eval.clone(),
            checkpoint: self.checkpoints.keeping(),
            place: self.space().location().to_string(),
        };
        if let Some(wanted) = self.cluster.workers.filter(|wanted| *wanted > most) {
            let note = format!("NUM_WORKERS = {wanted}, but only {most} can have a part of each batch");
            self.job.emit(Event::Note(note));
        }
        let done = self.run(worker::NAME, encode(&order), most, unit, hear)?;
        let done: Done = decode(&done, "the workers' result")?;
        Ok((Trained::from_safetensors(shape, &self.read(&done.file)?)?, done.curve))
    }

    /// Scores the held-out rows by a model whose tensors are `weights`.
    pub(crate) fn score(&self, predictor: &Predictor, weights: &[u8]) -> Result<Scored> {
        let kept = kept_rows(self.rows);
        let file = NamedFile { name: "model.safetensors".into(), sha256: sha256_hex(weights) };
        self.cluster.runtime.block_on(self.space().put(&file.name, weights.to_vec().into()))?;
        let classes = predictor.shape().classes.as_ref().map(|classes| classes.len());
        let order = ScoreOrder {
            kernel: NamedKernel::of(self.kernel),
            shape: predictor.trained().shape(),
            file,
            classes,
            source: self.source.clone(),
            kept: self.elsewhere.eval.as_ref().unwrap_or(&self.elsewhere.train).clone(),
            test: self.elsewhere.test.clone(),
            place: self.space().location().to_string(),
        };
        let parts = self.run(score::NAME, encode(&order), kept.shards(), "step", &|_| {})?;
        let parts: Vec<ScoredPart> = decode(&parts, "the workers' scores")?;
        let mut shards = vec![ScoredShard::default(); kept.shards()];
        let mut all = Measure::new(classes);
        let mut test = self.rows.test.as_ref().map(|_| Measure::new(classes));
        for part in parts {
            for (shard, file) in &part.scores {
                shards[*shard] = score::from_bytes(&self.read(file)?, kept.rows(*shard))?;
            }
            all.merge(&Measure::read(classes, &part.kept)?)?;
            if let (Some(test), Some(more)) = (&mut test, &part.test) {
                test.merge(&Measure::read(classes, more)?)?;
            }
        }
        let complete =
            |(shard, scored): (usize, &ScoredShard)| scored.scores.len() == kept.rows(shard) * predictor.score_width();
        if !shards.iter().enumerate().all(complete) {
            return Err(Error::invalid("the workers have not scored every row"));
        }
        Ok(Scored { shards, kept: all, test })
    }
}

#[cfg(test)]
mod tests;
