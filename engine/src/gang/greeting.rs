//! How the ranks of a generation find each other: each calls those before it and waits for the calls of those behind. A
//! call begins with who is calling whom, in which generation of which run, and with what must be alike; whoever is not
//! the awaited one is told so.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::frame::{HEAD, Head, Identity, Kind, RunNumber, TEXT_MAX};
use super::tcp::Halt;
use super::{GangError, Rank};

/// How long the ranks of a generation may take to find each other.
const FORM_WAIT: Duration = Duration::from_secs(30);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);
/// How often a rank that waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(50);
/// Runs whose newest generation is remembered.
const RUNS_KNOWN: usize = 1024;

/// A call that has been answered with nothing yet.
pub(super) struct Call {
    head: Head,
    fingerprint: String,
    stream: TcpStream,
}

/// Why a rank cannot take its seat.
#[derive(Debug)]
pub(super) enum Unseated {
    /// Another generation may do better.
    Gang(GangError),
    /// This rank and another differ in what must be alike.
    Differ(String),
}

impl From<GangError> for Unseated {
    fn from(error: GangError) -> Self {
        Unseated::Gang(error)
    }
}

/// Where calls to the ranks of this process arrive.
#[derive(Default)]
pub(super) struct Lobby {
    state: Mutex<Expected>,
    changed: Condvar,
}

#[derive(Default)]
struct Expected {
    ranks: HashMap<(RunNumber, u32), SyncSender<Call>>,
    /// The newest generation of each run, the latest run last.
    newest: Vec<(RunNumber, u32)>,
}

impl Lobby {
    /// A rank takes calls from now on.
    ///
    /// # Errors
    /// The generation that is newer than this one.
    pub(super) fn open(&self, run: RunNumber, generation: u32, world: usize) -> Result<Receiver<Call>, u32> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, newest)) = state.newest.iter().find(|(known, newest)| *known == run && *newest >= generation) {
            return Err(*newest);
        }
        state.newest.retain(|(known, _)| *known != run);
        if state.newest.len() >= RUNS_KNOWN {
            state.newest.remove(0);
        }
        state.newest.push((run, generation));
        let (send, calls) = sync_channel(world);
        state.ranks.insert((run, generation), send);
        self.changed.notify_all();
        Ok(calls)
    }

    /// A rank takes no more calls.
    pub(super) fn close(&self, run: RunNumber, generation: u32) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ranks.remove(&(run, generation));
    }

    /// Takes a connection whose first four bytes were a frame's to the rank that it is for. That rank may not be there
    /// yet: generations begin everywhere at about the same time.
    pub(super) fn bring(&self, mut stream: TcpStream, first: [u8; 4]) -> io::Result<()> {
        stream.set_read_timeout(Some(CALL))?;
        stream.set_write_timeout(Some(CALL))?;
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&first);
        stream.read_exact(&mut bytes[4..])?;
        let Some(head) = Head::read(&bytes).filter(|head| head.kind == Kind::Hello) else { return Ok(()) };
        let fingerprint = read_text(&mut stream, &head)?;
        let begun = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let newest = state.newest.iter().find(|(run, _)| *run == head.run).map(|(_, newest)| *newest);
            if let Some(newest) = newest.filter(|newest| *newest > head.generation) {
                drop(state);
                let told = format!("generation {} is over, this is generation {newest}", head.generation);
                return answer(&mut stream, &head, Kind::Refused, &told);
            }
            if let Some(rank) = state.ranks.get(&(head.run, head.generation)) {
                // A rank takes one call of each other; more are nobody's.
                let _ = rank.try_send(Call { head, fingerprint, stream });
                return Ok(());
            }
            if newest == Some(head.generation) || begun.elapsed() > FORM_WAIT {
                drop(state);
                return answer(&mut stream, &head, Kind::Refused, "the rank has ended");
            }
            let waited = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
        }
    }
}

