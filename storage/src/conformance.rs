//! One suite that every store of ours passes, wrappers included, so that a commit may rely on it.
//!
//! The caller gives a store and an empty prefix in which the suite may do what it likes. Failures panic with what was
//! expected: this is test code.
#![allow(clippy::unwrap_used, reason = "a test suite: a failed expectation is a panic")]

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::manifest::below;

/// Runs every check, one after the other, each in a prefix of its own.
pub async fn all(store: Arc<dyn ObjectStore>, prefix: &Path) {
    put_get_delete(&store, &below(prefix, "put")).await;
    conditional_put(&store, &below(prefix, "conditional")).await;
    ranges(&store, &below(prefix, "ranges")).await;
    listing(&store, &below(prefix, "listing")).await;
    odd_names(&store, &below(prefix, "odd")).await;
    copy_and_rename(&store, &below(prefix, "copy")).await;
    multipart(&store, &below(prefix, "multipart")).await;
    one_creator_wins(&store, &below(prefix, "race")).await;
    assert_eq!(names(&store, prefix).await, Vec::<String>::new(), "every check cleans up");
}

async fn names(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Vec<String> {
    let listed: Vec<_> = store.list(Some(prefix)).try_collect().await.unwrap();
    let mut names: Vec<String> =
        listed.iter().map(|meta| meta.location.as_ref()[prefix.as_ref().len() + 1..].to_string()).collect();
    names.sort();
    names
}

async fn text(store: &Arc<dyn ObjectStore>, path: &Path) -> Bytes {
    store.get(path).await.unwrap().bytes().await.unwrap()
}

fn is_missing<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::NotFound { .. }))
}

async fn put_get_delete(store: &Arc<dyn ObjectStore>, at: &Path) {
    let file = below(at, "a/b.txt");
    assert!(is_missing(store.get(&file).await), "not there yet");
    assert!(is_missing(store.head(&file).await));
    let put = store.put(&file, "first".into()).await.unwrap();
    let head = store.head(&file).await.unwrap();
    assert_eq!((head.size, head.location, head.e_tag), (5, file.clone(), put.e_tag), "head agrees with put");
    assert_eq!(text(store, &file).await, "first");
    let pieces: PutPayload = [Bytes::from("se"), Bytes::from("cond")].into_iter().collect();
    store.put(&file, pieces).await.unwrap();
    assert_eq!(text(store, &file).await, "second", "replaced");
    assert!(is_missing(store.get(&below(at, "a")).await), "a directory is no object");
    store.put(&file, Bytes::new().into()).await.unwrap();
    assert_eq!(store.head(&file).await.unwrap().size, 0, "an empty object");
    let paths = vec![Ok(file.clone())];
    let deleted: Vec<_> = store.delete_stream(futures::stream::iter(paths).boxed()).try_collect().await.unwrap();
    assert_eq!(deleted, std::slice::from_ref(&file));
    assert!(is_missing(store.head(&file).await), "deleted");
}

