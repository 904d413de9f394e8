//! The versions of a table that can still be read, for people who want one of them back.
//!
//! Which versions those are: the manifests of the newest two, or of as many as a writer was told to keep
//! (`sink.keep_versions`), as long as every file that they name is there. Files that a commit replaced are removed at once,
//! because a reader that knows no manifests would count their rows twice; a writer that keeps them moves them below
//! `_gristmill/kept`, where no reader looks.

use std::collections::HashSet;

use futures::TryStreamExt;

use crate::committed::relative;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::manifest::{self, DataFile, META, Manifest};
use crate::store::Stores;

/// Where replaced files are kept, below [`META`].
pub(crate) const KEPT: &str = "kept";
/// So many manifests are kept in any case: the newest, and the one before for whoever read it just before.
const MANIFESTS_MIN: u64 = 2;

/// A version of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableVersion {
    /// Its number.
    pub version: u64,
    /// When it was published, in UTC.
    pub published: String,
    /// Number of its files.
    pub files: u64,
    /// Rows in them, where all writers counted.
    pub rows: Option<u64>,
    /// Bytes of them.
    pub bytes: u64,
    /// Whether readers see it.
    pub is_current: bool,
    /// Whether it can be gone back to: all of its files are there.
    pub is_whole: bool,
}

/// The versions whose manifests are there, the newest first.
///
/// # Errors
/// A place that is no table of files with manifests; the store's.
pub async fn versions(stores: &Stores, table: &Location) -> Result<Vec<TableVersion>> {
    let table = Directory::open(stores, &table.as_directory())?;
    let meta = table.child(META);
    let listed: Vec<_> =
        table.store().list(Some(meta.path())).try_collect().await.map_err(|e| Error::at(&table.location, e))?;
    let named = listed.iter().filter_map(|object| {
        let name = relative(meta.path(), &object.location);
        Some((manifest::version_of(name)?, object)).filter(|_| object.size > 0)
    });
    let mut found: Vec<_> = named.collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    if found.is_empty() {
        return Err(Error::invalid(&table.location, "is no table that COPY wrote: it has no manifests"));
    }
    let there = there(&table).await?;
    let mut versions = Vec::new();
    for (version, object) in found {
        // Emptied meanwhile: somebody commits.
        let Some(manifest) = read(&meta, version).await? else { continue };
        versions.push(TableVersion {
            version,
            published: object.last_modified.format("%Y-%m-%d %H:%M:%S").to_string(),
            files: manifest.files.len() as u64,
            rows: manifest.files.iter().map(|file| file.rows).sum(),
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
            is_current: versions.is_empty(),
            is_whole: manifest.files.iter().all(|file| there.contains(&file.path)),
        });
    }
    Ok(versions)
}

/// The manifest of one version; `None` when it is not there, or was emptied.
pub(crate) async fn read(meta: &Directory, version: u64) -> Result<Option<Manifest>> {
    let name = manifest::file_name(version);
    match meta.get(&name).await? {
        Some(bytes) if !bytes.is_empty() => {
            Manifest::parse(&bytes, &manifest::below(meta.path(), &name), version).map(Some)
        }
        _ => Ok(None),
    }
}

/// The names of all files that are in the table's directory or kept.
async fn there(table: &Directory) -> Result<HashSet<String>> {
    let kept = format!("{META}/{KEPT}/");
    let names = table.store().list(Some(table.path())).map_ok(|object| {
        let name = relative(table.path(), &object.location);
        name.strip_prefix(&kept).unwrap_or(name).to_string()
    });
    names.try_collect().await.map_err(|e| Error::at(&table.location, e))
}

/// Which of these files lie where they are kept, and not in the table.
///
/// # Errors
/// A file that is in neither place.
pub(crate) async fn only_kept(table: &Directory, files: &[DataFile]) -> Result<Vec<String>> {
    let kept = table.child(META).child(KEPT);
    let mut found = Vec::new();
    for file in files {
        if table.size(&file.path).await? == Some(file.bytes) {
            continue;
        }
        if kept.size(&file.path).await? != Some(file.bytes) {
            let reason = format!("cannot go back to that version: {} is gone", file.path);
            return Err(Error::invalid(&table.location, reason));
        }
        found.push(file.path.clone());
    }
    Ok(found)
}