/// Connects a rank with all others; gives the connections by rank.
///
/// # Errors
/// Peers that do not come, refuse, or differ; what halts the rank.
pub(super) fn meet(
    identity: Identity,
    peers: &[(String, u16)],
    fingerprint: &str,
    calls: &Receiver<Call>,
    halt: &Halt,
) -> Result<Vec<Option<TcpStream>>, Unseated> {
    let begun = Instant::now();
    let mut streams: Vec<Option<TcpStream>> = (0..identity.world).map(|_| None).collect();
    for peer in 0..identity.rank {
        streams[peer] = Some(call(identity, peer, &peers[peer], fingerprint, halt, begun)?);
    }
    let mut missing = identity.world - identity.rank - 1;
    while missing > 0 {
        check(halt)?;
        match calls.recv_timeout(LOOK) {
            Ok(call) => {
                let from = call.head.from as usize;
                let stream = welcome(identity, call, fingerprint)?;
                missing -= usize::from(streams[from].is_none());
                streams[from] = Some(stream);
            }
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < FORM_WAIT => {}
            Err(_) => {
                let rank = (identity.rank + 1..identity.world).find(|peer| streams[*peer].is_none()).unwrap_or(0);
                let cause = format!("it did not come within {} s", FORM_WAIT.as_secs());
                return Err(GangError::PeerLost { rank, cause }.into());
            }
        }
    }
    Ok(streams)
}

fn check(halt: &Halt) -> Result<(), GangError> {
    halt.cause().map_or(Ok(()), Err)
}

/// Calls a rank until it answers: its process may not have heard of the generation yet.
fn call(
    identity: Identity,
    peer: Rank,
    place: &(String, u16),
    fingerprint: &str,
    halt: &Halt,
    begun: Instant,
) -> Result<TcpStream, Unseated> {
    loop {
        check(halt)?;
        match try_call(identity, peer, place, fingerprint, halt) {
            Ok(stream) => return Ok(stream),
            Err(Called::Halted(error)) => return Err(error.into()),
            Err(Called::Refused(cause)) => return Err(GangError::Refused { rank: peer, cause }.into()),
            Err(Called::Differ(cause)) => return Err(GangError::PeerFailed { rank: peer, cause }.into()),
            Err(Called::Lost(error)) if begun.elapsed() > CALL => {
                return Err(GangError::PeerLost { rank: peer, cause: error.to_string() }.into());
            }
            Err(Called::Lost(_)) => std::thread::sleep(LOOK),
        }
    }
}

enum Called {
    Lost(io::Error),
    Refused(String),
    Differ(String),
    Halted(GangError),
}

impl From<io::Error> for Called {
    fn from(error: io::Error) -> Self {
        Called::Lost(error)
    }
}

fn try_call(
    identity: Identity,
    peer: Rank,
    place: &(String, u16),
    fingerprint: &str,
    halt: &Halt,
) -> Result<TcpStream, Called> {
    let mut stream = TcpStream::connect_timeout(&resolve(place)?, CALL)?;
    stream.set_write_timeout(Some(CALL))?;
    let body = fingerprint.as_bytes();
    let mut bytes = identity.head(Kind::Hello, peer, body.len()).write().to_vec();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)?;
    wait_for_answer(&stream, halt)?;
    stream.set_read_timeout(Some(CALL))?;
    let mut bytes = [0; HEAD];
    stream.read_exact(&mut bytes)?;
    let head = Head::read(&bytes).ok_or_else(|| Called::Refused("it does not speak this protocol".to_string()))?;
    let text = read_text(&mut stream, &head)?;
    match head.kind {
        Kind::Welcome => identity.check(&head, peer).map_err(|error| Called::Refused(error.to_string()))?,
        Kind::Failed => return Err(Called::Differ(text)),
        _ => return Err(Called::Refused(text)),
    }
    Ok(stream)
}

