//! What one worker does: batch, gradient, reduce, update; epoch after epoch.
//!
//! Every rank has all parameters and its own slice of the optimizer's state. A step has two exchanges: each rank offers its
//! nodes of the gradient tree, the owner of a slice folds the tree and updates its parameters while the numbers are in the
//! cache, then everybody gets the new parameters. All decisions (divergence, early stopping) follow from numbers that every
//! rank has, so no rank needs to be told.

use std::ops::Range;
use std::thread::Scope;
use std::time::{Duration, Instant};

use engine::gang::{Mesh, Offer, Part, Tag};
use engine::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::checkpoint::{Progress, State};
use super::order::{Batch, Course, LeafRows, leaves_of};
use super::reduce::{CHUNK, Folding, cuts};
use super::{EpochRecord, TrainObserver, TrainPlan, TrainProgress, evaluate, gang_error};
use crate::layer::dropout::Place;
use crate::network::{Architecture, Chance, PREDICTION_TILE, Tape};
use crate::optimizer::{PreparedStep, StepRule};
use crate::shards::ShardSet;
use crate::simd;

/// What all ranks of a run share.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) plan: &'a TrainPlan,
    pub(super) architecture: &'a Architecture,
    pub(super) course: &'a Course,
    pub(super) train: &'a dyn ShardSet,
    pub(super) eval: Option<&'a dyn ShardSet>,
    pub(super) resumed: Option<&'a State>,
    pub(super) identity: u64,
    pub(super) observer: &'a dyn TrainObserver,
    pub(super) cancel: &'a CancellationToken,
}

/// What a rank ends with; the same on all.
pub(super) struct Finished {
    pub(super) parameters: Vec<f32>,
    pub(super) history: Vec<EpochRecord>,
    pub(super) stopped_early: bool,
    pub(super) steps: u64,
}

/// The exchanges of a step.
mod round {
    pub(super) const GRADIENT: u32 = 0;
    pub(super) const NORM: u32 = 1;
    pub(super) const PARAMETERS: u32 = 2;
    pub(super) const CHECKPOINT: u32 = 3;
    pub(super) const EVALUATE: u32 = 8;
}

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The training loop.
pub(super) fn train(run: &Run<'_>, mesh: &mut dyn Mesh) -> Result<Finished> {
    let Run { plan, course, .. } = *run;
    std::thread::scope(|scope| {
        let mut worker = Worker::new(run, mesh, scope)?;
        let mut stopped_early = false;
        while worker.epoch < plan.epochs && !stopped_early {
            let begun = Instant::now();
            while worker.step < course.steps {
                if run.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                worker.compute_gradients()?;
                worker.reduce_and_update()?;
                worker.share_parameters()?;
                worker.finish_step()?;
            }
            stopped_early = worker.finish_epoch(begun)?;
        }
        Ok(worker.into_finished(stopped_early))
    })
}

/// One rank at work.
struct Worker<'a> {
    run: &'a Run<'a>,
    mesh: &'a mut dyn Mesh,
    // Where the run stands; the same on every rank.
    epoch: usize,
    step: u64,
    count: u64,
    loss: f64,
    weight: f64,
    history: Vec<EpochRecord>,
    progress: Progress,
    parameters: Vec<f32>,
    /// Own slice of the optimizer's state.
    slots: Vec<Vec<f32>>,
    /// Which slice of the parameters each rank owns.
    cuts: Vec<Range<usize>>,
    /// Parts of the own slice that are treated alike: range of the parameters, whether penalties apply.
    segments: Vec<(Range<usize>, bool)>,
    // Rows to gradients.
    leaves: Vec<LeafRows<'a>>,
    first_leaf: usize,
    batch: Batch,
    tape: Tape,
    // Gradients to their sum.
    own_folding: Folding,
    world_folding: Folding,
    /// [height x P]: a stack of nodes.
    planes: Vec<f32>,
    /// (loss, weight) of each node on the stack.
    sums: Vec<[f64; 2]>,
    header: Vec<f64>,
    stack: Vec<f32>,
    scalars: Vec<f64>,
    /// The own slice's summed gradient, when it must be known as a whole before it is used.
    reduced: Vec<f32>,
    // Reporting, by rank 0.
    reported: Instant,
    rows: u64,
    rows_reported: u64,
}

