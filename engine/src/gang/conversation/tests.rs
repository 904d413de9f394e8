//! Ranks that compute and talk over wires of so many bytes a second, on a virtual clock.

use std::collections::VecDeque;

use super::*;

const WORLD: usize = 3;
const CUT: usize = 1200;
const ROUNDS: u32 = 2;
const QUICK: Rooms = [[usize::MAX; WORLD]; WORLD];
const AT_ONCE: [u64; WORLD] = [0; WORLD];

/// Bytes that are under way, by sender and receiver.
type Wires = [[VecDeque<u8>; WORLD]; WORLD];
/// Bytes that go from one to the other in a second.
type Rooms = [[usize; WORLD]; WORLD];

/// A rank that announces half of its numbers at once, computes until a second, exchanges and gathers.
struct Talker {
    conversation: Conversation,
    vector: Vec<f32>,
    round: u32,
    computes_until: u64,
}

impl Talker {
    fn new(rank: Rank, computes_until: u64) -> Self {
        let identity = Identity { run: 5, generation: 2, rank, world: WORLD };
        let conversation = Conversation::new(identity, 512);
        let mut talker = Talker { conversation, vector: vec![rank as f32; WORLD * CUT], round: 0, computes_until };
        talker.begin(Duration::ZERO);
        if computes_until > 0 {
            talker.conversation.hold_back(WORLD * CUT / 2, Duration::ZERO);
        }
        talker
    }

