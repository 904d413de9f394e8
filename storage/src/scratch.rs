//! A directory for files that matter only while somebody works, such as checkpoints.

use std::path::PathBuf;

use crate::directory::Directory;
use crate::error::Result;
use crate::location::Location;
use crate::store::Stores;
use crate::target::missing_directories;

/// Made when its first file is written. Removed, it takes along the directories that were made for it, and those between
/// it and its root that are empty: a killed predecessor made them.
#[derive(Debug, Clone)]
pub struct Scratch {
    root: Directory,
    name: String,
    directory: Directory,
    /// Directories that were not there at first, deepest first.
    missing: Vec<PathBuf>,
}

impl Scratch {
    /// Looks at what is there; makes nothing.
    ///
    /// # Errors
    /// A location whose store cannot be opened.
    pub fn new(stores: &Stores, root: &Location, name: &str) -> Result<Self> {
        let root = Directory::open(stores, &root.as_directory())?;
        let directory = root.child(name);
        let missing = missing_directories(&directory);
        Ok(Scratch { root, name: name.to_string(), directory, missing })
    }

    /// Where the files go.
    pub fn location(&self) -> &Location {
        &self.directory.location
    }

    /// Removes the directory with all it holds. Directories above it that others have begun to use stay.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(&self) -> Result<()> {
        self.directory.remove_all().await?;
        if let Some((parent, _)) = self.name.rsplit_once('/') {
            self.root.prune(parent);
        }
        for directory in &self.missing {
            // Not there, not empty, or another's by now: each is a reason to leave it.
            let _ = std::fs::remove_dir(directory);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn what_was_made_for_it_goes_and_the_rest_stays() {
        let root = tempfile::tempdir().unwrap();
        let stores = Stores::new();
        let at = |path: &str| Location::parse(root.path().join(path).to_str().unwrap()).unwrap();
        let exists = |path: &str| root.path().join(path).exists();
        std::fs::create_dir_all(root.path().join("there/killed")).unwrap();
        for (base, name, other, left) in [
            ("there", "a/b", None, false),
            ("there", "killed/b", None, false),
            ("new", "a/b", None, false),
            ("new", "a/b", Some("new/a/other"), true),
        ] {
            let scratch = Scratch::new(&stores, &at(base), name).unwrap();
            scratch.remove().await.unwrap();
            assert!(!exists(&format!("{base}/{name}")), "nothing is made before it is needed");
            stores.put_atomic(&scratch.location().join("checkpoint"), Bytes::from("x")).await.unwrap();
            if let Some(other) = other {
                stores.put_atomic(&at(other), Bytes::from("y")).await.unwrap();
            }
            scratch.remove().await.unwrap();
            let parent = name.split('/').next().unwrap();
            assert_eq!(exists(&format!("{base}/{parent}")), left, "{base}/{name}");
            assert_eq!(exists("new"), other.is_some());
            assert!(exists("there"));
        }
    }
}
