//! What a rank does by the clock: when to report, when a checkpoint is due, and what the time goes to. Nothing that is
//! computed depends on it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Asking for the time costs more than some steps do: it is asked in every so many, while they are short.
const SAMPLED: u64 = 16;
const SHORT: Duration = Duration::from_millis(1);

/// What the time of a rank goes to, in parts of 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Shares {
    /// Gradients.
    pub compute: f64,
    /// Exchanges, sums and updates; waiting for others counts here.
    pub reduce: f64,
    /// Waiting for rows.
    pub input: f64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    /// Between two checkpoints; 0 when time does not count.
    checkpoint_every: Duration,
    kept: Instant,
    reported: Instant,
    /// When the step began, if it is one of those that are watched: every so many.
    step: Option<Instant>,
    sampled: u64,
    steps: Duration,
    reduce: Duration,
    input: Duration,
}

impl Clock {
    pub(super) fn start(checkpoint_every: Duration) -> Self {
        let now = Instant::now();
        let zero = Duration::ZERO;
        Clock {
            checkpoint_every,
            kept: now,
            reported: now,
            step: None,
            sampled: SAMPLED,
            steps: zero,
            reduce: zero,
            input: zero,
        }
    }

    pub(super) fn begin_step(&mut self, count: u64) {
        self.step = count.is_multiple_of(self.sampled).then(Instant::now);
    }

    /// The time, in a step that is watched.
    pub(super) fn now(&self) -> Option<Instant> {
        self.step.map(|_| Instant::now())
    }

    pub(super) fn add_input(&mut self, waited: Duration) {
        self.input += waited;
    }

    pub(super) fn add_reduce(&mut self, begun: Option<Instant>) {
        self.reduce += begun.map_or(Duration::ZERO, |begun| begun.elapsed());
    }

    pub(super) fn end_step(&mut self) {
        let Some(begun) = self.step else { return };
        let elapsed = begun.elapsed();
        self.steps += elapsed;
        self.sampled = if elapsed < SHORT { SAMPLED } else { 1 };
    }

    /// Since the last report, when it is time for one, as the end of an epoch always is; asked at the end of a step.
    pub(super) fn report_is_due(&mut self, ends_epoch: bool) -> Option<Duration> {
        if self.step.is_none() && !ends_epoch {
            return None;
        }
        let elapsed = self.reported.elapsed();
        (ends_epoch || elapsed >= REPORT_EVERY).then(|| {
            self.reported += elapsed;
            elapsed
        })
    }

    /// What the time went to since this was last asked.
    pub(super) fn take_shares(&mut self) -> Shares {
        let whole = self.steps.as_secs_f64();
        let [_, reduce, input] = [&mut self.steps, &mut self.reduce, &mut self.input]
            .map(|part| std::mem::take(part).as_secs_f64())
            .map(|part| if whole > 0.0 { (part / whole).min(1.0) } else { 0.0 });
        Shares { compute: (1.0 - reduce - input).max(0.0), reduce, input }
    }

    /// Whether a checkpoint should follow this step. The end of an epoch is a good place, unless there was one just now.
    pub(super) fn checkpoint_is_due(&self, ends_epoch: bool) -> bool {
        if self.checkpoint_every.is_zero() || (self.step.is_none() && !ends_epoch) {
            return false;
        }
        self.kept.elapsed() >= if ends_epoch { self.checkpoint_every / 10 } else { self.checkpoint_every }
    }

    pub(super) fn checkpoint_is_kept(&mut self) {
        self.kept = Instant::now();
    }
}
