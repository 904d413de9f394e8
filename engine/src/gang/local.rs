//! The gang inside one process: threads that leave numbers in each other's boxes.
//!
//! An exchange has one meeting. Before it a rank puts what it gives into its boxes, after it everybody reads. There are
//! two sets of boxes that take turns: a rank fills a set only after a meeting to which all came that had read it before.
//! The boxes belong to the gang, so a rank that fails leaves nothing dangling.
//!
//! Why boxes, when threads could read each other's vectors: a store to a cache line that another core has read waits for
//! that core to give it up, one line after the other (measured at 30 ns a line between far cores: as long as the whole
//! step of a small network). Streaming stores do not wait; so shared lines are written only by them, and the vectors that
//! the arithmetic works on stay private.
//!
//! A rank that returns an error, panics or ends early makes the next meeting fail with its cause, for all alike, so nobody
//! waits for ever. Waiting spins for some microseconds, which is what ranks of equal work need, and then sleeps. A rank that spun
//! in vain spins less the next time: on a machine with other work the awaited rank has lost its core, and gets it back sooner
//! from one who sleeps.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{GangError, Mesh, Offer, Part, Rank, Tag};

/// Why a gang ended without a result: what the first rank that failed said.
#[derive(Debug)]
pub enum Failure<E> {
    /// It returned an error.
    Error {
        /// Which rank.
        rank: Rank,
        /// What it returned.
        error: E,
    },
    /// It panicked.
    Panic {
        /// Which rank.
        rank: Rank,
        /// The panic's message.
        message: String,
    },
}

/// Runs `body` on `world` threads named `{name}-{rank}`, all at the same time, and gives their results in rank order.
///
/// When a rank fails the others' exchanges fail too; the result is the first rank's failure.
pub fn run<T, E, F>(name: &str, world: usize, body: F) -> Result<Vec<T>, Failure<E>>
where
    T: Send,
    E: Send + fmt::Display,
    F: Fn(&mut LocalMesh<'_>) -> Result<T, E> + Sync,
{
    assert!(world > 0, "a gang has at least one rank");
    let hall = Hall::new(world);
    let outcomes: Vec<std::thread::Result<Result<T, E>>> = std::thread::scope(|scope| {
        let work = |rank: Rank| {
            let mut mesh = LocalMesh { hall: &hall, rank, meetings: 0, failed: false, patience: hall.spins };
            let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut mesh)));
            hall.leave(rank, &outcome);
            outcome
        };
        let threads: Vec<_> = (0..world)
            .map(|rank| {
                std::thread::Builder::new()
                    .name(format!("{name}-{rank}"))
                    .spawn_scoped(scope, move || work(rank))
                    .unwrap_or_else(|error| {
                        // The ranks that have started must not wait for one that never will.
                        hall.close(rank, GangError::PeerFailed { rank, cause: format!("no thread: {error}") });
                        resume_unwind(Box::new(format!("cannot start thread {rank} of {world}: {error}")))
                    })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(Err)).collect()
    });
    let first = hall.first_to_fail();
    let mut results = Vec::with_capacity(world);
    let mut failures = Vec::new();
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(Ok(result)) => results.push(result),
            Ok(Err(error)) => failures.push((rank, Failure::Error { rank, error })),
            Err(panic) => failures.push((rank, Failure::Panic { rank, message: panic_message(panic.as_ref()) })),
        }
    }
    let cause = failures.iter().position(|(rank, _)| Some(*rank) == first).unwrap_or(0);
    match failures.into_iter().nth(cause) {
        None => Ok(results),
        Some((_, failure)) => Err(failure),
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "panic without a message".to_owned(),
    }
}

/// Keeps what different ranks write on different cache lines.
#[repr(align(128))]
struct Padded<T>(T);

/// A cache line of numbers, so that boxes begin on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Numbers that one rank leaves for others; keeps its room.
#[derive(Default)]
struct Numbers {
    lines: Vec<Line>,
    len: usize,
}

impl Numbers {
    fn clear(&mut self, len: usize) {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        self.len = 0;
    }

