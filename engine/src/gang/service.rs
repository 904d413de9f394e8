//! The gang service of an executor: it listens at a port of its own, runs the ranks that coordinators ask for, and tells
//! them how the ranks fare. Everything here is threads: a rank's arithmetic, and its signs of life, wait for no runtime
//! that is busy with other things.
//!
//! A rank lives as long as its coordinator is heard. A new generation of a run halts the rank of the old one, and calls
//! and coordinators of generations that are over are refused: a process that was stopped for a while and goes on as if
//! nothing had happened finds its connections closed and its generation gone.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage::Stores;
use tokio_util::sync::CancellationToken;

use super::control::{self, Begin, FromRank, How, MAGIC, RankError, ToRank};
use super::conversation::SILENCE;
use super::frame::Identity;
use super::greeting::{Call, Lobby, Unseated, meet};
use super::local::panic_message;
use super::task::{Ended, GangTask, Kept, Seat, find};
use super::tcp::{BEAT, Halt, TcpMesh};
use super::{GangError, fault};
use crate::error::{Error, Result};

/// How long a connection may take to say what it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Messages to the coordinator that wait before the rank waits too.
const MESSAGES: usize = 64;

/// What the ranks of this process share.
pub(crate) struct ServiceSettings {
    /// Where to listen; port 0 takes a free one.
    pub(crate) bind: (IpAddr, u16),
    pub(crate) tasks: Vec<Arc<dyn GangTask>>,
    pub(crate) stores: Stores,
    pub(crate) cores: usize,
    pub(crate) memory: Option<u64>,
    /// A directory on this machine's disk.
    pub(crate) scratch: PathBuf,
}

/// See the module. Cloning shares it.
#[derive(Clone)]
pub(crate) struct GangService {
    inner: Arc<Inner>,
    port: u16,
}

struct Inner {
    settings: ServiceSettings,
    lobby: Lobby,
    ranks: Mutex<HashMap<String, Arc<Running>>>,
    /// What the ranks of a run keep for their successors.
    kept: Mutex<HashMap<String, Arc<Kept>>>,
    leaving: AtomicBool,
    /// Coordinators that are connected.
    coordinators: AtomicUsize,
}

/// A rank at work.
struct Running {
    identity: Identity,
    stop: Stop,
    ended: Mutex<bool>,
    bell: Condvar,
}

/// The two ways in which a rank is told to stop: in its exchanges, and beside them.
#[derive(Clone)]
struct Stop {
    mesh: Arc<Halt>,
    cancel: CancellationToken,
}

impl Stop {
    fn halt(&self, cause: GangError) {
        self.mesh.halt(cause);
        self.cancel.cancel();
    }
}

impl GangService {
    /// Begins to listen.
    ///
    /// # Errors
    /// A port that is taken.
    pub(crate) fn start(settings: ServiceSettings) -> Result<Self> {
        let (address, port) = settings.bind;
        let refused = |error: io::Error| {
            Error::Usage(format!("the executor cannot listen at {address}:{port} for gangs: {error}"))
        };
        let listener = TcpListener::bind(settings.bind).map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let inner = Arc::new(Inner {
            settings,
            lobby: Lobby::default(),
            ranks: Mutex::default(),
            kept: Mutex::default(),
            leaving: AtomicBool::new(false),
            coordinators: AtomicUsize::new(0),
        });
        let listening = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("gangs".to_string())
            .spawn(move || listening.listen(&listener))
            .map_err(refused)?;
        Ok(GangService { inner, port })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Takes no more ranks, and lets those that run save what they have done and end.
    pub(crate) fn leave(&self) {
        self.inner.leaving.store(true, Ordering::SeqCst);
        self.inner.ranks().values().for_each(|rank| rank.stop.mesh.leave());
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.inner.leaving.load(Ordering::SeqCst)
    }

    /// Whether no coordinator is connected any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.inner.coordinators.load(Ordering::SeqCst) == 0
    }
}

