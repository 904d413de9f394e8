//! From staged files to the commit point and after it.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStoreExt, RenameTargetMode};

use super::{ATTEMPTS, Admission, Base, Commit, CommitMode, Committed, PARALLEL, SUCCESS, WrittenFile, summary};
use crate::committed::{is_hidden, relative, visible};
use crate::error::{Error, Result};
use crate::fault;
use crate::leftovers::{self, Plan};
use crate::manifest::{self, Columns, DataFile, Manifest};
use crate::target::is_table_file;
use crate::versions;

/// How often a manifest that is there is looked for in listings, with growing pauses: ten seconds in all.
const LOOKS: u32 = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 50 });

impl Commit {
    pub(super) async fn publish_table(&mut self, written: &[WrittenFile]) -> Result<Committed> {
        let files = self.named(written).await?;
        let mut base = self.baseline().await?;
        let mut renamed = self.is_in_place();
        for _ in 0..ATTEMPTS {
            self.check_fence(&base)?;
            let columns = self.admitted(&base).await?;
            let content = self.content(&base, &files)?;
            let next = base.followed_by(&self.id, content).with_columns(columns);
            let replaced = base.files.iter().filter(|file| !next.contains(&file.path) && !is_foreign(file));
            let unwanted = files.iter().filter(|file| !next.contains(&file.path));
            let removes: Vec<String> = replaced.chain(unwanted).map(|file| file.path.clone()).collect();
            let adds: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
            self.planned = true;
            // Files under final names are found without it; those that are replaced are not.
            if !self.is_in_place() || !removes.is_empty() || self.noted {
                Plan { adds, removes: removes.clone() }.write(&self.meta, &self.id).await?;
                self.noted = true;
            }
            fault::point("commit.planned");
            if !renamed {
                self.rename(written, &files).await?;
                renamed = true;
            }
            if self.put_manifest(&next).await? {
                fault::point("commit.manifest");
                self.planned = false;
                self.finish(next.version, removes).await;
                let added: Vec<DataFile> = files.into_iter().filter(|file| next.contains(&file.path)).collect();
                return Ok(summary(&self.table, next.version, &added));
            }
            base = self.newest().await?.ok_or_else(|| self.vanished())?;
        }
        Err(Error::conflict(&self.location, "other commits were faster each time"))
    }

    /// The columns of the table after this commit, when `base` is before it and its files may be part of it.
    async fn admitted(&self, base: &Manifest) -> Result<Option<Columns>> {
        let Some(Admission(ask)) = &self.admission else { return Ok(None) };
        let asked = ask(Base { version: base.version, columns: base.columns.clone() }).await;
        asked.map(Some).map_err(|reason| Error::invalid(&self.location, reason))
    }

