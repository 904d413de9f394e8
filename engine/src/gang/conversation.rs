//! The protocol of a gang between processes, apart from sockets and clocks: what a rank sends next, where the bytes that
//! it receives belong, and when an exchange is over. [`super::tcp`] moves the bytes over connections; the simulation of
//! the tests moves them through a model of a bad network. Both drive this machine and no other.
//!
//! An exchange is one message from every rank to every other:
//!
//! ```text
//! [ headers: u32 ] [ planes: u32 ] [ header: f64 x headers ] [ cut of plane 0: f32 ] [ cut of plane 1 ] ...
//! ```
//!
//! cut into buckets, each behind a head that names run, generation, step, round and bucket. Nothing else is accepted, and
//! nothing twice. A rank has at most one bucket staged for each peer, so what it holds is bounded; once the vectors have
//! grown nothing is allocated. A peer whose message is complete is not listened to until the next exchange: its next
//! message waits in the connection.
//!
//! A message can be begun before its last plane is computed: what is not final yet is held back, and the rest goes out while
//! the rank computes.

use std::ops::Range;
use std::time::Duration;

use super::frame::{HEAD, Head, Identity, Kind, TEXT_MAX};
use super::{GangError, Offer, Part, Rank, Tag};

/// Numbers of a message's body that are sent behind one head: enough to make heads cheap, few enough that sending and
/// receiving take turns.
pub(super) const BUCKET: usize = 256 << 10;
/// A peer that is awaited and has not been heard for so long is lost.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Bytes of the two counts before a message's numbers.
const COUNTS: usize = 8;
/// More numbers for everybody, or more planes, than any rank has.
const HEADER_MAX: usize = 1 << 24;
const PLANES_MAX: usize = 1 << 10;
/// Bytes of the longest message that is believed.
const MESSAGE_MAX: u64 = 1 << 36;

/// What an exchange moves.
pub(super) enum Work<'a> {
    /// A cut of every plane to each rank.
    Exchange(Offer<'a>),
    /// The own cut to every rank, theirs into their places.
    Gather { vector: &'a mut [f32], cuts: &'a [Range<usize>] },
}

impl Work<'_> {
    fn header(&self) -> &[f64] {
        match self {
            Work::Exchange(offer) => offer.header,
            Work::Gather { .. } => &[],
        }
    }

    fn planes(&self) -> usize {
        match self {
            Work::Exchange(offer) => offer.planes.len().checked_div(offer.plane).unwrap_or(0),
            Work::Gather { .. } => 1,
        }
    }

    /// What of a plane goes from `rank` to `peer`.
    fn cut(&self, rank: Rank, peer: Rank) -> &[f32] {
        self.plane(0, rank, peer)
    }

    fn plane(&self, index: usize, rank: Rank, peer: Rank) -> &[f32] {
        match self {
            Work::Exchange(offer) if offer.planes.is_empty() => &[],
            Work::Exchange(offer) => {
                &offer.planes[index * offer.plane..(index + 1) * offer.plane][offer.cuts[peer].clone()]
            }
            Work::Gather { vector, cuts } => &vector[cuts[rank].clone()],
        }
    }
}

/// See the module.
pub(super) struct Conversation {
    identity: Identity,
    bucket: usize,
    tag: Tag,
    peers: Vec<Peer>,
    /// Numbers of the last plane that are final.
    ready: usize,
    /// Whether this rank was told to leave; what it says of that in this exchange; whether any rank says so.
    told_to_leave: bool,
    says_leaving: bool,
    leaving: bool,
    /// Since [`Conversation::sign_of_life`] was asked last: whether numbers have come or gone, and whether an awaited peer
    /// has beaten.
    moved: bool,
    heard_beat: bool,
}

struct Peer {
    out: Outgoing,
    from: Incoming,
    /// When it was last heard, or first awaited.
    heard: Duration,
}

#[derive(Default)]
struct Outgoing {
    /// Bytes of the message, and how many of them were staged.
    total: u64,
    staged: u64,
    buckets: u32,
    /// Ready to go, from `at`; of the message, or a sign of life.
    bytes: Vec<u8>,
    at: usize,
    is_message: bool,
}

