//! The gang inside one process: threads that read each other's memory.
//!
//! An exchange has two meetings. At the first every rank has published where its data lies; then all read; at the second
//! all have read, and the data is its owner's again. The first meeting may fail, for all ranks alike; once it has
//! succeeded no rank leaves before the second, whatever happens, because others may be reading its memory.
//!
//! A rank that returns an error, panics or ends early makes the next meeting fail with its cause, so nobody waits for
//! ever. Waiting spins for a few microseconds, which is what a step's exchange takes, and then sleeps.

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
            let mut mesh = LocalMesh { hall: &hall, rank, meetings: 0 };
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

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "panic without a message".to_owned(),
    }
}

/// Keeps what different ranks write on different cache lines.
#[repr(align(128))]
struct Padded<T>(T);

/// Where a rank's data lies while an exchange goes on.
#[derive(Clone, Copy)]
struct Published {
    tag: Tag,
    header: (*const f64, usize),
    planes: (*const f32, usize),
    plane: usize,
    cuts: (*const Range<usize>, usize),
}

impl Published {
    const NOTHING: Published = Published {
        tag: Tag { generation: 0, step: 0, round: 0 },
        header: (std::ptr::null(), 0),
        planes: (std::ptr::null(), 0),
        plane: 0,
        cuts: (std::ptr::null(), 0),
    };
}

/// Where ranks meet.
struct Hall {
    world: usize,
    /// Arrivals at first meetings, ever; the top bit is set when no more meeting can succeed.
    arrived: Padded<AtomicU64>,
    /// Arrivals at second meetings, ever.
    released: Padded<AtomicU64>,
    desks: Vec<Padded<UnsafeCell<Published>>>,
    /// Ranks asleep; whoever completes a meeting or closes the hall wakes them.
    sleepers: AtomicUsize,
    closed: Mutex<Option<(Rank, GangError)>>,
    bell: Condvar,
    spins: u32,
}

// SAFETY: a desk is written by its own rank before it arrives at a first meeting and read by others between the first
// and the second; both meetings order memory. The pointers on it are only followed in that time, in which the owner of
// what they point to waits.
unsafe impl Sync for Hall {}

const CLOSED: u64 = 1 << 63;

impl Hall {
    fn new(world: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Hall {
            world,
            arrived: Padded(AtomicU64::new(0)),
            released: Padded(AtomicU64::new(0)),
            desks: (0..world).map(|_| Padded(UnsafeCell::new(Published::NOTHING))).collect(),
            sleepers: AtomicUsize::new(0),
            closed: Mutex::new(None),
            bell: Condvar::new(),
            // Spinning on a core that the awaited rank needs would only make it later.
            spins: if world <= cores { 4000 } else { 50 },
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

    /// Waits until `done` says so.
    fn wait(&self, done: impl Fn() -> bool) {
        for _ in 0..self.spins {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !done() {
            guard = self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// The first meeting number `meeting`. All ranks succeed or none: an arrival is only counted while the hall is open.
    fn arrive(&self, meeting: u64) -> Result<(), GangError> {
        let target = (meeting + 1) * self.world as u64;
        let counted = self
            .arrived
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| (word & CLOSED == 0).then_some(word + 1));
        match counted {
            Err(_) => return Err(self.cause()),
            Ok(before) if before + 1 == target => self.wake(),
            Ok(_) => self.wait(|| {
                let word = self.arrived.0.load(Ordering::SeqCst);
                word & CLOSED != 0 || word >= target
            }),
        }
        // Once complete the count stays complete, even when the hall is closed right after.
        if self.arrived.0.load(Ordering::SeqCst) & !CLOSED >= target { Ok(()) } else { Err(self.cause()) }
    }

    /// The second meeting: cannot fail, since every rank of a first meeting that succeeded comes to it.
    fn release(&self, meeting: u64) {
        let target = (meeting + 1) * self.world as u64;
        if self.released.0.fetch_add(1, Ordering::SeqCst) + 1 == target {
            self.wake();
        } else {
            self.wait(|| self.released.0.load(Ordering::SeqCst) >= target);
        }
    }
}

/// Comes to the second meeting even when what happens before panics.
struct Reading<'a> {
    hall: &'a Hall,
    meeting: u64,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.hall.release(self.meeting);
    }
}

/// A rank's place in a gang of threads.
pub struct LocalMesh<'a> {
    hall: &'a Hall,
    rank: Rank,
    meetings: u64,
}

impl LocalMesh<'_> {
    /// Publishes, meets, lets `read` look at everybody's desk, and meets again.
    fn meet(
        &mut self,
        published: Published,
        read: impl FnOnce(&[Padded<UnsafeCell<Published>>]),
    ) -> Result<(), GangError> {
        let hall = self.hall;
        let meeting = self.meetings;
        self.meetings += 1;
        // SAFETY: only this rank writes its desk, and nobody reads it before this rank has arrived.
        unsafe { *hall.desks[self.rank].0.get() = published };
        hall.arrive(meeting)?;
        let reading = Reading { hall, meeting };
        let stranger = (0..hall.world).find_map(|rank| {
            // SAFETY: between the two meetings desks are only read.
            let got = unsafe { (*hall.desks[rank].0.get()).tag };
            (got != published.tag).then_some(GangError::OutOfStep { rank, got, expected: published.tag })
        });
        if let Some(error) = stranger {
            return Err(error);
        }
        read(&hall.desks);
        drop(reading);
        Ok(())
    }
}

