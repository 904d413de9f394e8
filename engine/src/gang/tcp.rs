//! A mesh over TCP: one connection for each pair of ranks, kept for the whole generation. All of them are served by the
//! rank's own thread, which sends and receives in turns whatever a connection takes or gives, so an exchange costs no
//! change of threads; a second thread gives signs of life while the rank computes. What is said is the affair of
//! [`super::conversation`].
//!
//! A rank that waits looks up every [`LOOK`]: it sees that its generation is over, that the run was cancelled, or that a
//! peer has been silent for too long. The kernel watches over connections that are cut while nothing is under way.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::conversation::{BUCKET, Conversation, Work};
use super::frame::{Identity, Kind};
use super::{GangError, Mesh, Offer, Part, Rank, Tag};

/// How often a rank that waits looks whether it still should.
const LOOK: Duration = Duration::from_millis(50);
/// How often a rank that computes says that it is alive.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Bytes that are read from one connection before the next has its turn.
const TURN: usize = 1 << 20;
/// Ranks whose parts need no allocation.
const FEW: usize = 16;

/// Ends a rank from outside: at its next exchange, or while it waits in one.
#[derive(Debug, Default)]
pub(super) struct Halt {
    is_set: AtomicBool,
    cause: Mutex<Option<GangError>>,
    leave: AtomicBool,
    /// The newest step whose exchange has ended, plus one; 0 before the first.
    step: AtomicU64,
}