    fn as_slice(&self) -> &[f32] {
        // SAFETY: a line is 16 numbers without padding, and `len` is at most what the lines hold.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// Appends `source`; there is room, by [`Numbers::clear`].
    fn push(&mut self, source: &[f32]) {
        assert!(self.len + source.len() <= self.lines.len() * 16, "a box has room for what was announced");
        // SAFETY: inside the lines, by the assertion.
        let target = unsafe { self.lines.as_mut_ptr().cast::<f32>().add(self.len) };
        self.len += source.len();
        // SAFETY: `source` is readable, the target writable for its length, and they do not overlap.
        unsafe { copy_past_the_cache(source, target) };
    }
}

/// Copies with streaming stores where the processor has them; call [`flush`] before others may read.
///
/// # Safety
/// `target` is valid for writes of `source.len()` numbers and does not overlap `source`.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_past_the_cache(source: &[f32], target: *mut f32) {
    use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
    // Streaming stores want 16-byte alignment; what lies before and after goes the usual way.
    let before = target.align_offset(16).min(source.len());
    let fours = (source.len() - before) / 4;
    let after = before + 4 * fours;
    // SAFETY: all three parts lie inside `source` and `target`; the middle one's target is aligned.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr(), target, before);
        for four in 0..fours {
            let at = before + 4 * four;
            _mm_stream_ps(target.add(at), _mm_loadu_ps(source.as_ptr().add(at)));
        }
        std::ptr::copy_nonoverlapping(source.as_ptr().add(after), target.add(after), source.len() - after);
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_past_the_cache(source: &[f32], target: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len()) };
}

/// Makes streaming stores visible before whatever is stored next.
fn flush() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has this instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// What one rank gives in one exchange.
struct Desk {
    tag: Tag,
    header: Vec<f64>,
    planes: usize,
    /// For each rank what it alone is given; the giver's own place holds what all are given.
    boxes: Vec<Numbers>,
}

/// Where ranks meet.
struct Hall {
    world: usize,
    /// Arrivals at meetings, ever; the top bit is set when no more meeting can succeed.
    arrived: Padded<AtomicU64>,
    /// Two for each rank, which take turns.
    desks: Vec<[Padded<UnsafeCell<Desk>>; 2]>,
    /// Ranks asleep; whoever completes a meeting or closes the hall wakes them.
    sleepers: AtomicUsize,
    closed: Mutex<Option<(Rank, GangError)>>,
    bell: Condvar,
    /// The most that a rank spins before it sleeps.
    spins: u32,
}

// SAFETY: a desk of meeting k is written by its own rank between meetings k - 1 and k, and read by others between k and
// k + 1: a rank comes to k + 1 only when it has read. It is written again after k + 1. Meetings order memory, and a rank
// that a meeting has failed writes no more.
unsafe impl Sync for Hall {}

const CLOSED: u64 = 1 << 63;
/// The least that a rank spins: about as long as falling asleep and waking up takes.
const SPINS_MIN: u32 = 200;

impl Hall {
    fn new(world: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let desk = || Desk {
            tag: Tag { generation: 0, step: 0, round: 0 },
            header: Vec::new(),
            planes: 0,
            boxes: (0..world).map(|_| Numbers::default()).collect(),
        };
        Hall {
            world,
            arrived: Padded(AtomicU64::new(0)),
            desks: (0..world).map(|_| std::array::from_fn(|_| Padded(UnsafeCell::new(desk())))).collect(),
            sleepers: AtomicUsize::new(0),
            closed: Mutex::new(None),
            bell: Condvar::new(),
            // Spinning on a core that the awaited rank needs would only make it later.
            spins: if world <= cores { 40000 } else { 50 },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Rank, GangError)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every meeting fail that has not succeeded yet; the first cause counts.
    fn close(&self, rank: Rank, cause: GangError) {
        self.lock().get_or_insert((rank, cause));
        self.arrived.0.fetch_or(CLOSED, Ordering::SeqCst);
        self.wake();
    }

    fn leave<T, E: fmt::Display>(&self, rank: Rank, outcome: &std::thread::Result<Result<T, E>>) {
        let cause = match outcome {
            Ok(Ok(_)) => "it ended while others still wait for it".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_message(panic.as_ref()),
        };
        self.close(rank, GangError::PeerFailed { rank, cause });
    }

    fn first_to_fail(&self) -> Option<Rank> {
        self.lock().as_ref().map(|(rank, _)| *rank)
    }

    fn cause(&self) -> GangError {
        self.lock().as_ref().map_or(GangError::Cancelled, |(_, cause)| cause.clone())
    }

    fn wake(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Taking the lock makes sure that a sleeper is either before its last look or really asleep.
            drop(self.lock());
            self.bell.notify_all();
        }
    }

