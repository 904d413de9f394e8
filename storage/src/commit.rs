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
//! What always holds: a reader that honours manifests sees the content of exactly one manifest; a manifest, once newest,
//! names only files that are there; after a crash at any step the next commit removes what is left. When somebody else
//! published n+1 first, the content is computed again from theirs, so concurrent appends are all kept.
//!
//! A target that is a single file (`out/scored.parquet`) needs no manifest: renaming the staged file is the commit point.
//! Who writes the bytes, in which format, and how many files: the caller.

use std::collections::HashSet;
use std::path::PathBuf;

use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, RenameTargetMode};
use uuid::Uuid;

use crate::committed::{is_hidden, relative, visible};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::fault;
use crate::lease::Lease;
use crate::leftovers::{self, Plan, staging_name};
use crate::location::Location;
use crate::manifest::{self, DataFile, META, Manifest};
use crate::sealed::sha256_hex;
use crate::store::Stores;
use crate::target::{self, Target};

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

/// A commit in progress. Dropped or aborted it leaves nothing; killed, the next commit cleans up.
#[derive(Debug)]
pub struct Commit {
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

    async fn begin_with(stores: &Stores, table: &Location, mode: CommitMode, id: String) -> Result<Self> {
        if table.is_glob() {
            return Err(Error::invalid(table, "a place to write to has no *, ?, [ or { in its name"));
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
        let meta = directory.child(META);
        let made = target::missing_directories(&meta);
        leftovers::clean(stores, &directory).await?;
        if target == Target::Table {
            directory.remove_abandoned_temporaries().await?;
        }
        let lease = Lease::take(stores, &meta, &id).await?;
        let staging = meta.child(&staging_name(&id));
        let location = table.clone();
        fault::point("commit.begun");
        Ok(Self {
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
        })
    }

    /// The commit's own name: part of every file it writes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is being written to.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Whether the target is one file: then exactly one may be published.
    pub fn is_single_file(&self) -> bool {
        self.target == Target::File
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
        self.staging.location.join(&name)
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
            Ok(done) => Ok(done),
            Err(e) => {
                if self.planned && leftovers::finish(&self.table, &self.meta, &self.id).await.is_ok() {
                    self.planned = false;
                }
                // Dropping removes the rest, or leaves it to the next commit where it could not be removed.
                Err(e)
            }
        }
    }

    /// Gives up: removes every staged file, and the directories that were made for this commit.
    ///
    /// # Errors
    /// The store's, when something cannot be removed; the next commit tries again.
    pub async fn abort(self) -> Result<()> {
        self.staging.remove_all().await
        // Dropping does the rest.
    }

    async fn publish_table(&mut self, written: &[WrittenFile]) -> Result<Committed> {
        let files = self.named(written).await?;
        let mut base = self.baseline().await?;
        let mut renamed = false;
        for _ in 0..ATTEMPTS {
            let content = self.content(&base, &files)?;
            let next = Manifest::new(base.version + 1, &self.id, content);
            let removes: Vec<String> =
                base.files.iter().filter(|file| !next.contains(&file.path)).map(|file| file.path.clone()).collect();
            let adds: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
            self.planned = true;
            Plan { adds, removes: removes.clone() }.write(&self.meta, &self.id).await?;
            fault::point("commit.planned");
            if !renamed {
                self.rename(written, &files).await?;
                renamed = true;
            }
            if self.put_manifest(&next).await? {
                fault::point("commit.manifest");
                self.planned = false;
                self.finish(next.version, removes).await;
                return Ok(summary(&self.table, next.version, &files));
            }
            base = self.newest().await?.ok_or_else(|| self.vanished())?;
        }
        Err(Error::conflict(&self.location, "other commits were faster each time"))
    }

    /// The written files as the manifest will name them, with the sizes found in the store.
    async fn named(&self, written: &[WrittenFile]) -> Result<Vec<DataFile>> {
        let mut names = HashSet::new();
        for file in written {
            let name = final_name(file);
            if is_hidden(&name) {
                return Err(Error::invalid(
                    &self.location,
                    format!("{name} would be hidden: a name begins with _ or ."),
                ));
            }
            if file.path.path().prefix_match(self.staging.path()).is_none() || !names.insert(name.clone()) {
                return Err(Error::invalid(&file.path, "is no file staged by this commit, or is listed twice"));
            }
        }
        let looks = written.iter().map(|file| async move {
            let meta = self.table.store().head(file.path.path()).await.map_err(|e| Error::at(&file.path, e))?;
            let (path, rows) = (final_name(file), Some(file.rows));
            Ok(DataFile { path, rows, bytes: meta.size, sha256: file.sha256.clone() })
        });
        let looks: Vec<_> = looks.collect();
        futures::stream::iter(looks).buffered(PARALLEL).try_collect().await
    }

    /// The newest manifest. A directory that has none gets number 0 with what is visible now: from then on nothing that
    /// is renamed into it shows before it is committed.
    async fn baseline(&self) -> Result<Manifest> {
        loop {
            if let Some(newest) = self.newest().await? {
                return Ok(newest);
            }
            let found = self.visible().await?;
            let manifest = Manifest::new(0, &self.id, found);
            if self.meta.create(&manifest::file_name(0), manifest.to_bytes()).await? {
                fault::point("commit.baseline");
            }
        }
    }