impl Outgoing {
    fn is_done(&self) -> bool {
        self.staged == self.total && (self.at == self.bytes.len() || !self.is_message)
    }
}

struct Incoming {
    /// Of the frame that is being received: its head as far as it has come.
    head: [u8; HEAD],
    head_have: usize,
    /// Bytes of its body that are still to come, and where they belong.
    body: usize,
    is_text: bool,
    text: Vec<u8>,
    /// Of the message that is being received.
    got: u64,
    total: u64,
    buckets: u32,
    complete: bool,
    counts: [u8; COUNTS],
    header: Vec<f64>,
    planes: usize,
    numbers: Vec<f32>,
}

impl Conversation {
    pub(super) fn new(identity: Identity, bucket: usize) -> Self {
        let peer = || Peer { out: Outgoing::default(), from: Incoming::default(), heard: Duration::ZERO };
        Conversation {
            identity,
            bucket,
            tag: Tag { generation: identity.generation, step: 0, round: 0 },
            peers: (0..identity.world).map(|_| peer()).collect(),
            ready: usize::MAX,
            told_to_leave: false,
            says_leaving: false,
            leaving: false,
            moved: false,
            heard_beat: false,
        }
    }

    /// From now on this rank says that it was told to leave.
    pub(super) fn leave(&mut self) {
        self.told_to_leave = true;
    }

    /// Whether any rank was told to leave, as of the latest exchange; the same on all ranks.
    pub(super) fn leaving(&self) -> bool {
        self.leaving
    }