/// The slice behind a published pointer.
///
/// # Safety
/// Only between the two meetings of the exchange in which it was published.
unsafe fn seen<'a, T>((pointer, len): (*const T, usize)) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the pointer was made from a slice of this length whose owner waits.
    unsafe { std::slice::from_raw_parts(pointer, len) }
}

impl Mesh for LocalMesh<'_> {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn world(&self) -> usize {
        self.hall.world
    }

    fn exchange(&mut self, tag: Tag, offer: Offer<'_>, receive: &mut dyn FnMut(&[Part<'_>])) -> Result<(), GangError> {
        offer.check(self.world());
        let published = Published {
            tag,
            header: (offer.header.as_ptr(), offer.header.len()),
            planes: (offer.planes.as_ptr(), offer.planes.len()),
            plane: offer.plane,
            cuts: (offer.cuts.as_ptr(), offer.cuts.len()),
        };
        let rank = self.rank;
        self.meet(published, |desks| {
            let part = |desk: &Padded<UnsafeCell<Published>>| {
                // SAFETY: `meet` calls this between the two meetings.
                let (header, planes, cuts, plane) = unsafe {
                    let published = *desk.0.get();
                    (seen(published.header), seen(published.planes), seen(published.cuts), published.plane)
                };
                Part::new(header, planes, plane, cuts[rank].clone())
            };
            // A gang of up to 16 ranks, which is what one process has, costs no allocation.
            match desks {
                [] => {}
                desks if desks.len() <= 16 => {
                    let parts: [Part<'_>; 16] = std::array::from_fn(|rank| part(&desks[rank.min(desks.len() - 1)]));
                    receive(&parts[..desks.len()]);
                }
                desks => receive(&desks.iter().map(part).collect::<Vec<_>>()),
            }
        })
    }

    fn all_gather(&mut self, tag: Tag, vector: &mut [f32], cuts: &[Range<usize>]) -> Result<(), GangError> {
        assert_eq!(cuts.len(), self.world(), "an exchange has one cut for each rank");
        let own = cuts[self.rank].clone();
        // Writing elsewhere in the vector while others read the own cut needs one pointer for both.
        let (base, len) = (vector.as_mut_ptr(), vector.len());
        assert!(own.start <= own.end && own.end <= len, "a cut lies inside its vector");
        let published = Published {
            tag,
            header: (std::ptr::null(), 0),
            // SAFETY: inside the vector, by the assertion.
            planes: (unsafe { base.add(own.start) }.cast_const(), own.len()),
            plane: len,
            cuts: (cuts.as_ptr(), cuts.len()),
        };
        let rank = self.rank;
        self.meet(published, |desks| {
            for (giver, desk) in desks.iter().enumerate() {
                if giver == rank {
                    continue;
                }
                // SAFETY: between the two meetings; the giver does not write its own cut meanwhile.
                let (given, theirs) = unsafe {
                    let published = *desk.0.get();
                    (seen(published.planes), seen(published.cuts))
                };
                let cut = &cuts[giver];
                assert!(theirs == cuts && cut.end <= len && given.len() == cut.len(), "ranks agree on who owns what");
                assert!(cut.end <= own.start || own.end <= cut.start || cut.is_empty(), "cuts do not overlap");
                // SAFETY: inside the vector, and apart from the own cut, which others may be reading.
                unsafe { std::ptr::copy_nonoverlapping(given.as_ptr(), base.add(cut.start), given.len()) };
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

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
