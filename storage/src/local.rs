//! Files on this machine's disks as an object store.
//!
//! Reading and listing are `object_store`'s. Writing is ours, because a file that was reported as written must be there
//! after a power cut (see `durable.rs`). A file appears whole under its name or not at all, and a failed or dropped write
//! leaves nothing.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

use crate::durable::{Temporary, blocking, copy_file, create_parents, failed, is_staged, sync_directory, sync_file};
use crate::error::io_kind;

/// The root of this machine's file system as an object store, with durable writes.
#[derive(Debug)]
pub(crate) struct LocalStore {
    files: LocalFileSystem,
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

/// A file whose name no directory can have was never made, and need not be removed.
fn never_there(error: object_store::Error) -> object_store::Error {
    let object_store::Error::Generic { store, source } = error else { return error };
    match io_kind(source.as_ref()) {
        Some(ErrorKind::InvalidFilename) => object_store::Error::NotFound { path: String::new(), source },
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
        let deleted = self.files.delete_stream(locations);
        deleted.map(|deleted| deleted.map_err(never_there)).boxed()
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path as FsPath;

    use object_store::ObjectStoreExt;

    use super::*;
    use crate::durable::{hold, is_temporary, remove_abandoned};

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