    /// The other ranks, the next one first: so not all begin with the same.
    pub(super) fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let Identity { rank, world, .. } = self.identity;
        (1..world).map(move |step| (rank + step) % world)
    }

    /// Begins an exchange whose numbers are all final.
    pub(super) fn begin(&mut self, tag: Tag, work: &Work<'_>, now: Duration) {
        let Identity { rank, generation, .. } = self.identity;
        self.tag = Tag { generation, ..tag };
        self.ready = usize::MAX;
        // Every message of this rank in this exchange says the same.
        self.says_leaving = self.told_to_leave;
        self.leaving = self.told_to_leave;
        (self.moved, self.heard_beat) = (false, false);
        for peer in self.others() {
            let Peer { out, from, heard } = &mut self.peers[peer];
            out.total = message_bytes(work.header().len(), work.planes(), work.cut(rank, peer).len());
            (out.staged, out.buckets) = (0, 0);
            (from.got, from.total, from.buckets, from.complete) = (0, 0, 0, false);
            *heard = now;
        }
    }

    /// From now on only `ready` numbers of the last plane are final; `usize::MAX` when all are. Peers count as heard: this
    /// rank has not listened while it computed.
    pub(super) fn hold_back(&mut self, ready: usize, now: Duration) {
        self.ready = ready;
        self.peers.iter_mut().for_each(|peer| peer.heard = now);
    }

    /// Bytes of the message to a peer that may be sent.
    fn sendable(&self, peer: Rank, work: &Work<'_>) -> u64 {
        let out = &self.peers[peer].out;
        match work {
            Work::Exchange(offer) if self.ready < offer.plane => {
                let cut = &offer.cuts[peer];
                let held_back = cut.end - self.ready.clamp(cut.start, cut.end);
                out.total - 4 * if work.planes() > 0 { held_back as u64 } else { 0 }
            }
            _ => out.total,
        }
    }

    /// Whether all is sent and all has come.
    pub(super) fn is_over(&self) -> bool {
        self.others().all(|peer| self.is_over_with(peer))
    }

    pub(super) fn is_over_with(&self, peer: Rank) -> bool {
        self.peers[peer].from.complete && self.peers[peer].out.is_done()
    }

    /// Whether nothing of a bucket's body is still to come from this peer.
    pub(super) fn is_between_buckets(&self, peer: Rank) -> bool {
        let from = &self.peers[peer].from;
        from.body == 0 || from.is_text
    }

    /// Fails when an awaited peer has been silent for too long.
    pub(super) fn tick(&self, now: Duration) -> Result<(), GangError> {
        let silent = |peer: &Rank| !self.is_over_with(*peer) && now.saturating_sub(self.peers[*peer].heard) > SILENCE;
        match self.others().find(silent) {
            None => Ok(()),
            Some(rank) => {
                let cause = format!("nothing heard from it for {} s", SILENCE.as_secs());
                Err(GangError::PeerLost { rank, cause })
            }
        }
    }

    /// What is to be sent to a peer now; empty when there is nothing. Stages the next bucket when the last one is gone.
    pub(super) fn outgoing(&mut self, peer: Rank, work: &Work<'_>) -> &[u8] {
        let out = &self.peers[peer].out;
        let sendable = self.sendable(peer, work);
        if out.at == out.bytes.len() && out.staged < sendable {
            self.stage(peer, work, sendable);
        }
        let out = &self.peers[peer].out;
        &out.bytes[out.at..]
    }

    pub(super) fn has_outgoing(&self, peer: Rank) -> bool {
        !self.peers[peer].out.is_done()
    }

    fn stage(&mut self, peer: Rank, work: &Work<'_>, sendable: u64) {
        let rank = self.identity.rank;
        let leaving = self.says_leaving;
        let out = &mut self.peers[peer].out;
        let length = (sendable - out.staged).min(self.bucket as u64);
        let head = Head {
            leaving,
            step: self.tag.step,
            round: self.tag.round,
            bucket: out.buckets,
            total: out.total,
            ..self.identity.head(Kind::Bucket, peer, length as usize)
        };
        out.bytes.clear();
        out.at = 0;
        out.is_message = true;
        out.bytes.extend_from_slice(&head.write());
        let header = work.header();
        let counts = [(header.len() as u32).to_le_bytes(), (work.planes() as u32).to_le_bytes()];
        let cuts = (0..work.planes()).map(|plane| bytes_of_f32(work.plane(plane, rank, peer)));
        let pieces = [counts.as_flattened(), bytes_of_f64(header)].into_iter().chain(cuts);
        copy_range(pieces, out.staged..out.staged + length, &mut out.bytes);
        out.staged += length;
        out.buckets += 1;
    }

    /// So much of it is on its way.
    pub(super) fn sent(&mut self, peer: Rank, bytes: usize) {
        let out = &mut self.peers[peer].out;
        out.at += bytes;
        self.moved |= out.is_message && bytes > 0;
    }

    /// What a rank in an exchange is to say every second to the peers that have had its whole message: over a slow link, or
    /// behind one that computes for long, they may wait for the next one for many seconds.
    ///
    /// Ranks are never further apart than two rounds, for nobody ends a round that not all have begun. So whoever is
    /// awaited beats itself, or waits in the earlier round for one that does; nothing needs to be passed on twice. `None`
    /// when nothing is heard of those that are awaited: then this rank must not keep others waiting for what will never
    /// come.
    pub(super) fn sign_of_life(&mut self) -> Option<Kind> {
        let (moved, heard_beat) = (std::mem::take(&mut self.moved), std::mem::take(&mut self.heard_beat));
        if moved { Some(Kind::Beat) } else { heard_beat.then_some(Kind::Echo) }
    }

    /// Puts a sign of life, [`Kind::Beat`] or [`Kind::Echo`], before whatever is sent next; nothing when something is on
    /// its way, which is a sign itself. Between exchanges, or when there is nothing to be sent to this peer.
    pub(super) fn beat(&mut self, peer: Rank, kind: Kind) -> &[u8] {
        self.put(peer, kind, &[]);
        let out = &self.peers[peer].out;
        &out.bytes[out.at..]
    }

    /// Tells a peer why this rank ends; nothing when a bucket is half sent.
    pub(super) fn fail(&mut self, peer: Rank, cause: &str) -> &[u8] {
        let cause = &cause.as_bytes()[..cause.len().min(TEXT_MAX)];
        self.put(peer, Kind::Failed, cause);
        let out = &self.peers[peer].out;
        &out.bytes[out.at..]
    }

    fn put(&mut self, peer: Rank, kind: Kind, body: &[u8]) {
        let head = self.identity.head(kind, peer, body.len());
        let out = &mut self.peers[peer].out;
        if out.at == out.bytes.len() {
            out.bytes.clear();
            out.at = 0;
            out.is_message = false;
            out.bytes.extend_from_slice(&head.write());
            out.bytes.extend_from_slice(body);
        }
    }

    /// Where the next bytes of a peer go; empty when it is not listened to.
    pub(super) fn space<'s>(&'s mut self, peer: Rank, work: &'s mut Work<'_>) -> &'s mut [u8] {
        if self.is_over_with(peer) {
            return &mut [];
        }
        let from = &mut self.peers[peer].from;
        if from.body == 0 {
            return &mut from.head[from.head_have..];
        }
        if from.is_text {
            let at = from.text.len() - from.body;
            return &mut from.text[at..];
        }
        let space = from.message_space(peer, work);
        let length = space.0.min(space.1.len());
        &mut space.1[..length]
    }

    /// So many bytes were put where [`Conversation::space`] said.
    ///
    /// # Errors
    /// Whatever is not the next part of the awaited message; a peer that says that it has failed.
    pub(super) fn filled(&mut self, peer: Rank, bytes: usize, work: &Work<'_>, now: Duration) -> Result<(), GangError> {
        self.peers[peer].heard = now;
        let from = &mut self.peers[peer].from;
        if from.body == 0 {
            from.head_have += bytes;
            if from.head_have < HEAD {
                return Ok(());
            }
            from.head_have = 0;
            let head = Head::read(&from.head);
            return self.accept(peer, head);
        }
        from.body -= bytes;
        if from.is_text {
            if from.body > 0 {
                return Ok(());
            }
            let cause = String::from_utf8_lossy(&from.text).into_owned();
            return Err(GangError::PeerFailed { rank: peer, cause });
        }
        from.got += bytes as u64;
        self.moved |= bytes > 0;
        // The counts come first and in one piece: a bucket is longer than they are, and they are asked for alone.
        if from.got == COUNTS as u64 && bytes > 0 {
            self.take_counts(peer, work)?;
        }
        let from = &mut self.peers[peer].from;
        from.complete = from.got == from.total;
        Ok(())
    }

    /// Takes the head of a frame.
    fn accept(&mut self, peer: Rank, head: Option<Head>) -> Result<(), GangError> {
        let refuse = |cause: String| Err(GangError::Refused { rank: peer, cause });
        let Some(head) = head else { return refuse("it does not speak this protocol".to_string()) };
        self.identity.check(&head, peer)?;
        let from = &mut self.peers[peer].from;
        match head.kind {
            Kind::Beat | Kind::Echo if head.length == 0 => {
                self.heard_beat |= head.kind == Kind::Beat;
                Ok(())
            }
            Kind::Failed if head.length as usize <= TEXT_MAX => {
                if head.length == 0 {
                    return Err(GangError::PeerFailed { rank: peer, cause: "without a cause".to_string() });
                }
                from.is_text = true;
                from.body = head.length as usize;
                from.text.clear();
                from.text.resize(from.body, 0);
                Ok(())
            }
            Kind::Bucket => {
                if head.tag() != self.tag || from.complete {
                    return Err(GangError::OutOfStep { rank: peer, got: head.tag(), expected: self.tag });
                }
                if head.bucket != from.buckets {
                    return refuse(format!("it sent bucket {}, expected {}", head.bucket, from.buckets));
                }
                let first = from.buckets == 0;
                let length = u64::from(head.length);
                let fits = if first { length >= COUNTS as u64 } else { head.total == from.total };
                if length == 0 || !fits || from.got + length > head.total {
                    return refuse(format!("its message of {} bytes has a bucket of {length}", head.total));
                }
                from.total = head.total;
                from.buckets += 1;
                from.is_text = false;
                from.body = head.length as usize;
                self.leaving |= head.leaving;
                Ok(())
            }
            kind => refuse(format!("it sent {kind:?} in the middle of a conversation")),
        }
    }

    /// Makes room for what the counts announce.
    fn take_counts(&mut self, peer: Rank, work: &Work<'_>) -> Result<(), GangError> {
        let from = &mut self.peers[peer].from;
        let (headers, planes) = from.counts.split_at(4);
        let count = |bytes: &[u8]| u32::from_le_bytes(std::array::from_fn(|i| bytes[i]));
        let (headers, planes) = (count(headers) as usize, count(planes) as usize);
        let believable = headers <= HEADER_MAX && planes <= PLANES_MAX && from.total <= MESSAGE_MAX;
        // How long a cut is, is for the giver to say, but where it has its place already.
        let room = from.total.saturating_sub(message_bytes(headers, 0, 0)) as usize / 4;
        let cut = room.checked_div(planes).unwrap_or(0);
        let as_agreed = match work {
            Work::Exchange(_) => true,
            Work::Gather { cuts, .. } => (headers, planes, cut) == (0, 1, cuts[peer].len()),
        };
        if !believable || !as_agreed || from.total != message_bytes(headers, planes, cut) {
            let cause = format!(
                "its message of {} bytes says that it has {headers} numbers for all and {planes} planes",
                from.total
            );
            return Err(GangError::Refused { rank: peer, cause });
        }
        from.planes = planes;
        from.header.resize(headers, 0.0);
        if matches!(work, Work::Exchange(_)) {
            from.numbers.resize(planes * cut, 0.0);
        }
        Ok(())
    }

    /// What `peer` gave in the exchange that is over.
    pub(super) fn part(&self, peer: Rank) -> Part<'_> {
        let from = &self.peers[peer].from;
        Part::compact(&from.header, &from.numbers, from.planes)
    }
}

