//! Outputs appear whole or not at all.
//!
//! ```text
//! begin     clean what dead commits left; take a lease     _gristmill/<id>.lock
//! tasks     write uniquely named, hidden files             _gristmill/staging-<id>/part-00000-<id>-<try>.parquet
//! publish   manifest 0 if there is none (what was visible) _gristmill/manifest-0000000000.json
//!           write down what will be done                   _gristmill/plan-<id>.json
//!           rename to final names, not yet visible         month=1/part-00000-<id>-<try>.parquet
//!           put manifest n+1 unless it exists              <- the commit point
//!           delete replaced files, put _SUCCESS, remove staging and lease
//! ```
//!
//! That is for stores where a file gets a new name in one step: disks, memory, HDFS. On object stores a new name is a copy,
//! so files are written under their final names at once, and the manifest alone decides: manifest 0 is put before the
//! first file, from then on nothing shows that no manifest names. The names hold the id of their writer, by which the
//! files of a dead one are found.
//!
//! What always holds: a reader that honours manifests sees the content of exactly one manifest; a manifest, once newest,
//! names only files that are there; after a crash at any step the next commit removes what is left. When somebody else
//! published n+1 first, the content is computed again from theirs, so concurrent appends are all kept.
//!
//! A target that is a single file (`out/scored.parquet`) needs no manifest: renaming the staged file is the commit point.
//! Who writes the bytes, in which format, and how many files: the caller.

mod publishing;
mod rollback;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::fault;
use crate::lease::Lease;
use crate::leftovers::{self, staging_name};
use crate::location::Location;
use crate::manifest::{self, Columns, DataFile, META};
use crate::sealed::sha256_hex;
use crate::store::Stores;
use crate::target::{self, Target};

pub use rollback::roll_back;

/// Marks a directory whose writer has finished, as Hadoop's readers expect it.
const SUCCESS: &str = "_SUCCESS";
/// How many files are looked at at once.
const PARALLEL: usize = 16;
/// Hexadecimal digits of a commit's name.
const ID_LENGTH: usize = 16;
/// Losing the race for a manifest number this often means that something is wrong.
const ATTEMPTS: usize = 10_000;

/// What happens to what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// Keep it and add to it.
    Append,
    /// Replace all of it.
    Overwrite,
    /// Replace the partitions (directories) that are written, keep the others.
    OverwritePartitions,
    /// There must be nothing.
    ErrorIfExists,
}

/// A staged file that belongs to the result.
#[derive(Debug, Clone)]
pub struct WrittenFile {
    /// Where it was written: a [`Commit::staging_path`] of this commit.
    pub path: Location,
    /// The partition directory that was given to `staging_path`: `month=1/day=2`, or empty.
    pub relative: String,
    /// Rows in it.
    pub rows: u64,
    /// Bytes written; the manifest records the size found on disk.
    pub bytes: u64,
    /// Lower-case hexadecimal SHA-256, where the writer computed it.
    pub sha256: Option<String>,
}

/// What a commit made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The table's new version; 0 for a single file.
    pub version: u64,
    /// Number of files added.
    pub files: usize,
    /// Rows added.
    pub rows: u64,
    /// Bytes added.
    pub bytes: u64,
    /// The added files under their final names.
    pub paths: Vec<Location>,
}

/// What [`Commit::begin_once`] found.
#[derive(Debug)]
pub enum Begun {
    /// The work is to be done.
    New(Box<Commit>),
    /// It is done; what it made visible then.
    Done(Committed),
}

/// What a table is before files are added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its version.
    pub version: u64,
    /// Its columns, where its writers said them.
    pub columns: Option<Columns>,
}

/// Asked before files become part of a table: the columns that it has then, or in one sentence why they may not. Asked again
/// when another commit was first. Without it all files may.
#[derive(Clone)]
pub struct Admission(Arc<Asked>);

type Asked = dyn Fn(Base) -> BoxFuture<'static, std::result::Result<Columns, String>> + Send + Sync;

