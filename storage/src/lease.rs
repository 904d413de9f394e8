//! Who is alive: a lease tells the leftovers of a dead writer from the files of a working one.
//!
//! On disk a lease is a lock file held with `flock`: the kernel drops the lock with the process, however it dies. Refused
//! alternatives: process id and boot id (wrong when two containers share a disk: neither sees the other's processes, and
//! numbers are used again), and age or heartbeat (a suspended laptop looks dead, and a dead writer looks alive until the
//! time is over). On a memory store the lease is an entry in the session, which is the only one that can see the store.
//! Stores in the cloud have no locks; they will need a heartbeat, with the generation in the staged names.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use object_store::ObjectStoreExt;

use crate::directory::Directory;
use crate::durable::{blocking, create_parents, hold, lock_abandoned};
use crate::error::{Error, Result};
use crate::store::{Stores, held};

const SUFFIX: &str = ".lock";

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
    pub(crate) async fn of_dead(stores: &Stores, directory: &Directory, id: &str) -> Result<Option<Self>> {
        let name = lease_name(id);
        let held = match directory.location.join(&name).local_path() {
            Some(path) => blocking(move || Ok(abandoned(path))).await.map_err(|e| Error::at(&directory.location, e))?,
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
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &self.held {
            // The name goes first: whoever finds it locked knows that it is ours, and nobody finds it unlocked.
            Held::Locked { path, .. } => {
                if !self.keep_file {
                    let _ = std::fs::remove_file(path);
                }
            }
            Held::Ended => {}
            Held::Registered { key, leases, file } => {
                held(leases).remove(key);
                if !self.keep_file {
                    // A store in this process's memory answers at once.
                    let _ = file.store().delete(file.path()).now_or_never();
                }
            }
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
