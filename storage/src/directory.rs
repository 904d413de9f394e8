//! A place in a store, with the operations that commits and artifacts are made of.
//!
//! Names are relative to the place; every error carries the full location. On disk the directories themselves are
//! managed too, elsewhere they exist only as prefixes.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, RenameOptions, RenameTargetMode};

use crate::committed::relative;
use crate::durable::{blocking, is_temporary, move_staged, remove_abandoned};
use crate::error::{Error, Result};
use crate::location::Location;
use crate::steady::create;
use crate::store::Stores;

/// How many small requests run at once.
const PARALLEL: usize = 16;

/// An object of at most this size is read and put again where a store cannot copy it on a condition.
const DETOUR_BYTES_MAX: u64 = 1 << 30;

/// A location with its raw store.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) location: Location,
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Files get new names here in one step; elsewhere they are written under their final ones.
    pub(crate) renames: bool,
    /// Leases are signs of life here, so that a writer may come back after it was taken for dead.
    pub(crate) beats: bool,
}

/// What is directly in a directory.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Names of directories.
    pub(crate) directories: Vec<String>,
    /// Names of objects.
    pub(crate) files: Vec<String>,
}

impl Directory {
    pub(crate) fn open(stores: &Stores, location: &Location) -> Result<Self> {
        let (store, path) = stores.open(location)?;
        let (renames, beats) = (stores.renames(location), stores.beats(location));
        Ok(Self { location: location.clone(), store, path, renames, beats })
    }

    pub(crate) fn child(&self, relative: &str) -> Self {
        self.elsewhere(&self.location.join(relative))
    }

    /// Another place in the same store.
    pub(crate) fn elsewhere(&self, location: &Location) -> Self {
        let (path, location, store) = (location.path().clone(), location.clone(), Arc::clone(&self.store));
        Self { path, location, store, renames: self.renames, beats: self.beats }
    }

    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> (Location, Path) {
        let location = self.location.join(name);
        let path = location.path().clone();
        (location, path)
    }