    /// What it does with the conversation in this round: first it exchanges, then it gathers.
    fn talk<T>(&mut self, body: impl FnOnce(&mut Conversation, &mut Work<'_>) -> T) -> T {
        let cuts: Vec<_> = (0..WORLD).map(|rank| rank * CUT..(rank + 1) * CUT).collect();
        let mut work = match self.round {
            0 => Work::Exchange(Offer { header: &[], planes: &self.vector, plane: WORLD * CUT, cuts: &cuts }),
            _ => Work::Gather { vector: &mut self.vector, cuts: &cuts },
        };
        body(&mut self.conversation, &mut work)
    }

    fn begin(&mut self, now: Duration) {
        let tag = Tag { generation: 2, step: 0, round: self.round };
        self.talk(|conversation, work| conversation.begin(tag, work, now));
    }

    fn has_ended(&self) -> bool {
        self.round == ROUNDS
    }

    fn computes(&self, second: u64) -> bool {
        second < self.computes_until
    }

    /// Sends at most so many bytes; how many it were.
    fn say(&mut self, peer: Rank, room: usize, wire: &mut VecDeque<u8>) -> usize {
        self.talk(|conversation, work| {
            let bytes = conversation.outgoing(peer, work);
            let sent = bytes.len().min(room);
            wire.extend(&bytes[..sent]);
            conversation.sent(peer, sent);
            sent
        })
    }

    /// Receives what has come; whether that was anything.
    fn hear(&mut self, peer: Rank, wire: &mut VecDeque<u8>, now: Duration) -> Result<bool, GangError> {
        let mut any = false;
        loop {
            let heard = self.talk(|conversation, work| {
                let space = conversation.space(peer, work);
                let length = space.len().min(wire.len());
                space.iter_mut().zip(wire.drain(..length)).for_each(|(space, byte)| *space = byte);
                if length == 0 { Ok(0) } else { conversation.filled(peer, length, work, now).map(|()| length) }
            })?;
            if heard == 0 {
                return Ok(any);
            }
            any = true;
        }
    }

    /// Goes on to the next round when this one is over; whether it is.
    fn turn(&mut self, now: Duration) -> bool {
        let is_over = !self.has_ended() && self.conversation.is_over();
        if is_over {
            self.round += 1;
            if !self.has_ended() {
                self.begin(now);
            }
        }
        is_over
    }

    /// What it says every second. Like a thread of its own, it does so while the rank computes and after the last round.
    fn beat(&mut self, rank: Rank, second: u64, wires: &mut Wires) {
        let idle = self.has_ended() || self.computes(second);
        let Some(kind) = (if idle { Some(Kind::Beat) } else { self.conversation.sign_of_life() }) else { return };
        for peer in self.conversation.others() {
            if idle || !self.conversation.has_outgoing(peer) {
                let frame = self.conversation.beat(peer, kind).to_vec();
                wires[rank][peer].extend(&frame);
                self.conversation.sent(peer, frame.len());
            }
        }
    }
}

/// All that moves within a second.
fn pass(talkers: &mut [Talker], wires: &mut Wires, mut left: Rooms, second: u64) -> Result<(), GangError> {
    let now = Duration::from_secs(second);
    let mut moved = true;
    while std::mem::take(&mut moved) {
        for (rank, talker) in talkers.iter_mut().enumerate() {
            // It announces, and does not look at its connections again before it has computed.
            if talker.computes(second) && second > 0 {
                continue;
            }
            for peer in talker.conversation.others() {
                if talker.has_ended() {
                    break;
                }
                let sent = talker.say(peer, left[rank][peer], &mut wires[rank][peer]);
                left[rank][peer] -= sent;
                moved |= sent > 0;
                moved |= talker.hear(peer, &mut wires[peer][rank], now)?;
            }
            moved |= !talker.computes(second) && talker.turn(now);
        }
    }
    Ok(())
}

/// Talks until all have ended; gives the seconds.
fn talk(rooms: Rooms, compute: [u64; WORLD]) -> Result<u64, GangError> {
    let mut talkers: Vec<Talker> = (0..WORLD).map(|rank| Talker::new(rank, compute[rank])).collect();
    let mut wires = Wires::default();
    for second in 0..1000 {
        let now = Duration::from_secs(second);
        for talker in talkers.iter_mut().filter(|talker| second > 0 && talker.computes_until == second) {
            talker.conversation.hold_back(usize::MAX, now);
        }
        pass(&mut talkers, &mut wires, rooms, second)?;
        if talkers.iter().all(Talker::has_ended) {
            let whole: Vec<f32> = (0..WORLD).flat_map(|rank| [rank as f32; CUT]).collect();
            assert!(talkers.iter().all(|talker| talker.vector == whole), "all have gathered what the others have");
            return Ok(second);
        }
        for (rank, talker) in talkers.iter_mut().enumerate() {
            if !talker.has_ended() && !talker.computes(second) {
                talker.conversation.tick(now)?;
            }
            talker.beat(rank, second, &mut wires);
        }
    }
    panic!("they never come to an end");
}

/// A link of so many bytes a second, each of the six in turn, and a host that receives, or sends, so slowly.
fn slow(bytes: usize) -> Vec<Rooms> {
    let each = |is_slow: &dyn Fn(Rank, Rank) -> bool| {
        let room = |from, to| if is_slow(from, to) { bytes } else { usize::MAX };
        std::array::from_fn(|from| std::array::from_fn(|to| room(from, to)))
    };
    let links = (0..WORLD).flat_map(|from| (1..WORLD).map(move |step| (from, (from + step) % WORLD)));
    let links = links.map(|link| each(&|from, to| (from, to) == link));
    let hosts = (0..WORLD).flat_map(|host| [each(&|_, to| to == host), each(&|from, _| from == host)]);
    links.chain(hosts).collect()
}

#[test]
fn a_slow_link_is_no_silence_to_those_who_wait_behind_it() {
    assert_eq!(talk(QUICK, AT_ONCE).unwrap(), 0);
    for rooms in slow(250) {
        let seconds = talk(rooms, AT_ONCE).unwrap();
        assert!(seconds > 3 * SILENCE.as_secs(), "{rooms:?}: {seconds} s");
    }
}

#[test]
fn who_computes_for_long_is_waited_for() {
    for compute in [[20, 0, 0], [0, 20, 0], [0, 0, 20], [7, 8, 40], [40, 1, 0], [13, 40, 40], [1, 40, 26]] {
        let longest = compute.into_iter().max();
        assert_eq!(talk(QUICK, compute).ok(), longest, "{compute:?}");
        for rooms in slow(250) {
            let seconds = talk(rooms, compute).unwrap_or_else(|error| panic!("{compute:?} {rooms:?}: {error}"));
            assert!(Some(seconds) >= longest, "{compute:?} {rooms:?}: {seconds} s");
        }
    }
}

#[test]
fn what_never_comes_is_not_waited_for() {
    for lost in slow(0) {
        for compute in [AT_ONCE, [20, 0, 0], [0, 20, 0], [7, 8, 40]] {
            let error = talk(lost, compute).unwrap_err();
            assert!(matches!(error, GangError::PeerLost { .. }), "{compute:?} {lost:?}: {error}");
        }
    }
    let mut rooms = QUICK;
    rooms[1][0] = 0;
    assert!(matches!(talk(rooms, AT_ONCE), Err(GangError::PeerLost { rank: 1, .. })));
}