    /// Waits until `done` says so; `patience` is how often to look before falling asleep, and follows what comes of it.
    fn wait(&self, patience: &mut u32, done: impl Fn() -> bool) {
        for _ in 0..*patience {
            if done() {
                *patience = (*patience + *patience / 8 + 1).min(self.spins);
                return;
            }
            std::hint::spin_loop();
        }
        *patience = (*patience / 2).max(SPINS_MIN.min(self.spins));
        let mut guard = self.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !done() {
            guard = self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Meeting number `meeting`. All ranks succeed or none: an arrival is only counted while the hall is open.
    fn arrive(&self, meeting: u64, patience: &mut u32) -> Result<(), GangError> {
        let target = (meeting + 1) * self.world as u64;
        let counted = self
            .arrived
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| (word & CLOSED == 0).then_some(word + 1));
        match counted {
            Err(_) => return Err(self.cause()),
            Ok(before) if before + 1 == target => self.wake(),
            Ok(_) => self.wait(patience, || {
                let word = self.arrived.0.load(Ordering::SeqCst);
                word & CLOSED != 0 || word >= target
            }),
        }
        // Once complete the count stays complete, even when the hall is closed right after.
        if self.arrived.0.load(Ordering::SeqCst) & !CLOSED >= target { Ok(()) } else { Err(self.cause()) }
    }
}

/// All desks of a meeting that has succeeded; to be let go before the rank comes to the next.
struct Desks<'a> {
    hall: &'a Hall,
    turn: usize,
}

impl<'a> Desks<'a> {
    fn of(&self, rank: Rank) -> &'a Desk {
        // SAFETY: after a meeting its desks are only read until all have come to the next.
        unsafe { &*self.hall.desks[rank][self.turn].0.get() }
    }
}

/// A rank's place in a gang of threads.
pub struct LocalMesh<'a> {
    hall: &'a Hall,
    rank: Rank,
    meetings: u64,
    failed: bool,
    patience: u32,
}

impl<'a> LocalMesh<'a> {
    /// Lets `fill` put things on this rank's desk and meets; gives all desks, which may be read until the next call.
    fn meet(&mut self, tag: Tag, fill: impl FnOnce(&mut Desk)) -> Result<Desks<'a>, GangError> {
        let hall = self.hall;
        if self.failed {
            return Err(hall.cause());
        }
        let meeting = self.meetings;
        let turn = (meeting % 2) as usize;
        self.meetings += 1;
        // Until the meeting has succeeded this rank must not touch the other desk.
        self.failed = true;
        // SAFETY: this rank has come out of the previous meeting, so nobody reads this desk any more; see `Hall`.
        let own = unsafe { &mut *hall.desks[self.rank][turn].0.get() };
        own.tag = tag;
        fill(own);
        flush();
        hall.arrive(meeting, &mut self.patience)?;
        let desks = Desks { hall, turn };
        if let Some(rank) = (0..hall.world).find(|rank| desks.of(*rank).tag != tag) {
            return Err(GangError::OutOfStep { rank, got: desks.of(rank).tag, expected: tag });
        }
        self.failed = false;
        Ok(desks)
    }
}

