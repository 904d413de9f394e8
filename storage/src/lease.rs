//! Who is alive: tells the leftovers of a dead writer from the files of a working one.
//!
//! On disk a lease is a lock file held with `flock`: the kernel drops the lock with the process, however it dies. Refused
//! alternatives: process id and boot id (wrong when two containers share a disk: neither sees the other's processes, and
//! numbers are used again), and age or heartbeat (a suspended laptop looks dead, and a dead writer looks alive until the
//! time is over). On a memory store the lease is an entry in the session, which is the only one that can see the store.
//!
//! Object stores and HDFS have no locks. There the lease is an object that its writer puts again and again; one that is
//! older than `storage.lease_timeout` belongs to a dead writer. Age is measured by the store's own clock alone: an object
//! that was put just now tells what time it is there. A writer that was only suspended may come back; what keeps it from
//! doing harm is not this lease but the fence in the manifest (see `leftovers.rs`).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use object_store::ObjectStoreExt;
use tokio::sync::{OnceCell, watch};
use uuid::Uuid;

use crate::directory::Directory;
use crate::durable::{blocking, create_parents, hold, lock_abandoned};
use crate::error::{Error, Result};
use crate::store::{Stores, held};

const SUFFIX: &str = ".lock";
/// Signs of life in the time after which a writer counts as dead.
const BEATS: u32 = 6;

/// The name of a lease's file.
pub(crate) fn lease_name(id: &str) -> String {
    format!("{id}{SUFFIX}")
}

/// The id in a lease's name.
pub(crate) fn lease_id(name: &str) -> Option<&str> {
    name.strip_suffix(SUFFIX)
}

/// Held by a working writer; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    held: Held,
    /// Leave the file for the next writer to find: the leftovers named by it still have to be cleaned.
    keep_file: bool,
}

#[derive(Debug)]
enum Held {
    Locked {
        path: PathBuf,
        _file: File,
    },
    /// There was no file: its writer has removed it, or never got so far.
    Ended,
    Registered {
        key: String,
        leases: Arc<Mutex<HashSet<String>>>,
        file: Box<Directory>,
    },
    Beating(Beating),
}

/// What time it is for a store, found out once when somebody asks.
#[derive(Debug, Default)]
pub(crate) struct StoreClock {
    now: OnceCell<DateTime<Utc>>,
}

impl StoreClock {
    /// The time at which an object is put just now.
    async fn now(&self, directory: &Directory) -> Result<DateTime<Utc>> {
        let ask = || async {
            let name = format!("clock-{}", Uuid::new_v4().simple());
            directory.put(&name, Vec::new()).await?;
            let at = directory.location.join(&name);
            let meta = directory.store().head(at.path()).await.map_err(|e| Error::at(&at, e));
            directory.delete([name]).await?;
            Ok(meta?.last_modified)
        };
        self.now.get_or_try_init(ask).await.copied()
    }
}

impl Lease {
    /// Takes a new lease in `directory`, which is made when missing.
    pub(crate) async fn take(stores: &Stores, directory: &Directory, id: &str) -> Result<Self> {
        let name = lease_name(id);
        let held = match directory.location.join(&name).local_path() {
            Some(path) => {
                let file = {
                    let path = path.clone();
                    blocking(move || locked_file(&path)).await.map_err(|e| Error::at(&directory.location, e))?
                };
                Held::Locked { path, _file: file }
            }
            None if stores.beats(&directory.location) => {
                Held::Beating(Beating::begin(directory.clone(), name, stores.lease_timeout() / BEATS).await?)
            }
            None => {
                let (key, leases) = (key(directory, id), stores.leases());
                held(&leases).insert(key.clone());
                directory.put(&name, Vec::new()).await?;
                Held::Registered { key, leases, file: Box::new(directory.child(&name)) }
            }
        };
        Ok(Self { held, keep_file: false })
    }

