//! The mesh over real connections of this machine: what threads give each other by memory arrives alike, and whatever
//! goes wrong is told.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::local;
use super::*;

/// Connections between all ranks: `[rank][peer]`.
fn connections(world: usize) -> Vec<Vec<Option<TcpStream>>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut streams: Vec<Vec<Option<TcpStream>>> = (0..world).map(|_| (0..world).map(|_| None).collect()).collect();
    for a in 0..world {
        for b in 0..a {
            let calling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            streams[a][b] = Some(calling);
            streams[b][a] = Some(listener.accept().unwrap().0);
        }
    }
    streams
}

/// Runs `body` as every rank of a gang over TCP.
fn gang<T: Send>(world: usize, body: impl Fn(&mut TcpMesh, &Halt) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |(rank, streams): (Rank, Vec<Option<TcpStream>>)| {
            let body = &body;
            scope.spawn(move || {
                let halt = Arc::new(Halt::default());
                let identity = Identity { run: 5, generation: 2, rank, world };
                let mut mesh = TcpMesh::new(identity, streams, Arc::clone(&halt)).unwrap();
                body(&mut mesh, &halt)
            })
        };
        let threads: Vec<_> = connections(world).into_iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn tag(step: u64, round: u32) -> Tag {
    Tag { generation: 0, step, round }
}

fn cuts(len: usize, world: usize) -> Vec<Range<usize>> {
    (0..world).map(|rank| rank * len / world..(rank + 1) * len / world).collect()
}

/// Announces the offer while its last plane fills up; what is not final yet is not a number.
fn announce_bit_by_bit(mesh: &mut dyn Mesh, tag: Tag, offer: Offer<'_>) {
    let mut planes = offer.planes.to_vec();
    let first = planes.len() - offer.plane;
    for quarter in 1..=3 {
        let ready = offer.plane * quarter / 4;
        planes[first..][..ready].copy_from_slice(&offer.planes[first..][..ready]);
        planes[first + ready..].fill(f32::NAN);
        mesh.announce(tag, Offer { planes: &planes, ..offer }, ready);
    }
}

/// Some steps as training makes them: planes and headers of different number by rank, then everybody's cut to everybody,
/// then something for the first rank alone.
fn steps(mesh: &mut dyn Mesh, steps: u64, len: usize) -> Result<Vec<f32>, GangError> {
    let (rank, world) = (mesh.rank(), mesh.world());
    let cuts = cuts(len, world);
    let mut vector = vec![0.5; len];
    let mut collected: Vec<f32> = Vec::new();
    for step in 0..steps {
        let planes: Vec<f32> =
            (0..(rank % 3 + 1) * len).map(|i| vector[i % len] * 0.3 + (i as f32 * 0.7 + rank as f32).sin()).collect();
        let header: Vec<f64> = (0..rank).map(|i| (i + step as usize) as f64).collect();
        let own = cuts[rank].clone();
        let offer = Offer { header: &header, planes: &planes, plane: len, cuts: &cuts };
        if step % 3 > 0 {
            announce_bit_by_bit(mesh, tag(step, 0), offer);
        }
        mesh.exchange(tag(step, 0), offer, &mut |parts| {
            assert!(parts.iter().enumerate().all(|(giver, part)| part.header.len() == giver));
            for (at, i) in own.clone().enumerate() {
                // Not exact: only the same order gives the same bits.
                vector[i] = parts.iter().flat_map(|part| (0..part.planes()).map(move |p| part.plane(p)[at])).sum();
            }
        })?;
        mesh.all_gather(tag(step, 1), &mut vector, &cuts)?;
        let mine: Vec<f32> = (0..rank + step as usize).map(|i| i as f32).collect();
        let mut to_first = vec![0..0; world];
        to_first[0] = 0..mine.len();
        let offer = Offer { header: &[], planes: &mine, plane: mine.len(), cuts: &to_first };
        mesh.exchange(tag(step, 2), offer, &mut |parts| {
            parts.iter().filter(|part| rank == 0 && part.planes() > 0).for_each(|part| collected.extend(part.plane(0)));
        })?;
    }
    if rank == 0 {
        let expected: usize = (0..steps as usize).map(|step| (0..world).map(|rank| rank + step).sum::<usize>()).sum();
        assert_eq!(collected.len(), expected);
    }
    Ok(vector)
}

#[test]
fn the_bits_are_those_of_threads() {
    // The longest message has several buckets, and more bytes than a connection holds.
    for (world, count, len) in
        [(1, 3, 101), (2, 50, 101), (3, 50, 7), (4, 20, 1000), (2, 2, 2_000_003), (3, 2, 500_001)]
    {
        let expected = local::run("test", world, |mesh| steps(mesh, count, len)).unwrap();
        let got = gang(world, |mesh, _| steps(mesh, count, len).unwrap());
        assert!(got == expected, "{world} ranks, {len} numbers");
    }
}

#[test]
fn a_rank_s_failure_is_told_and_a_vanished_rank_is_lost() {
    let told = gang(3, |mesh, _| {
        let count = if mesh.rank() == 1 { 3 } else { 5 };
        let result = steps(mesh, count, 50);
        if mesh.rank() == 1 {
            mesh.fail("block 7 cannot be read");
        }
        result.map(|_| ()).map_err(|error| error.to_string())
    });
    assert_eq!(told[1], Ok(()));
    assert!(told.iter().any(|told| *told == Err("worker 1 failed: block 7 cannot be read".to_string())), "{told:?}");
    assert!([0, 2].iter().all(|rank| told[*rank].is_err()), "{told:?}");

    let told = gang(3, |mesh, _| {
        let count = if mesh.rank() == 1 { 3 } else { 5 };
        let result = steps(mesh, count, 50).map(|_| ());
        (result.map_err(|error| error.to_string()), mesh.failure().cloned())
    });
    for rank in [0, 2] {
        assert!(matches!(told[rank].1, Some(GangError::PeerLost { .. })), "{told:?}");
    }
}

#[test]
fn ranks_at_different_steps_refuse_each_other() {
    let told = gang(2, |mesh, _| {
        let rank = mesh.rank() as u64;
        mesh.all_gather(tag(7 + rank, 0), &mut [0.0; 4], &cuts(4, 2)).unwrap_err()
    });
    assert!(told.iter().any(|error| matches!(error, GangError::OutOfStep { .. })), "{told:?}");
}

#[test]
fn a_waiting_rank_can_be_halted_and_a_leaving_one_is_heard_by_all_at_once() {
    let begun = Instant::now();
    let told = gang(2, |mesh, halt| {
        if mesh.rank() == 1 {
            // Not there until the other has been halted.
            std::thread::sleep(Duration::from_millis(300));
            return None;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(30));
                halt.halt(GangError::Cancelled);
            });
            mesh.all_gather(tag(0, 0), &mut [0.0; 4], &cuts(4, 2)).err()
        })
    });
    assert!(matches!(told[0], Some(GangError::Cancelled)), "{told:?} after {:?}", begun.elapsed());

    let seen = gang(3, |mesh, halt| {
        let mut seen = Vec::new();
        for step in 0..6 {
            if mesh.rank() == 1 && step == 3 {
                halt.leave();
            }
            mesh.all_gather(tag(step, 0), &mut [0.0; 5], &cuts(5, 3)).unwrap();
            seen.push(mesh.leaving());
        }
        (seen, halt.step())
    });
    for (seen, step) in seen {
        assert_eq!(seen, [false, false, false, true, true, true]);
        assert_eq!(step, Some(5));
    }
}

