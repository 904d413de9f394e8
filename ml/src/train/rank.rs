//! What one worker does: batch, gradient, reduce, update; epoch after epoch.
//!
//! Every rank has all parameters and its own slice of the optimizer's state. A step has two exchanges: each rank offers its
//! nodes of the gradient tree, the owner of a slice folds the tree and updates its parameters while the numbers are in the
//! cache, then everybody gets the new parameters. All decisions (divergence, early stopping) follow from numbers that every
//! rank has, so no rank needs to be told. What follows from a clock, a checkpoint, is wished for by rank 0 in the header of
//! the step's first exchange and kept by all at the end of the step.

use std::ops::{ControlFlow, Range};
use std::thread::Scope;
use std::time::{Duration, Instant};

use engine::gang::{Mesh, Offer, Part, Tag};
use engine::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::checkpoint::{Progress, State};
use super::clock::Clock;
use super::leaf::{BranchGiven, Desk, LeafWork, Sums, branch_leaves, merge_sums};
use super::order::{Course, LeafRows, leaves_of, shards_of};
use super::reduce::{CHUNK, Folding, branches, cuts, share};
use super::update::{Update, prepare};
use super::{EpochRecord, Outcome, TrainObserver, TrainPlan, TrainProgress, evaluate, gang_error, resume};
use crate::network::{Architecture, PREDICTION_TILE};
use crate::optimizer::StepRule;
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
    pub(super) identity: u64,
    pub(super) observer: &'a dyn TrainObserver,
    pub(super) cancel: &'a CancellationToken,
    /// Which gang of this run it is.
    pub(super) generation: u32,
    /// That this rank may compute with.
    pub(super) threads: usize,
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
    pub(super) const RESUME: u32 = 16;
}

