//! A file of training rows that all workers see, as its writer tells of it. Its reader refuses bytes that are not the
//! writer's.

use std::fmt;

use bytes::Bytes;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use storage::{Location, Stores, WrittenFile, sha256_hex};
use tokio::runtime::Handle;

/// What a writer tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpreadFile {
    /// Where it is, as text.
    path: String,
    /// Its rows.
    pub(super) rows: u64,
    bytes: u64,
    sha256: String,
}

impl SpreadFile {
    pub(super) fn of(file: &WrittenFile) -> Result<Self> {
        let sha256 = file.sha256.clone().ok_or_else(|| {
            Error::invalid(format!(
                "{}: was written without a hash: another version is running the executors",
                file.path
            ))
        })?;
        Ok(SpreadFile { path: file.path.to_string(), rows: file.rows, bytes: file.bytes, sha256 })
    }

    /// Where it is.
    pub(super) fn location(&self) -> Result<Location> {
        Ok(Location::parse(&self.path)?)
    }
}

/// A file as one process sees it.
pub(super) struct SharedFile {
    pub(super) file: SpreadFile,
    pub(super) stores: Stores,
    /// Waits for the store.
    pub(super) runtime: Handle,
}

impl SharedFile {
    /// Its bytes, when they are those that were written.
    ///
    /// # Errors
    /// A file that is missing or damaged, by its path; the store's.
    pub(super) fn read(&self) -> Result<Bytes> {
        let at = self.file.location()?;
        let bytes = self.runtime.block_on(self.stores.get(&at))?;
        let damaged = |reason: String| {
            Error::from(storage::Error::Damaged { location: at.to_string(), reason: format!("is damaged: {reason}") })
        };
        if bytes.len() as u64 != self.file.bytes {
            return Err(damaged(format!("it has {} bytes, {} were written", bytes.len(), self.file.bytes)));
        }
        let got = sha256_hex(&bytes);
        if got != self.file.sha256 {
            return Err(damaged(format!("its SHA-256 is {got}, {} was written", self.file.sha256)));
        }
        Ok(bytes)
    }
}

impl fmt::Debug for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}
