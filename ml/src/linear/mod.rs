//! Linear and logistic regression over shards, in `f64`.
//!
//! Shapes: R rows, D inputs (dense ones, then the columns of one-hot groups, which are read as indices and never
//! written out), C outputs (1 but for the multinomial model), P = (D + 1) C parameters.
//!
//! **Objective.** With row weights ωᵢ (class weights come as such), the sum over all rows
//! ```text
//!   J(w, b) = Σ ωᵢ ℓ(yᵢ, xᵢ·w + b)  +  l1 ‖w‖₁  +  l2/2 ‖w‖²        ℓ = (y - ŷ)²/2  or  -ln p(y)
//! ```
//! with the intercept b free. In scikit-learn's terms: `Ridge(alpha=l2)`, `Lasso(alpha=l1/n)`,
//! `LogisticRegression(C=1/l2)`. Where inputs are collinear (one-hot groups that always set a column are, with the
//! intercept) and nothing is penalised, linear regression takes the w of smallest norm, as scikit-learn does.
//!
//! **Solvers.** Least squares by the normal equation; binary logistic regression by Newton's method; what has too many
//! parameters for a matrix, and the multinomial model, by L-BFGS; L1 by coordinate descent on the quadratic (model) or,
//! without a matrix, by accelerated proximal gradients. Batch gradient descent on request.
//!
//! Always holds: the model is the same bits for any number of threads ([`fold`]). This module neither transforms
//! features nor stores models.

mod curvature;
mod descent;
mod fold;
mod gradient;
mod gram;
mod inference;
mod lbfgs;
mod matrix;
mod model;
mod newton;
mod normal;
mod passes;
mod penalty;
mod written_out;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::Instant;

use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use passes::{Passes, Seat};
use written_out::WrittenOut;

use crate::shards::{FeatureLayout, ShardSet};
use crate::train::{Outcome, Place, share};

pub use inference::Inference;
pub use model::{LinearKind, LinearModel};
pub use passes::Keeping;

/// Parameters up to which second-order solvers keep a P x P matrix (8 P² bytes for every sum alive, P³/3 operations
/// to solve).
const MATRIX_PARAMETERS_MAX: usize = 2048;

/// A mean loss below this, without a penalty, is that of classes which are told apart without error: it falls for ever.
const FAULTLESS: f64 = 1e-5;

/// What to fit, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinearPlan {
    /// Which model.
    pub kind: LinearKind,
    /// Which solver.
    pub solver: Solver,
    /// Weight of ‖w‖₁ in the sum over rows.
    pub l1: f64,
    /// Weight of ‖w‖²/2 in the sum over rows.
    pub l2: f64,
    /// Whether there is an intercept.
    pub fit_intercept: bool,
    /// What was subtracted from the labels, and the fitted intercept has to make up for.
    #[serde(with = "crate::bits::one")]
    pub label_offset: f64,
    /// Iterations at most; `None` is the solver's own limit, which good data does not reach.
    pub max_iterations: Option<usize>,
    /// Stop when an iteration lowers the objective by less than this part of it; `None` goes on until the solution
    /// stands still (or, for gradient descent, 1e-6).
    pub min_rel_progress: Option<f64>,
    /// Whether to compute standard errors and p-values (linear regression and logistic regression of two classes, without
    /// penalties).
    pub p_values: bool,
    /// Threads at most. Has no influence on the result.
    #[serde(skip)]
    pub workers: usize,
}

impl LinearPlan {
    /// No penalties, an intercept, the best solver, one thread.
    pub fn new(kind: LinearKind) -> Self {
        LinearPlan {
            kind,
            solver: Solver::Auto,
            l1: 0.0,
            l2: 0.0,
            fit_intercept: true,
            label_offset: 0.0,
            max_iterations: None,
            min_rel_progress: None,
            p_values: false,
            workers: 1,
        }
    }
}

/// How the objective is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Solver {
    /// The fastest that is exact: see the module's list.
    Auto,
    /// The normal equation: least squares without L1 alone.
    NormalEquation,
    /// Steps along the (proximal) gradient of the mean loss over all rows.
    GradientDescent(StepSize),
}

/// Step sizes of gradient descent, in units of the mean loss' gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum StepSize {
    /// The same for all iterations.
    Constant(f64),
    /// Doubled from the last one, then halved until the loss falls enough (Armijo); starts at this.
    LineSearch(f64),
}

/// One iteration of a fit, as ML.TRAINING_INFO shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// From 1.
    pub iteration: usize,
    /// Mean over the rows of the squared error, or of -ln p; without penalties.
    #[serde(with = "crate::bits::one")]
    pub loss: f64,
    /// The same on the evaluation rows, when there are any.
    #[serde(with = "crate::bits::option")]
    pub eval_loss: Option<f64>,
    /// Step size, where the solver has one.
    #[serde(with = "crate::bits::option")]
    pub learning_rate: Option<f64>,
    /// Wall time.
    pub duration_ms: u64,
}

