//! What ranks say to each other: frames of a fixed head and a body. Numbers travel as the machine has them, which is
//! little-endian; others are refused when the program is built.

use super::{GangError, Rank, Tag};

#[cfg(target_endian = "big")]
compile_error!("gangs speak little-endian");

/// Bytes of a frame's head.
pub(super) const HEAD: usize = 64;
const MAGIC: [u8; 4] = *b"GMG1";
/// The longest text that a rank sends.
pub(super) const TEXT_MAX: usize = 4096;

/// Names a run on the wire.
pub(super) type RunNumber = u128;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first of a connection, from the rank that opened it; its body is the fingerprint.
    Hello,
    /// The answer to it; its body is the fingerprint.
    Welcome,
    /// The other answer; its body says why.
    Refused,
    /// A piece of an exchange's message.
    Bucket,
    /// Still alive: it computes, or its numbers move.
    Beat,
    /// The rank has failed; its body says why.
    Failed,
    /// Still alive: it waits for one that beats. Never passed on, so those who wait for each other do not echo for ever.
    Echo,
}

const KINDS: [Kind; 7] =
    [Kind::Hello, Kind::Welcome, Kind::Refused, Kind::Bucket, Kind::Beat, Kind::Failed, Kind::Echo];

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Whether the sender was told to leave.
    pub(super) leaving: bool,
    pub(super) run: RunNumber,
    pub(super) generation: u32,
    pub(super) from: u32,
    /// To whom, so that a connection that was made to the wrong process is noticed.
    pub(super) to: u32,
    pub(super) step: u64,
    pub(super) round: u32,
    /// Which piece of the message.
    pub(super) bucket: u32,
    /// Bytes of the whole message.
    pub(super) total: u64,
    /// Bytes of this frame's body.
    pub(super) length: u32,
}

impl Head {
    pub(super) fn write(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = KINDS.iter().position(|kind| *kind == self.kind).map_or(u8::MAX, |at| at as u8);
        bytes[5] = u8::from(self.leaving);
        bytes[8..24].copy_from_slice(&self.run.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.generation.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.from.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.to.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.round.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.step.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.bucket.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.length.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.total.to_le_bytes());
        bytes
    }

    /// `None` when this is no head.
    pub(super) fn read(bytes: &[u8; HEAD]) -> Option<Head> {
        let four = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let eight = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes[..4] != MAGIC || bytes[5] > 1 {
            return None;
        }
        Some(Head {
            kind: *KINDS.get(usize::from(bytes[4]))?,
            leaving: bytes[5] == 1,
            run: u128::from_le_bytes(std::array::from_fn(|i| bytes[8 + i])),
            generation: four(24),
            from: four(28),
            to: four(32),
            round: four(36),
            step: eight(40),
            bucket: four(48),
            length: four(52),
            total: eight(56),
        })
    }

    pub(super) fn tag(&self) -> Tag {
        Tag { generation: self.generation, step: self.step, round: self.round }
    }
}

/// One rank of one generation of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) run: RunNumber,
    pub(super) generation: u32,
    pub(super) rank: Rank,
    pub(super) world: usize,
}

impl Identity {
    /// The head of a frame to `peer` that belongs to no exchange.
    pub(super) fn head(&self, kind: Kind, peer: Rank, length: usize) -> Head {
        Head {
            kind,
            leaving: false,
            run: self.run,
            generation: self.generation,
            from: self.rank as u32,
            to: peer as u32,
            step: 0,
            round: 0,
            bucket: 0,
            total: length as u64,
            length: length as u32,
        }
    }

    /// Whether a frame comes from `peer` and is for this rank, in this generation of this run.
    pub(super) fn check(&self, head: &Head, peer: Rank) -> Result<(), GangError> {
        let refuse = |cause: String| Err(GangError::Refused { rank: peer, cause });
        if head.run != self.run {
            return refuse(format!("it speaks for run {:032x}, this is run {:032x}", head.run, self.run));
        }
        if head.generation != self.generation {
            return refuse(format!("it is in generation {}, this is generation {}", head.generation, self.generation));
        }
        if (head.from as usize, head.to as usize) != (peer, self.rank) {
            return refuse(format!(
                "it speaks as worker {} to worker {}, expected {peer} to {}",
                head.from, head.to, self.rank
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_written() {
        for kind in KINDS {
            let head = Head {
                kind,
                leaving: kind == Kind::Beat,
                run: u128::MAX - 7,
                generation: 3,
                from: 1,
                to: 2,
                step: 1 << 40,
                round: 9,
                bucket: 17,
                total: 1 << 33,
                length: 4096,
            };
            assert_eq!(Head::read(&head.write()), Some(head));
        }
        assert_eq!(Head::read(&[0; HEAD]), None);
        let mut bytes = Identity { run: 1, generation: 1, rank: 0, world: 2 }.head(Kind::Beat, 1, 0).write();
        bytes[4] = 77;
        assert_eq!(Head::read(&bytes), None);
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let own = Identity { run: 7, generation: 2, rank: 0, world: 3 };
        let peer = Identity { run: 7, generation: 2, rank: 1, world: 3 };
        assert!(own.check(&peer.head(Kind::Beat, 0, 0), 1).is_ok());
        for (peer, expected) in [
            (Identity { generation: 1, ..peer }, "worker 1 is refused: it is in generation 1, this is generation 2"),
            (Identity { rank: 2, ..peer }, "worker 1 is refused: it speaks as worker 2 to worker 0, expected 1 to 0"),
            (
                Identity { run: 8, ..peer },
                "worker 1 is refused: it speaks for run 00000000000000000000000000000008, this is run \
                 00000000000000000000000000000007",
            ),
        ] {
            assert_eq!(own.check(&peer.head(Kind::Beat, 0, 0), 1).unwrap_err().to_string(), expected);
        }
    }
}
