//! From shards to a trained model: settings become the plan of the network's or the linear model's own trainer, and what
//! they tell while they work becomes progress events.

use std::sync::{Mutex, PoisonError};

use engine::events::{Event, Progress};
use engine::extension::JobContext;
use engine::{Error, Result, Session};

use crate::checkpoint::Checkpoints;
use crate::distributed;
use crate::gathered::Sharded;
use crate::history::EpochRecord;
use crate::kernel::ChosenKernel;
use crate::linear::{self, Iteration, LinearKind, LinearObserver, LinearPlan, Solver, StepSize};
use crate::live::Curve;
use crate::loss::Loss;
use crate::model::estimator;
use crate::network::NetworkSpec;
use crate::spec::{CheckedSpec, Estimator, LearnRateStrategy, LinearSettings, NetworkSettings, OptimizeStrategy};
use crate::train::{self, EarlyStop, Shares, TrainObserver, TrainPlan, TrainProgress};
use crate::transform::LabelEncoding;

/// Where nothing is said, a network is trained for so many epochs, and for more where these are fewer steps than
/// [`STEPS`].
const EPOCHS: usize = 20;
/// Steps that a network takes on few rows.
const STEPS: usize = 2_000;
const EPOCHS_MAX: usize = 1_000;
/// So many steps have to lower the loss by [`PROGRESS`] of it, or the training ends: in one epoch, or on fewer rows in
/// several, at most [`PATIENCE_MAX`].
const STEPS_OF_PROGRESS: usize = 500;
const PATIENCE_MAX: usize = 10;
const PROGRESS: f64 = 0.01;
/// Size of the first step of a line search, when nothing is said.
const FIRST_STEP: f64 = 0.1;

/// What training gave.
pub(crate) struct Trained {
    pub(crate) trained: estimator::Trained,
    pub(crate) history: Vec<EpochRecord>,
    /// For the user, one sentence each.
    pub(crate) notes: Vec<String>,
    /// What makes the model doubtful.
    pub(crate) warnings: Vec<String>,
}

/// Trains, in this process or by the workers of a cluster; blocks the thread.
pub(crate) fn train(
    session: &Session,
    spec: &CheckedSpec,
    labels: &LabelEncoding,
    rows: &Sharded,
    kernel: &ChosenKernel,
    checkpoints: &Checkpoints,
    elsewhere: Option<&distributed::Place<'_>>,
    curve: &Curve,
    job: &JobContext,
) -> Result<Trained> {
    let workers = spec.workers.unwrap_or_else(|| session.threads());
    let classes = labels.classes().map_or(0, <[String]>::len);
    match &spec.estimator {
        Estimator::Network(settings) => {
            let unit = labels.scale().unit;
            let mut plan = network_plan(spec, settings, rows, classes, workers, kernel, unit);
            let events = EpochEvents::new(job, curve, plan.epochs, elsewhere.is_some(), unit);
            let result = match elsewhere {
                Some(place) => place.network(&plan, &events)?,
                None => {
                    plan.checkpoint = checkpoints.here()?;
                    train::train(&plan, rows.train.clone(), rows.eval.clone(), &events, &job.cancel)?
                }
            };
            Ok(network(&plan, result, unit))
        }
        Estimator::Linear(settings) => {
            let plan = LinearPlan { label_offset: labels.scale().offset, ..linear_plan(settings, classes, workers) };
            let events = IterationEvents { job, curve, most: plan.max_iterations };
            let fitted = match elsewhere {
                Some(place) => place.linear(&plan, &events)?,
                None => {
                    let kept = checkpoints.here()?;
                    let keeping =
                        kept.as_ref().map(|kept| linear::Keeping { store: kept.store.as_ref(), every: kept.every });
                    linear::fit(&plan, rows.train.as_ref(), rows.eval.as_deref(), keeping, &events)?
                }
            };
            linear_model(fitted, &labels.name)
        }
    }
}

