//! What a coordinator hears of its gang, as events of the job: progress, and one line for each worker that is lost.

use std::sync::{Mutex, PoisonError};

use engine::events::Event;
use engine::extension::JobContext;
use engine::gang::GangEvent;

use super::order::{Report, decode};
use crate::estimate::thousands;
use crate::training::tell;

/// See the module.
pub(super) struct Watch<'a> {
    job: &'a JobContext,
    /// What the work goes on by: `step`, `pass`.
    unit: &'static str,
    /// Whose reports these are, but for what is told of losses.
    hear: &'a (dyn Fn(Report) + Send + Sync),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Workers of the generation.
    world: usize,
    /// What happened since the last generation began, for the line that says where the next one goes on.
    losses: Vec<String>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(job: &'a JobContext, unit: &'static str, hear: &'a (dyn Fn(Report) + Send + Sync)) -> Self {
        Watch { job, unit, hear, state: Mutex::default() }
    }

    pub(super) fn event(&self, event: GangEvent) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            GangEvent::Queued { ahead } => {
                let runs = if ahead == 1 { "1 other run".to_string() } else { format!("{ahead} other runs") };
                self.job.emit(Event::Note(format!("waiting for workers: {runs} before this one")));
            }
            GangEvent::Formed { workers, .. } => state.world = workers.len(),
            GangEvent::Lost { worker, cause, step } => {
                let at = step.map_or(String::new(), |step| format!(" at {} {}", self.unit, thousands(step as f64)));
                tracing::info!("executor {worker} lost{at}: {cause}");
                state.losses.push(format!("executor {worker} lost{at}"));
            }
            GangEvent::Leaving { worker } => state.losses.push(format!("executor {worker} leaves")),
            GangEvent::Report { bytes, .. } => {
                // A report of another version is no reason to end a training that goes well.
                let Ok(report) = decode::<Report>(&bytes, "a worker's report") else { return };
                if let Report::Resumed { done, .. } = &report
                    && !state.losses.is_empty()
                {
                    let what = std::mem::take(&mut state.losses).join(", ");
                    let workers = if state.world == 1 { "worker" } else { "workers" };
                    let (world, unit) = (state.world, self.unit);
                    let from = thousands(*done as f64);
                    self.job.emit(Event::Note(format!("{what}; resumed from {unit} {from} on {world} {workers}")));
                }
                drop(state);
                match report {
                    Report::Encoded { done, all } => tell(self.job, "transform", done, Some(all)),
                    report => (self.hear)(report),
                }
            }
        }
    }
}
