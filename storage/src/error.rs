//! What can go wrong with bytes, named by what the caller can do.
//!
//! Every variant carries the place as the user knows it (a local path, or a URL), so that a message printed at the edge
//! needs no context added on the way up.

use std::error::Error as StdError;
use std::io::ErrorKind;

use crate::location::Location;

/// Storage's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes could not be read, written or committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no location that this build can open: write another.
    #[error("{location}: {reason}")]
    Location {
        /// As the user wrote it.
        location: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// Nothing is there: correct the name (the reason holds the nearest one, where there is one).
    #[error("{location}: {reason}")]
    NotFound {
        /// What was looked for.
        location: String,
        /// `no such file or directory`, and what else is known.
        reason: String,
    },
    /// Something is there already and the caller asked not to replace it.
    #[error("{location}: {reason}")]
    Exists {
        /// What is there.
        location: String,
        /// What it is, and how to replace it.
        reason: String,
    },
    /// Another process was faster: look at its result, then try again.
    #[error("{location}: {reason}")]
    Conflict {
        /// What both wanted to write.
        location: String,
        /// What the other did.
        reason: String,
    },
    /// A commit has replaced what was being read: read the table again.
    #[error("{location}: was replaced by another process while it was read: read the table again")]
    Replaced {
        /// The file that is gone.
        location: String,
    },
    /// The bytes are not those that were written: restore them or make them again.
    #[error("{location}: {reason}")]
    Damaged {
        /// The damaged file.
        location: String,
        /// Expected and got.
        reason: String,
    },
    /// The call does not fit what it is applied to (a wrong name, a file where a directory is needed).
    #[error("{location}: {reason}")]
    Invalid {
        /// What the call was about.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No credentials, or none that work: the reason says where they were looked for.
    #[error("{location}: {reason}")]
    Credentials {
        /// The store that asks for them.
        location: String,
        /// Where they come from, and what is wrong with them.
        reason: String,
    },
    /// The store refuses, or does not answer: the reason says what to do.
    #[error("{location}: {reason}")]
    Refused {
        /// What was being read or written.
        location: String,
        /// The store's answer in words.
        reason: String,
    },
    /// The operating system or the store refuses access: change the rights or the place.
    #[error("{location}: permission denied ({source})")]
    Denied {
        /// What may not be touched.
        location: String,
        /// As the store says it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No space is left: make some, or write elsewhere.
    #[error("{location}: no space left on the device ({source})")]
    DiskFull {
        /// What was being written.
        location: String,
        /// As the store says it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Anything else the store reports; trying again may help.
    #[error("{location}: {source}")]
    Store {
        /// What was being read or written.
        location: String,
        /// As the store says it.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl Error {
    /// Names the place of a store's error, and what can be done about it.
    pub fn at(location: &Location, source: object_store::Error) -> Self {
        Self::named(location.to_string(), source)
    }

    /// As [`Error::at`], for a place that is known by its text only.
    pub(crate) fn named(location: String, source: object_store::Error) -> Self {
        match source {
            // Our own reader store wraps an error of ours to pass it through the trait: unwrap it again.
            object_store::Error::Generic { source, .. } if source.is::<Error>() => {
                *source.downcast::<Error>().expect("is::<Error>() has just said so")
            }
            // A missing bucket, explained where it was noticed.
            object_store::Error::NotFound { source, .. } if source.is::<Error>() => {
                *source.downcast::<Error>().expect("is::<Error>() has just said so")
            }
            object_store::Error::NotFound { .. } => {
                Error::NotFound { location, reason: "no such file or directory".into() }
            }
            object_store::Error::AlreadyExists { .. } => Error::Exists { location, reason: "exists already".into() },
            object_store::Error::PermissionDenied { source, .. }
            | object_store::Error::Unauthenticated { source, .. } => Error::Denied { location, source },
            other => match io_kind(&other) {
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge) => {
                    Error::DiskFull { location, source: plain(other) }
                }
                Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                    Error::Denied { location, source: plain(other) }
                }
                _ => Error::Store { location, source: plain(other) },
            },
        }
    }

    /// The first of our own errors in the chain of another's sources.
    pub fn inside<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(own) = error.downcast_ref::<Error>() {
                return Some(own);
            }
            next = error.source();
        }
        None
    }

    pub(crate) fn not_found(location: impl ToString, reason: impl Into<String>) -> Self {
        Error::NotFound { location: location.to_string(), reason: reason.into() }
    }

    pub(crate) fn damaged(location: impl ToString, reason: impl Into<String>) -> Self {
        Error::Damaged { location: location.to_string(), reason: reason.into() }
    }

    pub(crate) fn invalid(location: impl ToString, reason: impl Into<String>) -> Self {
        Error::Invalid { location: location.to_string(), reason: reason.into() }
    }

    pub(crate) fn conflict(location: impl ToString, reason: impl Into<String>) -> Self {
        Error::Conflict { location: location.to_string(), reason: reason.into() }
    }

    /// For passing an error of ours through a method of `ObjectStore`; [`Error::at`] takes it out again.
    pub(crate) fn into_store_error(self) -> object_store::Error {
        object_store::Error::Generic { store: "gristmill", source: Box::new(self) }
    }
}

/// Drops the "Generic LocalFileSystem error:" that says nothing to a user.
fn plain(error: object_store::Error) -> Box<dyn StdError + Send + Sync> {
    match error {
        object_store::Error::Generic { source, .. } => source,
        other => Box::new(other),
    }
}

/// The kind of the innermost operating-system error in the chain of sources.
pub(crate) fn io_kind(error: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            found = Some(io.kind());
        }
        next = error.source();
    }
    found
}