impl Admission {
    /// From what answers.
    pub fn new(
        answer: impl Fn(Base) -> BoxFuture<'static, std::result::Result<Columns, String>> + Send + Sync + 'static,
    ) -> Self {
        Admission(Arc::new(answer))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

/// A commit in progress. Dropped or aborted it leaves nothing; killed, the next commit cleans up.
#[derive(Debug)]
pub struct Commit {
    /// What this is the work of; the same when it is done again.
    key: String,
    /// This writer's own: part of the names of its files, of its lease and of its plan.
    id: String,
    mode: CommitMode,
    target: Target,
    location: Location,
    /// The table's directory, or the directory of the single file.
    table: Directory,
    meta: Directory,
    staging: Directory,
    lease: Option<Lease>,
    /// Directories that did not exist before, deepest first.
    made: Vec<PathBuf>,
    /// From here on files have their final names: what is to be done depends on the newest manifest.
    planned: bool,
    /// A plan was written down.
    noted: bool,
    admission: Option<Admission>,
    /// So many versions are kept with their files, the new one included.
    keep: u64,
}

impl Commit {
    /// Starts writing to `table`: a directory, or one file when the name has a data format's extension, no `/` at its
    /// end, and is no existing directory (see [`Commit::is_single_file`]).
    ///
    /// # Errors
    /// [`Error::Exists`] when `mode` is [`CommitMode::ErrorIfExists`] and visible data is there, or when `Overwrite` meets
    /// files that are no data; [`Error::Invalid`] when target and mode do not fit; the store's.
    pub async fn begin(stores: &Stores, table: &Location, mode: CommitMode) -> Result<Self> {
        let id = Uuid::new_v4().simple().to_string()[..ID_LENGTH].to_string();
        Self::begin_with(stores, table, mode, id).await
    }

    /// As [`Commit::begin`], for a writer that may be doing again what it did before it was killed: `key` names the work.
    /// When a commit of the same key is part of the table, there is nothing to do. One file keeps no such memory: it is
    /// written again, as the mode says.
    ///
    /// # Errors
    /// Those of [`Commit::begin`].
    pub async fn begin_once(stores: &Stores, table: &Location, mode: CommitMode, key: &str) -> Result<Begun> {
        let id = sha256_hex(key.as_bytes())[..ID_LENGTH].to_string();
        if !table.is_glob() && target::find(stores, table).await? == Target::Table {
            let directory = Directory::open(stores, &table.as_directory())?;
            let newest = manifest::newest(directory.store(), directory.path()).await;
            let newest = newest.map_err(|e| Error::at(table, e))?;
            let is_ours = |file: &&DataFile| file.path.contains(&format!("-{id}-"));
            let ours: Vec<DataFile> = newest.iter().flat_map(|m| &m.files).filter(is_ours).cloned().collect();
            if let (Some(manifest), false) = (newest, ours.is_empty()) {
                return Ok(Begun::Done(summary(&directory, manifest.version, &ours)));
            }
        }
        Self::begin_with(stores, table, mode, id).await.map(|commit| Begun::New(Box::new(commit)))
    }

    async fn begin_with(stores: &Stores, table: &Location, mode: CommitMode, key: String) -> Result<Self> {
        if table.is_glob() {
            return Err(Error::invalid(table, "a place to write to has no *, ?, [ or { in its name"));
        }
        if table.scheme().is_web() {
            return Err(Error::invalid(table, "web servers are only read: write to a bucket or a directory"));
        }
        let target = target::find(stores, table).await?;
        let directory = match target {
            Target::Table => Directory::open(stores, &table.as_directory())?,
            Target::File => {
                let parent = table.parent().ok_or_else(|| Error::invalid(table, "the root directory is no file"))?;
                Directory::open(stores, &parent)?
            }
        };
        match target {
            Target::Table => target::check_table(&directory, mode).await?,
            Target::File => target::check_file(&directory, table, mode).await?,
        }
        let condition = stores.condition(&directory.location).await?;
        target::check_condition(table, mode, condition, stores.single_writer())?;
        let meta = directory.child(META);
        let made = target::missing_directories(&meta);
        leftovers::clean(stores, &directory).await?;
        if target == Target::Table {
            directory.remove_abandoned_temporaries().await?;
        }
        // Who comes back after it was taken for dead must not be taken for the one that does its work again.
        let id = match directory.beats {
            true => format!("{key}-{}", &Uuid::new_v4().simple().to_string()[..8]),
            false => key.clone(),
        };
        let lease = Lease::take(stores, &meta, &id).await?;
        let staging = meta.child(&staging_name(&id));
        let location = table.clone();
        fault::point("commit.begun");
        let commit = Self {
            key,
            id,
            mode,
            target,
            location,
            table: directory,
            meta,
            staging,
            lease: Some(lease),
            made,
            planned: false,
            noted: false,
            admission: None,
            keep: 1,
        };
        if commit.is_in_place() {
            commit.baseline().await?;
        }
        Ok(commit)
    }

    /// The commit's own name: part of every file it writes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same commit, which asks before it publishes.
    #[must_use]
    pub fn asking(mut self, admission: Admission) -> Self {
        self.admission = Some(admission);
        self
    }

    /// The same commit, after which so many versions are kept with their files, at least the new one.
    #[must_use]
    pub fn keeping(mut self, versions: u64) -> Self {
        self.keep = versions.max(1);
        self
    }

    /// The table as it is now; `None` while it has no manifest, and for a single file.
    ///
    /// # Errors
    /// The store's.
    pub async fn base(&self) -> Result<Option<Base>> {
        if self.target == Target::File {
            return Ok(None);
        }
        Ok(self.newest().await?.map(|manifest| Base { version: manifest.version, columns: manifest.columns }))
    }

    /// What is being written to.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether the target is one file: then exactly one may be published.
    pub fn is_single_file(&self) -> bool {
        self.target == Target::File
    }

    /// Whether files are written under their final names, in the directories of their partitions.
    pub fn is_in_place(&self) -> bool {
        !self.table.renames && self.target == Target::Table
    }

    /// Where files are written: below it in the directories of their partitions when [`is_in_place`](Self::is_in_place),
    /// else side by side.
    pub fn directory(&self) -> &Location {
        if self.is_in_place() { &self.table.location } else { &self.staging.location }
    }

    /// A new name, never given before, for a file of `task`: every attempt takes its own. `relative_dir` is the
    /// partition directory that the file is for (`month=1/day=2`, or empty; pass it again in [`WrittenFile`]),
    /// `extension` comes without a dot (`csv.gz`).
    ///
    /// All files are staged side by side: a directory for each partition would have to be made and removed again, and
    /// removing a thousand directories takes seconds on some disks.
    pub fn staging_path(&self, task: usize, relative_dir: &str, extension: &str) -> Location {
        debug_assert!(!relative_dir.starts_with('/'), "a partition directory is relative: {relative_dir}");
        let attempt = &Uuid::new_v4().simple().to_string()[..8];
        let dot = if extension.is_empty() { "" } else { "." };
        let name = format!("part-{task:05}-{}-{attempt}{dot}{extension}", self.id);
        match (self.is_in_place(), relative_dir.trim_matches('/')) {
            (true, directory) if !directory.is_empty() => self.directory().join(directory).join(&name),
            _ => self.directory().join(&name),
        }
    }

    /// Makes the written files the table's content, as the mode says, in one step. Staged files that are not listed
    /// (of failed or repeated attempts) are removed.
    ///
    /// Runs to its end even when the returned future is dropped half-way.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another commit was first and the mode allows one only; [`Error::NotFound`] when a file was
    /// not staged; the store's. After an error the old content is in place and the new files are removed.
    pub async fn publish(self, written: Vec<WrittenFile>) -> Result<Committed> {
        let work = self.run_publish(written).boxed();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => match runtime.spawn(work).await {
                Ok(result) => result,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(e) => Err(Error::Store { location: "commit".into(), source: Box::new(e) }),
            },
            Err(_) => work.await,
        }
    }

    async fn run_publish(mut self, written: Vec<WrittenFile>) -> Result<Committed> {
        let published = match self.target {
            Target::Table => self.publish_table(&written).await,
            Target::File => self.publish_file(&written).await,
        };
        match published {
            Ok(done) => {
                self.end().await;
                Ok(done)
            }
            Err(e) => {
                if self.planned {
                    self.undo().await;
                }
                if !self.planned && self.table.beats {
                    let _ = self.remove_written().await;
                    self.end().await;
                }
                // Dropping removes the rest, or leaves it to the next commit where it could not be removed.
                Err(e)
            }
        }
    }

    /// Undoes what was planned and not published; what cannot be undone now is left to the next commit.
    async fn undo(&mut self) {
        if leftovers::finish(&self.table, &self.meta, &self.id).await.is_ok() {
            self.planned = false;
        }
    }

    /// Gives up: removes every staged file, and the directories that were made for this commit.
    ///
    /// # Errors
    /// The store's, when something cannot be removed; the next commit tries again.
    pub async fn abort(mut self) -> Result<()> {
        let removed = self.remove_written().await;
        if removed.is_ok() {
            self.end().await;
        }
        removed
        // Dropping does the rest.
    }

    async fn remove_written(&self) -> Result<()> {
        if self.is_in_place() {
            leftovers::remove_written(&self.table, &self.meta, &self.id).await
        } else {
            self.staging.remove_all().await
        }
    }

    /// Gives the lease back where that takes a request; elsewhere dropping does it.
    async fn end(&mut self) {
        if self.table.beats
            && let Some(lease) = self.lease.take()
        {
            lease.release().await;
        }
    }

    fn leave_to_next(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_up();
        }
    }

