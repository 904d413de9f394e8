//! The session's own directory for spilled data. It goes with the session; what a killed process left behind is removed
//! by the next session that looks into the same place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const PREFIX: &str = "gristmill-";

/// A directory that is removed when dropped.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory {
    path: PathBuf,
}

impl TemporaryDirectory {
    /// Makes one in `parent`, or in the system's temporary directory.
    pub(crate) fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let name = format!("{PREFIX}{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let path = parent.join(name);
        fs::create_dir_all(&path).map_err(|error| unusable(&parent, &error))?;
        remove_leftovers(&parent);
        Ok(TemporaryDirectory { path })
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
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split_once('-'));
        if let Some(Ok(process)) = owner.map(|(process, _)| process.parse::<i32>())
            && process > 0
            && is_gone(process)
        {
            // Another session may be removing it too; either way it goes.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_gone(process: i32) -> bool {
    // SAFETY: signal 0 sends nothing; it only asks whether the process exists.
    let alive = unsafe { libc::kill(process, 0) } == 0;
    !alive && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_its_owner_and_takes_leftovers_along() {
        let parent = tempfile::tempdir().unwrap();
        // No process has this number: it is above the largest that Linux gives out.
        let dead = parent.path().join("gristmill-2000000000-abc");
        let alive = parent.path().join(format!("gristmill-{}-abc", std::process::id()));
        let foreign = parent.path().join("gristmill-notes");
        for path in [&dead, &alive, &foreign] {
            fs::create_dir(path).unwrap();
        }
        let directory = TemporaryDirectory::new(Some(parent.path())).unwrap();
        let path = directory.path().to_path_buf();
        fs::write(path.join("spilled"), "x").unwrap();
        assert_eq!((path.exists(), dead.exists(), alive.exists(), foreign.exists()), (true, false, true, true));
        drop(directory);
        assert!(!path.exists());
    }
}