/// Sees a fit while it runs.
pub trait LinearObserver: Sync {
    /// Before the first pass over the rows: the passes that the fit has behind it. Their iterations are told again.
    fn resumed(&self, _passes: usize) {}
    /// An iteration is done.
    fn iteration(&self, _iteration: &Iteration) {}
    /// Whether to stop with [`Error::Cancelled`]; asked before each block, must be quick.
    fn cancelled(&self) -> bool {
        false
    }
}

/// An observer that looks away.
impl LinearObserver for () {}

/// A fitted model, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearFit {
    /// The model.
    pub model: LinearModel,
    /// One record for each iteration; the normal equation is one.
    pub history: Vec<Iteration>,
    /// Whether the solver reached its goal before the limit of iterations.
    pub converged: bool,
    /// What the user should know: collinear inputs, a limit reached.
    pub notes: Vec<String>,
    /// Whether the inputs tell classes apart without error, so that no finite coefficients are the best ones.
    pub separated: bool,
}

/// Fits `plan` to the rows of `train` on threads of this process; `eval` only gives the losses of the history.
///
/// Fails on settings that contradict each other, on no rows (or none with weight), on inputs that are not finite, on a
/// loss that diverges, and when cancelled.
pub fn fit(
    plan: &LinearPlan,
    train: &dyn ShardSet,
    eval: Option<&dyn ShardSet>,
    keeping: Option<Keeping<'_>>,
    observer: &dyn LinearObserver,
) -> Result<LinearFit> {
    check(plan)?;
    if has_small_bag(train) {
        let (written, eval) = (WrittenOut::new(train), eval.map(WrittenOut::new));
        let fit = fit(plan, &written, eval.as_ref().map(|eval| eval as &dyn ShardSet), keeping, observer)?;
        return Ok(fit.of(train.layout()));
    }
    let passes = RefCell::new(Passes::begin(None, keeping, identity(plan, train, eval))?);
    solve(plan, train, eval, &passes, observer)
}

/// Whether there is a bag, and inputs are so few that a solver may keep a matrix of them.
fn has_small_bag(train: &dyn ShardSet) -> bool {
    train.layout().bag > 0 && train.layout().dims() < MATRIX_PARAMETERS_MAX
}

impl LinearFit {
    /// The same of inputs that lie in another way.
    fn of(mut self, layout: &FeatureLayout) -> Self {
        self.model.layout = layout.clone();
        self
    }
}

/// What one rank of a gang does; all end with the same fit. Errors as [`fit`].
pub fn fit_rank(
    plan: &LinearPlan,
    train: &dyn ShardSet,
    eval: Option<&dyn ShardSet>,
    keeping: Option<Keeping<'_>>,
    observer: &dyn LinearObserver,
    place: Place<'_>,
) -> Result<Outcome<LinearFit>> {
    check(plan)?;
    if has_small_bag(train) {
        let (written, eval) = (WrittenOut::new(train), eval.map(WrittenOut::new));
        let eval = eval.as_ref().map(|eval| eval as &dyn ShardSet);
        return Ok(match fit_rank(plan, &written, eval, keeping, observer, place)? {
            Outcome::Finished(fit) => Outcome::Finished(fit.of(train.layout())),
            other => other,
        });
    }
    let plan = &LinearPlan { workers: place.threads, ..plan.clone() };
    let (rank, world) = (place.mesh.rank(), place.mesh.world());
    for set in [Some(train), eval].into_iter().flatten() {
        set.hold(share(set.shards(), rank, world))?;
    }
    let seat = Seat { mesh: place.mesh, generation: place.generation };
    let passes = RefCell::new(Passes::begin(Some(seat), keeping, identity(plan, train, eval))?);
    match solve(plan, train, eval, &passes, observer) {
        Err(Error::Cancelled) if passes.borrow().has_left() => Ok(Outcome::Left),
        fit => fit.map(Outcome::Finished),
    }
}

/// A hash of all that decides a fit's bytes: sums of another must not be gone on from. Workers are not part of it.
fn identity(plan: &LinearPlan, train: &dyn ShardSet, eval: Option<&dyn ShardSet>) -> u64 {
    let rows = |set: &dyn ShardSet| (0..set.shards()).map(|shard| set.rows(shard)).collect::<Vec<_>>();
    let parts = (plan, train.layout(), rows(train), train.block_rows(), eval.map(rows));
    xxh3_64(&serde_json::to_vec(&parts).expect("a plan is plain data"))
}