/// The answer comes when the peer's rank has its seat.
fn wait_for_answer(stream: &TcpStream, halt: &Halt) -> Result<(), Called> {
    let begun = Instant::now();
    stream.set_read_timeout(Some(LOOK))?;
    loop {
        match stream.peek(&mut [0]) {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                check(halt).map_err(Called::Halted)?;
                if begun.elapsed() > FORM_WAIT {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer").into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn resolve((host, port): &(String, u16)) -> io::Result<SocketAddr> {
    let mut found = (host.as_str(), *port).to_socket_addrs()?;
    found.next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no such host: {host}")))
}

/// Answers a call.
fn welcome(identity: Identity, call: Call, fingerprint: &str) -> Result<TcpStream, Unseated> {
    let Call { head, fingerprint: theirs, mut stream } = call;
    let from = head.from as usize;
    let failed = |error: io::Error| GangError::PeerLost { rank: from, cause: error.to_string() };
    let awaited = from > identity.rank && from < identity.world;
    let stranger = GangError::Refused { rank: from, cause: "it is not awaited".to_string() };
    if let Err(error) = if awaited { identity.check(&head, from) } else { Err(stranger) } {
        answer(&mut stream, &head, Kind::Refused, &error.to_string()).map_err(failed)?;
        return Err(error.into());
    }
    if theirs != fingerprint {
        let told = format!(
            "workers {} and {from} would not compute the same numbers: `{fingerprint}` here, `{theirs}` there",
            identity.rank
        );
        answer(&mut stream, &head, Kind::Failed, &told).map_err(failed)?;
        return Err(Unseated::Differ(told));
    }
    answer(&mut stream, &head, Kind::Welcome, "").map_err(failed)?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream, to: &Head, kind: Kind, text: &str) -> io::Result<()> {
    let length = text.len().min(TEXT_MAX);
    let head = Head { kind, from: to.to, to: to.from, length: length as u32, total: length as u64, ..*to };
    let mut bytes = head.write().to_vec();
    bytes.extend_from_slice(&text.as_bytes()[..length]);
    stream.write_all(&bytes)
}

fn read_text(stream: &mut TcpStream, head: &Head) -> io::Result<String> {
    let length = head.length as usize;
    if length > TEXT_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak this protocol"));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;

    /// A process that takes calls, and where it is.
    fn lobby() -> (Arc<Lobby>, (String, u16)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = ("127.0.0.1".to_string(), listener.local_addr().unwrap().port());
        let lobby = Arc::new(Lobby::default());
        let taking = Arc::clone(&lobby);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let taking = Arc::clone(&taking);
                std::thread::spawn(move || {
                    let mut first = [0; 4];
                    stream.read_exact(&mut first).and_then(|()| taking.bring(stream, first))
                });
            }
        });
        (lobby, place)
    }

    /// Lets ranks meet, each in a process of its own, with these fingerprints.
    fn gathering(generation: u32, fingerprints: &[&str]) -> Vec<Result<usize, Unseated>> {
        let world = fingerprints.len();
        let lobbies: Vec<_> = (0..world).map(|_| lobby()).collect();
        let places: Vec<_> = lobbies.iter().map(|(_, place)| place.clone()).collect();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..world)
                .map(|rank| {
                    let (lobby, places, fingerprint) = (&lobbies[rank].0, &places, fingerprints[rank]);
                    scope.spawn(move || {
                        let identity = Identity { run: 3, generation, rank, world };
                        let calls = lobby.open(identity.run, generation, world).unwrap();
                        let streams = meet(identity, places, fingerprint, &calls, &Halt::default());
                        lobby.close(identity.run, generation);
                        streams.map(|streams| streams.iter().flatten().count())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn all_ranks_find_each_other() {
        for world in [1, 2, 5] {
            let connections: Vec<usize> =
                gathering(1, &vec!["native"; world]).into_iter().map(|met| met.unwrap()).collect();
            assert_eq!(connections, vec![world - 1; world]);
        }
    }

    #[test]
    fn ranks_that_would_compute_other_numbers_refuse_each_other_and_say_why() {
        let met = gathering(1, &["native", "blas"]);
        let told = "workers 0 and 1 would not compute the same numbers: `native` here, `blas` there";
        assert!(matches!(&met[0], Err(Unseated::Differ(text)) if text == told), "{met:?}");
        let is_told = |error: &GangError| matches!(error, GangError::PeerFailed { rank: 0, cause } if cause == told);
        assert!(matches!(&met[1], Err(Unseated::Gang(error)) if is_told(error)), "{met:?}");
    }

    #[test]
    fn a_generation_that_is_over_is_refused() {
        let (lobby, place) = lobby();
        let _calls = lobby.open(3, 2, 2).unwrap();
        assert_eq!(lobby.open(3, 2, 2).err(), Some(2));
        assert_eq!(lobby.open(3, 1, 2).err(), Some(2));
        let late = Identity { run: 3, generation: 1, rank: 1, world: 2 };
        let (_send, calls) = sync_channel(1);
        let met = meet(late, &[place.clone(), place], "", &calls, &Halt::default());
        let Err(Unseated::Gang(error)) = met else { panic!("{met:?}") };
        assert_eq!(error.to_string(), "worker 0 is refused: generation 1 is over, this is generation 2");
    }

    #[test]
    fn a_rank_that_waits_for_others_can_be_halted() {
        let (_lobby, place) = lobby();
        for rank in [0, 1] {
            let halt = Halt::default();
            halt.halt(GangError::Cancelled);
            let (_send, calls) = sync_channel(2);
            let identity = Identity { run: 3, generation: 1, rank, world: 2 };
            let met = meet(identity, &[place.clone(), place.clone()], "", &calls, &halt);
            assert!(matches!(met, Err(Unseated::Gang(GangError::Cancelled))), "{met:?}");
        }
    }
}
