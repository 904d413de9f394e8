//! A table's log: finding it, reading a version of it, committing to it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::Version;
use deltalake_core::kernel::transaction::TransactionError;
use deltalake_core::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::table::state::DeltaTableState;
use futures::TryStreamExt;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, path::Path};
use storage::{Location, Stores};
use url::Url;
use uuid::Uuid;

use super::features;
use crate::error::{Error, Result};
use crate::mistake::sentence;

/// A table's log.
#[derive(Clone)]
pub(crate) struct Log {
    stores: Stores,
    location: Location,
    /// The table's directory as a store.
    files: Arc<dyn ObjectStore>,
    store: LogStoreRef,
}

impl Log {
    /// Of the table at this directory, which need not be there yet.
    ///
    /// # Errors
    /// A location that cannot be opened.
    pub(crate) fn open(stores: &Stores, location: &Location) -> Result<Self> {
        let location = location.as_directory();
        if location.is_glob() {
            return Err(Error::invalid(format!("{location}: a Delta table is one directory, not a glob")));
        }
        let (raw, path) = stores.open(&location)?;
        let files: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(raw, path));
        // The library sees the table's directory as a store of its own, so the schemes that it knows do not matter. It
        // sorts what a `file` store lists, and believes that others list in order.
        let root = Url::parse("file:///").expect("a constant URL");
        let inner = default_logstore(Arc::clone(&files), Arc::clone(&files), &root, &StorageConfig::default());
        Ok(Log { stores: stores.clone(), location, files, store: Arc::new(Witnessed { inner }) })
    }

    /// The table's directory.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// The store whose root is the table's directory.
    pub(super) fn files(&self) -> &Arc<dyn ObjectStore> {
        &self.files
    }

    pub(super) fn store(&self) -> LogStoreRef {
        Arc::clone(&self.store)
    }

    /// Whether there is a Delta table.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub(crate) async fn exists(&self) -> Result<bool> {
        self.store.is_delta_table_location().await.map_err(|error| self.failed(&error))
    }

    /// Refuses a store on which two commits of one version could both succeed.
    ///
    /// # Errors
    /// Such a store, or one that cannot be asked.
    pub(super) async fn must_create_once(&self) -> Result<()> {
        if self.stores.creates_once(&self.location).await? {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{}: is on a store that cannot put an object only where none is, so that two commits at once could both win",
            self.location
        )))
    }

    /// The table as it is now, or as it was at a version; it can be read.
    ///
    /// # Errors
    /// No table there, no such version, features that are not supported, a damaged log.
    pub(crate) async fn snapshot(&self, version: Option<Version>) -> Result<DeltaTableState> {
        if !self.exists().await? {
            return Err(Error::invalid(format!("{}: there is no Delta table (no _delta_log in it)", self.location)));
        }
        let state = match DeltaTableState::try_new(self.store.as_ref(), version).await {
            Ok(state) => state,
            Err(error) => return Err(self.no_version(version, &error).await),
        };
        features::check_readable(&self.location, &state)?;
        Ok(state)
    }

    /// The table as it is now; `None` where there is none.
    ///
    /// # Errors
    /// As [`Log::snapshot`].
    pub(super) async fn newest(&self) -> Result<Option<DeltaTableState>> {
        Ok(if self.exists().await? { Some(self.snapshot(None).await?) } else { None })
    }

    /// The actions of one commit, a line each; `None` where it is not, or not any more.
    pub(super) async fn commit(&self, version: Version) -> Result<Option<String>> {
        let bytes = self.store.read_commit_entry(version).await.map_err(|error| self.failed(&error))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The newest version that was there at a time, in milliseconds since 1970. A version's time is that of its commit's
    /// file, as in Spark, and never before that of the version below it.
    ///
    /// # Errors
    /// A time before the first version that the log still has.
    pub(super) async fn version_at(&self, time_ms: i64) -> Result<Version> {
        let listed = self.files.list(Some(&Path::from("_delta_log"))).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|error| Error::invalid(format!("{}: {error}", self.location)))?;
        let version = |name: &str| name.strip_suffix(".json")?.parse::<Version>().ok();
        let mut commits: Vec<(Version, i64)> = (listed.iter())
            .filter_map(|file| Some((version(file.location.filename()?)?, file.last_modified.timestamp_millis())))
            .collect();
        commits.sort_unstable();
        let mut before = i64::MIN;
        let mut found = None;
        for (version, written) in commits {
            before = before.max(written);
            if before <= time_ms {
                found = Some(version);
            }
        }
        found.ok_or_else(|| Error::invalid(format!("{}: the table has no version as old as that", self.location)))
    }

    async fn no_version(&self, version: Option<Version>, error: &DeltaTableError) -> Error {
        // Not counted from version 0 on, which may have been cleaned up.
        let newest = DeltaTableState::try_new(self.store.as_ref(), None).await.ok().map(|state| state.version());
        match (version, newest) {
            (Some(wanted), Some(newest)) if wanted > newest => {
                Error::invalid(format!("{}: there is no version {wanted}; the newest is {newest}", self.location))
            }
            _ => self.failed(error),
        }
    }

    /// What the library says, with the table's name.
    pub(super) fn failed(&self, error: &DeltaTableError) -> Error {
        let said = error.to_string().replace("file:///", &self.location.to_string());
        Error::invalid(format!("{}: {}", self.location, sentence(&said)))
    }
}

/// A log store that recognises its own commit. A store may have taken a commit although its answer was lost; then the
/// next attempt is told that the version is there already, and taking that for another writer's would add all rows once
/// more. A commit names itself (its id is in its bytes), so equal bytes are the same commit.
struct Witnessed {
    inner: Arc<dyn LogStore>,
}

#[async_trait]
impl LogStore for Witnessed {
    /// The library gives this kind of store the bytes of a commit, and others a file to be renamed.
    fn name(&self) -> String {
        self.inner.name()
    }

    async fn read_commit_entry(&self, version: Version) -> Result<Option<Bytes>, DeltaTableError> {
        self.inner.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        match self.inner.write_commit_entry(version, commit.clone(), operation).await {
            Err(TransactionError::VersionAlreadyExists(version)) => {
                let there = self.inner.read_commit_entry(version).await;
                match (there, commit) {
                    (Ok(Some(there)), CommitOrBytes::LogBytes(ours)) if there == ours => Ok(()),
                    _ => Err(TransactionError::VersionAlreadyExists(version)),
                }
            }
            other => other,
        }
    }

    async fn abort_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        self.inner.abort_commit_entry(version, commit, operation).await
    }

    async fn get_latest_version(&self, start: Version) -> Result<Version, DeltaTableError> {
        self.inner.get_latest_version(start).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.inner.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.inner.root_object_store(operation)
    }

    fn config(&self) -> &LogStoreConfig {
        self.inner.config()
    }
}

/// The path of a file of the table in the table's store: `a%20b` in a log is `a b`.
pub(super) fn below(location: &Location, file: &Path) -> Location {
    location.join(file.as_ref())
}