fn solve<'a>(
    plan: &'a LinearPlan,
    train: &'a dyn ShardSet,
    eval: Option<&'a dyn ShardSet>,
    passes: &'a RefCell<Passes<'a>>,
    observer: &'a dyn LinearObserver,
) -> Result<LinearFit> {
    observer.resumed(passes.borrow().known());
    let run = Run {
        plan,
        train,
        eval,
        passes,
        observer,
        started: Instant::now(),
        history: Vec::new(),
        notes: Vec::new(),
        separated: false,
    };
    let parameters = (train.layout().dims() + 1) * plan.kind.outputs();
    let small = parameters <= MATRIX_PARAMETERS_MAX;
    if train.total_rows() == 0 {
        return Err(Error::invalid("no rows to train on"));
    }
    match (plan.solver, plan.kind) {
        (Solver::GradientDescent(step), _) => descent::batch(run, step),
        (Solver::NormalEquation, _) if !small => Err(Error::invalid(format!(
            "the normal equation of {parameters} parameters is too large (at most {MATRIX_PARAMETERS_MAX})"
        ))
        .with_hint("leave optimize_strategy = 'AUTO_STRATEGY'")),
        (_, LinearKind::Regression) if small => normal::solve(run),
        (_, LinearKind::Binary) if small => newton::solve(run),
        _ if plan.p_values => Err(Error::invalid(format!(
            "p-values of {parameters} parameters are too many (at most {MATRIX_PARAMETERS_MAX})"
        ))),
        _ if plan.l1 > 0.0 => descent::accelerated(run),
        _ => lbfgs::solve(run),
    }
}

fn check(plan: &LinearPlan) -> Result<()> {
    let LinearPlan { kind, solver, l1, l2, .. } = *plan;
    for (name, value) in [("l1_reg", l1), ("l2_reg", l2)] {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(Error::invalid(format!("{name} is {value}, expected a number from 0 on")));
        }
    }
    if solver == Solver::NormalEquation && (kind != LinearKind::Regression || l1 > 0.0) {
        return Err(Error::invalid("the normal equation solves linear regression without l1_reg alone"));
    }
    if plan.p_values && (l1 > 0.0 || l2 > 0.0) {
        return Err(Error::invalid("p-values are computed for models without penalties alone"));
    }
    if let (true, LinearKind::Multinomial(classes)) = (plan.p_values, kind) {
        return Err(Error::invalid(format!("p-values are computed for two classes, the label has {classes}"))
            .with_hint("leave calculate_p_values out"));
    }
    if plan.p_values && matches!(solver, Solver::GradientDescent(_)) {
        return Err(Error::invalid("p-values are not computed by gradient descent")
            .with_hint("leave optimize_strategy = 'AUTO_STRATEGY'"));
    }
    Ok(())
}

/// A fit in progress: what every solver needs.
struct Run<'a> {
    plan: &'a LinearPlan,
    train: &'a dyn ShardSet,
    eval: Option<&'a dyn ShardSet>,
    passes: &'a RefCell<Passes<'a>>,
    observer: &'a dyn LinearObserver,
    started: Instant,
    history: Vec<Iteration>,
    notes: Vec<String>,
    separated: bool,
}

impl Run<'_> {
    fn fold<S: fold::Sum>(&self, shards: &dyn ShardSet, zero: impl Fn() -> S + Sync) -> Result<S> {
        let observer = self.observer;
        self.passes.borrow_mut().fold(shards, self.plan.workers, &|| observer.cancelled(), zero)
    }

    /// Records an iteration that ended with `parameters` and, on the training rows, the mean loss `loss`. Breaks when the
    /// limit of iterations is reached.
    fn record(
        &mut self,
        parameters: &gradient::Parameters,
        loss: f64,
        learning_rate: Option<f64>,
        limit: usize,
    ) -> Result<ControlFlow<()>> {
        let eval_loss = match self.eval {
            Some(eval) if eval.total_rows() > 0 => Some(gradient::mean_loss(self, eval, parameters)?),
            _ => None,
        };
        let iteration = Iteration {
            iteration: self.history.len() + 1,
            loss: self.plan.kind.shown_loss(loss),
            eval_loss: eval_loss.map(|loss| self.plan.kind.shown_loss(loss)),
            learning_rate,
            duration_ms: self.started.elapsed().as_millis() as u64,
        };
        self.started = Instant::now();
        self.observer.iteration(&iteration);
        self.history.push(iteration);
        Ok(if self.history.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn finish(self, parameters: &gradient::Parameters, converged: bool) -> LinearFit {
        let mut notes = self.notes;
        let plain = self.plan.kind != LinearKind::Regression && self.plan.l1 == 0.0 && self.plan.l2 == 0.0;
        let faultless = self.history.last().is_some_and(|last| last.loss < FAULTLESS);
        let separated = plain && (self.separated || faultless);
        if !converged {
            notes.push(format!("stopped after {} iterations, before the solution stood still", self.history.len()));
        }
        let mut parameters = parameters.clone();
        if let LinearKind::Multinomial(classes) = self.plan.kind {
            // The same number added to all intercepts changes no probability: they sum to zero.
            let mean = parameters.intercepts().iter().sum::<f64>() / classes as f64;
            parameters.intercepts_mut().iter_mut().for_each(|b| *b -= mean);
        }
        parameters.intercepts_mut().iter_mut().for_each(|b| *b += self.plan.label_offset);
        let model = LinearModel::new(self.plan.kind, self.train.layout().clone(), &parameters);
        LinearFit { model, history: self.history, converged, notes, separated }
    }
}

#[cfg(test)]
mod tests;
