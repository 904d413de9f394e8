//! Files that are there after a power cut, and files in the making that can be told from abandoned ones.
//!
//! A new file is written under a temporary name beside its target, brought to disk, given its name by rename (or by hard
//! link, where an existing file must not be replaced), and its directory is brought to disk. While it is in the making its
//! writer holds a lock on it, which the kernel drops with the process: whoever gets the lock may remove the file.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path as FsPath, PathBuf};
use std::time::SystemTime;

use object_store::{PutPayload, PutResult, Result};
use uuid::Uuid;

use crate::fault;
use crate::leftovers::STAGING_PREFIX;
use crate::manifest::META;

/// How many files are brought to disk at once.
const SYNC_THREADS: usize = 16;

/// Temporary files are `.gristmill-<uuid>.tmp` beside their target: hidden from readers, on the same file system.
const TEMPORARY_PREFIX: &str = ".gristmill-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Whether a name is one that this store gives to files in the making.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

/// A copy has its own bytes: a hard link would let a later writer in place change both.
pub(crate) fn copy_file(source: &FsPath, target: &FsPath, create: bool) -> Result<()> {
    let mut from = File::open(source).map_err(|e| failed("open", source, e))?;
    if from.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(failed("copy", source, io::Error::new(ErrorKind::NotFound, "is a directory")));
    }
    let temporary = Temporary::create(target)?;
    io::copy(&mut from, &mut &temporary.file).map_err(|e| failed("write", target, e))?;
    temporary.publish(create).map(|_| ())
}

/// A file in the making. Dropped unpublished, it is removed.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
    /// Not for staged files: they are brought to disk all at once when they get their names (see [`move_staged`]).
    pub(crate) durable: bool,
    pub(crate) published: bool,
}

impl Temporary {
    /// Opens and locks a new file beside `target`, making missing directories.
    pub(crate) fn create(target: &FsPath) -> Result<Self> {
        let directory = target.parent().ok_or_else(|| {
            failed("write", target, io::Error::new(ErrorKind::InvalidInput, "the root directory is no file"))
        })?;
        if target.is_dir() {
            return Err(failed("write", target, io::Error::from(ErrorKind::IsADirectory)));
        }
        let durable = !is_staged(target);
        loop {
            let name = format!("{TEMPORARY_PREFIX}{}{TEMPORARY_SUFFIX}", Uuid::new_v4().simple());
            let path = directory.join(name);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => {
                    fault::point("local.temporary_open");
                    if hold(&file) {
                        return Ok(Self { file, path, target: target.to_path_buf(), durable, published: false });
                    }
                }
                Err(e) if e.kind() == ErrorKind::NotFound && durable => create_parents(target)?,
                Err(e) if e.kind() == ErrorKind::NotFound => create_directory(directory)?,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed("create a file beside", target, e)),
            }
        }
    }

    pub(crate) fn append(&mut self, piece: &[u8]) -> Result<()> {
        fault::write(piece.len())
            .and_then(|()| self.file.write_all(piece))
            .map_err(|e| failed("write", &self.target, e))
    }

    /// Part of a multipart upload: any order, no lock.
    pub(crate) fn write_at(&self, offset: u64, payload: &PutPayload) -> Result<()> {
        let mut at = offset;
        for piece in payload {
            fault::write(piece.len())
                .and_then(|()| self.file.write_all_at(piece, at))
                .map_err(|e| failed("write", &self.target, e))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// fsync, then the name appears in one step; with `create` only where nothing has that name.
    pub(crate) fn publish(mut self, create: bool) -> Result<PutResult> {
        fault::point("local.temporary_written");
        if self.durable {
            self.file.sync_all().map_err(|e| failed("write to disk", &self.target, e))?;
        }
        fault::point("local.temporary_synced");
        let linked = if create {
            std::fs::hard_link(&self.path, &self.target)
        } else {
            std::fs::rename(&self.path, &self.target)
        };
        linked.map_err(|e| failed(if create { "create" } else { "replace" }, &self.target, e))?;
        fault::point("local.published");
        if create {
            // A name left over here is a second link to a whole file; whoever cleans the directory removes it.
            let _ = std::fs::remove_file(&self.path);
        }
        self.published = true;
        if self.durable {
            sync_directory(&self.target)?;
        }
        let meta = self.file.metadata().map_err(|e| failed("look at", &self.target, e))?;
        Ok(PutResult { e_tag: Some(e_tag(&meta)), version: None })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Locks a file that was just made. False when a cleaner was faster and has removed it: make another.
///
/// A file system without locks counts as held; cleaners then leave its temporary files alone.
pub(crate) fn hold(file: &File) -> bool {
    let _ = file.lock();
    file.metadata().is_ok_and(|meta| meta.nlink() > 0)
}

/// Opens and locks a file whose writer is dead; `None` when it lives, or when the file system has no locks. While the
/// lock is held here, a writer that has just made the file waits in [`hold`].
pub(crate) fn lock_abandoned(path: &FsPath) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) if file.metadata()?.nlink() == 0 => Err(io::Error::from(ErrorKind::NotFound)),
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => Ok(None),
    }
}