impl Halt {
    /// The first cause counts.
    pub(super) fn halt(&self, cause: GangError) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        self.is_set.store(true, Ordering::SeqCst);
    }

    pub(super) fn cause(&self) -> Option<GangError> {
        if !self.is_set.load(Ordering::SeqCst) {
            return None;
        }
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The worker was told to end: all ranks hear of it with the next exchange.
    pub(super) fn leave(&self) {
        self.leave.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leave.load(Ordering::SeqCst)
    }

    /// The newest step whose exchange has ended.
    pub(super) fn step(&self) -> Option<u64> {
        self.step.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// See the module.
pub(super) struct TcpMesh {
    identity: Identity,
    lines: Arc<Mutex<Lines>>,
    halt: Arc<Halt>,
    leaving: bool,
    /// Why no exchange can succeed any more.
    failed: Option<GangError>,
    closed: Arc<AtomicBool>,
    beats: Option<JoinHandle<()>>,
}

/// The conversation and its connections. The rank holds them for the whole of an exchange.
struct Lines {
    conversation: Conversation,
    /// By rank; the own one has none.
    streams: Vec<Option<TcpStream>>,
    begun: Instant,
    polled: Vec<libc::pollfd>,
    /// An exchange that was announced and has not been made yet.
    announced: Option<Tag>,
}

impl TcpMesh {
    /// Over connections that have been made and greeted; `streams` by rank, without one for the own.
    pub(super) fn new(identity: Identity, streams: Vec<Option<TcpStream>>, halt: Arc<Halt>) -> std::io::Result<Self> {
        for stream in streams.iter().flatten() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            watch_by_kernel(stream);
        }
        let lines = Lines {
            conversation: Conversation::new(identity, BUCKET),
            polled: Vec::with_capacity(streams.len()),
            streams,
            begun: Instant::now(),
            announced: None,
        };
        let (lines, closed) = (Arc::new(Mutex::new(lines)), Arc::new(AtomicBool::new(false)));
        let beats = if identity.world > 1 {
            let (lines, closed) = (Arc::clone(&lines), Arc::clone(&closed));
            let name = format!("beats-{}", identity.rank);
            Some(std::thread::Builder::new().name(name).spawn(move || beat(&lines, &closed))?)
        } else {
            None
        };
        Ok(TcpMesh { identity, lines, halt, leaving: false, failed: None, closed, beats })
    }

    /// Why the last exchange failed, if it did.
    pub(super) fn failure(&self) -> Option<&GangError> {
        self.failed.as_ref()
    }

    /// Tells the others that this rank ends with an error of its own.
    pub(super) fn fail(&mut self, cause: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Lines { conversation, streams, .. } = &mut *lines;
        for peer in conversation.others() {
            if let Some(mut stream) = streams[peer].as_ref() {
                // A peer that cannot be told finds the connection closed.
                let _ = stream.write(conversation.fail(peer, cause));
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
        }
    }

    fn run(&mut self, tag: Tag, work: &mut Work<'_>) -> Result<(), GangError> {
        if let Some(error) = self.failed.clone().or_else(|| self.halt.cause()) {
            self.failed = Some(error.clone());
            return Err(error);
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if self.halt.is_leaving() && lines.announced.is_none() {
            lines.conversation.leave();
        }
        match lines.exchange(tag, work, &self.halt) {
            Ok(()) => {
                self.leaving = lines.conversation.leaving();
                self.halt.step.fetch_max(tag.step + 1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl Drop for TcpMesh {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(beats) = self.beats.take() {
            beats.thread().unpark();
            // It has nothing to say that the rank does not know.
            let _ = beats.join();
        }
    }
}

impl Mesh for TcpMesh {
    fn rank(&self) -> Rank {
        self.identity.rank
    }

    fn world(&self) -> usize {
        self.identity.world
    }

    fn exchange(&mut self, tag: Tag, offer: Offer<'_>, receive: &mut dyn FnMut(&[Part<'_>])) -> Result<(), GangError> {
        let Identity { rank, world, .. } = self.identity;
        offer.check(world);
        self.run(tag, &mut Work::Exchange(offer))?;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let own = Part::new(offer.header, offer.planes, offer.plane, offer.cuts[rank].clone());
        let part = |giver: Rank| if giver == rank { own } else { lines.conversation.part(giver) };
        if world <= FEW {
            let parts: [Part<'_>; FEW] = std::array::from_fn(|giver| part(giver.min(world - 1)));
            receive(&parts[..world]);
        } else {
            receive(&(0..world).map(part).collect::<Vec<_>>());
        }
        Ok(())
    }

    fn announce(&mut self, tag: Tag, offer: Offer<'_>, ready: usize) {
        if self.failed.is_some() || self.identity.world == 1 {
            return;
        }
        offer.check(self.identity.world);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if self.halt.is_leaving() && lines.announced.is_none() {
            lines.conversation.leave();
        }
        self.failed = lines.announce(tag, &mut Work::Exchange(offer), ready).err();
    }

    fn all_gather(&mut self, tag: Tag, vector: &mut [f32], cuts: &[Range<usize>]) -> Result<(), GangError> {
        assert_eq!(cuts.len(), self.identity.world, "an exchange has one cut for each rank");
        self.run(tag, &mut Work::Gather { vector, cuts })
    }

    fn leaving(&self) -> bool {
        self.leaving
    }
}

impl Lines {
    fn exchange(&mut self, tag: Tag, work: &mut Work<'_>, halt: &Halt) -> Result<(), GangError> {
        match self.announced.take() {
            None => self.conversation.begin(tag, work, self.begun.elapsed()),
            Some(announced) => {
                assert_eq!(announced, tag, "an announced exchange follows");
                self.conversation.hold_back(usize::MAX, self.begun.elapsed());
            }
        }
        let mut beat_at = self.begun.elapsed() + BEAT;
        while !self.conversation.is_over() {
            if self.begun.elapsed() >= beat_at {
                self.beat_where_idle();
                beat_at = self.begun.elapsed() + BEAT;
            }
            let mut moved = false;
            for peer in self.conversation.others() {
                moved |= self.send(peer, work)?;
                moved |= self.receive(peer, work)?;
            }
            if !moved {
                if let Some(cause) = halt.cause() {
                    return Err(cause);
                }
                self.conversation.tick(self.begun.elapsed())?;
                self.wait();
            }
        }
        Ok(())
    }

    /// Begins an exchange, or goes on with one, without waiting for anything.
    fn announce(&mut self, tag: Tag, work: &mut Work<'_>, ready: usize) -> Result<(), GangError> {
        if self.announced.replace(tag).is_none() {
            self.conversation.begin(tag, work, self.begun.elapsed());
        }
        self.conversation.hold_back(ready, self.begun.elapsed());
        for peer in self.conversation.others() {
            self.send(peer, work)?;
            self.receive(peer, work)?;
        }
        Ok(())
    }

    /// Says to those who have this rank's message already that it is alive, as long as there is life in the exchange.
    fn beat_where_idle(&mut self) {
        let Some(kind) = self.conversation.sign_of_life() else { return };
        for peer in self.conversation.others() {
            if !self.conversation.has_outgoing(peer) {
                self.beat(peer, kind);
            }
        }
    }

    /// A connection that is full or broken is an exchange's affair.
    fn beat(&mut self, peer: Rank, kind: Kind) {
        if let Some(mut stream) = self.streams[peer].as_ref()
            && let Ok(sent) = stream.write(self.conversation.beat(peer, kind))
        {
            self.conversation.sent(peer, sent);
        }
    }

    /// Sends what the connection takes; whether that was anything.
    fn send(&mut self, peer: Rank, work: &Work<'_>) -> Result<bool, GangError> {
        let Some(mut stream) = self.streams[peer].as_ref() else { return Ok(false) };
        let mut moved = false;
        loop {
            let bytes = self.conversation.outgoing(peer, work);
            if bytes.is_empty() {
                return Ok(moved);
            }
            match stream.write(bytes) {
                Ok(sent) => self.conversation.sent(peer, sent),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the peer had to say before it closed the connection says more.
                Err(error) => return Err(self.last_words(peer).unwrap_or_else(|| lost(peer, &error.to_string()))),
            }
            moved = true;
        }
    }

    /// Receives what has come, up to a turn; whether that was anything.
    fn receive(&mut self, peer: Rank, work: &mut Work<'_>) -> Result<bool, GangError> {
        let Some(mut stream) = self.streams[peer].as_ref() else { return Ok(false) };
        let mut received = 0;
        while received < TURN {
            let space = self.conversation.space(peer, work);
            if space.is_empty() {
                break;
            }
            match stream.read(space) {
                Ok(0) => return Err(lost(peer, "its connection was closed")),
                Ok(bytes) => {
                    received += bytes;
                    self.conversation.filled(peer, bytes, work, self.begun.elapsed())?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(peer, &error.to_string())),
            }
        }
        Ok(received > 0)
    }

    /// What a peer said last over a connection that does not take anything any more.
    fn last_words(&mut self, peer: Rank) -> Option<GangError> {
        let mut nothing = Work::Exchange(Offer { header: &[], planes: &[], plane: 0, cuts: &[] });
        let mut stream = self.streams[peer].as_ref()?;
        // Inside a bucket there is no telling where the next frame begins.
        while self.conversation.is_between_buckets(peer) {
            let space = self.conversation.space(peer, &mut nothing);
            let bytes = stream.read(space).ok().filter(|bytes| *bytes > 0)?;
            match self.conversation.filled(peer, bytes, &nothing, self.begun.elapsed()) {
                Err(error @ GangError::PeerFailed { .. }) => return Some(error),
                Err(_) => return None,
                Ok(()) => {}
            }
        }
        None
    }

    /// Sleeps until a connection that is of use can be read or written, at most for a look.
    fn wait(&mut self) {
        self.polled.clear();
        for peer in self.conversation.others() {
            if self.conversation.is_over_with(peer) {
                continue;
            }
            let Some(stream) = &self.streams[peer] else { continue };
            let write = if self.conversation.has_outgoing(peer) { libc::POLLOUT } else { 0 };
            self.polled.push(libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN | write, revents: 0 });
        }
        let timeout = i32::try_from(LOOK.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the vector holds so many structures, which the call may write to. Its outcome does not matter: after
        // any wake-up all connections are tried.
        unsafe { libc::poll(self.polled.as_mut_ptr(), self.polled.len() as libc::nfds_t, timeout) };
    }
}

fn lost(rank: Rank, cause: &str) -> GangError {
    GangError::PeerLost { rank, cause: cause.to_string() }
}

/// Says every second that this rank is alive, when it is not in an exchange, which sees to that itself. While one is
/// announced a sign of life goes between two buckets.
fn beat(lines: &Mutex<Lines>, closed: &AtomicBool) {
    loop {
        std::thread::park_timeout(BEAT);
        if closed.load(Ordering::SeqCst) {
            return;
        }
        let mut lines = match lines.try_lock() {
            Ok(lines) => lines,
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Poisoned(_)) => return,
        };
        for peer in lines.conversation.others() {
            lines.beat(peer, Kind::Beat);
        }
    }
}

/// Lets the kernel find connections that are cut while nothing is under way.
fn watch_by_kernel(stream: &TcpStream) {
    let set = |level: i32, option: i32, value: libc::c_int| {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option's value is an integer of this size. Where the kernel refuses, the beats remain.
        unsafe { libc::setsockopt(stream.as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), size) };
    };
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    #[cfg(target_os = "linux")]
    {
        set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 2);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1);
        set(libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 4);
    }
}

#[cfg(test)]
mod tests;