impl<'a> Worker<'a> {
    fn new<'scope>(run: &'a Run<'a>, mesh: &'a mut dyn Mesh, scope: &'scope Scope<'scope, 'a>) -> Result<Self> {
        let Run { plan, architecture, course, train, .. } = *run;
        let (rank, world) = (mesh.rank(), mesh.world());
        let size = architecture.parameters();
        let cuts = cuts(size, world);
        let own = cuts[rank].clone();
        let mut state = run.resumed.cloned().unwrap_or_else(|| State {
            epoch: 0,
            step: 0,
            count: 0,
            loss: 0.0,
            weight: 0.0,
            history: Vec::new(),
            progress: Progress { best: f64::INFINITY, stale: 0, best_parameters: None },
            parameters: architecture.initial(plan.seed),
            slots: Vec::new(),
        });
        let slots = if run.resumed.is_some() {
            state.slots.iter().map(|slot| slot[own.clone()].to_vec()).collect()
        } else {
            let mut slots = vec![Vec::new(); plan.optimizer.slots()];
            let rate = plan.schedule.rate(0, course.steps, course.steps * plan.epochs as u64);
            plan.optimizer.start(&state.parameters[own.clone()], rate, &mut slots);
            slots
        };
        state.slots = Vec::new();
        let clip = |range: &Range<usize>| range.start.max(own.start)..range.end.min(own.end);
        let segments = architecture
            .views()
            .iter()
            .map(|view| (clip(&view.range), view.penalised))
            .filter(|(range, _)| !range.is_empty())
            .collect();
        let mine = leaves_of(course, rank, world);
        let own_folding = Folding::of_rank(course.leaves(), rank, world);
        let world_folding = Folding::of_world(course.leaves(), world);
        let leaves: Result<Vec<LeafRows<'a>>> = mine
            .clone()
            .map(|leaf| LeafRows::new(scope, course, train, plan.seed, leaf, state.epoch, state.step))
            .collect();
        Ok(Worker {
            leaves: leaves?,
            first_leaf: mine.start,
            batch: Batch::new(train.layout(), course.tile_rows),
            tape: Tape::new(architecture, course.tile_rows.max(if run.eval.is_some() { PREDICTION_TILE } else { 0 })),
            planes: vec![0.0; own_folding.height * size],
            sums: Vec::with_capacity(own_folding.height),
            header: Vec::with_capacity(2 * own_folding.height),
            stack: vec![0.0; world_folding.height * CHUNK],
            scalars: Vec::with_capacity(world_folding.height),
            reduced: vec![0.0; if plan.clip_norm.is_some() { own.len() } else { 0 }],
            own_folding,
            world_folding,
            epoch: state.epoch,
            step: state.step,
            count: state.count,
            loss: state.loss,
            weight: state.weight,
            history: state.history,
            progress: state.progress,
            parameters: state.parameters,
            slots,
            cuts,
            segments,
            reported: Instant::now(),
            rows: 0,
            rows_reported: 0,
            run,
            mesh,
        })
    }

    fn tag(&self, round: u32) -> Tag {
        Tag { generation: 0, step: self.count, round }
    }

    fn rate(&self) -> f64 {
        let steps = self.run.course.steps;
        self.run.plan.schedule.rate(self.count, steps, steps * self.run.plan.epochs as u64)
    }

    /// Batch and gradient of every own leaf, folded as far as the own range goes.
    fn compute_gradients(&mut self) -> Result<()> {
        let Run { plan, architecture, train, .. } = *self.run;
        let size = architecture.parameters();
        self.sums.clear();
        for (index, leaf) in self.leaves.iter_mut().enumerate() {
            let depth = self.sums.len();
            let plane = &mut self.planes[depth * size..(depth + 1) * size];
            let place =
                Place { epoch: self.epoch as u32, leaf: (self.first_leaf + index) as u32, first_row: leaf.given };
            let filled = leaf.fill(train.layout(), &mut self.batch)?;
            if filled == 0 {
                plane.fill(0.0);
                self.sums.push([0.0, 0.0]);
            } else {
                let chance = (plan.network.dropout > 0.0).then_some(Chance { seed: plan.seed, place });
                let tile = self.batch.tile();
                let kernel = plan.kernel.kernel;
                let loss = architecture.gradient(kernel, &self.parameters, tile, chance, &mut self.tape, plane);
                self.sums.push([loss, self.batch.weight()]);
                self.rows += filled as u64;
            }
            for _ in 0..self.own_folding.merges[index] {
                let [loss, weight] = self.sums.pop().expect("a merge has two nodes");
                let depth = self.sums.len();
                let left = self.sums.last_mut().expect("a merge has two nodes");
                *left = [left[0] + loss, left[1] + weight];
                let (target, source) = self.planes.split_at_mut(depth * size);
                simd::add_assign(&mut target[(depth - 1) * size..], &source[..size]);
            }
        }
        Ok(())
    }

    /// Folds the own slice of the gradient and updates the own slice of the parameters.
    fn reduce_and_update(&mut self) -> Result<()> {
        let size = self.run.architecture.parameters();
        let rate = self.rate();
        let tag = self.tag(round::GRADIENT);
        let rule = StepRule { count: self.count + 1, rate, scale: 0.0, l1: 0.0, l2: 0.0, decays: false };
        self.header.clear();
        self.header.extend(self.sums.iter().flatten());
        let planes = &self.planes[..self.sums.len() * size];
        let offer = Offer { header: &self.header, planes, plane: size, cuts: &self.cuts };
        let own = self.cuts[self.mesh.rank()].clone();
        let folding = &self.world_folding;
        let (mut loss, mut weight) = (0.0, 0.0);
        let mut update = Update {
            first: own.start,
            segments: &self.segments,
            parameters: &mut self.parameters,
            slots: &mut self.slots,
        };
        let plan = self.run.plan;
        let (stack, scalars, reduced) = (&mut self.stack, &mut self.scalars, &mut self.reduced);
        let clipping = self.run.plan.clip_norm.is_some();
        self.mesh
            .exchange(tag, offer, &mut |parts| {
                let nodes = |which: usize| {
                    parts.iter().flat_map(move |part| part.header.iter().skip(which).step_by(2).copied())
                };
                loss = folding.scalar(nodes(0), scalars);
                weight = folding.scalar(nodes(1), scalars);
                if !loss.is_finite() || weight <= 0.0 {
                    return;
                }
                let prepared = prepare(plan, StepRule { scale: 1.0 / weight, ..rule });
                for start in (0..own.len()).step_by(CHUNK) {
                    let range = start..(start + CHUNK).min(own.len());
                    let planes = parts.iter().flat_map(|part| planes_of(part, range.clone()));
                    let sum = folding.chunk(planes, stack);
                    if clipping {
                        reduced[range].copy_from_slice(sum);
                    } else {
                        update.apply(&prepared, range, sum);
                    }
                }
            })
            .map_err(gang_error)?;
        if !loss.is_finite() {
            return Err(self.diverged(loss, rate));
        }
        self.loss += loss;
        self.weight += weight;
        if clipping && weight > 0.0 {
            self.clip_and_update(StepRule { scale: 1.0 / weight, ..rule })?;
        }
        Ok(())
    }

    /// The second half of an update whose gradient must not be longer than `clip_norm`.
    fn clip_and_update(&mut self, rule: StepRule) -> Result<()> {
        // One sum for each chunk, and chunks do not depend on the number of owners: neither does the norm.
        self.header.clear();
        self.header.extend(self.reduced.chunks(CHUNK).map(simd::sum_of_squares));
        let nothing = vec![0..0; self.mesh.world()];
        let offer = Offer { header: &self.header, planes: &[], plane: 0, cuts: &nothing };
        let mut squares = 0.0;
        let tag = self.tag(round::NORM);
        self.mesh
            .exchange(tag, offer, &mut |parts| squares = parts.iter().flat_map(|part| part.header).sum())
            .map_err(gang_error)?;
        let norm = squares.sqrt() * rule.scale;
        if !norm.is_finite() {
            return Err(self.diverged(norm, rule.rate));
        }
        let limit = self.run.plan.clip_norm.unwrap_or(f64::INFINITY);
        let scale = if norm > limit { rule.scale * (limit / norm) } else { rule.scale };
        let mut update = Update {
            first: self.cuts[self.mesh.rank()].start,
            segments: &self.segments,
            parameters: &mut self.parameters,
            slots: &mut self.slots,
        };
        update.apply(&prepare(self.run.plan, StepRule { scale, ..rule }), 0..self.reduced.len(), &self.reduced);
        Ok(())
    }

    fn diverged(&self, loss: f64, rate: f64) -> Error {
        let (step, epoch) = (self.step + 1, self.epoch + 1);
        Error::invalid(format!(
            "training diverged: the loss is {loss} at step {step} of epoch {epoch}, with learning rate {rate:?}"
        ))
        .with_hint("lower LEARN_RATE, set CLIP_NORM, or scale the features")
    }

    fn share_parameters(&mut self) -> Result<()> {
        let tag = self.tag(round::PARAMETERS);
        self.mesh.all_gather(tag, &mut self.parameters, &self.cuts).map_err(gang_error)
    }

    fn finish_step(&mut self) -> Result<()> {
        self.step += 1;
        self.count += 1;
        if let Some(checkpointing) = &self.run.plan.checkpoint
            && checkpointing.every_steps > 0
            && self.count.is_multiple_of(checkpointing.every_steps)
        {
            self.save_checkpoint()?;
        }
        // Asking for the time costs more than some steps do.
        if self.mesh.rank() == 0 && (self.count.is_multiple_of(16) || self.step == self.run.course.steps) {
            let elapsed = self.reported.elapsed();
            if elapsed >= REPORT_EVERY {
                let rows = self.rows - self.rows_reported;
                self.run.observer.progress(&TrainProgress {
                    epoch: self.epoch,
                    epochs: self.run.plan.epochs,
                    step: self.step,
                    steps: self.run.course.steps,
                    rows: self.rows * self.mesh.world() as u64,
                    loss: self.loss / self.weight,
                    samples_per_second: (rows * self.mesh.world() as u64) as f64 / elapsed.as_secs_f64(),
                });
                self.reported = Instant::now();
                self.rows_reported = self.rows;
            }
        }
        Ok(())
    }

    /// Evaluates, records, decides; gives whether to stop early.
    fn finish_epoch(&mut self, begun: Instant) -> Result<bool> {
        let Run { plan, architecture, eval, observer, .. } = *self.run;
        let eval_loss = match eval {
            None => None,
            Some(eval) => {
                let tag = self.tag(round::EVALUATE);
                let (kernel, tape) = (plan.kernel.kernel, &mut self.tape);
                Some(evaluate::mean_loss(self.mesh, tag, kernel, architecture, &self.parameters, eval, tape)?)
            }
        };
        let last_count = self.count.saturating_sub(1);
        let steps = self.run.course.steps;
        let record = EpochRecord {
            iteration: self.epoch,
            loss: self.loss / self.weight,
            eval_loss,
            learning_rate: plan.schedule.rate(last_count, steps, steps * plan.epochs as u64),
            duration_ms: begun.elapsed().as_secs_f64() * 1e3,
        };
        if self.mesh.rank() == 0 {
            observer.epoch(&record);
        }
        let watched = eval_loss.unwrap_or(record.loss);
        self.history.push(record);
        for leaf in &mut self.leaves {
            leaf.next_epoch();
        }
        (self.epoch, self.step, self.loss, self.weight) = (self.epoch + 1, 0, 0.0, 0.0);
        let Some(early_stop) = plan.early_stop else { return Ok(false) };
        let progress = &mut self.progress;
        // A loss that is not a number has not improved.
        let enough =
            progress.best.is_infinite() || watched < progress.best - early_stop.min_rel_progress * progress.best.abs();
        progress.stale = if enough { 0 } else { progress.stale + 1 };
        if watched < progress.best {
            progress.best = watched;
            progress.best_parameters = eval.map(|_| self.parameters.clone());
        }
        Ok(progress.stale >= early_stop.patience.max(1))
    }

    /// Brings the optimizer's state together on rank 0, which saves it with the rest.
    fn save_checkpoint(&mut self) -> Result<()> {
        let Some(checkpointing) = &self.run.plan.checkpoint else { return Ok(()) };
        let mut slots = Vec::new();
        for index in 0..self.slots.len() {
            let tag = self.tag(round::CHECKPOINT + index as u32);
            let own = &self.slots[index];
            let mut to_first = vec![0..0; self.mesh.world()];
            to_first[0] = 0..own.len();
            let offer = Offer { header: &[], planes: own, plane: own.len(), cuts: &to_first };
            let mut whole = Vec::new();
            let keep = self.mesh.rank() == 0;
            self.mesh
                .exchange(tag, offer, &mut |parts| {
                    for part in parts.iter().filter(|part| keep && part.planes() > 0) {
                        whole.extend_from_slice(part.plane(0));
                    }
                })
                .map_err(gang_error)?;
            slots.push(whole);
        }
        if self.mesh.rank() != 0 {
            return Ok(());
        }
        let state = State {
            epoch: self.epoch,
            step: self.step,
            count: self.count,
            loss: self.loss,
            weight: self.weight,
            history: self.history.clone(),
            progress: self.progress.clone(),
            parameters: self.parameters.clone(),
            slots,
        };
        checkpointing.store.save(&state.encode(self.run.identity))
    }

    fn into_finished(self, stopped_early: bool) -> Finished {
        let best = self.progress.best_parameters.filter(|_| self.run.plan.early_stop.is_some());
        Finished {
            parameters: best.unwrap_or(self.parameters),
            history: self.history,
            stopped_early,
            steps: self.count,
        }
    }
}

