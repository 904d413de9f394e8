//! Ranks that talk over wires of so many bytes a second, on a virtual clock.

use std::collections::VecDeque;

use super::*;

const WORLD: usize = 3;
const CUT: usize = 1200;
const ROUNDS: u32 = 2;

/// Bytes that are under way, by sender and receiver.
type Wires = [[VecDeque<u8>; WORLD]; WORLD];

struct Talker {
    conversation: Conversation,
    vector: Vec<f32>,
    round: u32,
}

impl Talker {
    fn new(rank: Rank) -> Self {
        let identity = Identity { run: 5, generation: 2, rank, world: WORLD };
        let conversation = Conversation::new(identity, 512);
        Talker { conversation, vector: vec![rank as f32; WORLD * CUT], round: 0 }
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

    /// What it says every second.
    fn beat(&mut self, rank: Rank, wires: &mut Wires) {
        if !self.has_ended() && !self.conversation.has_moved() {
            return;
        }
        for peer in self.conversation.others() {
            if !self.conversation.has_outgoing(peer) {
                let frame = self.conversation.beat(peer).to_vec();
                wires[rank][peer].extend(&frame);
                self.conversation.sent(peer, frame.len());
            }
        }
    }
}

/// Talks until all have ended; gives the seconds. `rooms[from][to]` bytes go that way in a second.
fn talk(rooms: [[usize; WORLD]; WORLD]) -> Result<u64, GangError> {
    let mut talkers: Vec<Talker> = (0..WORLD).map(Talker::new).collect();
    let mut wires = Wires::default();
    talkers.iter_mut().for_each(|talker| talker.begin(Duration::ZERO));
    for second in 0..1000 {
        let (now, mut left) = (Duration::from_secs(second), rooms);
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for rank in 0..WORLD {
                for peer in talkers[rank].conversation.others() {
                    if talkers[rank].has_ended() {
                        break;
                    }
                    let sent = talkers[rank].say(peer, left[rank][peer], &mut wires[rank][peer]);
                    left[rank][peer] -= sent;
                    moved |= sent > 0;
                    moved |= talkers[rank].hear(peer, &mut wires[peer][rank], now)?;
                }
                if !talkers[rank].has_ended() && talkers[rank].conversation.is_over() {
                    talkers[rank].round += 1;
                    if !talkers[rank].has_ended() {
                        talkers[rank].begin(now);
                    }
                    moved = true;
                }
            }
        }
        if talkers.iter().all(Talker::has_ended) {
            let whole: Vec<f32> = (0..WORLD).flat_map(|rank| [rank as f32; CUT]).collect();
            assert!(talkers.iter().all(|talker| talker.vector == whole), "all have gathered what the others have");
            return Ok(second);
        }
        for (rank, talker) in talkers.iter_mut().enumerate() {
            if !talker.has_ended() {
                talker.conversation.tick(now)?;
            }
            talker.beat(rank, &mut wires);
        }
    }
    panic!("they never come to an end");
}

#[test]
fn a_slow_link_is_no_silence_to_those_who_wait_behind_it() {
    let quick = [[usize::MAX; WORLD]; WORLD];
    assert_eq!(talk(quick).unwrap(), 0);
    let silence = SILENCE.as_secs();
    for (from, to) in [(0, 1), (1, 0), (2, 1)] {
        let mut rooms = quick;
        rooms[from][to] = 300;
        let seconds = talk(rooms).unwrap();
        assert!(seconds > 3 * silence, "{from} to {to}: {seconds} s");
    }
    // A host that receives slowly, and one that sends slowly, whatever it is.
    for host in 0..WORLD {
        let (mut receives, mut sends) = (quick, quick);
        for peer in 0..WORLD {
            receives[peer][host] = 200;
            sends[host][peer] = 200;
        }
        assert!(talk(receives).unwrap() > 3 * silence);
        assert!(talk(sends).unwrap() > 3 * silence);
    }
}

#[test]
fn what_never_comes_is_not_waited_for() {
    let mut rooms = [[usize::MAX; WORLD]; WORLD];
    rooms[1][0] = 0;
    assert!(matches!(talk(rooms), Err(GangError::PeerLost { rank: 1, .. })));
}