/// The training loop.
pub(super) fn train(run: &Run<'_>, mesh: &mut dyn Mesh) -> Result<Outcome<Finished>> {
    let Run { plan, course, train, eval, .. } = *run;
    let (rank, world) = (mesh.rank(), mesh.world());
    train.hold(shards_of(course, train.shards(), rank, world))?;
    if let Some(eval) = eval {
        eval.hold(share(eval.shards(), rank, world))?;
    }
    let tag = Tag { generation: run.generation, step: 0, round: round::RESUME };
    let resumed = resume::agree(run, mesh, tag)?;
    std::thread::scope(|scope| {
        let mut worker = Worker::new(run, mesh, resumed, scope)?;
        let mut stopped_early = worker.has_stopped_early();
        while worker.epoch < plan.epochs && !stopped_early {
            let begun = Instant::now();
            while worker.step < course.steps {
                if run.cancel.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                worker.begin_step();
                worker.compute_gradients()?;
                worker.reduce_and_update()?;
                worker.share_parameters()?;
                worker.finish_step()?;
                if worker.step < course.steps && worker.keep()?.is_break() {
                    return Ok(Outcome::Left);
                }
            }
            stopped_early = worker.finish_epoch(begun)?;
            if worker.keep()?.is_break() {
                return Ok(Outcome::Left);
            }
        }
        Ok(Outcome::Finished(worker.into_finished(stopped_early)))
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
    /// What is computed together: parts of the own leaves, by their numbers in the tree.
    branches: Vec<Range<usize>>,
    /// One for each thread.
    desks: Vec<Desk>,
    // Gradients to their sum.
    own_folding: Folding,
    world_folding: Folding,
    /// [height x P]: a stack of nodes; with several threads a plane for each branch.
    planes: Vec<f32>,
    /// (loss, weight) of each node on the stack.
    sums: Vec<Sums>,
    header: Vec<f64>,
    stack: Vec<f32>,
    scalars: Vec<f64>,
    /// The own slice's summed gradient, when it must be known as a whole before it is used.
    reduced: Vec<f32>,
    /// Whether rank 0 wishes for a checkpoint at the end of this step.
    due: bool,
    clock: Clock,
    // Reporting, by rank 0.
    rows: u64,
    rows_reported: u64,
}

impl<'a> Worker<'a> {
    fn new<'scope>(
        run: &'a Run<'a>,
        mesh: &'a mut dyn Mesh,
        resumed: Option<State>,
        scope: &'scope Scope<'scope, 'a>,
    ) -> Result<Self> {
        let Run { plan, architecture, course, train, .. } = *run;
        let (rank, world) = (mesh.rank(), mesh.world());
        let size = architecture.parameters();
        let cuts = cuts(size, world);
        let own = cuts[rank].clone();
        let is_resumed = resumed.is_some();
        let mut state = resumed.unwrap_or_else(|| State {
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
        let slots = if is_resumed {
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
        let threads = run.threads.clamp(1, mine.len().max(1));
        let branch_max = branch_leaves(run, mine.len(), threads);
        let branches = branches(mine.clone(), branch_max);
        let own_folding = Folding::of_rank(course.leaves(), branch_max, rank, world);
        let world_folding = Folding::of_world(course.leaves(), branch_max, world);
        let leaves: Result<Vec<LeafRows<'a>>> =
            mine.map(|leaf| LeafRows::new(scope, course, train, plan.seed, leaf, state.epoch, state.step)).collect();
        let evaluated = if run.eval.is_some() { PREDICTION_TILE } else { 0 };
        let planes = if threads > 1 { branches.len() } else { own_folding.height };
        Ok(Worker {
            leaves: leaves?,
            branches,
            desks: (0..threads).map(|_| Desk::new(run, branch_max, evaluated)).collect(),
            planes: vec![0.0; planes * size],
            sums: Vec::with_capacity(own_folding.height),
            header: Vec::with_capacity(2 * own_folding.height + 1),
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
            due: false,
            clock: Clock::start(plan.checkpoint.as_ref().map_or(Duration::ZERO, |kept| kept.every)),
            rows: 0,
            rows_reported: 0,
            run,
            mesh,
        })
    }

    fn tag(&self, round: u32) -> Tag {
        Tag { generation: self.run.generation, step: self.count, round }
    }

    fn rate(&self) -> f64 {
        let steps = self.run.course.steps;
        self.run.plan.schedule.rate(self.count, steps, steps * self.run.plan.epochs as u64)
    }

    fn begin_step(&mut self) {
        self.clock.begin_step(self.count);
        let ends_epoch = self.step + 1 == self.run.course.steps;
        self.due = self.mesh.rank() == 0 && self.clock.checkpoint_is_due(ends_epoch);
    }

    /// Batch and gradient of every own branch, folded as far as the own range goes. What the last branch completes is
    /// announced layer by layer, so that it travels while the next layer is computed.
    fn compute_gradients(&mut self) -> Result<()> {
        if self.desks.len() > 1 {
            return self.compute_side_by_side();
        }
        let size = self.run.architecture.parameters();
        let tag = self.tag(round::GRADIENT);
        let work = LeafWork { run: self.run, parameters: &self.parameters, epoch: self.epoch, timed: self.clock.now() };
        let Worker { sums, header, mesh, .. } = self;
        sums.clear();
        let mut leaves = &mut self.leaves[..];
        for (index, branch) in self.branches.iter().enumerate() {
            let of_branch = leaves.split_off_mut(..branch.len()).expect("branches are parts of the own leaves");
            let depth = sums.len();
            let (merges, is_last) = (self.own_folding.merges[index], index + 1 == self.branches.len());
            let mut part_done = |planes: &mut [f32], part: Range<usize>, given: Sums| {
                for right in (depth - merges + 1..=depth).rev() {
                    let (left, right) = planes.split_at_mut(right * size);
                    let first = left.len() - size;
                    let left = &mut left[first..];
                    simd::add_assign(&mut left[part.clone()], &right[part.clone()]);
                }
                if part.start == 0 {
                    sums.push(given);
                    (0..merges).for_each(|_| merge_sums(sums));
                }
                if is_last {
                    offer_header(header, sums, self.due);
                    let planes = &planes[..sums.len() * size];
                    mesh.announce(tag, Offer { header, planes, plane: size, cuts: &self.cuts }, part.end);
                }
            };
            let (desk, plane) = (&mut self.desks[0], depth * size);
            let given = work.gradient(branch.start, of_branch, desk, &mut self.planes, plane, &mut part_done)?;
            self.rows += given.rows;
            self.clock.add_input(given.input);
        }
        Ok(())
    }

    /// The same by several threads: every branch has a plane of its own, and they are folded when all are there.
    fn compute_side_by_side(&mut self) -> Result<()> {
        let size = self.run.architecture.parameters();
        let work = LeafWork { run: self.run, parameters: &self.parameters, epoch: self.epoch, timed: self.clock.now() };
        let mut leaves = &mut self.leaves[..];
        let mut jobs: Vec<_> = (self.branches.iter().zip(self.planes.chunks_exact_mut(size)))
            .map(|(branch, plane)| {
                let of_branch = leaves.split_off_mut(..branch.len()).expect("branches are parts of the own leaves");
                (branch.start, of_branch, plane)
            })
            .collect();
        let share = jobs.len().div_ceil(self.desks.len()).max(1);
        let given = std::thread::scope(|scope| {
            let threads: Vec<_> = (jobs.chunks_mut(share).zip(&mut self.desks))
                .map(|(jobs, desk)| {
                    let gradient = move |(first, leaves, plane): &mut (usize, &mut [LeafRows<'a>], &mut [f32])| {
                        work.gradient(*first, leaves, desk, plane, 0, &mut |_, _, _| {})
                    };
                    scope.spawn(move || jobs.iter_mut().map(gradient).collect::<Result<Vec<_>>>())
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<BranchGiven>>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        self.clock.add_input(
            given.iter().map(|of_one| of_one.iter().map(|given| given.input).sum()).max().unwrap_or_default(),
        );
        self.sums.clear();
        // Which plane holds each node of the stack.
        let mut nodes: Vec<usize> = Vec::with_capacity(self.own_folding.height);
        for (index, given) in given.into_iter().flatten().enumerate() {
            self.sums.push(given.sums);
            self.rows += given.rows;
            nodes.push(index);
            for _ in 0..self.own_folding.merges[index] {
                merge_sums(&mut self.sums);
                let (right, left) = (nodes.pop().unwrap_or(0), nodes.last().copied().unwrap_or(0));
                let (target, source) = self.planes.split_at_mut(right * size);
                simd::add_assign(&mut target[left * size..][..size], &source[..size]);
            }
        }
        for (to, from) in nodes.into_iter().enumerate().filter(|(to, from)| to != from) {
            self.planes.copy_within(from * size..(from + 1) * size, to * size);
        }
        Ok(())
    }

    /// Folds the own slice of the gradient and updates the own slice of the parameters.
    fn reduce_and_update(&mut self) -> Result<()> {
        let size = self.run.architecture.parameters();
        let rate = self.rate();
        let tag = self.tag(round::GRADIENT);
        let rule = StepRule { count: self.count + 1, rate, scale: 0.0, l1: 0.0, l2: 0.0, decays: false };
        offer_header(&mut self.header, &self.sums, self.due);
        let begun = self.clock.now();
        let planes = &self.planes[..self.sums.len() * size];
        let offer = Offer { header: &self.header, planes, plane: size, cuts: &self.cuts };
        let own = self.cuts[self.mesh.rank()].clone();
        let folding = &self.world_folding;
        let (mut loss, mut weight, mut due) = (0.0, 0.0, false);
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
                    parts.iter().flat_map(move |part| part.header.chunks_exact(2).map(move |node| node[which]))
                };
                due = parts.iter().any(|part| part.header.last().is_some_and(|wish| *wish != 0.0));
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
        self.due = due;
        self.loss += loss;
        self.weight += weight;
        if clipping && weight > 0.0 {
            self.clip_and_update(StepRule { scale: 1.0 / weight, ..rule })?;
        }
        self.clock.add_reduce(begun);
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
        let begun = self.clock.now();
        self.mesh.all_gather(tag, &mut self.parameters, &self.cuts).map_err(gang_error)?;
        self.clock.add_reduce(begun);
        Ok(())
    }

    fn finish_step(&mut self) -> Result<()> {
        self.step += 1;
        self.count += 1;
        self.clock.end_step();
        if self.mesh.rank() == 0
            && let Some(elapsed) = self.clock.report_is_due(self.step == self.run.course.steps)
        {
            let world = self.mesh.world();
            let rows = self.rows - self.rows_reported;
            self.run.observer.progress(&TrainProgress {
                epoch: self.epoch,
                epochs: self.run.plan.epochs,
                step: self.step,
                steps: self.run.course.steps,
                count: self.count,
                rows: self.rows * world as u64,
                loss: self.loss / self.weight,
                samples_per_second: (rows * world as u64) as f64 / elapsed.as_secs_f64(),
                workers: world,
                shares: self.clock.take_shares(),
            });
            self.rows_reported = self.rows;
        }
        Ok(())
    }

    /// Keeps a checkpoint when one is due; breaks when a rank was told to leave.
    fn keep(&mut self) -> Result<ControlFlow<()>> {
        let leaving = self.mesh.leaving();
        let every = self.run.plan.checkpoint.as_ref().map_or(0, |kept| kept.every_steps);
        let by_steps = every > 0 && self.count.is_multiple_of(every);
        if by_steps || std::mem::take(&mut self.due) || leaving {
            self.save_checkpoint()?;
            self.clock.checkpoint_is_kept();
        }
        Ok(if leaving { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Evaluates, records, decides; gives whether to stop early.
    fn finish_epoch(&mut self, begun: Instant) -> Result<bool> {
        let Run { plan, architecture, eval, observer, .. } = *self.run;
        let eval_loss = match eval {
            None => None,
            Some(eval) => {
                let tag = self.tag(round::EVALUATE);
                let (kernel, tape) = (plan.kernel.kernel, &mut self.desks[0].tape);
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
        Ok(self.has_stopped_early())
    }

    /// Whether the epochs so far have ended the run; also of a run that goes on from just there.
    fn has_stopped_early(&self) -> bool {
        self.run.plan.early_stop.is_some_and(|stop| self.progress.stale >= stop.patience.max(1))
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

/// What all ranks are told in a step's first exchange: loss and weight of each node, and whether a checkpoint is wished
/// for.
fn offer_header(header: &mut Vec<f64>, sums: &[Sums], due: bool) {
    header.clear();
    header.extend(sums.iter().flatten());
    header.push(f64::from(u8::from(due)));
}

/// A chunk of each plane that a rank gave.
fn planes_of<'p>(part: &'p Part<'p>, range: Range<usize>) -> impl Iterator<Item = &'p [f32]> {
    (0..part.planes()).map(move |plane| &part.plane(plane)[range.clone()])
}