    /// Takes over the lease of a writer that is known to be dead, or has ended; `None` while it lives.
    ///
    /// The cleaner keeps it until it is done: a writer whose file was found before it could lock it must not come to
    /// life in between (it waits for the lock, finds its file gone, and begins again).
    pub(crate) async fn of_dead(
        stores: &Stores,
        directory: &Directory,
        id: &str,
        clock: &StoreClock,
    ) -> Result<Option<Self>> {
        let name = lease_name(id);
        let held = match directory.location.join(&name).local_path() {
            Some(path) => blocking(move || Ok(abandoned(path))).await.map_err(|e| Error::at(&directory.location, e))?,
            None if stores.beats(&directory.location) => {
                let at = directory.location.join(&name);
                let last = match directory.store().head(at.path()).await {
                    Ok(meta) => Some(meta.last_modified),
                    Err(object_store::Error::NotFound { .. }) => None,
                    Err(e) => return Err(Error::at(&at, e)),
                };
                match last {
                    Some(last) => {
                        let silent = (clock.now(directory).await? - last).to_std().unwrap_or_default();
                        let silence = Beating { directory: directory.clone(), name, stop: None };
                        (silent > stores.lease_timeout()).then_some(Held::Beating(silence))
                    }
                    None => Some(Held::Ended),
                }
            }
            None => {
                let (key, leases) = (key(directory, id), stores.leases());
                let dead = held(&leases).insert(key.clone());
                dead.then(|| Held::Registered { key, leases, file: Box::new(directory.child(&name)) })
            }
        };
        Ok(held.map(|held| Self { held, keep_file: false }))
    }

    /// Ends the lease but leaves its file, so that the next writer sees that there is something to clean.
    pub(crate) fn give_up(mut self) {
        self.keep_file = true;
    }

    /// Ends the lease, and waits until its file is gone where that takes a request.
    pub(crate) async fn release(mut self) {
        // A lock ends when it is dropped.
        if matches!(self.held, Held::Beating(_))
            && let Held::Beating(beating) = std::mem::replace(&mut self.held, Held::Ended)
        {
            beating.end(true).await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.held, Held::Ended) {
            // The name goes first: whoever finds it locked knows that it is ours, and nobody finds it unlocked.
            Held::Locked { path, .. } => {
                if !self.keep_file {
                    let _ = std::fs::remove_file(path);
                }
            }
            Held::Ended => {}
            Held::Registered { key, leases, file } => {
                held(&leases).remove(&key);
                if !self.keep_file {
                    // A store in this process's memory answers at once.
                    let _ = file.store().delete(file.path()).now_or_never();
                }
            }
            Held::Beating(beating) => {
                let remove = !self.keep_file;
                // Without a runtime nobody beats any more, and the next writer removes the object in its time.
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(beating.end(remove));
                }
            }
        }
    }
}

/// An object that is put again and again; without `stop` the one of a dead writer, which only waits to be removed.
#[derive(Debug)]
struct Beating {
    directory: Directory,
    name: String,
    stop: Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>,
}

impl Beating {
    async fn begin(directory: Directory, name: String, every: Duration) -> Result<Self> {
        directory.put(&name, "0\n").await?;
        let (stop, mut stopped) = watch::channel(false);
        let (file, beaten) = (name.clone(), directory.clone());
        let task = tokio::spawn(async move {
            let mut beat = 0u64;
            while tokio::time::timeout(every, stopped.changed()).await.is_err() {
                beat += 1;
                // One that is lost is no harm, five more come before anybody takes this writer for dead.
                if let Err(e) = beaten.put(&file, format!("{beat}\n")).await {
                    tracing::warn!("a sign of life could not be given: {e}");
                }
            }
        });
        Ok(Self { directory, name, stop: Some((stop, task)) })
    }

    /// No beat may come after the object was removed.
    async fn end(self, remove: bool) {
        if let Some((stop, task)) = self.stop {
            let _ = stop.send(true);
            let _ = task.await;
        }
        if remove && let Err(e) = self.directory.delete([self.name]).await {
            tracing::debug!("a lease is left for the next writer to remove: {e}");
        }
    }
}

fn key(directory: &Directory, id: &str) -> String {
    format!("{}/{id}", directory.location)
}

fn abandoned(path: PathBuf) -> Option<Held> {
    match lock_abandoned(&path) {
        Ok(Some(file)) => Some(Held::Locked { path, _file: file }),
        Err(e) if e.kind() == ErrorKind::NotFound => Some(Held::Ended),
        // Held, or not to be opened: leave it alone.
        Ok(None) | Err(_) => None,
    }
}

fn locked_file(path: &std::path::Path) -> object_store::Result<File> {
    loop {
        match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
            // A cleaner that found the file before it was locked has removed it: make it again.
            Ok(file) if hold(&file) => return Ok(file),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => create_parents(path)?,
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                let path = path.display().to_string();
                return Err(object_store::Error::PermissionDenied { path, source: Box::new(e) });
            }
            Err(e) => return Err(object_store::Error::Generic { store: "local", source: Box::new(e) }),
        }
    }
}
