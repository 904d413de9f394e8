//! What a coordinator and the ranks of its gang say to each other, over one connection for each rank: a short JSON text
//! that says what it is, and bytes that only the task understands.
//!
//! ```text
//! [ "GMC1" once, from the coordinator ] then [ text: u32 ] [ bytes: u32 ] [ JSON ] [ bytes ] ...
//! ```

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::RunNumber;
use super::{GangError, Rank};
use crate::error::Error;

/// The first bytes of a coordinator's connection.
pub(super) const MAGIC: [u8; 4] = *b"GMC1";
/// Bytes of the two lengths.
pub(super) const LENGTHS: usize = 8;
/// The longest text, and the most bytes, that are believed.
const TEXT_MAX: usize = 16 << 20;
const BYTES_MAX: usize = 2 << 30;

/// From the coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum ToRank {
    /// The first message; its bytes are the order.
    Begin(Begin),
    /// The generation is over.
    Halt(Halted),
    /// Still there.
    Beat,
}

/// What a rank has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) run: String,
    pub(super) generation: u32,
    pub(super) rank: Rank,
    pub(super) task: String,
    /// Host and port of every rank.
    pub(super) peers: Vec<(String, u16)>,
}

impl Begin {
    /// The run as frames name it; `None` when it has no proper name.
    pub(super) fn number(&self) -> Option<RunNumber> {
        uuid::Uuid::parse_str(&self.run).ok().map(|run| run.as_u128())
    }
}

/// Why a generation is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Halted {
    /// The user stopped the run.
    Cancelled,
    /// A rank is gone or has failed.
    Lost { rank: Rank, cause: String },
}

impl From<&GangError> for Halted {
    fn from(error: &GangError) -> Self {
        match error {
            GangError::Cancelled => Halted::Cancelled,
            GangError::PeerFailed { rank, cause } | GangError::PeerLost { rank, cause } => {
                Halted::Lost { rank: *rank, cause: cause.clone() }
            }
            GangError::Refused { rank, .. } | GangError::OutOfStep { rank, .. } => {
                Halted::Lost { rank: *rank, cause: error.to_string() }
            }
        }
    }
}

impl From<Halted> for GangError {
    fn from(halted: Halted) -> Self {
        match halted {
            Halted::Cancelled => GangError::Cancelled,
            Halted::Lost { rank, cause } => GangError::PeerLost { rank, cause },
        }
    }
}

/// From a rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum FromRank {
    /// Still there; the newest step whose exchange has ended.
    Beat { step: Option<u64> },
    /// Its bytes are a report of the task.
    Report,
    /// The last message; its bytes are the result, if there is one.
    Ended { step: Option<u64>, how: How },
}

/// How a rank has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum How {
    Done,
    Left { own: bool },
    Failed(RankError),
    Broken { cause: String, suspect: Option<Rank> },
}

/// A rank's own error on its way to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RankError {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum ErrorKind {
    Invalid,
    Usage,
    Cancelled,
    Cluster,
}

impl From<&Error> for RankError {
    fn from(error: &Error) -> Self {
        let (kind, message, hint) = match error.innermost() {
            Error::Invalid { message, hint, .. } => (ErrorKind::Invalid, message.clone(), hint.clone()),
            Error::Usage(message) => (ErrorKind::Usage, message.clone(), None),
            Error::Cancelled => (ErrorKind::Cancelled, String::new(), None),
            Error::Cluster(message) => (ErrorKind::Cluster, message.clone(), None),
            other => (ErrorKind::Invalid, other.to_string(), None),
        };
        RankError { kind, message, hint }
    }
}

impl From<RankError> for Error {
    fn from(error: RankError) -> Self {
        let RankError { kind, message, hint } = error;
        match kind {
            ErrorKind::Invalid => hint.into_iter().fold(Error::invalid(message), |error, hint| error.with_hint(hint)),
            ErrorKind::Usage => Error::Usage(message),
            ErrorKind::Cancelled => Error::Cancelled,
            ErrorKind::Cluster => Error::Cluster(message),
        }
    }
}

/// A message as it travels.
///
/// # Errors
/// More bytes than a message may have.
pub(super) fn encode<T: Serialize>(message: &T, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(message)?;
    if text.len() > TEXT_MAX || bytes.len() > BYTES_MAX {
        let told = format!("a message of {} bytes to or from a rank is too long", text.len() + bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, told));
    }
    let mut out = Vec::with_capacity(LENGTHS + text.len() + bytes.len());
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&text);
    out.extend_from_slice(bytes);
    Ok(out)
}

/// The lengths of text and bytes.
///
/// # Errors
/// Lengths that no message has.
pub(super) fn lengths(head: [u8; LENGTHS]) -> io::Result<(usize, usize)> {
    let length = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i])) as usize;
    let (text, bytes) = (length(0), length(4));
    if text > TEXT_MAX || bytes > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak this protocol"));
    }
    Ok((text, bytes))
}

/// A message from its text.
///
/// # Errors
/// Text that is none.
pub(super) fn decode<T: DeserializeOwned>(text: &[u8]) -> io::Result<T> {
    serde_json::from_slice(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a message from a connection of the service.
///
/// # Errors
/// The connection's; what is no message.
pub(super) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<(T, Vec<u8>)> {
    let mut head = [0; LENGTHS];
    stream.read_exact(&mut head)?;
    let (text, bytes) = lengths(head)?;
    let (mut text, mut body) = (vec![0; text], vec![0; bytes]);
    stream.read_exact(&mut text)?;
    stream.read_exact(&mut body)?;
    Ok((decode(&text)?, body))
}

/// Writes a message to a connection of the service.
///
/// # Errors
/// The connection's.
pub(super) fn write<T: Serialize>(stream: &mut impl Write, message: &T, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&encode(message, bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_errors_arrive_as_they_were() {
        let error = Error::invalid("training diverged at step 7").with_hint("lower LEARN_RATE");
        let how = How::Failed(RankError::from(&error));
        let sent = encode(&FromRank::Ended { step: Some(7), how }, b"bytes").unwrap();
        let (message, bytes): (FromRank, _) = read(&mut &sent[..]).unwrap();
        assert_eq!(bytes, b"bytes");
        let FromRank::Ended { step: Some(7), how: How::Failed(told) } = message else { panic!("{message:?}") };
        let Error::Invalid { message, hint, .. } = Error::from(told) else { panic!("another kind") };
        assert_eq!((message.as_str(), hint.as_deref()), ("training diverged at step 7", Some("lower LEARN_RATE")));
        for (error, expected) in [
            (Error::Cancelled, "cancelled"),
            (Error::Cluster("the scheduler is lost".into()), "the scheduler is lost"),
            (Error::Usage("ml.seed: expected a number".into()), "ml.seed: expected a number"),
        ] {
            assert_eq!(Error::from(RankError::from(&error)).to_string(), expected);
        }
        assert!(read::<FromRank>(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).is_err());
    }
}