    /// On a store behind a network removing takes requests: whoever drops this does not wait for them. The lease lives
    /// until they are done, so that the next writer finds what could not be removed.
    fn drop_later(&mut self) {
        let (Some(lease), Ok(runtime)) = (self.lease.take(), tokio::runtime::Handle::try_current()) else { return };
        let (in_place, table, meta) = (self.is_in_place(), self.table.clone(), self.meta.clone());
        let (staging, id) = (self.staging.clone(), self.id.clone());
        runtime.spawn(async move {
            let removed = match in_place {
                true => leftovers::remove_written(&table, &meta, &id).await,
                false => staging.remove_all().await,
            };
            match removed {
                Ok(()) => lease.release().await,
                Err(_) => lease.give_up(),
            }
        });
    }

    /// Removes what is staged, without waiting: files on disk or in memory.
    fn sweep(&mut self) -> bool {
        match self.staging.location.local_path() {
            Some(path) => match std::fs::remove_dir_all(path) {
                Ok(()) => true,
                Err(e) => e.kind() == std::io::ErrorKind::NotFound,
            },
            None => matches!(self.staging.remove_all().now_or_never(), Some(Ok(()))),
        }
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if self.lease.is_none() {
            return;
        }
        if self.table.beats && !self.planned {
            self.drop_later();
            return;
        }
        // Half published (a panic, or an error that could not be undone): only the newest manifest knows what stays.
        if self.planned || !self.sweep() {
            self.leave_to_next();
            return;
        }
        self.lease.take();
        if self.target == Target::File {
            self.table.prune(META);
        }
        for directory in &self.made {
            if std::fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }
}

fn summary(table: &Directory, version: u64, files: &[DataFile]) -> Committed {
    Committed {
        version,
        files: files.len(),
        rows: files.iter().filter_map(|file| file.rows).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        paths: files.iter().map(|file| table.location.join(&file.path)).collect(),
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
