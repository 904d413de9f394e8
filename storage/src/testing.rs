//! What the tests of several modules share.
#![allow(clippy::unwrap_used, reason = "test code")]

use bytes::Bytes;
use futures::TryStreamExt;

use crate::committed::relative;
use crate::glob::expand;
use crate::{Commit, CommitMode, Committed, Location, Result, Stores, WrittenFile};

/// Makes two tests of each check: on disk and in memory.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let root = crate::Location::parse(&format!("{}/", directory.path().display())).unwrap();
                super::$name(crate::Stores::new(), root).await;
            })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::Stores::new(), crate::Location::parse("memory://m/base/").unwrap()).await;
            })+
        }
    };
}
pub(crate) use on_both;

/// As [`on_both`], and in a memory that has neither renames nor locks, as object stores have not.
macro_rules! on_each {
    ($($name:ident),+ $(,)?) => {
        crate::testing::on_both!($($name),+);
        mod objects {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                let stores = crate::Stores::of_plain_objects(std::time::Duration::from_secs(60));
                super::$name(stores, crate::Location::parse("memory://m/base/").unwrap()).await;
            })+
        }
    };
}
pub(crate) use on_each;

/// Stages a file of a commit.
pub(crate) async fn write(commit: &Commit, stores: &Stores, relative: &str, text: &str) -> WrittenFile {
    let path = commit.staging_path(0, relative, "csv");
    stores.put_atomic(&path, Bytes::from(text.to_string())).await.unwrap();
    let (rows, bytes) = (text.lines().count() as u64, text.len() as u64);
    WrittenFile { path, relative: relative.into(), rows, bytes, sha256: None }
}

/// Commits files given as (partition, content).
pub(crate) async fn commit(
    stores: &Stores,
    table: &Location,
    mode: CommitMode,
    files: &[(&str, &str)],
) -> Result<Committed> {
    let commit = Commit::begin(stores, table, mode).await?;
    let mut written = vec![];
    for (relative, text) in files {
        written.push(write(&commit, stores, relative, text).await);
    }
    commit.publish(written).await
}

/// The visible contents, sorted, each with its partition: `month=1:text`.
pub(crate) async fn contents(stores: &Stores, at: &Location) -> Result<Vec<String>> {
    let mut found = vec![];
    for file in expand(stores, at).await? {
        let text = String::from_utf8(stores.get(&file.location).await?.to_vec()).unwrap();
        let below = relative(at.path(), &file.meta.location);
        found.push(format!("{}:{text}", below.rsplit_once('/').map_or("", |(directory, _)| directory)));
    }
    found.sort();
    Ok(found)
}

/// Every object below, hidden ones included, as relative names.
pub(crate) async fn raw_names(stores: &Stores, at: &Location) -> Vec<String> {
    let (store, path) = stores.open(at).unwrap();
    let listed: Vec<_> = store.list(Some(&path)).try_collect().await.unwrap();
    let mut names: Vec<String> = listed.iter().map(|meta| relative(&path, &meta.location).to_string()).collect();
    names.sort();
    names
}