fn network_plan(
    spec: &CheckedSpec,
    settings: &NetworkSettings,
    rows: &Sharded,
    classes: usize,
    workers: usize,
    kernel: &ChosenKernel,
    unit: f64,
) -> TrainPlan {
    let (loss, outputs) = match classes {
        0 => (in_units(settings.regression_loss, unit), 1),
        2 => (Loss::SigmoidCrossEntropy, 1),
        many => (Loss::SoftmaxCrossEntropy, many),
    };
    let steps = rows.train.total_rows().div_ceil(settings.batch_size).max(1);
    TrainPlan {
        network: NetworkSpec {
            inputs: rows.train.layout().clone(),
            hidden: settings.hidden.clone(),
            activation: settings.activation,
            dropout: settings.dropout as f32,
            layer_norm: settings.layer_norm,
            outputs,
            loss,
        },
        optimizer: settings.optimizer,
        schedule: settings.schedule,
        batch_size: settings.batch_size,
        epochs: settings.epochs.unwrap_or_else(|| STEPS.div_ceil(steps).clamp(EPOCHS, EPOCHS_MAX)),
        seed: spec.seed,
        l1: settings.l1,
        l2: settings.l2,
        clip_norm: settings.clip_norm,
        early_stop: settings.early_stop.then(|| {
            // An epoch of few steps need not gain much.
            let share = (steps as f64 / STEPS_OF_PROGRESS as f64).min(1.0);
            let patience = STEPS_OF_PROGRESS.div_ceil(steps).clamp(1, PATIENCE_MAX);
            let min_rel_progress = settings.min_rel_progress.unwrap_or(PROGRESS * share);
            EarlyStop { min_rel_progress, patience }
        }),
        workers,
        kernel: kernel.clone(),
        checkpoint: None,
    }
}

/// A loss over labels that are counted in units: squared errors and Huber's loss are then those of the labels by unit².
fn in_units(loss: Loss, unit: f64) -> Loss {
    match loss {
        Loss::Huber { delta } => Loss::Huber { delta: delta / unit },
        other => other,
    }
}

fn network(plan: &TrainPlan, result: train::TrainedNetwork, unit: f64) -> Trained {
    let mut notes = Vec::new();
    if result.stopped_early {
        notes.push(format!(
            "training stopped after epoch {} of {}: the loss no longer fell by the part that min_rel_progress asks for",
            result.history.len(),
            plan.epochs
        ));
    }
    let history = result.history.iter().map(|record| epoch_record(record, record.iteration + 1, unit)).collect();
    Trained { trained: estimator::Trained::Network(result.network), history, notes, warnings: Vec::new() }
}

/// As people see it: the loss of a regressor in squares of the label's own units.
fn epoch_record(record: &train::EpochRecord, iteration: usize, unit: f64) -> EpochRecord {
    EpochRecord {
        iteration,
        loss: record.loss * unit * unit,
        eval_loss: record.eval_loss.map(|loss| loss * unit * unit),
        learning_rate: Some(record.learning_rate),
        duration_ms: record.duration_ms,
    }
}

/// Epochs as progress: a bar for each, with loss and speed.
struct EpochEvents<'a> {
    job: &'a JobContext,
    curve: &'a Curve,
    epochs: usize,
    /// Whether it is told who trains, and what the time goes to.
    by_others: bool,
    /// Of the labels.
    unit: f64,
    /// Samples a second, steps of an epoch, and what the time goes to, as last heard.
    last: Mutex<(f64, u64, Option<(usize, Shares)>)>,
}

impl<'a> EpochEvents<'a> {
    fn new(job: &'a JobContext, curve: &'a Curve, epochs: usize, by_others: bool, unit: f64) -> Self {
        EpochEvents { job, curve, epochs, by_others, unit, last: Mutex::new((0.0, 1, None)) }
    }
}

impl EpochEvents<'_> {
    fn shown(&self, loss: f64) -> String {
        format!("{:.4}", loss * self.unit * self.unit)
    }
}