impl Default for Incoming {
    fn default() -> Self {
        Incoming {
            head: [0; HEAD],
            head_have: 0,
            body: 0,
            is_text: false,
            text: Vec::new(),
            got: 0,
            total: 0,
            buckets: 0,
            complete: false,
            counts: [0; COUNTS],
            header: Vec::new(),
            planes: 0,
            numbers: Vec::new(),
        }
    }
}

impl Incoming {
    /// How much of the bucket is still to come, and where the next of it goes.
    fn message_space<'s>(&'s mut self, peer: Rank, work: &'s mut Work<'_>) -> (usize, &'s mut [u8]) {
        let got = self.got as usize;
        if got < COUNTS {
            return (self.body, &mut self.counts[got..]);
        }
        let header = bytes_of_f64_mut(&mut self.header);
        let at = got - COUNTS;
        if at < header.len() {
            return (self.body, &mut header[at..]);
        }
        let at = at - header.len();
        let numbers = match work {
            Work::Exchange(_) => &mut self.numbers[..],
            Work::Gather { vector, cuts } => &mut vector[cuts[peer].clone()],
        };
        (self.body, &mut bytes_of_f32_mut(numbers)[at..])
    }
}

fn message_bytes(header: usize, planes: usize, cut: usize) -> u64 {
    (COUNTS + 8 * header + 4 * planes * cut) as u64
}

/// Appends bytes `range` of the pieces, as if they lay one behind the other.
fn copy_range<'p>(pieces: impl Iterator<Item = &'p [u8]>, range: Range<u64>, target: &mut Vec<u8>) {
    let mut begin = 0;
    for piece in pieces {
        let end = begin + piece.len() as u64;
        let (from, to) = (range.start.clamp(begin, end), range.end.clamp(begin, end));
        target.extend_from_slice(&piece[(from - begin) as usize..(to - begin) as usize]);
        begin = end;
    }
}

fn bytes_of_f32(numbers: &[f32]) -> &[u8] {
    // SAFETY: numbers are plain bytes, without padding.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_of_f64(numbers: &[f64]) -> &[u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_of_f32_mut(numbers: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above, and any bytes are a number.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_of_f64_mut(numbers: &mut [f64]) -> &mut [u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

#[cfg(test)]
mod tests;