impl Inner {
    fn ranks(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Running>>> {
        // The map is whole whenever the lock is free, so a poisoned one is still good.
        self.ranks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept for a rank of this run. What was kept for runs that go on without this process goes now.
    fn kept_for(&self, run: &str) -> Arc<Kept> {
        let ranks = self.ranks();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|other, _| other == run || ranks.contains_key(other));
        Arc::clone(kept.entry(run.to_string()).or_default())
    }

    fn keep_no_more(&self, run: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, say: a moment later there may be some.
                std::thread::sleep(BEAT / 10);
                continue;
            };
            let own = Arc::clone(self);
            let serve = move || {
                if let Err(error) = own.serve(stream) {
                    tracing::debug!(%error, "a connection to the gang service has ended");
                }
            };
            if let Err(error) = std::thread::Builder::new().name("gang-connection".to_string()).spawn(serve) {
                tracing::warn!(%error, "the gang service cannot take a connection");
            }
        }
    }

    /// A connection is a coordinator's or another rank's; its first bytes say which.
    fn serve(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        use std::io::Read;

        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(INTRODUCTION))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let mut first = [0; 4];
        stream.read_exact(&mut first)?;
        if first != MAGIC {
            return self.lobby.bring(stream, first);
        }
        self.coordinators.fetch_add(1, Ordering::SeqCst);
        let served = self.serve_coordinator(stream);
        self.coordinators.fetch_sub(1, Ordering::SeqCst);
        served
    }

    fn serve_coordinator(self: &Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        let (message, order) = control::read(&mut stream)?;
        let ToRank::Begin(begin) = message else { return Ok(()) };
        let (send, messages) = sync_channel(MESSAGES);
        let mut out = stream.try_clone()?;
        let (running, calls) = match self.admit(&begin) {
            Ok(admitted) => admitted,
            Err(cause) => {
                let how = How::Broken { cause, suspect: Some(begin.rank) };
                return control::write(&mut out, &FromRank::Ended { step: None, how }, &[]);
            }
        };
        let told = running.stop.clone();
        std::thread::Builder::new()
            .name("gang-messages".to_string())
            .spawn(move || tell(&mut out, &messages, &told))?;
        let own = Arc::clone(self);
        let rank = Arc::clone(&running);
        let name = format!("{}-{}", begin.task, begin.rank);
        std::thread::Builder::new().name(name).spawn(move || own.run(&begin, &order, &rank, &calls, &send))?;
        let cause = listen_to(&mut stream);
        running.stop.halt(cause);
        // The connection stays until the rank has ended, so that it is known to be at work.
        running.wait();
        Ok(())
    }

    /// Makes room for a rank: the one of the generation before is halted.
    fn admit(&self, begin: &Begin) -> Result<(Arc<Running>, Receiver<Call>), String> {
        if self.leaving.load(Ordering::SeqCst) {
            return Err("its process was told to end".to_string());
        }
        let run = begin.number().ok_or_else(|| format!("{} names no run", begin.run))?;
        let (generation, rank, world) = (begin.generation, begin.rank, begin.peers.len());
        if rank >= world {
            return Err(format!("worker {rank} of {world}"));
        }
        let opened = self.lobby.open(run, generation, world);
        let calls = opened.map_err(|newest| format!("generation {newest} of the run has begun there"))?;
        let running = Arc::new(Running {
            identity: Identity { run, generation, rank, world },
            stop: Stop { mesh: Arc::default(), cancel: CancellationToken::new() },
            ended: Mutex::new(false),
            bell: Condvar::new(),
        });
        let before = self.ranks().insert(begin.run.clone(), Arc::clone(&running));
        if let Some(before) = before {
            let cause = format!("generation {} has begun", begin.generation);
            before.stop.halt(GangError::PeerLost { rank: begin.rank, cause });
            before.wait();
        }
        Ok((running, calls))
    }

    /// A rank's life.
    fn run(
        &self,
        begin: &Begin,
        order: &[u8],
        running: &Running,
        calls: &Receiver<Call>,
        messages: &SyncSender<(FromRank, Vec<u8>)>,
    ) {
        let (how, result) = self.work(begin, order, running, calls, messages);
        self.lobby.close(running.identity.run, begin.generation);
        let mut ranks = self.ranks();
        if ranks.get(&begin.run).is_some_and(|newest| newest.identity == running.identity) {
            ranks.remove(&begin.run);
        }
        drop(ranks);
        let is_over = matches!(how, How::Done | How::Failed(_))
            || matches!(running.stop.mesh.cause(), Some(GangError::Cancelled));
        if is_over {
            self.keep_no_more(&begin.run);
            // What a rank keeps here is a copy of something; what cannot be removed goes with the process's directory.
            let _ = std::fs::remove_dir_all(self.scratch(&begin.run));
        }
        // A coordinator that is gone does not hear it, and need not.
        let _ = messages.send((FromRank::Ended { step: running.stop.mesh.step(), how }, result));
        running.end();
    }

    fn scratch(&self, run: &str) -> PathBuf {
        self.settings.scratch.join(run)
    }

    fn work(
        &self,
        begin: &Begin,
        order: &[u8],
        running: &Running,
        calls: &Receiver<Call>,
        messages: &SyncSender<(FromRank, Vec<u8>)>,
    ) -> (How, Vec<u8>) {
        let failed = |error: &Error| (How::Failed(RankError::from(error)), Vec::new());
        let Some(task) = find(&self.settings.tasks, &begin.task) else {
            return failed(&Error::invalid(format!("no gang task is called {}", begin.task)));
        };
        let scratch = self.scratch(&begin.run);
        if let Err(error) = std::fs::create_dir_all(&scratch) {
            return failed(&Error::Usage(format!("--work-dir: cannot make {}: {error}", scratch.display())));
        }
        let mut mesh = match self.sit(begin, order, task.as_ref(), running, calls) {
            Ok(mesh) => mesh,
            Err(Seated::Gang(error)) => return (broken(&error), Vec::new()),
            Err(Seated::Own(error)) => return failed(&error),
        };
        if self.leaving.load(Ordering::SeqCst) {
            running.stop.mesh.leave();
        }
        let report = |bytes| drop(messages.send((FromRank::Report, bytes)));
        let kept = self.kept_for(&begin.run);
        let mut seat = Seat {
            mesh: &mut mesh,
            run: &begin.run,
            generation: begin.generation,
            cores: self.settings.cores,
            stores: &self.settings.stores,
            scratch: &scratch,
            kept: &kept,
            memory: self.settings.memory,
            cancel: running.stop.cancel.clone(),
            report: &report,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| task.run(order, &mut seat)));
        let error = match outcome {
            Ok(Ok(Ended::Done(result))) => return (How::Done, result),
            Ok(Ok(Ended::Left)) => return (How::Left { own: running.stop.mesh.is_leaving() }, Vec::new()),
            Ok(Err(error)) => match mesh.failure().cloned().or_else(|| running.stop.mesh.cause()) {
                Some(cause) => return (broken(&cause), Vec::new()),
                None => error,
            },
            Err(panic) => fault(task.name(), begin.rank, &panic_message(panic.as_ref())),
        };
        mesh.fail(&error.to_string());
        failed(&error)
    }

    /// Connects a rank with the others of its generation.
    fn sit(
        &self,
        begin: &Begin,
        order: &[u8],
        task: &dyn GangTask,
        running: &Running,
        calls: &Receiver<Call>,
    ) -> Result<TcpMesh, Seated> {
        let fingerprint = task.fingerprint(order).map_err(Seated::Own)?;
        let streams =
            meet(running.identity, &begin.peers, &fingerprint, calls, &running.stop.mesh).map_err(|unseated| {
                match unseated {
                    Unseated::Gang(error) => Seated::Gang(error),
                    Unseated::Differ(told) => Seated::Own(Error::invalid(told)),
                }
            })?;
        TcpMesh::new(running.identity, streams, Arc::clone(&running.stop.mesh))
            .map_err(|error| Seated::Own(Error::Cluster(format!("a connection between workers: {error}"))))
    }
}