fn shares_of(workers: usize, shares: Shares) -> [(&'static str, String); 2] {
    let percent = |share: f64| format!("{:.0}", 100.0 * share);
    let parts = [shares.compute, shares.reduce, shares.input].map(percent);
    [("workers", workers.to_string()), ("compute/reduce/input", format!("{} %", parts.join("/")))]
}

impl TrainObserver for EpochEvents<'_> {
    fn progress(&self, progress: &TrainProgress) {
        let shares = self.by_others.then_some((progress.workers, progress.shares));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) =
            (progress.samples_per_second, progress.steps, shares);
        if progress.step == progress.steps {
            // The end of an epoch is told once, when its held-out loss is known too.
            return;
        }
        let mut fields =
            vec![("loss", self.shown(progress.loss)), ("samples/s", thousands(progress.samples_per_second))];
        fields.extend(shares.into_iter().flat_map(|(workers, shares)| shares_of(workers, shares)));
        self.job.emit(Event::Progress(Progress {
            task: format!("epoch {}/{}", progress.epoch + 1, progress.epochs),
            done: progress.step,
            total: Some(progress.steps),
            unit: "steps",
            fields,
        }));
    }

    fn resumed(&self, _count: u64, history: &[train::EpochRecord]) {
        self.curve.begin(history.iter().map(|record| epoch_record(record, record.iteration + 1, self.unit)).collect());
    }

    fn epoch(&self, record: &train::EpochRecord) {
        self.curve.add(epoch_record(record, record.iteration + 1, self.unit));
        let mut fields = vec![("loss", self.shown(record.loss))];
        if let Some(loss) = record.eval_loss {
            fields.push(("eval loss", self.shown(loss)));
        }
        let (speed, steps, shares) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if speed > 0.0 {
            fields.push(("samples/s", thousands(speed)));
        }
        fields.extend(shares.into_iter().flat_map(|(workers, shares)| shares_of(workers, shares)));
        let task = format!("epoch {}/{}", record.iteration + 1, self.epochs);
        self.job.emit(Event::Progress(Progress { task, done: steps, total: Some(steps), unit: "steps", fields }));
    }
}

/// `812,000`
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn linear_plan(settings: &LinearSettings, classes: usize, workers: usize) -> LinearPlan {
    let kind = match classes {
        0 => LinearKind::Regression,
        2 => LinearKind::Binary,
        many => LinearKind::Multinomial(many),
    };
    let solver = match settings.strategy {
        OptimizeStrategy::Auto => Solver::Auto,
        OptimizeStrategy::NormalEquation => Solver::NormalEquation,
        OptimizeStrategy::BatchGradientDescent => {
            let rate = settings.learn_rate.unwrap_or(FIRST_STEP);
            Solver::GradientDescent(match settings.learn_rate_strategy {
                LearnRateStrategy::LineSearch => StepSize::LineSearch(rate),
                LearnRateStrategy::Constant => StepSize::Constant(rate),
            })
        }
    };
    LinearPlan {
        kind,
        solver,
        l1: settings.l1,
        l2: settings.l2,
        fit_intercept: settings.fit_intercept,
        label_offset: 0.0,
        max_iterations: settings.max_iterations,
        min_rel_progress: settings.min_rel_progress.filter(|_| settings.early_stop),
        p_values: settings.p_values,
        workers,
    }
}

fn linear_model(fitted: linear::LinearFit, label: &str) -> Result<Trained> {
    let history = fitted.history.iter().map(iteration_record).collect();
    if fitted.model.coefficients.iter().chain(&fitted.model.intercepts).any(|x| !x.is_finite()) {
        return Err(Error::invalid("training gave coefficients that are no finite numbers"));
    }
    let separated = format!(
        "the inputs tell some classes of {label} apart without error: no finite weights are the best ones, those of this \
         model are merely large, and standard errors and p-values mean nothing; l2_reg = 1 gives finite ones"
    );
    let warnings = fitted.separated.then_some(separated).into_iter().collect();
    Ok(Trained { trained: estimator::Trained::Linear(fitted.model), history, notes: fitted.notes, warnings })
}

fn iteration_record(iteration: &Iteration) -> EpochRecord {
    EpochRecord {
        iteration: iteration.iteration,
        loss: iteration.loss,
        eval_loss: iteration.eval_loss,
        learning_rate: iteration.learning_rate,
        duration_ms: iteration.duration_ms as f64,
    }
}

struct IterationEvents<'a> {
    job: &'a JobContext,
    curve: &'a Curve,
    most: Option<usize>,
}

impl LinearObserver for IterationEvents<'_> {
    fn resumed(&self, _passes: usize) {
        self.curve.begin(Vec::new());
    }

    fn iteration(&self, iteration: &Iteration) {
        self.curve.add(iteration_record(iteration));
        self.job.emit(Event::Progress(Progress {
            task: "iterations".into(),
            done: iteration.iteration as u64,
            total: self.most.map(|n| n as u64),
            unit: "iterations",
            fields: vec![("loss", format!("{:.4}", iteration.loss))],
        }));
    }

    fn cancelled(&self) -> bool {
        self.job.cancel.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