/// Removes a temporary file unless its writer lives.
pub(crate) fn remove_abandoned(path: &FsPath) -> io::Result<()> {
    match lock_abandoned(path) {
        Ok(Some(_locked)) => std::fs::remove_file(path),
        Ok(None) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// The tag that `LocalFileSystem` gives when reading the file: inode, time of change, size.
fn e_tag(meta: &std::fs::Metadata) -> String {
    let changed_us = meta
        .modified()
        .ok()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .unwrap_or_default()
        .as_micros();
    format!("{:x}-{changed_us:x}-{:x}", meta.ino(), meta.len())
}

/// Makes the directories above `target` and brings each new name to disk.
pub(crate) fn create_parents(target: &FsPath) -> Result<()> {
    let Some(directory) = target.parent() else { return Ok(()) };
    let missing: Vec<&FsPath> = directory.ancestors().take_while(|d| !d.exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    create_directory(directory)?;
    for made in missing {
        sync_directory(made)?;
    }
    Ok(())
}

fn create_directory(directory: &FsPath) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|e| failed("create directory", directory, e))
}

/// Brings the directory entry of `path` to disk.
pub(crate) fn sync_directory(path: &FsPath) -> Result<()> {
    path.parent().map_or(Ok(()), sync_entries)
}

/// Brings the names in a directory to disk.
fn sync_entries(directory: &FsPath) -> Result<()> {
    let opened = match File::open(directory) {
        // Somebody removed the directory with the file in it: nothing to keep.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| failed("open directory", directory, e))?,
    };
    match opened.sync_all() {
        // Some file systems have no fsync for directories; they promise nothing, and we cannot make them.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        other => other.map_err(|e| failed("write to disk directory", directory, e)),
    }
}

pub(crate) fn sync_file(path: &FsPath) -> Result<()> {
    let opened = File::open(path).map_err(|e| failed("open", path, e))?;
    opened.sync_all().map_err(|e| failed("write to disk", path, e))
}

/// Whether a path is that of a file staged by a commit: nobody needs it after a power cut.
pub(crate) fn is_staged(path: &FsPath) -> bool {
    let mut names = path.components().map(|part| part.as_os_str().to_str().unwrap_or_default());
    names.any(|name| name == META) && names.next().is_some_and(|name| name.starts_with(STAGING_PREFIX))
}

/// Gives staged files their names below `root` (source, target), with bytes and names on disk at the end.
///
/// A file at a time this costs three waits for the disk each. Here all files are synced side by side, which a journal
/// answers together; then come the renames, and each directory is synced once.
pub(crate) fn move_staged(root: &FsPath, moves: &[(PathBuf, PathBuf)], renamed: impl Fn()) -> Result<()> {
    in_parallel(moves, |(source, _)| sync_file(source))?;
    let mut directories = BTreeSet::new();
    for (source, target) in moves {
        let above = target.ancestors().skip(1).take_while(|directory| directory.starts_with(root));
        let new = above.filter(|directory| directories.insert(directory.to_path_buf())).count();
        if new > 0 {
            create_directory(target.parent().unwrap_or(root))?;
        }
        match std::fs::rename(source, target) {
            // A partition may be mounted from another disk.
            Err(e) if e.kind() == ErrorKind::CrossesDevices => {
                copy_file(source, target, false)?;
                std::fs::remove_file(source).map_err(|e| failed("remove", source, e))?;
            }
            other => other.map_err(|e| failed("rename to", target, e))?,
        }
        renamed();
    }
    let directories: Vec<PathBuf> = directories.into_iter().collect();
    in_parallel(&directories, |directory| sync_entries(directory))
}

/// Does work that mostly waits for the disk, on a few threads; the first error counts.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let share = items.len().div_ceil(SYNC_THREADS).max(1);
    std::thread::scope(|scope| {
        let running: Vec<_> =
            items.chunks(share).map(|chunk| scope.spawn(|| chunk.iter().try_for_each(&work))).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("syncing files does not panic"))
    })
}

/// Runs file work where it may block: on the runtime's blocking threads, or right here without a runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

/// What failed on which file, in words; the object store's own errors do not always name the path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}: {source}", path = path.display())]
struct LocalError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

pub(crate) fn failed(doing: &'static str, path: &FsPath, source: io::Error) -> object_store::Error {
    let kind = source.kind();
    let name = path.display().to_string();
    let error = Box::new(LocalError { doing, path: path.to_path_buf(), source });
    match kind {
        ErrorKind::NotFound => object_store::Error::NotFound { path: name, source: error },
        ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path: name, source: error },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            object_store::Error::PermissionDenied { path: name, source: error }
        }
        _ => object_store::Error::Generic { store: "local", source: error },
    }
}
