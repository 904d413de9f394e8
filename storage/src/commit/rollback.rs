//! Going back: the content of an earlier version becomes the next one. Nothing else is different from a commit: it is one
//! conditional put, its plan is written down before it, and what it replaces is removed, or kept, after it.

use object_store::ObjectStoreExt;

use super::publishing::is_foreign;
use super::{ATTEMPTS, Commit, CommitMode, Committed, summary};
use crate::error::{Error, Result};
use crate::fault;
use crate::leftovers::Plan;
use crate::location::Location;
use crate::manifest;
use crate::store::Stores;
use crate::target::{self, Target};
use crate::versions::{self, KEPT};

/// Makes the content of `version` the table's again; `keep` versions are kept with their files.
///
/// # Errors
/// A version that is not kept, whose files are gone, or that readers see anyway; the store's.
pub async fn roll_back(stores: &Stores, table: &Location, version: u64, keep: u64) -> Result<Committed> {
    if table.is_glob() || target::find(stores, table).await? != Target::Table {
        return Err(Error::invalid(table, "is no table: versions belong to a directory"));
    }
    let known = versions::versions(stores, table).await?;
    if !known.iter().any(|known| known.version == version) {
        let list: Vec<String> = known.iter().rev().map(|known| known.version.to_string()).collect();
        let reason = format!("has no version {version} any more, or not yet: there are {}", list.join(", "));
        return Err(Error::invalid(table, reason));
    }
    let commit = Commit::begin(stores, table, CommitMode::Append).await?.keeping(keep);
    commit.run_roll_back(version).await
}

impl Commit {
    async fn run_roll_back(mut self, version: u64) -> Result<Committed> {
        let rolled = self.put_back(version).await;
        if let (Err(_), true) = (&rolled, self.planned) {
            self.undo().await;
        }
        self.end().await;
        rolled
    }

    async fn put_back(&mut self, version: u64) -> Result<Committed> {
        let Some(wanted) = versions::read(&self.meta, version).await? else {
            return Err(Error::invalid(&self.location, format!("has no version {version} any more")));
        };
        for _ in 0..ATTEMPTS {
            let base = self.newest().await?.ok_or_else(|| self.vanished())?;
            if base.files == wanted.files {
                let reason = format!("has the content of version {version} already");
                return Err(Error::invalid(&self.location, reason));
            }
            let adds = versions::only_kept(&self.table, &wanted.files).await?;
            let next = base.followed_by(&self.id, wanted.files.clone()).with_columns(wanted.columns.clone());
            let replaced = base.files.iter().filter(|file| !next.contains(&file.path) && !is_foreign(file));
            let removes: Vec<String> = replaced.map(|file| file.path.clone()).collect();
            self.planned = true;
            self.noted = true;
            Plan { adds: adds.clone(), removes: removes.clone() }.write(&self.meta, &self.id).await?;
            fault::point("commit.planned");
            // Copied, not moved: should this process die now, they are still kept.
            for name in &adds {
                self.copy_back(name).await?;
            }
            fault::point("commit.renamed");
            if self.put_manifest(&next).await? {
                fault::point("commit.manifest");
                self.planned = false;
                self.finish(next.version, removes).await;
                return Ok(summary(&self.table, next.version, &next.files));
            }
        }
        Err(Error::conflict(&self.location, "other commits were faster each time"))
    }

    async fn copy_back(&self, name: &str) -> Result<()> {
        let from = self.meta.child(KEPT).location.join(name);
        let to = manifest::below(self.table.path(), name);
        self.table.store().copy(from.path(), &to).await.map_err(|e| Error::at(&from, e))
    }
}
