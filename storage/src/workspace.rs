//! A directory of files that one process writes for others to read while it lives: what the workers of one run share.
//!
//! ```text
//! <board>/<id>/...       the files, each put whole
//! <board>/<id>.lock      held by the writer
//! ```
//!
//! The files go with their writer: it removes them when its work is done, and what a killed writer left is removed by the
//! next one on the same board. The board's name should be hidden (`_...`), so that no scan ever takes a file for data. A
//! reader is told names, sizes and hashes by the writer, and checks them; no listing is part of the protocol.

use bytes::Bytes;
use uuid::Uuid;

use crate::directory::Directory;
use crate::error::Result;
use crate::lease::{Lease, StoreClock, lease_id};
use crate::location::Location;
use crate::store::Stores;

/// See the module.
#[derive(Debug)]
pub struct Workspace {
    board: Directory,
    files: Directory,
    /// Given back before the directory of the board is removed.
    lease: Option<Lease>,
}

impl Workspace {
    /// Opens a new one on the board, which is made when missing, and removes those of dead writers.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(stores: &Stores, board: &Location) -> Result<Self> {
        let board = Directory::open(stores, &board.as_directory())?;
        remove_abandoned(stores, &board).await?;
        let id = Uuid::new_v4().simple().to_string()[..16].to_string();
        let lease = Some(Lease::take(stores, &board, &id).await?);
        let files = board.child(&format!("{id}/"));
        Ok(Workspace { board, files, lease })
    }

    /// Where the files are.
    pub fn location(&self) -> &Location {
        &self.files.location
    }

    /// Writes a file whole, or not at all.
    ///
    /// # Errors
    /// The store's.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.files.put(name, bytes).await
    }

    /// Removes the files, and the board and an otherwise empty directory around it when nobody else has anything there.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(mut self) -> Result<()> {
        self.files.remove_all().await?;
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
        if let (Some(around), Some(path)) = (self.board.location.parent(), self.board.location.local_path())
            && std::fs::remove_dir(&path).is_ok()
            && let Some(around) = around.local_path()
        {
            // Refused by the disk unless it is empty, which is what we want.
            let _ = std::fs::remove_dir(around);
        }
        Ok(())
    }
}

async fn remove_abandoned(stores: &Stores, board: &Directory) -> Result<()> {
    let (entries, clock) = (board.entries().await?, StoreClock::default());
    for id in &entries.directories {
        // The lease comes before the first file: a directory without one has lost its writer.
        if let Some(lease) = Lease::of_dead(stores, board, id, &clock).await? {
            board.child(&format!("{id}/")).remove_all().await?;
            lease.release().await;
        }
    }
    for id in entries.files.iter().filter_map(|file| lease_id(file)) {
        if !entries.directories.iter().any(|directory| directory == id) {
            drop(Lease::of_dead(stores, board, id, &clock).await?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_both, raw_names};

    on_both!(files_go_with_their_writer, a_dead_writer_s_files_are_removed);

    async fn files_go_with_their_writer(stores: Stores, root: Location) {
        let board = root.join("house/_shards/");
        let first = Workspace::open(&stores, &board).await.unwrap();
        let second = Workspace::open(&stores, &board).await.unwrap();
        assert_ne!(first.location(), second.location());
        first.put("a", Bytes::from("one")).await.unwrap();
        second.put("a", Bytes::from("two")).await.unwrap();
        let at = second.location().join("a");
        first.remove().await.unwrap();
        assert_eq!(stores.get(&at).await.unwrap(), "two");
        assert_eq!(stores.get_range(&at, 1..3).await.unwrap(), "wo");
        second.remove().await.unwrap();
        assert_eq!(raw_names(&stores, &root).await, Vec::<String>::new());
        assert!(root.join("house").local_path().is_none_or(|path| !path.exists()), "an empty directory is left");
    }

    async fn a_dead_writer_s_files_are_removed(stores: Stores, root: Location) {
        let board = root.join("_shards/");
        let dead = Workspace::open(&stores, &board).await.unwrap();
        dead.put("a", Bytes::from("one")).await.unwrap();
        let unborn = Workspace::open(&stores, &board).await.unwrap();
        for Workspace { mut lease, .. } in [dead, unborn] {
            // The kernel drops the lock with the process; here the lease goes and its file stays.
            lease.take().unwrap().give_up();
        }
        let alive = Workspace::open(&stores, &board).await.unwrap();
        alive.put("b", Bytes::from("two")).await.unwrap();
        assert_eq!(raw_names(&stores, &board).await.len(), 2, "a file and its lock");
        alive.remove().await.unwrap();
    }
}