    /// A writer that was silent for too long, and one whose work somebody else has done, may not commit any more.
    fn check_fence(&self, base: &Manifest) -> Result<()> {
        if base.fenced.contains(&self.id) {
            let reason = "this writer gave no sign of life for too long and was taken for dead: run it again";
            return Err(Error::conflict(&self.location, reason));
        }
        if self.table.beats && base.has_files_of(&self.key) {
            return Err(Error::conflict(&self.location, "another process has done the same work meanwhile"));
        }
        Ok(())
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
            let is_ours = match self.is_in_place() {
                true => file.path == self.table.location.join(&name) && name.contains(&format!("-{}-", self.id)),
                false => file.path.path().prefix_match(self.staging.path()).is_some(),
            };
            if !is_ours || !names.insert(name.clone()) {
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
    pub(super) async fn baseline(&self) -> Result<Manifest> {
        for look in 0..LOOKS {
            if let Some(newest) = self.newest().await? {
                return Ok(newest);
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER * look).await;
            let found = self.visible().await?;
            let manifest = Manifest::new(0, "", found);
            if self.meta.create(&manifest::file_name(0), manifest.to_bytes()).await? {
                fault::point("commit.baseline");
            }
        }
        let reason = "its first manifest is there, but no listing shows it: listings are kept by something on the way";
        Err(Error::conflict(&self.location, reason))
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

    pub(super) async fn newest(&self) -> Result<Option<Manifest>> {
        manifest::newest(self.table.store(), self.table.path()).await.map_err(|e| Error::at(&self.location, e))
    }

    pub(super) fn vanished(&self) -> Error {
        Error::conflict(&self.location, "its manifests were removed while a commit was running")
    }

    /// The table's files after this commit, when `base` is before it.
    fn content(&self, base: &Manifest, files: &[DataFile]) -> Result<Vec<DataFile>> {
        let mut content = match self.mode {
            CommitMode::Append => base.files.clone(),
            CommitMode::Overwrite => vec![],
            CommitMode::OverwritePartitions => {
                let written = files.iter().filter(|file| !keeps_columns(file));
                let written: HashSet<&str> = written.map(|file| directory_of(&file.path)).collect();
                base.files.iter().filter(|file| !written.contains(directory_of(&file.path))).cloned().collect()
            }
            CommitMode::ErrorIfExists if base.files.is_empty() => vec![],
            CommitMode::ErrorIfExists => {
                let reason = "another process has written it meanwhile, and its files are not replaced";
                return Err(Error::conflict(&self.location, reason));
            }
        };
        content.extend(files.iter().cloned());
        if !content.iter().all(keeps_columns) {
            content.retain(|file| !keeps_columns(file));
        }
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
    pub(super) async fn put_manifest(&self, next: &Manifest) -> Result<bool> {
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
    pub(super) async fn finish(&mut self, version: u64, removes: Vec<String>) {
        let result = async {
            if self.keep > 1 {
                leftovers::keep_files(&self.table, &self.meta, removes).await?;
            } else {
                leftovers::remove_files(&self.table, removes).await?;
            }
            fault::point("commit.replaced_deleted");
            self.table.put(SUCCESS, Vec::new()).await?;
            fault::point("commit.success_marked");
            versions::retire(&self.table, version, self.keep).await?;
            if !self.is_in_place() {
                self.staging.remove_all().await?;
            }
            fault::point("commit.staging_removed");
            if self.noted {
                leftovers::forget_plan(&self.meta, &self.id).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(e) = result.await {
            tracing::warn!("{}: committed, but what it replaced could not all be removed: {e}", self.location);
            self.leave_to_next();
        }
        self.made.clear();
    }

    pub(super) async fn publish_file(&mut self, written: &[WrittenFile]) -> Result<Committed> {
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
        let adopted = match self.table.renames {
            true => self.table.adopt(&file.path, &name, mode).await,
            false => self.table.adopt_copy(&file.path, &name, self.mode == CommitMode::ErrorIfExists).await,
        };
        match adopted {
            Err(Error::Exists { .. }) => {
                let reason = "another process has written it meanwhile, and it is not replaced";
                return Err(Error::conflict(&self.location, reason));
            }
            other => other?,
        }
        fault::point("commit.renamed");
        if self.table.beats && self.staging.remove_all().await.is_err() {
            self.leave_to_next();
        }
        self.made.retain(|directory| self.meta.location.local_path().as_ref() == Some(directory));
        Ok(Committed { version: 0, files: 1, rows: file.rows, bytes, paths: vec![self.location.clone()] })
    }
}

/// Something that lay in the directory before it became a table and is no part of one: it is left alone.
pub(super) fn is_foreign(file: &DataFile) -> bool {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    file.rows.is_none() && !is_table_file(name)
}

/// A file without rows in a partition's directory says which columns a table has that has no rows. Beside other files it
/// says nothing, and it must not make its directory one that was written.
fn keeps_columns(file: &DataFile) -> bool {
    file.rows == Some(0) && !directory_of(&file.path).is_empty()
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