    async fn visible(&self) -> Result<Vec<DataFile>> {
        let found = visible(self.table.store(), self.table.path()).await.map_err(|e| Error::at(&self.location, e))?;
        Ok(found
            .iter()
            .map(|meta| DataFile {
                path: relative(self.table.path(), &meta.location).to_string(),
                rows: None,
                bytes: meta.size,
                sha256: None,
            })
            .collect())
    }

    async fn newest(&self) -> Result<Option<Manifest>> {
        manifest::newest(self.table.store(), self.table.path()).await.map_err(|e| Error::at(&self.location, e))
    }

    fn vanished(&self) -> Error {
        Error::conflict(&self.location, "its manifests were removed while a commit was running")
    }

    /// The table's files after this commit, when `base` is before it.
    fn content(&self, base: &Manifest, files: &[DataFile]) -> Result<Vec<DataFile>> {
        let mut content = match self.mode {
            CommitMode::Append => base.files.clone(),
            CommitMode::Overwrite => vec![],
            CommitMode::OverwritePartitions => {
                let written: HashSet<&str> = files.iter().map(|file| directory_of(&file.path)).collect();
                base.files.iter().filter(|file| !written.contains(directory_of(&file.path))).cloned().collect()
            }
            CommitMode::ErrorIfExists if base.files.is_empty() => vec![],
            CommitMode::ErrorIfExists => {
                let reason = "another process has written it meanwhile, and its files are not replaced";
                return Err(Error::conflict(&self.location, reason));
            }
        };
        content.extend(files.iter().cloned());
        Ok(content)
    }

    async fn rename(&self, written: &[WrittenFile], files: &[DataFile]) -> Result<()> {
        let names = files.iter().map(|file| file.path.clone());
        let moves = written.iter().map(|file| file.path.clone()).zip(names).collect();
        self.table.adopt_all(moves, || fault::point("commit.renamed_one")).await?;
        fault::point("commit.renamed");
        Ok(())
    }

    /// False when the number is taken by somebody else.
    async fn put_manifest(&self, next: &Manifest) -> Result<bool> {
        let (name, bytes) = (manifest::file_name(next.version), next.to_bytes());
        let put = self.meta.create(&name, bytes.clone()).await;
        if matches!(put, Ok(true)) {
            return Ok(true);
        }
        // A put may have taken effect although its answer was lost or a later step of it failed: look whose it is.
        let ours = self.meta.get(&name).await?.is_some_and(|found| found == bytes);
        if ours { Ok(true) } else { put }
    }

    /// After the commit point nothing may fail any more: what cannot be removed now is left to the next commit.
    async fn finish(&mut self, version: u64, removes: Vec<String>) {
        let result = async {
            leftovers::remove_files(&self.table, removes).await?;
            fault::point("commit.replaced_deleted");
            self.table.put(SUCCESS, Vec::new()).await?;
            fault::point("commit.success_marked");
            if version >= 2 {
                self.meta.put(&manifest::file_name(version - 2), Vec::new()).await?;
            }
            self.staging.remove_all().await?;
            fault::point("commit.staging_removed");
            leftovers::forget_plan(&self.meta, &self.id).await?;
            Ok::<(), Error>(())
        };
        if let Err(e) = result.await {
            tracing::warn!("{}: committed, but what it replaced could not all be removed: {e}", self.location);
            self.leave_to_next();
        }
        self.made.clear();
    }

    async fn publish_file(&mut self, written: &[WrittenFile]) -> Result<Committed> {
        let [file] = written else {
            let reason =
                format!("is one file, and {} were written: end the name with / for a directory", written.len());
            return Err(Error::invalid(&self.location, reason));
        };
        let name = self.location.file_name().expect("a single-file target has a name").to_string();
        let bytes = self.named(written).await?.iter().map(|file| file.bytes).sum();
        let mode = match self.mode {
            CommitMode::ErrorIfExists => RenameTargetMode::Create,
            _ => RenameTargetMode::Overwrite,
        };
        fault::point("commit.planned");
        match self.table.adopt(&file.path, &name, mode).await {
            Err(Error::Exists { .. }) => {
                let reason = "another process has written it meanwhile, and it is not replaced";
                return Err(Error::conflict(&self.location, reason));
            }
            other => other?,
        }
        fault::point("commit.renamed");
        self.made.retain(|directory| self.meta.location.local_path().as_ref() == Some(directory));
        Ok(Committed { version: 0, files: 1, rows: file.rows, bytes, paths: vec![self.location.clone()] })
    }

    fn leave_to_next(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_up();
        }
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

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// `<relative>/<file name>`, relative to the table.
fn final_name(file: &WrittenFile) -> String {
    let name = file.path.file_name().unwrap_or_default();
    match file.relative.trim_matches('/') {
        "" => name.to_string(),
        directory => format!("{directory}/{name}"),
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
