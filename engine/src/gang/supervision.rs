//! What a coordinator makes of the ends of its ranks: when a generation is over, and whether the run has ended with it or
//! goes on with another. Sockets, leases and clocks are [`super::remote`]'s; the simulation of the tests drives the same.
//!
//! A generation is over when every rank has ended or is lost. The first end that is no success halts the others, so
//! none waits for what will not come.

use super::task::GangEvent;
use super::{GangError, Rank};

/// Generations in a row that may end without a step beyond the furthest before the run ends.
const STUCK_MAX: u32 = 3;

/// How a rank ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End<F> {
    /// With the result.
    Done(Vec<u8>),
    /// With a checkpoint, because some worker was told to leave; whether it was this one.
    Left { own: bool },
    /// With an error or a panic of its own.
    Failed(F),
    /// Because an exchange failed, or the generation was halted; who was to blame, as far as it knows.
    Broken { cause: String, suspect: Option<Rank> },
    /// Nothing is heard from it any more.
    Lost { cause: String },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict<F> {
    /// The run has its result.
    Done(Vec<u8>),
    /// A rank's own error.
    Failed(F),
    /// Another generation.
    Again,
    /// No generation gets beyond this step; what ended the last one.
    Stuck { step: Option<u64>, cause: String },
}

/// A worker, as the lease names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) incarnation: String,
}

/// A run, over all of its generations.
#[derive(Debug)]
pub(super) struct Supervision<F> {
    generation: u32,
    workers: Vec<Worker>,
    ends: Vec<Option<End<F>>>,
    /// Ranks in the order in which they ended.
    order: Vec<Rank>,
    /// The newest step of this generation that has ended, of all, and how many generations have not got beyond.
    step: Option<u64>,
    furthest: Option<u64>,
    stuck: u32,
    /// How often an incarnation was lost or blamed.
    blamed: Vec<(String, u32)>,
    /// Those of the last generation.
    avoid: Vec<String>,
}

impl<F: Clone> Supervision<F> {
    pub(super) fn new() -> Self {
        Supervision {
            generation: 0,
            workers: Vec::new(),
            ends: Vec::new(),
            order: Vec::new(),
            step: None,
            furthest: None,
            stuck: 0,
            blamed: Vec::new(),
            avoid: Vec::new(),
        }
    }

    /// The generation that is being formed or runs, from 1.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Begins to look for workers of another generation.
    pub(super) fn next(&mut self) -> u32 {
        self.generation += 1;
        self.generation
    }

    /// Incarnations that the next generation should do without.
    pub(super) fn avoid(&self) -> Vec<String> {
        let often = self.blamed.iter().filter(|(_, times)| *times > 1).map(|(incarnation, _)| incarnation);
        let mut avoid: Vec<String> = self.avoid.iter().chain(often).cloned().collect();
        avoid.sort();
        avoid.dedup();
        avoid
    }

    /// A generation has its workers, in rank order.
    pub(super) fn formed(&mut self, workers: Vec<Worker>) -> GangEvent {
        self.ends = workers.iter().map(|_| None).collect();
        self.order.clear();
        self.avoid.clear();
        self.step = None;
        self.workers = workers;
        let names = self.workers.iter().map(|worker| worker.name.clone()).collect();
        GangEvent::Formed { generation: self.generation, workers: names }
    }

    /// A rank has ended a step.
    pub(super) fn progressed(&mut self, step: Option<u64>) {
        self.step = self.step.max(step);
    }

    /// Ranks that have not ended.
    pub(super) fn running(&self) -> impl Iterator<Item = Rank> {
        self.ends.iter().enumerate().filter(|(_, end)| end.is_none()).map(|(rank, _)| rank)
    }

    /// A rank has ended; gives what to tell the user, and with what to halt the others.
    pub(super) fn ended(&mut self, rank: Rank, end: End<F>) -> (Option<GangEvent>, Option<GangError>) {
        if self.ends[rank].is_some() {
            return (None, None);
        }
        let worker = self.workers[rank].name.clone();
        let (event, halt) = match &end {
            End::Done(_) => (None, None),
            End::Left { own } => (own.then_some(GangEvent::Leaving { worker }), None),
            End::Failed(_) => (None, Some(GangError::PeerFailed { rank, cause: "see its own error".to_string() })),
            End::Broken { cause, .. } => (None, Some(GangError::PeerLost { rank, cause: cause.clone() })),
            End::Lost { cause } => {
                let event = GangEvent::Lost { worker, cause: cause.clone(), step: self.step };
                (Some(event), Some(GangError::PeerLost { rank, cause: cause.clone() }))
            }
        };
        self.note_blame(rank, &end);
        let first = !self.order.iter().any(|rank| !matches!(self.ends[*rank], Some(End::Done(_) | End::Left { .. })));
        self.ends[rank] = Some(end);
        self.order.push(rank);
        (event, halt.filter(|_| first))
    }

    fn note_blame(&mut self, rank: Rank, end: &End<F>) {
        let blamed = match end {
            End::Lost { .. } | End::Left { own: true } => Some(rank),
            // Only the first to break knows who broke it; the others were halted.
            End::Broken { suspect, .. } if !self.order.iter().any(|rank| self.is_broken(*rank)) => *suspect,
            _ => None,
        };
        let Some(worker) = blamed.and_then(|rank| self.workers.get(rank)) else { return };
        self.avoid.push(worker.incarnation.clone());
        match self.blamed.iter_mut().find(|(incarnation, _)| *incarnation == worker.incarnation) {
            Some((_, times)) => *times += 1,
            None => self.blamed.push((worker.incarnation.clone(), 1)),
        }
    }