/// What a reduction costs between two ranks of this machine: `cargo test ... --ignored --nocapture reduction_costs`.
#[test]
#[ignore = "a measurement"]
fn reduction_costs() {
    for (len, count) in [(1_000, 2000), (100_000, 200), (10_000_000, 5), (110_000_000, 1)] {
        let seconds = gang(2, |mesh, _| {
            let cuts = cuts(len, 2);
            let (mut vector, planes) = (vec![0.5; len], vec![0.25; len]);
            let mut step = |step| {
                let offer = Offer { header: &[], planes: &planes, plane: len, cuts: &cuts };
                let own = cuts[mesh.rank()].clone();
                let target = &mut vector[own];
                mesh.exchange(tag(step, 0), offer, &mut |parts| {
                    let (left, right) = (parts[0].plane(0), parts[1].plane(0));
                    target.iter_mut().zip(left).zip(right).for_each(|((sum, a), b)| *sum = a + b);
                })
                .unwrap();
                mesh.all_gather(tag(step, 1), &mut vector, &cuts).unwrap();
            };
            step(0);
            let begun = Instant::now();
            (1..=count).for_each(&mut step);
            begun.elapsed().as_secs_f64() / count as f64
        });
        let (seconds, megabytes) = (seconds[0], len as f64 * 4e-6);
        println!("{megabytes} MB: {:.3} ms, {:.0} MB/s each way", seconds * 1e3, megabytes / seconds);
    }
}