impl Mesh for LocalMesh<'_> {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn world(&self) -> usize {
        self.hall.world
    }

    fn exchange(&mut self, tag: Tag, offer: Offer<'_>, receive: &mut dyn FnMut(&[Part<'_>])) -> Result<(), GangError> {
        let (rank, world) = (self.rank, self.world());
        offer.check(world);
        let planes = offer.planes.len().checked_div(offer.plane).unwrap_or(0);
        let desks = self.meet(tag, |desk| {
            desk.header.clear();
            desk.header.extend_from_slice(offer.header);
            desk.planes = planes;
            for (to, (cut, numbers)) in offer.cuts.iter().zip(&mut desk.boxes).enumerate() {
                if to == rank {
                    continue;
                }
                numbers.clear(planes * cut.len());
                if !cut.is_empty() {
                    offer.planes.chunks_exact(offer.plane).for_each(|plane| numbers.push(&plane[cut.clone()]));
                }
            }
        })?;
        let part = |giver: Rank| {
            if giver == rank {
                return Part::new(offer.header, offer.planes, offer.plane, offer.cuts[rank].clone());
            }
            let desk = desks.of(giver);
            Part::compact(&desk.header, desk.boxes[rank].as_slice(), desk.planes)
        };
        // A gang of up to 16 ranks, which is what one process has, costs no allocation.
        if world <= 16 {
            let parts: [Part<'_>; 16] = std::array::from_fn(|giver| part(giver.min(world - 1)));
            receive(&parts[..world]);
        } else {
            receive(&(0..world).map(part).collect::<Vec<_>>());
        }
        Ok(())
    }

    fn all_gather(&mut self, tag: Tag, vector: &mut [f32], cuts: &[Range<usize>]) -> Result<(), GangError> {
        assert_eq!(cuts.len(), self.world(), "an exchange has one cut for each rank");
        let rank = self.rank;
        let alone = self.world() == 1;
        let desks = self.meet(tag, |desk| {
            let numbers = &mut desk.boxes[rank];
            numbers.clear(cuts[rank].len());
            if !alone {
                numbers.push(&vector[cuts[rank].clone()]);
            }
        })?;
        for (giver, cut) in cuts.iter().enumerate() {
            if giver != rank {
                let given = desks.of(giver).boxes[giver].as_slice();
                assert_eq!(given.len(), cut.len(), "ranks agree on who owns what");
                vector[cut.clone()].copy_from_slice(given);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    #[test]
    fn a_rank_that_spun_in_vain_spins_less_the_next_time() {
        let mut hall = Hall::new(2);
        hall.spins = 1000;
        let mut patience = hall.spins;
        // True at the first look after all spins: the rank has the lock by then and need not sleep.
        let wait_in_vain = |hall: &Hall, patience: &mut u32| {
            let (looks, spins) = (AtomicUsize::new(0), *patience as usize);
            hall.wait(patience, || looks.fetch_add(1, Ordering::SeqCst) >= spins);
        };
        let mut seen = Vec::new();
        for _ in 0..4 {
            wait_in_vain(&hall, &mut patience);
            seen.push(patience);
        }
        assert_eq!(seen, [500, 250, SPINS_MIN, SPINS_MIN]);
        hall.wait(&mut patience, || true);
        assert_eq!(patience, 226);
        (0..100).for_each(|_| hall.wait(&mut patience, || true));
        assert_eq!(patience, hall.spins);
    }

    fn tag(step: u64) -> Tag {
        Tag { generation: 1, step, round: 0 }
    }

    /// Cuts `len` into `world` parts of unequal length.
    fn cuts(len: usize, world: usize) -> Vec<Range<usize>> {
        (0..world).map(|rank| rank * len / world..(rank + 1) * len / world).collect()
    }

    /// A cheap source of varied numbers for schedules.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// One all-reduce of the step's numbers, as training does it; gives the whole sum.
    fn all_reduce(mesh: &mut LocalMesh<'_>, step: u64, len: usize) -> Result<Vec<f32>, GangError> {
        let (rank, world) = (mesh.rank(), mesh.world());
        let planes: Vec<f32> = (0..2 * len).map(|i| (i as u64 * 7 + step + rank as u64) as f32).collect();
        let cuts = cuts(len, world);
        let mut sum = vec![f32::NAN; len];
        let own = &mut sum[cuts[rank].clone()];
        let mut headers = 0.0;
        let offer = Offer { header: &[rank as f64], planes: &planes, plane: len, cuts: &cuts };
        mesh.exchange(tag(step), offer, &mut |parts| {
            for (i, own) in own.iter_mut().enumerate() {
                *own = parts.iter().map(|part| (0..part.planes()).map(|p| part.plane(p)[i]).sum::<f32>()).sum();
            }
            headers = parts.iter().map(|part| part.header[0]).sum();
        })?;
        assert_eq!(headers, (world * (world - 1) / 2) as f64);
        mesh.all_gather(tag(step), &mut sum, &cuts)?;
        Ok(sum)
    }

    #[test]
    fn all_ranks_get_the_same_sum_over_random_schedules() {
        for world in [1usize, 2, 3, 4, 7, 17] {
            let len = 101;
            let sums = run("test", world, |mesh| -> Result<f64, GangError> {
                let mut chance = 0x9E37 + mesh.rank() as u64;
                let mut total = 0.0;
                for step in 0..200 {
                    match next(&mut chance) % 40 {
                        0 => std::thread::sleep(Duration::from_micros(next(&mut chance) % 300)),
                        1..10 => std::thread::yield_now(),
                        _ => {}
                    }
                    let sum = all_reduce(mesh, step, len)?;
                    for (i, value) in sum.iter().enumerate() {
                        let one_rank = |rank: u64| (2 * (i as u64 * 7 + step + rank) + len as u64 * 7) as f32;
                        let expected: f32 = (0..world as u64).map(one_rank).sum();
                        assert_eq!(*value, expected, "world {world} step {step} place {i}");
                        total += f64::from(*value);
                    }
                }
                Ok(total)
            })
            .unwrap();
            assert!(sums.iter().all(|sum| *sum == sums[0]));
        }
    }

    #[test]
    fn a_rank_that_panics_ends_all_with_its_cause() {
        for world in [2, 3, 7] {
            for culprit in 0..world {
                let failure = run("test", world, |mesh| -> Result<(), GangError> {
                    for step in 0..50 {
                        assert!(!(mesh.rank() == culprit && step == 20), "the disk is on fire");
                        all_reduce(mesh, step, 64)?;
                    }
                    Ok(())
                })
                .unwrap_err();
                assert!(
                    matches!(&failure, Failure::Panic { rank, message } if *rank == culprit && message == "the disk is on fire"),
                    "{failure:?}"
                );
            }
        }
    }

    #[test]
    fn a_panic_while_reading_ends_all_too() {
        let failure = run("test", 3, |mesh| -> Result<(), GangError> {
            for step in 0..5 {
                let (rank, world) = (mesh.rank(), mesh.world());
                let offer = Offer { header: &[1.0], planes: &[0.5; 9], plane: 9, cuts: &cuts(9, world) };
                mesh.exchange(tag(step), offer, &mut |parts| {
                    assert!(!(rank == 1 && step == 3), "odd numbers: {}", parts.len());
                })?;
            }
            Ok(())
        })
        .unwrap_err();
        assert!(matches!(&failure, Failure::Panic { rank: 1, message } if message == "odd numbers: 3"), "{failure:?}");
    }

    #[test]
    fn an_error_and_an_early_end_reach_those_who_wait() {
        let seen = Mutex::new(Vec::new());
        let failure = run("test", 4, |mesh| -> Result<(), String> {
            if mesh.rank() == 2 {
                return Err("block 7 cannot be read".to_owned());
            }
            let error = all_reduce(mesh, 0, 10).unwrap_err();
            seen.lock().unwrap().push(error.to_string());
            Err(error.to_string())
        })
        .unwrap_err();
        assert!(
            matches!(&failure, Failure::Error { rank: 2, error } if error == "block 7 cannot be read"),
            "{failure:?}"
        );
        assert_eq!(*seen.lock().unwrap(), ["worker 2 failed: block 7 cannot be read"; 3]);

        let failure = run("test", 2, |mesh| match mesh.rank() {
            0 => Ok(()),
            _ => all_reduce(mesh, 0, 10).map(|_| ()),
        })
        .unwrap_err();
        assert!(
            matches!(&failure, Failure::Error { rank: 1, error } if error.to_string().contains("worker 0 failed: it ended"))
        );
    }

    #[test]
    fn cancelling_one_rank_stops_all_within_a_step() {
        let cancel = AtomicBool::new(false);
        let start = Instant::now();
        let failure = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                cancel.store(true, Ordering::SeqCst);
            });
            run("test", 3, |mesh| -> Result<(), GangError> {
                for step in 0.. {
                    if cancel.load(Ordering::SeqCst) {
                        return Err(GangError::Cancelled);
                    }
                    all_reduce(mesh, step, 33)?;
                }
                Ok(())
            })
            .unwrap_err()
        });
        assert!(matches!(failure, Failure::Error { error: GangError::Cancelled, .. }), "{failure:?}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn ranks_in_different_steps_are_told_apart() {
        let failure = run("test", 2, |mesh| all_reduce(mesh, mesh.rank() as u64, 8).map(|_| ())).unwrap_err();
        assert!(matches!(failure, Failure::Error { error: GangError::OutOfStep { .. }, .. }), "{failure:?}");
    }

    #[test]
    fn failures_at_random_places_never_hang() {
        let mut chance = 88_172_645_463_325_252;
        for _ in 0..300 {
            let world = 2 + (next(&mut chance) % 6) as usize;
            let culprit = (next(&mut chance) % world as u64) as usize;
            let at = next(&mut chance) % 12;
            let panics = next(&mut chance).is_multiple_of(2);
            let failure = run("test", world, |mesh| -> Result<(), String> {
                for step in 0..12 {
                    if mesh.rank() == culprit && step == at {
                        if panics {
                            resume_unwind(Box::new("planned"));
                        }
                        return Err("planned".to_owned());
                    }
                    all_reduce(mesh, step, 16).map_err(|error| error.to_string())?;
                }
                Ok(())
            })
            .unwrap_err();
            match failure {
                Failure::Error { rank, error } => {
                    assert_eq!((rank, error.as_str(), panics), (culprit, "planned", false))
                }
                Failure::Panic { rank, message } => {
                    assert_eq!((rank, message.as_str(), panics), (culprit, "planned", true))
                }
            }
        }
    }
}