/// A chunk of each plane that a rank gave.
fn planes_of<'p>(part: &'p Part<'p>, range: Range<usize>) -> impl Iterator<Item = &'p [f32]> {
    (0..part.planes()).map(move |plane| &part.plane(plane)[range.clone()])
}

/// A step's rules: for parameters that penalties do not apply to, and for those that they do.
fn prepare(plan: &TrainPlan, rule: StepRule) -> [PreparedStep; 2] {
    let penalised = StepRule { l1: plan.l1, l2: plan.l2, decays: true, ..rule };
    [plan.optimizer.prepare(rule), plan.optimizer.prepare(penalised)]
}

/// The optimizer at the own slice.
struct Update<'u> {
    /// Where the own slice begins.
    first: usize,
    segments: &'u [(Range<usize>, bool)],
    parameters: &'u mut [f32],
    slots: &'u mut [Vec<f32>],
}

impl Update<'_> {
    /// Applies the summed gradient of `range` of the own slice.
    fn apply(&mut self, prepared: &[PreparedStep; 2], range: Range<usize>, sum: &[f32]) {
        let global = range.start + self.first..range.end + self.first;
        for (segment, penalised) in self.segments {
            let part = segment.start.max(global.start)..segment.end.min(global.end);
            if part.is_empty() {
                continue;
            }
            let local = part.start - self.first..part.end - self.first;
            let slots: [&mut [f32]; 2] = match self.slots {
                [] => [&mut [], &mut []],
                [first] => [&mut first[local], &mut []],
                [first, second, ..] => [&mut first[local.clone()], &mut second[local]],
            };
            let sum = &sum[part.start - global.start..part.end - global.start];
            prepared[usize::from(*penalised)].apply(&mut self.parameters[part], sum, slots);
        }
    }
}
