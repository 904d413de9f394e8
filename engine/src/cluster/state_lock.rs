//! A scheduler's state directory is its own: a second scheduler would run the first one's jobs again. The lock goes with
//! the process, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

const NAME: &str = "lock";

/// The directory is this process's until this is dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the directory, which is made when there is none. `owner` tells others who has it, such as the address of the
    /// scheduler.
    ///
    /// # Errors
    /// A directory that another scheduler has (names it), or that cannot be made or written to.
    pub fn take(directory: &Path, owner: &str) -> Result<Self> {
        let path = directory.join(NAME);
        let unusable = |error: std::io::Error| Error::Usage(format!("{} cannot be written: {error}", path.display()));
        std::fs::create_dir_all(directory).map_err(unusable)?;
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut known = String::new();
                let _ = file.read_to_string(&mut known);
                let known = if known.trim().is_empty() { "another scheduler" } else { known.trim() };
                return Err(Error::Usage(format!(
                    "the state directory {} is that of {known}: give this scheduler one of its own with --state-dir",
                    directory.display()
                )));
            }
            // A file system without locks: nobody can be told from anybody.
            Err(TryLockError::Error(error)) => {
                tracing::warn!(path = %path.display(), %error, "the state directory cannot be locked");
            }
        }
        let text = format!("{owner} (process {})\n", std::process::id());
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(unusable)?;
        Ok(StateLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("new/state");
        let lock = StateLock::take(&directory, "the scheduler at a:1").unwrap();
        let error = StateLock::take(&directory, "the scheduler at b:2").unwrap_err().to_string();
        assert!(error.contains("that of the scheduler at a:1 (process "), "{error}");
        assert!(error.contains("new/state"), "{error}");
        drop(lock);
        StateLock::take(&directory, "the scheduler at b:2").unwrap();
    }
}