    fn is_broken(&self, rank: Rank) -> bool {
        matches!(self.ends[rank], Some(End::Broken { .. } | End::Lost { .. }))
    }

    /// What follows, once all ranks have ended.
    pub(super) fn verdict(&mut self) -> Option<Verdict<F>> {
        if self.ends.iter().any(Option::is_none) {
            return None;
        }
        let ends = self.order.iter().map(|rank| (*rank, self.ends[*rank].as_ref().expect("it has ended")));
        let failed = ends.clone().find_map(|(_, end)| match end {
            End::Failed(error) => Some(error.clone()),
            _ => None,
        });
        if let Some(error) = failed {
            return Some(Verdict::Failed(error));
        }
        // The others have all that rank 0 has, or had it: whether they could say so does not matter any more.
        if let Some(Some(End::Done(result))) = self.ends.first() {
            return Some(Verdict::Done(result.clone()));
        }
        let cause = ends.clone().find_map(|(rank, end)| match end {
            End::Broken { cause, .. } | End::Lost { cause } => Some(format!("{}: {cause}", self.workers[rank].name)),
            _ => None,
        });
        let Some(cause) = cause else {
            // All left: nothing was lost, and nothing has failed.
            return Some(Verdict::Again);
        };
        self.stuck = if self.step > self.furthest { 1 } else { self.stuck + 1 };
        self.furthest = self.furthest.max(self.step);
        if self.stuck >= STUCK_MAX {
            return Some(Verdict::Stuck { step: self.furthest, cause });
        }
        Some(Verdict::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Run = Supervision<&'static str>;

    fn run(world: usize) -> Run {
        let mut run = Run::new();
        form(&mut run, world);
        run
    }

    fn form(run: &mut Run, world: usize) {
        run.next();
        let worker = |rank| Worker { name: format!("e{rank}"), incarnation: format!("i{rank}") };
        run.formed((0..world).map(worker).collect());
    }

    fn lost() -> End<&'static str> {
        End::Lost { cause: "silence".into() }
    }

    fn broken(suspect: Rank) -> End<&'static str> {
        End::Broken { cause: "its connection was closed".into(), suspect: Some(suspect) }
    }

    #[test]
    fn a_loss_halts_the_others_and_is_followed_by_another_generation() {
        let mut run = run(3);
        run.progressed(Some(7));
        let (event, halt) = run.ended(1, lost());
        assert_eq!(event, Some(GangEvent::Lost { worker: "e1".into(), cause: "silence".into(), step: Some(7) }));
        assert!(matches!(halt, Some(GangError::PeerLost { rank: 1, .. })));
        assert_eq!(run.verdict(), None);
        assert_eq!(run.running().collect::<Vec<_>>(), [0, 2]);
        assert!(run.ended(0, broken(1)).1.is_none(), "they are halted once");
        run.ended(2, broken(0));
        assert_eq!(run.verdict(), Some(Verdict::Again));
        assert_eq!(run.avoid(), ["i1"], "who was halted blames nobody");
    }

    #[test]
    fn a_rank_s_own_error_ends_the_run_whoever_is_heard_first() {
        let mut run = run(2);
        run.ended(0, broken(1));
        run.ended(1, End::Failed("the loss is NaN"));
        assert_eq!(run.verdict(), Some(Verdict::Failed("the loss is NaN")));
    }

    #[test]
    fn the_result_counts_even_if_a_worker_dies_right_after() {
        let mut run = run(2);
        run.ended(0, End::Done(vec![1]));
        run.ended(1, lost());
        assert_eq!(run.verdict(), Some(Verdict::Done(vec![1])));
    }

    #[test]
    fn three_generations_that_end_at_one_step_end_the_run() {
        let mut run = run(1);
        let fail = |run: &mut Run, step| {
            run.progressed(step);
            run.ended(0, lost());
            let verdict = run.verdict().unwrap();
            form(run, 1);
            verdict
        };
        assert_eq!(fail(&mut run, None), Verdict::Again);
        assert_eq!(fail(&mut run, Some(10)), Verdict::Again);
        assert_eq!(fail(&mut run, Some(12)), Verdict::Again, "it gets on");
        assert_eq!(fail(&mut run, Some(8)), Verdict::Again);
        let stuck = Verdict::Stuck { step: Some(12), cause: "e0: silence".into() };
        assert_eq!(fail(&mut run, Some(12)), stuck);
    }

    #[test]
    fn who_leaves_costs_nothing() {
        let mut run = run(2);
        for _ in 0..5 {
            let (event, halt) = run.ended(1, End::Left { own: true });
            assert_eq!((event, halt.is_none()), (Some(GangEvent::Leaving { worker: "e1".into() }), true));
            run.ended(0, End::Left { own: false });
            assert_eq!(run.verdict(), Some(Verdict::Again));
            assert_eq!(run.avoid(), ["i1"]);
            form(&mut run, 2);
        }
    }
}