/// Why a rank did not begin.
enum Seated {
    Gang(GangError),
    Own(Error),
}

fn broken(error: &GangError) -> How {
    let suspect = match error {
        GangError::PeerLost { rank, .. } | GangError::Refused { rank, .. } | GangError::OutOfStep { rank, .. } => {
            Some(*rank)
        }
        GangError::PeerFailed { .. } | GangError::Cancelled => None,
    };
    How::Broken { cause: error.to_string(), suspect }
}

impl Running {
    fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    fn wait(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            ended = self.bell.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells the coordinator what the rank says, and every second that it is there.
fn tell(stream: &mut TcpStream, messages: &Receiver<(FromRank, Vec<u8>)>, halt: &Stop) {
    let mut told = Instant::now();
    loop {
        let (message, bytes) = match messages.recv_timeout(BEAT.saturating_sub(told.elapsed())) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => (FromRank::Beat { step: halt.mesh.step() }, Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if matches!(message, FromRank::Beat { .. }) {
            told = Instant::now();
        }
        if let Err(error) = control::write(stream, &message, &bytes) {
            tracing::debug!(%error, "the coordinator cannot be told");
            halt.halt(GangError::Cancelled);
            // Whatever else the rank says goes nowhere, and does not keep it waiting.
            while messages.recv().is_ok() {}
            return;
        }
    }
}

/// Listens to the coordinator until it ends the rank or is gone; gives why the rank is to end.
fn listen_to(stream: &mut TcpStream) -> GangError {
    if stream.set_read_timeout(Some(SILENCE)).is_err() {
        return GangError::Cancelled;
    }
    loop {
        match control::read::<ToRank>(stream) {
            Ok((ToRank::Beat | ToRank::Begin(_), _)) => {}
            Ok((ToRank::Halt(cause), _)) => return cause.into(),
            Err(error) => {
                tracing::debug!(%error, "the coordinator is gone");
                return GangError::Cancelled;
            }
        }
    }
}
