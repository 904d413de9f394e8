//! The session's own directory for spilled data. It goes with the session; what a killed process left behind is removed
//! by the next session that looks into the same place. Whose process lives is told by a lock on a file in the directory,
//! which the kernel drops with the process, and never by its number: in another container, or on another machine that sees
//! the directory, the same number is another process or none.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const PREFIX: &str = "gristmill-";
/// While it is made it has another name, so that nobody finds it without its lock.
const NEW_PREFIX: &str = ".gristmill-new-";
const LOCK: &str = ".lock";

/// A directory that is removed when dropped.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
    _lock: File,
}

impl TemporaryDirectory {
    /// Makes one in `parent`, or in the system's temporary directory.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let own = uuid::Uuid::new_v4().simple();
        let (new, path) =
            (parent.join(format!("{NEW_PREFIX}{own}")), parent.join(format!("{PREFIX}{}-{own}", std::process::id())));
        fs::create_dir_all(&new).map_err(|error| unusable(&parent, &error))?;
        let locked = File::create_new(new.join(LOCK)).and_then(|lock| {
            // Without locks nobody's directory is removed by others.
            let _ = lock.try_lock();
            fs::rename(&new, &path).map(|()| lock)
        });
        let lock = locked.map_err(|error| {
            let _ = fs::remove_dir_all(&new);
            unusable(&parent, &error)
        })?;
        remove_leftovers(&parent);
        Ok(TemporaryDirectory { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the temporary directory");
        }
    }
}

fn unusable(parent: &Path, error: &io::Error) -> Error {
    Error::Usage(format!("engine.temp_dir: cannot make a directory in {}: {error}", parent.display()))
}

/// Removes the directories of processes that are gone.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            remove_abandoned(&entry.path());
        }
    }
}

/// Removes a directory whose lock nobody holds. One without a lock is not ours to judge.
fn remove_abandoned(directory: &Path) {
    let Ok(lock) = OpenOptions::new().read(true).write(true).open(directory.join(LOCK)) else { return };
    match lock.try_lock() {
        // Another session may be removing it too; either way it goes.
        Ok(()) => drop(fs::remove_dir_all(directory)),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_owner_and_takes_leftovers_along() {
        let parent = tempfile::tempdir().unwrap();
        // The number in a name means nothing: 1 lives, and the other one does not.
        let dead = parent.path().join("gristmill-1-abc");
        let alive = parent.path().join("gristmill-2000000000-abc");
        let foreign = parent.path().join("gristmill-notes");
        for path in [&dead, &alive, &foreign] {
            fs::create_dir(path).unwrap();
        }
        File::create(dead.join(LOCK)).unwrap();
        let held = File::create(alive.join(LOCK)).unwrap();
        held.lock().unwrap();
        let directory = TemporaryDirectory::new(Some(parent.path())).unwrap();
        let path = directory.path().to_path_buf();
        fs::write(path.join("spilled"), "x").unwrap();
        assert_eq!((path.exists(), dead.exists(), alive.exists(), foreign.exists()), (true, false, true, true));
        // The living one is as safe from another session.
        let other = TemporaryDirectory::new(Some(parent.path())).unwrap();
        assert!(path.exists() && alive.exists());
        drop(other);
        drop(directory);
        assert!(!path.exists());
        let names = fs::read_dir(parent.path()).unwrap().count();
        assert_eq!(names, 2, "nothing is left of directories in the making");
    }
}