    /// The object's bytes; `None` when nothing has that name.
    pub(crate) async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let (location, path) = self.at(name);
        let read = async { self.store.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::at(&location, e)),
        }
    }

    /// The object's size; `None` when nothing has that name.
    pub(crate) async fn size(&self, name: &str) -> Result<Option<u64>> {
        let (location, path) = self.at(name);
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::at(&location, e)),
        }
    }

    pub(crate) async fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let (location, path) = self.at(name);
        let put = self.store.put_opts(&path, bytes.into().into(), PutMode::Overwrite.into()).await;
        put.map(|_| ()).map_err(|e| Error::at(&location, e))
    }

    /// False when something has that name already, of other bytes: records that are created carry the id of their writer.
    pub(crate) async fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        let (location, path) = self.at(name);
        if location.scheme().is_remote() {
            return create(&self.store, &path, bytes.into()).await.map_err(|e| Error::at(&location, e));
        }
        match self.store.put_opts(&path, bytes.into().into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(Error::at(&location, e)),
        }
    }

    /// Moves an object of the same store here.
    pub(crate) async fn adopt(&self, from: &Location, name: &str, mode: RenameTargetMode) -> Result<()> {
        let (location, path) = self.at(name);
        let options = RenameOptions::new().with_target_mode(mode);
        match self.store.rename_opts(from.path(), &path, options).await {
            Err(e @ object_store::Error::NotFound { .. }) => Err(Error::at(from, e)),
            other => other.map_err(|e| Error::at(&location, e)),
        }
    }

    /// Copies an object of the same store here, by the store itself; with `create` only where nothing has that name.
    pub(crate) async fn adopt_copy(&self, from: &Location, name: &str, create_only: bool) -> Result<()> {
        let (location, path) = self.at(name);
        if !create_only {
            return self.store.copy(from.path(), &path).await.map_err(|e| Error::at(&location, e));
        }
        match self.store.copy_if_not_exists(from.path(), &path).await {
            Err(object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. }) => {}
            other => return other.map_err(|e| Error::at(&location, e)),
        }
        // No condition on copies, but one on puts: the bytes make a detour.
        let size = self.store.head(from.path()).await.map_err(|e| Error::at(from, e))?.size;
        if size > DETOUR_BYTES_MAX {
            let reason =
                format!("{size} bytes cannot be put there on the condition that nothing is: MODE OVERWRITE can");
            return Err(Error::invalid(&location, reason));
        }
        let bytes = async { self.store.get(from.path()).await?.bytes().await }.await.map_err(|e| Error::at(from, e))?;
        match create(&self.store, &path, bytes).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Exists { location: location.to_string(), reason: "exists already".into() }),
            Err(e) => Err(Error::at(&location, e)),
        }
    }

    /// Moves staged objects to names below this place; `renamed` is called after each.
    pub(crate) async fn adopt_all(
        &self,
        moves: Vec<(Location, String)>,
        renamed: impl Fn() + Send + Sync + 'static,
    ) -> Result<()> {
        let Some(root) = self.location.local_path() else {
            let renamed = &renamed;
            let adopted = moves.into_iter().map(|(from, name)| async move {
                self.adopt(&from, &name, RenameTargetMode::Overwrite).await?;
                renamed();
                Ok(())
            });
            let adopted: Vec<_> = adopted.collect();
            return futures::stream::iter(adopted).buffer_unordered(PARALLEL).try_collect().await;
        };
        let paths =
            moves.iter().filter_map(|(from, name)| Some((from.local_path()?, root.join(name)))).collect::<Vec<_>>();
        blocking(move || move_staged(&root, &paths, renamed)).await.map_err(|e| self.err(e))
    }

    /// Removes objects; those that are gone already are no error.
    pub(crate) async fn delete(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let deletes = names.into_iter().map(|name| async move {
            let (location, path) = self.at(&name);
            match self.store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
                Err(e) => Err(Error::at(&location, e)),
            }
        });
        let deletes: Vec<_> = deletes.collect();
        futures::stream::iter(deletes).buffer_unordered(PARALLEL).try_collect().await
    }

    pub(crate) async fn delete_self(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(e) => Err(Error::at(&self.location, e)),
        }
    }

    /// The object with exactly this path, if there is one.
    pub(crate) async fn as_object(&self) -> Result<Option<ObjectMeta>> {
        if self.path.is_root() {
            return Ok(None);
        }
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Error::at(&self.location, e)),
        }
    }

    /// What is directly here; nothing when the directory does not exist.
    pub(crate) async fn entries(&self) -> Result<Entries> {
        let listed = self.store.list_with_delimiter(Some(&self.path)).await;
        let listed = listed.map_err(|e| Error::at(&self.location, e))?;
        let name = |path: &Path| path.filename().map(str::to_string);
        Ok(Entries {
            directories: listed.common_prefixes.iter().filter_map(name).collect(),
            files: listed.objects.iter().filter_map(|meta| name(&meta.location)).collect(),
        })
    }

    /// Removes everything below, and on disk the directory itself.
    pub(crate) async fn remove_all(&self) -> Result<()> {
        if let Some(local) = self.location.local_path() {
            let removed = blocking(move || match std::fs::remove_dir_all(&local) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    Err(object_store::Error::Generic { store: "local", source: Box::new(e) })
                }
                _ => Ok(()),
            });
            return removed.await.map_err(|e| Error::at(&self.location, e));
        }
        let paths: Vec<Path> = self
            .store
            .list(Some(&self.path))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(|e| self.err(e))?;
        let stream = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut deleted = self.store.delete_stream(stream);
        while let Some(done) = deleted.next().await {
            match done {
                // Two who clean the same place.
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(self.err(e)),
            }
        }
        drop(deleted);
        if self.location.scheme().is_hadoop() {
            self.remove_directories().await?;
        }
        Ok(())
    }

    /// Hadoop keeps directories that have become empty, this one included.
    async fn remove_directories(&self) -> Result<()> {
        let mut found = vec![self.path.clone()];
        let mut at = 0;
        while at < found.len() {
            let listed = self.store.list_with_delimiter(Some(&found[at])).await.map_err(|e| self.err(e))?;
            found.extend(listed.common_prefixes);
            at += 1;
        }
        for path in found.iter().rev().filter(|path| !path.is_root()) {
            // Refused when somebody else has put something there meanwhile, which is right.
            let _ = self.store.delete(path).await;
        }
        Ok(())
    }

    /// The objects below whose names hold `-<id>-`: those that one writer has written under their final names.
    pub(crate) async fn files_of(&self, id: &str) -> Result<Vec<String>> {
        let mark = format!("-{id}-");
        let listed = self.store.list(Some(&self.path)).try_filter_map(|meta| {
            let is_its = meta.location.filename().is_some_and(|name| name.contains(&mark));
            futures::future::ready(Ok(is_its.then_some(meta.location)))
        });
        let found: Vec<Path> = listed.try_collect().await.map_err(|e| self.err(e))?;
        Ok(found.iter().map(|path| relative(&self.path, path).to_string()).collect())
    }

    fn err(&self, source: object_store::Error) -> Error {
        Error::at(&self.location, source)
    }

    /// Removes the directory `relative` and its parents up to (not including) this one, as long as they are empty. On
    /// stores without directories there is nothing to do.
    pub(crate) fn prune(&self, relative: &str) {
        let Some(root) = self.location.local_path() else { return };
        let mut directory = root.join(relative);
        while directory != root && std::fs::remove_dir(&directory).is_ok() {
            if !directory.pop() {
                break;
            }
        }
    }

    /// Removes files in the making whose writers are dead.
    pub(crate) async fn remove_abandoned_temporaries(&self) -> Result<()> {
        let Some(root) = self.location.local_path() else { return Ok(()) };
        for name in self.entries().await?.files.into_iter().filter(|name| is_temporary(name)) {
            let path = root.join(&name);
            if let Err(e) = blocking(move || Ok(remove_abandoned(&path))).await.map_err(|e| self.err(e))? {
                tracing::warn!("{}: cannot remove a leftover: {e}", self.location.join(&name));
            }
        }
        Ok(())
    }
}
