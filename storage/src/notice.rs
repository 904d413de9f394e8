//! Notices on a board: what a writer at work says of itself, for others to read while it lives.
//!
//! ```text
//! <board>/<id>.json      the notice: replaced whole each time, so that a reader sees one state or the next
//! <board>/<id>.lock      held by its writer
//! ```
//!
//! A notice is no output: nothing depends on it, and it goes with its writer. What a dead writer left is removed by the
//! next reader or writer. The board's name should be hidden (`_...`), so that no scan ever takes a notice for data.

use bytes::Bytes;
use uuid::Uuid;

use crate::directory::Directory;
use crate::error::Result;
use crate::lease::{Lease, StoreClock, lease_id};
use crate::location::Location;
use crate::store::Stores;

const SUFFIX: &str = ".json";

/// A notice that hangs as long as its writer lives, or until it takes it down.
#[derive(Debug)]
pub struct Notice {
    board: Directory,
    name: String,
    /// Given back before the directory is removed.
    lease: Option<Lease>,
}

impl Notice {
    /// Hangs a notice with these bytes on the board, which is made when missing.
    ///
    /// # Errors
    /// The store's.
    pub async fn post(stores: &Stores, board: &Location, bytes: Bytes) -> Result<Self> {
        // For what it removes.
        notices(stores, board).await?;
        let board = Directory::open(stores, board)?;
        let id = Uuid::new_v4().simple().to_string()[..16].to_string();
        let lease = Some(Lease::take(stores, &board, &id).await?);
        let notice = Self { board, name: format!("{id}{SUFFIX}"), lease };
        notice.replace(bytes).await?;
        Ok(notice)
    }

    /// Says something else from now on.
    ///
    /// # Errors
    /// The store's.
    pub async fn replace(&self, bytes: Bytes) -> Result<()> {
        self.board.put(&self.name, bytes).await
    }

    /// Takes the notice down, and with the last one the board and an otherwise empty directory around it.
    ///
    /// # Errors
    /// The store's.
    pub async fn take_down(mut self) -> Result<()> {
        self.board.delete([self.name.clone()]).await?;
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

/// The notices whose writers live, in no order; what dead writers left is removed.
///
/// # Errors
/// The store's.
pub async fn notices(stores: &Stores, board: &Location) -> Result<Vec<Bytes>> {
    let board = Directory::open(stores, board)?;
    let (mut found, clock) = (Vec::new(), StoreClock::default());
    let files = board.entries().await?.files;
    for id in files.iter().filter_map(|file| file.strip_suffix(SUFFIX)) {
        match Lease::of_dead(stores, &board, id, &clock).await? {
            Some(lease) => {
                board.delete([format!("{id}{SUFFIX}")]).await?;
                lease.release().await;
            }
            // Taken down meanwhile: gone.
            None => found.extend(board.get(&format!("{id}{SUFFIX}")).await?),
        }
    }
    // A writer that died before its first word left a lock alone.
    for id in files.iter().filter_map(|file| lease_id(file)) {
        if !files.contains(&format!("{id}{SUFFIX}")) {
            drop(Lease::of_dead(stores, &board, id, &clock).await?);
        }
    }
    board.remove_abandoned_temporaries().await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_both, raw_names};

    on_both!(a_notice_hangs_while_its_writer_lives, a_dead_writer_s_notice_is_removed);

    async fn a_notice_hangs_while_its_writer_lives(stores: Stores, root: Location) {
        let board = root.join("house/_board/");
        assert!(notices(&stores, &board).await.unwrap().is_empty());
        let first = Notice::post(&stores, &board, Bytes::from("one")).await.unwrap();
        let second = Notice::post(&stores, &board, Bytes::from("two")).await.unwrap();
        first.replace(Bytes::from("one and a half")).await.unwrap();
        let mut read = notices(&stores, &board).await.unwrap();
        read.sort();
        assert_eq!(read, ["one and a half", "two"]);
        first.take_down().await.unwrap();
        assert_eq!(notices(&stores, &board).await.unwrap(), ["two"]);
        second.take_down().await.unwrap();
        assert_eq!(raw_names(&stores, &root).await, Vec::<String>::new());
        assert!(root.join("house").local_path().is_none_or(|path| !path.exists()), "an empty directory is left");
    }

    async fn a_dead_writer_s_notice_is_removed(stores: Stores, root: Location) {
        let board = root.join("_board/");
        let notice = Notice::post(&stores, &board, Bytes::from("last words")).await.unwrap();
        let alive = Notice::post(&stores, &board, Bytes::from("well")).await.unwrap();
        // The kernel drops the lock with the process; here the lease goes and its file stays.
        let Notice { mut lease, .. } = notice;
        lease.take().unwrap().give_up();
        assert_eq!(raw_names(&stores, &board).await.len(), 4);
        assert_eq!(notices(&stores, &board).await.unwrap(), ["well"]);
        assert_eq!(raw_names(&stores, &board).await.len(), 2);
        alive.take_down().await.unwrap();
    }
}