/// Empties the manifests that nobody goes back to, and removes kept files that none of the others names. `versions` is how
/// many are kept with their files.
pub(crate) async fn retire(table: &Directory, newest: u64, versions: u64) -> Result<()> {
    let meta = table.child(META);
    if let Some(old) = newest.checked_sub(versions.max(MANIFESTS_MIN)) {
        meta.put(&manifest::file_name(old), Vec::new()).await?;
    }
    if versions < 2 && table.beats {
        // Nothing is kept, and looking would take a request for each commit.
        return Ok(());
    }
    let kept = meta.child(KEPT);
    let listed = kept.store().list(Some(kept.path())).try_collect::<Vec<_>>().await;
    let listed = match listed {
        Err(object_store::Error::NotFound { .. }) => Vec::new(),
        listed => listed.map_err(|e| Error::at(&kept.location, e))?,
    };
    if listed.is_empty() {
        return Ok(());
    }
    let mut wanted = HashSet::new();
    for version in newest.saturating_sub(versions - 1)..newest {
        let old = read(&meta, version).await?;
        wanted.extend(old.into_iter().flat_map(|old| old.files).map(|file| file.path));
    }
    if let Some(current) = read(&meta, newest).await? {
        for file in current.files {
            wanted.remove(&file.path);
        }
    }
    let names = listed.iter().map(|object| relative(kept.path(), &object.location).to_string());
    let unwanted: Vec<String> = names.filter(|name| !wanted.contains(name)).collect();
    kept.delete(unwanted.iter().cloned()).await?;
    for name in &unwanted {
        kept.prune(name.rsplit_once('/').map_or("", |(directory, _)| directory));
    }
    meta.prune(KEPT);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{contents, on_each, raw_names, write};
    use crate::{Commit, CommitMode, roll_back};

    on_each!(
        an_append_can_be_undone,
        what_was_replaced_comes_back_when_it_was_kept,
        what_was_not_kept_does_not_come_back,
    );

    async fn commit(stores: &Stores, table: &Location, mode: CommitMode, keep: u64, files: &[(&str, &str)]) {
        let commit = Commit::begin(stores, table, mode).await.unwrap().keeping(keep);
        let mut written = vec![];
        for (relative, text) in files {
            written.push(write(&commit, stores, relative, text).await);
        }
        commit.publish(written).await.unwrap();
    }

    async fn states(stores: &Stores, table: &Location) -> Vec<(u64, bool, bool)> {
        let found = versions(stores, table).await.unwrap();
        found.into_iter().map(|version| (version.version, version.is_current, version.is_whole)).collect()
    }

    async fn an_append_can_be_undone(stores: Stores, root: Location) {
        let table = root.join("t/");
        commit(&stores, &table, CommitMode::Append, 1, &[("m=1", "a")]).await;
        commit(&stores, &table, CommitMode::Append, 1, &[("k=1", "wrong")]).await;
        assert_eq!(states(&stores, &table).await, [(2, true, true), (1, false, true)]);
        let done = roll_back(&stores, &table, 1, 1).await.unwrap();
        assert_eq!((done.version, done.files), (3, 1));
        assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:a"]);
        assert!(!raw_names(&stores, &table).await.iter().any(|name| name.contains("k=1")), "what was undone goes");
        for (version, expected) in
            [(3, "has the content of version 3 already"), (1, "has no version 1"), (9, "no version 9")]
        {
            let error = roll_back(&stores, &table, version, 1).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    async fn what_was_replaced_comes_back_when_it_was_kept(stores: Stores, root: Location) {
        let table = root.join("t/");
        for (keep, files) in
            [(3, [("m=1", "a"), ("m=2", "b")]), (3, [("m=1", "c"), ("m=2", "d")]), (3, [("m=1", "e"), ("m=3", "f")])]
        {
            commit(&stores, &table, CommitMode::OverwritePartitions, keep, &files).await;
        }
        assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:e", "m=2:d", "m=3:f"]);
        assert_eq!(contents(&stores, &root).await.unwrap().len(), 3, "what is kept is shown to nobody");
        assert_eq!(states(&stores, &table).await, [(3, true, true), (2, false, true), (1, false, true)]);
        roll_back(&stores, &table, 1, 3).await.unwrap();
        assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:a", "m=2:b"]);
        roll_back(&stores, &table, 3, 3).await.unwrap();
        assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:e", "m=2:d", "m=3:f"]);
        commit(&stores, &table, CommitMode::Append, 2, &[("m=4", "g")]).await;
        let names = raw_names(&stores, &table).await;
        let kept = names.iter().filter(|name| name.starts_with("_gristmill/kept/")).count();
        assert_eq!(kept, 0, "two versions need no file that is gone: {names:?}");
    }

    async fn what_was_not_kept_does_not_come_back(stores: Stores, root: Location) {
        let table = root.join("t/");
        commit(&stores, &table, CommitMode::Append, 1, &[("m=1", "a")]).await;
        commit(&stores, &table, CommitMode::Overwrite, 1, &[("m=1", "b")]).await;
        assert_eq!(states(&stores, &table).await, [(2, true, true), (1, false, false)]);
        let error = roll_back(&stores, &table, 1, 1).await.unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
        assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:b"]);
        let error = versions(&stores, &root.join("other/")).await.unwrap_err().to_string();
        assert!(error.contains("it has no manifests"), "{error}");
    }
}
