//! Durable files on this machine's disks.
//!
//! Reading and listing are `object_store`'s. Writing is ours, because a file that was reported as written must be there
//! after a power cut: a temporary file in the target's directory, write, fsync, rename (or hard link, where an existing
//! file must not be replaced), fsync of the directory. A file therefore appears whole under its name or not at all, a
//! failed or dropped write leaves nothing, and a temporary file of a killed process can be told from one in use: its
//! writer holds a lock on it, which the kernel drops with the process.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, RenameTargetMode, Result, UploadPart,
};
use uuid::Uuid;

use crate::error::io_kind;
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

/// The root of this machine's file system as an object store, with durable writes.
#[derive(Debug)]
pub(crate) struct LocalStore {
    files: LocalFileSystem,
}

/// What failed on which file, in words; the object store's own errors do not always name the path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path}: {source}", path = path.display())]
struct LocalError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(doing: &'static str, path: &FsPath, source: io::Error) -> object_store::Error {
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

/// `object_store` reports a refused open, and a path through a file, as generic errors; callers want to know the kind.
fn refused(error: object_store::Error, path: &Path) -> object_store::Error {
    let object_store::Error::Generic { store, source } = error else { return error };
    match io_kind(source.as_ref()) {
        Some(ErrorKind::PermissionDenied) => object_store::Error::PermissionDenied { path: format!("/{path}"), source },
        Some(ErrorKind::NotADirectory) => object_store::Error::NotFound { path: format!("/{path}"), source },
        _ => object_store::Error::Generic { store, source },
    }
}

/// Below a file there is nothing to list, as in a store that has no directories.
fn listed(
    stream: BoxStream<'static, Result<ObjectMeta>>,
    prefix: Option<&Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let at = prefix.cloned().unwrap_or_default();
    stream
        .filter_map(move |item| {
            let item = match item.map_err(|e| refused(e, &at)) {
                Err(object_store::Error::NotFound { .. }) => None,
                other => Some(other),
            };
            futures::future::ready(item)
        })
        .boxed()
}

impl LocalStore {
    pub(crate) fn new() -> Self {
        Self { files: LocalFileSystem::new() }
    }

    fn target(&self, location: &Path) -> Result<PathBuf> {
        self.files.path_to_filesystem(location)
    }
}

impl std::fmt::Display for LocalStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("local files")
    }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) || !opts.attributes.is_empty() {
            return Err(object_store::Error::NotImplemented {
                operation: "put with an update condition or attributes".into(),
                implementer: self.to_string(),
            });
        }
        let target = self.target(location)?;
        let create = opts.mode == PutMode::Create;
        blocking(move || {
            let mut temporary = Temporary::create(&target)?;
            for piece in &payload {
                temporary.append(piece)?;
            }
            temporary.publish(create)
        })
        .await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return Err(object_store::Error::NotImplemented {
                operation: "multipart put with attributes".into(),
                implementer: self.to_string(),
            });
        }
        let target = self.target(location)?;
        let temporary = blocking(move || Temporary::create(&target)).await?;
        Ok(Box::new(Upload { state: Some(Arc::new(temporary)), offset: 0, broken: Arc::new(AtomicBool::new(false)) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await.map_err(|e| refused(e, location))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await.map_err(|e| refused(e, location))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        listed(self.files.list(prefix), prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        listed(self.files.list_with_offset(prefix, offset), prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        match self.files.list_with_delimiter(prefix).await.map_err(|e| refused(e, &at)) {
            Err(object_store::Error::NotFound { .. }) => Ok(ListResult { common_prefixes: vec![], objects: vec![] }),
            other => other,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (source, target) = (self.target(from)?, self.target(to)?);
        blocking(move || copy_file(&source, &target, options.mode == CopyMode::Create)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (source, target) = (self.target(from)?, self.target(to)?);
        let create = options.target_mode == RenameTargetMode::Create;
        blocking(move || {
            create_parents(&target)?;
            if is_staged(&source) {
                sync_file(&source)?;
            }
            let linked = if create { std::fs::hard_link(&source, &target) } else { std::fs::rename(&source, &target) };
            match linked {
                Ok(()) => sync_directory(&target)?,
                Err(e) if e.kind() == ErrorKind::CrossesDevices => copy_file(&source, &target, create)?,
                Err(e) => {
                    let at = if e.kind() == ErrorKind::NotFound { &source } else { &target };
                    return Err(failed("rename to", at, e));
                }
            }
            // After a plain rename the source is gone already.
            match std::fs::remove_file(&source) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("remove", &source, e)),
                _ => Ok(()),
            }
        })
        .await
    }
}

/// A copy has its own bytes: a hard link would let a later writer in place change both.
fn copy_file(source: &FsPath, target: &FsPath, create: bool) -> Result<()> {
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
struct Temporary {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Not for staged files: they are brought to disk all at once when they get their names (see [`move_staged`]).
    durable: bool,
    published: bool,
}

impl Temporary {
    /// Opens and locks a new file beside `target`, making missing directories.
    fn create(target: &FsPath) -> Result<Self> {
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

    fn append(&mut self, piece: &[u8]) -> Result<()> {
        fault::write(piece.len())
            .and_then(|()| self.file.write_all(piece))
            .map_err(|e| failed("write", &self.target, e))
    }

    /// Part of a multipart upload: any order, no lock.
    fn write_at(&self, offset: u64, payload: &PutPayload) -> Result<()> {
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
    fn publish(mut self, create: bool) -> Result<PutResult> {
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
fn sync_directory(path: &FsPath) -> Result<()> {
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

fn sync_file(path: &FsPath) -> Result<()> {
    let opened = File::open(path).map_err(|e| failed("open", path, e))?;
    opened.sync_all().map_err(|e| failed("write to disk", path, e))
}

/// Whether a path is that of a file staged by a commit: nobody needs it after a power cut.
fn is_staged(path: &FsPath) -> bool {
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

/// A file written in parts, in any order; complete, or gone.
#[derive(Debug)]
struct Upload {
    state: Option<Arc<Temporary>>,
    offset: u64,
    /// A part has failed: completing would publish a file with a hole.
    broken: Arc<AtomicBool>,
}

impl Upload {
    fn take(&mut self) -> Result<Temporary> {
        let ended = || object_store::Error::Generic { store: "local", source: "the upload has ended already".into() };
        let state = self.state.take().ok_or_else(ended)?;
        Arc::try_unwrap(state).map_err(|state| {
            failed("complete", &state.target, io::Error::other("parts of the file are still being written"))
        })
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += data.content_length() as u64;
        let Some(state) = self.state.clone() else {
            return futures::future::ready(Err(object_store::Error::Generic {
                store: "local",
                source: "a part was put after the end of the upload".into(),
            }))
            .boxed();
        };
        let broken = Arc::clone(&self.broken);
        blocking(move || {
            let written = state.write_at(offset, &data);
            if written.is_err() {
                broken.store(true, Ordering::SeqCst);
            }
            written
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let temporary = self.take()?;
        if self.broken.load(Ordering::SeqCst) {
            return Err(failed("complete", &temporary.target, io::Error::other("a part could not be written")));
        }
        blocking(move || temporary.publish(false)).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.state.take();
        Ok(())
    }
}

/// Runs file work where it may block: on the runtime's blocking threads, or right here without a runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn names(directory: &FsPath) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn at(directory: &FsPath, name: &str) -> Path {
        Path::from_absolute_path(directory.join(name)).unwrap()
    }

    #[tokio::test]
    async fn a_file_in_the_making_is_locked_and_a_dead_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::new();
        let upload = store.put_multipart(&at(directory.path(), "d/x")).await.unwrap();
        let temporary = names(&directory.path().join("d")).pop().unwrap();
        assert!(is_temporary(&temporary), "{temporary}");
        let path = directory.path().join("d").join(&temporary);
        remove_abandoned(&path).unwrap();
        assert!(path.exists(), "its writer lives");
        std::mem::drop(upload);
        assert!(!path.exists(), "a dropped upload removes it");
        std::fs::write(&path, "half").unwrap();
        remove_abandoned(&path).unwrap();
        assert!(!path.exists(), "nobody holds it");
        remove_abandoned(&path).unwrap();
    }

    #[tokio::test]
    async fn a_writer_whose_file_was_cleaned_away_makes_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let file = File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!hold(&file));
        assert!(hold(&File::create_new(&path).unwrap()));
    }

    #[tokio::test]
    async fn an_upload_with_a_failed_part_is_not_published() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("x");
        // A file opened for reading only: every write to it fails.
        let path = directory.path().join("temporary");
        std::fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        let temporary = Temporary { file, path: path.clone(), target: target.clone(), durable: true, published: false };
        let mut upload = Upload { state: Some(Arc::new(temporary)), offset: 0, broken: Arc::default() };
        let error = upload.put_part("text".into()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("cannot write {}", target.display())), "{error}");
        assert!(upload.complete().await.is_err());
        drop(upload);
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_target_that_is_a_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = LocalStore::new().put(&at(directory.path(), ""), "x".into()).await.unwrap_err().to_string();
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
        assert_eq!(names(directory.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn links_are_followed_and_a_path_through_a_file_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::new();
        store.put(&at(directory.path(), "real/x"), "text".into()).await.unwrap();
        std::os::unix::fs::symlink(directory.path().join("real"), directory.path().join("link")).unwrap();
        std::os::unix::fs::symlink(directory.path().join("nowhere"), directory.path().join("broken")).unwrap();
        let got = store.get(&at(directory.path(), "link/x")).await.unwrap().bytes().await.unwrap();
        assert_eq!(got, "text");
        let missing = store.get(&at(directory.path(), "real/x/y")).await;
        assert!(matches!(missing, Err(object_store::Error::NotFound { .. })), "{missing:?}");
        let listed: Vec<_> = store.list(Some(&at(directory.path(), "real/x"))).collect().await;
        assert!(listed.is_empty());
        let listed: Vec<_> = store.list(Some(&at(directory.path(), ""))).collect().await;
        assert_eq!(listed.len(), 2, "the file, and the file through the link; the broken link is left out");
    }

    #[test]
    fn works_without_a_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::new();
        futures::executor::block_on(async {
            store.put(&at(directory.path(), "a/x"), "text".into()).await.unwrap();
            assert_eq!(store.head(&at(directory.path(), "a/x")).await.unwrap().size, 4);
        });
    }
}