async fn conditional_put(store: &Arc<dyn ObjectStore>, at: &Path) {
    let file = below(at, "once");
    let create = || PutMode::Create.into();
    store.put_opts(&file, "first".into(), create()).await.unwrap();
    let second = store.put_opts(&file, "second".into(), create()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(text(store, &file).await, "first");
    assert_eq!(names(store, at).await, ["once"], "the refused put leaves nothing");
    store.delete(&file).await.unwrap();
    store.put_opts(&file, "third".into(), create()).await.unwrap();
    store.delete(&file).await.unwrap();
}

async fn ranges(store: &Arc<dyn ObjectStore>, at: &Path) {
    let file = below(at, "digits");
    store.put(&file, "0123456789".into()).await.unwrap();
    assert_eq!(store.get_range(&file, 2..5).await.unwrap(), "234");
    assert_eq!(store.get_ranges(&file, &[0..1, 8..10, 3..4]).await.unwrap(), ["0", "89", "3"]);
    let cases = [(GetRange::Bounded(7..100), "789"), (GetRange::Offset(8), "89"), (GetRange::Suffix(3), "789")];
    for (range, expected) in cases {
        let got = store.get_opts(&file, GetOptions::new().with_range(Some(range.clone()))).await.unwrap();
        assert_eq!(got.meta.size, 10, "the whole object's size");
        assert_eq!(got.bytes().await.unwrap(), expected, "{range:?}");
    }
    assert!(store.get_range(&file, 50..60).await.is_err(), "out of range");
    store.delete(&file).await.unwrap();
}

async fn listing(store: &Arc<dyn ObjectStore>, at: &Path) {
    let all = ["a.txt", "d/b.txt", "d/e/c.txt", "dd/f.txt"];
    for name in all {
        store.put(&below(at, name), name.into()).await.unwrap();
    }
    assert_eq!(names(store, at).await, all);
    assert_eq!(names(store, &below(at, "d")).await, ["b.txt", "e/c.txt"], "d is a directory, not the beginning of dd");
    assert_eq!(names(store, &below(at, "nothing")).await, Vec::<String>::new());
    let level = store.list_with_delimiter(Some(at)).await.unwrap();
    let mut directories = level.common_prefixes;
    directories.sort();
    assert_eq!(directories, [below(at, "d"), below(at, "dd")]);
    assert_eq!(
        level.objects.iter().map(|m| (m.location.clone(), m.size)).collect::<Vec<_>>(),
        [(below(at, "a.txt"), 5)]
    );
    let after: Vec<_> = store.list_with_offset(Some(at), &below(at, "d/b.txt")).try_collect().await.unwrap();
    let mut after: Vec<String> = after.iter().map(|meta| meta.location.to_string()).collect();
    after.sort();
    assert_eq!(after, [below(at, "d/e/c.txt").to_string(), below(at, "dd/f.txt").to_string()]);
    for name in all {
        store.delete(&below(at, name)).await.unwrap();
    }
}

async fn odd_names(store: &Arc<dyn ObjectStore>, at: &Path) {
    for name in ["m=a%2Fb/x.csv", "with space/ü 🙀.csv", "plus+and&.csv", "a[1]*?.csv", "no extension", "~x", "a:b"]
    {
        let file = below(at, name);
        store.put(&file, name.to_string().into()).await.unwrap();
        assert_eq!(names(store, at).await, [name]);
        assert_eq!(text(store, &file).await, name);
        store.delete(&file).await.unwrap();
    }
}

async fn copy_and_rename(store: &Arc<dyn ObjectStore>, at: &Path) {
    let [a, b, c] = ["a", "x/b", "y/z/c"].map(|name| below(at, name));
    store.put(&a, "a".into()).await.unwrap();
    store.copy(&a, &b).await.unwrap();
    store.put(&a, "changed".into()).await.unwrap();
    assert_eq!(text(store, &b).await, "a", "a copy has its own bytes");
    assert!(matches!(store.copy_if_not_exists(&a, &b).await, Err(Error::AlreadyExists { .. })));
    store.rename(&a, &c).await.unwrap();
    assert!(is_missing(store.head(&a).await), "moved away");
    assert_eq!(text(store, &c).await, "changed");
    assert!(matches!(store.rename_if_not_exists(&c, &b).await, Err(Error::AlreadyExists { .. })));
    assert_eq!((text(store, &b).await, text(store, &c).await), ("a".into(), "changed".into()), "both still there");
    store.rename(&c, &b).await.unwrap();
    assert_eq!(text(store, &b).await, "changed", "replaced");
    store.rename_if_not_exists(&b, &a).await.unwrap();
    assert_eq!(names(store, at).await, ["a"]);
    assert!(is_missing(store.rename(&b, &c).await));
    assert!(is_missing(store.copy(&b, &c).await));
    store.delete(&a).await.unwrap();
}

async fn multipart(store: &Arc<dyn ObjectStore>, at: &Path) {
    let file = below(at, "parts");
    let mut upload = store.put_multipart(&file).await.unwrap();
    let parts: Vec<_> = ["one ", "two ", "three"].into_iter().map(|part| upload.put_part(part.into())).collect();
    // The order of the calls counts, not the order in which they end.
    for part in parts.into_iter().rev() {
        part.await.unwrap();
    }
    assert!(is_missing(store.head(&file).await), "nothing is visible before the end");
    upload.complete().await.unwrap();
    assert_eq!(text(store, &file).await, "one two three");
    assert_eq!(names(store, at).await, ["parts"]);
    let mut upload = store.put_multipart(&file).await.unwrap();
    upload.put_part("other".into()).await.unwrap();
    upload.abort().await.unwrap();
    drop(upload);
    let mut upload = store.put_multipart(&file).await.unwrap();
    upload.put_part("another".into()).await.unwrap();
    drop(upload);
    assert_eq!(text(store, &file).await, "one two three", "given up: the old content stays");
    assert_eq!(names(store, at).await, ["parts"], "and no part is left");
    store.delete(&file).await.unwrap();
}

async fn one_creator_wins(store: &Arc<dyn ObjectStore>, at: &Path) {
    let file = below(at, "manifest");
    let mut running = tokio::task::JoinSet::new();
    for i in 0..16 {
        let (store, file) = (Arc::clone(store), file.clone());
        running.spawn(async move {
            let put = store.put_opts(&file, i.to_string().into(), PutMode::Create.into()).await;
            put.is_ok().then(|| i.to_string())
        });
    }
    let winners: Vec<String> = running.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "exactly one creates it");
    assert_eq!(text(store, &file).await, winners[0]);
    store.delete(&file).await.unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Location, Stores};

    /// Raw and readers' view, on disk and in memory: the suite writes no hidden names, so both must pass.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_store_passes() {
        let directory = tempfile::tempdir().unwrap();
        for text in [directory.path().to_str().unwrap(), "memory://m/base"] {
            let (stores, at) = (Stores::new(), Location::parse(text).unwrap());
            let (raw, path) = stores.open(&at).unwrap();
            all(raw, &path).await;
            let (reader, path) = stores.reader(&at).unwrap();
            all(reader, &path).await;
        }
    }
}
