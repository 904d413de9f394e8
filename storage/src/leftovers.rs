//! Cleaning up after writers that died.
//!
//! A commit leaves, while it works, a lease `<id>.lock` and a directory `staging-<id>` in the table's `_gristmill`. Before
//! it gives files their final names it writes down what it is about to do, so that a later commit can finish or undo it
//! without searching: of everything the plan mentions, whatever the newest manifest does not name goes. That one rule
//! is right on both sides of the commit point: not published, the new files are not named and the old ones are;
//! published, it is the other way round.
//!
//! On stores without renames there is no staging directory: files are written under their final names, which hold the id
//! of their writer, and are found by it.

use object_store::RenameTargetMode;
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::lease::{Lease, StoreClock, lease_id};
use crate::manifest;
use crate::sealed;
use crate::store::Stores;
use crate::versions::KEPT;

pub(crate) const STAGING_PREFIX: &str = "staging-";
const PLAN_PREFIX: &str = "plan-";
const PLAN_SUFFIX: &str = ".json";

/// What a commit is about to do to the table's directory; paths are relative to the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Names that staged files are about to get.
    pub(crate) adds: Vec<String>,
    /// Files that the new content no longer has.
    pub(crate) removes: Vec<String>,
}

impl Plan {
    /// Written beside the manifests, before the first rename: it must be on disk when a renamed file is.
    pub(crate) async fn write(&self, meta: &Directory, id: &str) -> Result<()> {
        meta.put(&plan_name(id), sealed::seal(self)).await
    }

    async fn read(meta: &Directory, id: &str) -> Result<Option<Self>> {
        let name = plan_name(id);
        let Some(bytes) = meta.get(&name).await? else { return Ok(None) };
        sealed::unseal(&bytes).map(Some).map_err(|reason| Error::damaged(meta.location.join(&name), reason))
    }
}

/// The work is done: what the plan mentions is the table's now, or gone.
pub(crate) async fn forget_plan(meta: &Directory, id: &str) -> Result<()> {
    meta.delete([plan_name(id)]).await
}

fn plan_name(id: &str) -> String {
    format!("{PLAN_PREFIX}{id}{PLAN_SUFFIX}")
}

fn plan_id(name: &str) -> Option<&str> {
    name.strip_prefix(PLAN_PREFIX)?.strip_suffix(PLAN_SUFFIX)
}

/// `staging-<id>`
pub(crate) fn staging_name(id: &str) -> String {
    format!("{STAGING_PREFIX}{id}")
}

/// Removes what dead commits left in a table's directory. Living ones are not touched.
pub(crate) async fn clean(stores: &Stores, table: &Directory) -> Result<()> {
    let meta = table.child(manifest::META);
    let entries = meta.entries().await?;
    let staged = entries.directories.iter().filter_map(|name| name.strip_prefix(STAGING_PREFIX));
    let mut ids: Vec<&str> =
        staged.chain(entries.files.iter().filter_map(|name| lease_id(name).or_else(|| plan_id(name)))).collect();
    ids.sort_unstable();
    ids.dedup();
    let clock = StoreClock::default();
    for id in ids {
        if let Some(lease) = Lease::of_dead(stores, &meta, id, &clock).await? {
            tracing::info!("{}: removing what an interrupted commit left", table.location);
            if table.beats {
                fence(table, &meta, id).await?;
            }
            finish(table, &meta, id).await?;
            lease.release().await;
        }
    }
    meta.remove_abandoned_temporaries().await
}

/// Sees to it that a writer which was taken for dead cannot commit, should it come back: the next version of the table,
/// of the same content, says so. Whoever wants to publish must follow the newest version, so either it was first and its
/// files are named, or it reads its own name here.
async fn fence(table: &Directory, meta: &Directory, id: &str) -> Result<()> {
    loop {
        let newest = manifest::newest(table.store(), table.path()).await.map_err(|e| Error::at(&table.location, e))?;
        let Some(newest) = newest else { return Ok(()) };
        if newest.has_files_of(id) || newest.fenced.iter().any(|fenced| fenced == id) {
            return Ok(());
        }
        let next = newest.fencing(id);
        if meta.create(&manifest::file_name(next.version), next.to_bytes()).await? {
            return Ok(());
        }
    }
}

/// Finishes or undoes one commit that works no more, but for its lease, which the caller holds.
pub(crate) async fn finish(table: &Directory, meta: &Directory, id: &str) -> Result<()> {
    if let Some(plan) = Plan::read(meta, id).await? {
        let newest = manifest::newest(table.store(), table.path()).await.map_err(|e| Error::at(&table.location, e))?;
        // Without a manifest the removed files are somebody else's: a plan is only written once there is one.
        let removes = if newest.is_some() { plan.removes } else { vec![] };
        let named = |path: &String| newest.as_ref().is_some_and(|manifest| manifest.contains(path));
        let gone: Vec<String> = plan.adds.into_iter().chain(removes).filter(|path| !named(path)).collect();
        remove_files(table, gone).await?;
    }
    if table.renames {
        meta.child(&staging_name(id)).remove_all().await?;
    } else {
        remove_written(table, meta, id).await?;
    }
    forget_plan(meta, id).await
}

/// Removes what a writer has written under final names, as far as the newest manifest does not name it, and what it has
/// staged for a single file.
pub(crate) async fn remove_written(table: &Directory, meta: &Directory, id: &str) -> Result<()> {
    let newest = manifest::newest(table.store(), table.path()).await.map_err(|e| Error::at(&table.location, e))?;
    let named = |path: &String| newest.as_ref().is_some_and(|manifest| manifest.contains(path));
    let written = table.files_of(id).await?;
    table.delete(written.into_iter().filter(|path| !named(path))).await?;
    meta.child(&staging_name(id)).remove_all().await
}

/// Moves files of a table to where they are kept for whoever goes back, and removes the partition directories that become
/// empty.
pub(crate) async fn keep_files(table: &Directory, meta: &Directory, paths: Vec<String>) -> Result<()> {
    let kept = meta.child(KEPT);
    for path in &paths {
        match kept.adopt(&table.location.join(path), path, RenameTargetMode::Overwrite).await {
            // An earlier try of the same.
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    remove_files(table, paths).await
}

/// Removes files of a table and the partition directories that become empty.
pub(crate) async fn remove_files(table: &Directory, paths: Vec<String>) -> Result<()> {
    table.delete(paths.iter().cloned()).await?;
    for path in &paths {
        if let Some((directory, _)) = path.rsplit_once('/') {
            table.prune(directory);
        }
    }
    Ok(())
}
