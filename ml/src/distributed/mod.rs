//! Training by the workers of a cluster: the shards go to files that all of them see, the order to each of them; what comes
//! back is read from a file that rank 0 has left. What a rank does is [`worker`]'s, what is heard of it [`watch`]'s; the
//! arithmetic is that of one process, and so are the bytes.

mod order;
mod watch;
mod worker;

use std::time::Duration;

use engine::extension::JobContext;
use engine::gang::GangOrder;
use engine::{Error, Result, Session};
use storage::{Location, Scheme, Workspace, sha256_hex};
use tokio::runtime::Handle;

use order::{Done, DoneCurve, NamedKernel, NetworkWork, Order, Report, Work, decode, encode};
use watch::Watch;

use crate::checkpoint::Checkpoints;
use crate::kernel::ChosenKernel;
use crate::linear::{LinearFit, LinearObserver, LinearPlan};
use crate::materialize;
use crate::model::estimator::{Trained, TrainedShape};
use crate::spec::CheckedSpec;
use crate::train::{self, TrainObserver, TrainPlan, TrainedNetwork};
use crate::training::Sharded;

pub(crate) use worker::TrainTask;

/// Seconds to wait for workers, unless `ml.worker_wait_seconds` says otherwise.
const WAIT_SECONDS: u64 = 60;

/// Where a model is trained when it is not in this process.
pub(crate) struct Place<'a> {
    session: &'a Session,
    rows: &'a Sharded,
    kernel: &'a ChosenKernel,
    checkpoints: &'a Checkpoints,
    job: &'a JobContext,
    /// As the option NUM_WORKERS says.
    workers: Option<usize>,
    wait: Duration,
}

impl<'a> Place<'a> {
    /// The cluster of the session, if it has one that can see the session's warehouse.
    pub(crate) fn of(
        session: &'a Session,
        spec: &CheckedSpec,
        rows: &'a Sharded,
        kernel: &'a ChosenKernel,
        checkpoints: &'a Checkpoints,
        job: &'a JobContext,
    ) -> Result<Option<Self>> {
        let wait = match session.setting("ml.worker_wait_seconds") {
            None => WAIT_SECONDS,
            Some(text) => text.parse().map_err(|_| {
                Error::Usage(format!("ml.worker_wait_seconds: expected a whole number of at least 0, got `{text}`"))
            })?,
        };
        if session.gangs().is_local() || session.warehouse().scheme() == Scheme::Memory {
            return Ok(None);
        }
        let wait = Duration::from_secs(wait);
        Ok(Some(Place { session, rows, kernel, checkpoints, job, workers: spec.workers, wait }))
    }

    /// As [`train::train`].
    pub(crate) fn network(&self, plan: &TrainPlan, observer: &dyn TrainObserver) -> Result<TrainedNetwork> {
        let most = train::ranks_max(plan, self.rows.train.as_ref())?;
        let shape = TrainedShape::Network(plan.network.clone());
        let hear = |report| match report {
            Report::Resumed { done, history } => observer.resumed(done, &history),
            Report::Progress(progress) => observer.progress(&progress),
            Report::Epoch(record) => observer.epoch(&record),
            Report::Iteration(_) => {}
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
            Report::Progress(_) | Report::Epoch(_) => {}
        };
        let (trained, curve) = self.train(Work::Linear(plan.clone()), &shape, rows.shards(), "pass", &hear)?;
        match (trained, curve) {
            (Trained::Linear(model), DoneCurve::Linear { history, converged, notes }) => {
                Ok(LinearFit { model, history, converged, notes })
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
        let runtime = Handle::current();
        let board = self.session.warehouse().join("_shards").as_directory();
        let space = runtime.block_on(Workspace::open(self.session.stores(), &board))?;
        let trained = self.train_in(&space, work, shape, most, unit, hear, &runtime);
        if let Err(error) = runtime.block_on(space.remove()) {
            tracing::warn!("cannot remove the shards of a training run in {board}: {error}");
        }
        trained
    }

    fn train_in(
        &self,
        space: &Workspace,
        work: Work,
        shape: &TrainedShape,
        most: usize,
        unit: &'static str,
        hear: &(dyn Fn(Report) + Send + Sync),
        runtime: &Handle,
    ) -> Result<(Trained, DoneCurve)> {
        let store = |part: &str, set: &dyn crate::shards::ShardSet| {
            materialize::store(set, part, space, runtime, self.session.threads(), &self.job.cancel)
        };
        let order = Order {
            work,
            kernel: NamedKernel::of(self.kernel),
            train: store("train", self.rows.train.as_ref())?,
            eval: self.rows.eval.as_deref().map(|eval| store("eval", eval)).transpose()?,
            checkpoint: self.checkpoints.keeping(),
            place: space.location().to_string(),
        };
        let workers = match self.workers {
            None => 1..=most,
            Some(wanted) if wanted > most => {
                let note = format!("NUM_WORKERS = {wanted}: {most} have work, each needs at least one part of a batch");
                self.job.emit(engine::events::Event::Note(note));
                most..=most
            }
            Some(wanted) => wanted..=wanted,
        };
        let order = GangOrder { task: worker::NAME.into(), order: encode(&order), workers, wait: self.wait };
        let watch = Watch::new(self.job, unit, hear);
        let hear = |event| watch.event(event);
        let done = runtime.block_on(self.session.gangs().run(order, &self.job.cancel, &hear))?;
        let done: Done = decode(&done, "the workers' result")?;
        let at = Location::parse(&space.location().to_string())?.as_directory().join(&done.file);
        let bytes = runtime.block_on(self.session.stores().get(&at))?;
        let got = sha256_hex(&bytes);
        if got != done.sha256 {
            let reason = format!("is damaged: its SHA-256 is {got}, {} was written", done.sha256);
            return Err(storage::Error::Damaged { location: at.to_string(), reason }.into());
        }
        Ok((Trained::from_safetensors(shape, &bytes)?, done.curve))
    }
}

#[cfg(test)]
mod tests;
