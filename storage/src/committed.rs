//! The readers' view of a store: only what is visible and committed is listed.
//!
//! Two rules. A name below the listed directory that begins with `_` or `.` is hidden, with everything in it; a
//! directory `_name=value` is not, because it is a partition. And a table directory, one that holds a commit manifest,
//! consists of exactly the files that its newest manifest names. Directories without a manifest are shown whole.
//!
//! A listing of a table is taken from one manifest, so it is the old content or the new, never a mixture, however many
//! commits happen meanwhile. Reading an object by its full name is not restricted. What is kept, and how long, says
//! `listings.rs`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio_util::task::AbortOnDropHandle;

use crate::error::Error;
use crate::listings::Listings;
use crate::manifest::{self, Manifest};

/// How many directories are asked at once.
pub(crate) const PARALLEL: usize = 16;
/// Objects after which a list is no longer taken page by page: one page of the large stores.
const PAGES_IN_TURN: usize = 1000;
/// A table's files may be replaced between reading the manifest and looking at them; each time there is a newer manifest.
const ATTEMPTS: usize = 100;

/// A store whose listings show what is committed.
#[derive(Debug)]
pub(crate) struct CommittedStore {
    inner: Arc<dyn ObjectStore>,
    /// Only for stores behind a network.
    listings: Option<Arc<Listings>>,
}

impl CommittedStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, listings: Option<Arc<Listings>>) -> Self {
        Self { inner, listings }
    }
}

/// As [`visible`], out of what the statement has listed already where that is kept.
async fn visible_once(
    store: &Arc<dyn ObjectStore>,
    listings: Option<Arc<Listings>>,
    prefix: &Path,
) -> Result<Arc<Vec<ObjectMeta>>> {
    let Some(listings) = listings else { return visible(store, prefix).await.map(Arc::new) };
    if let Some(kept) = listings.list(prefix) {
        return Ok(kept);
    }
    let epoch = listings.epoch();
    let found = Arc::new(visible(store, prefix).await?);
    listings.keep(epoch, prefix, &found);
    Ok(found)
}

/// Whether a path below a listed directory is invisible to readers.
///
/// `relative` is made of names joined by `/`; all but the last are directories.
pub fn is_hidden(relative: &str) -> bool {
    let (directories, file) = relative.rsplit_once('/').unwrap_or(("", relative));
    file.starts_with(['_', '.'])
        || directories.split('/').any(|name| name.starts_with('.') || (name.starts_with('_') && !name.contains('=')))
}

/// The nearest directory at or above `path` that has a manifest, with the newest one.
pub(crate) async fn table_of(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Option<(Path, Manifest)>> {
    let mut directories = vec![path.clone()];
    while let Some(parent) = directories.last().filter(|last| !last.is_root()).and_then(Path::parent) {
        directories.push(parent);
    }
    // The nearest one counts; all are asked at once, because each answer takes its time.
    let looks = directories.iter().map(|directory| manifest::newest(store, directory));
    let looks: Vec<_> = looks.collect();
    let mut answers = futures::stream::iter(looks).buffered(PARALLEL).zip(futures::stream::iter(&directories));
    while let Some((answer, directory)) = answers.next().await {
        match answer {
            Ok(Some(found)) => return Ok(Some((directory.clone(), found))),
            Ok(None) => {}
            // What somebody else keeps to himself further up is no table of ours.
            Err(object_store::Error::PermissionDenied { .. }) if directory != path => {}
            Err(e) if directory != path && is_refused(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// A key that may list one prefix only.
fn is_refused(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::Generic { source, .. } => {
            matches!(source.downcast_ref::<Error>(), Some(Error::Refused { reason, .. }) if reason.contains("access is denied"))
        }
        _ => false,
    }
}

/// Every object below `prefix`. A store lists a page after the other; where there are many pages, the directories are
/// listed side by side.
pub(crate) async fn listed(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<Vec<ObjectMeta>> {
    let mut stream = store.list(Some(prefix));
    let mut found = Vec::new();
    while let Some(meta) = stream.try_next().await? {
        found.push(meta);
        if found.len() == PAGES_IN_TURN {
            let level = store.list_with_delimiter(Some(prefix)).await?;
            if level.common_prefixes.len() < 2 {
                continue;
            }
            drop(stream);
            // Each is a task, for a page of names takes longer to parse than to come.
            let below = level.common_prefixes.into_iter().map(|directory| {
                let store = Arc::clone(store);
                let listing = async move { store.list(Some(&directory)).try_collect::<Vec<ObjectMeta>>().await };
                AbortOnDropHandle::new(tokio::spawn(listing))
            });
            let below = futures::stream::iter(below).buffer_unordered(PARALLEL);
            let mut below =
                below.map(|listed| listed.unwrap_or_else(|gone| std::panic::resume_unwind(gone.into_panic())));
            let mut found = level.objects;
            while let Some(listed) = below.try_next().await? {
                found.extend(listed);
            }
            return Ok(found);
        }
    }
    Ok(found)
}

/// Every visible object below `prefix`, sorted by path.
pub(crate) async fn visible(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<Vec<ObjectMeta>> {
    for _ in 0..ATTEMPTS {
        let table = table_of(store, prefix).await?;
        let listed = listed(store, prefix).await?;
        let found = match table {
            Some((table, manifest)) => {
                let known = listed.into_iter().map(|meta| (meta.location.clone(), meta)).collect();
                files_of(store, &table, &manifest, prefix, &known).await?
            }
            None => ungoverned(store, prefix, listed).await?,
        };
        if let Some(mut found) = found {
            found.sort_by(|a, b| a.location.cmp(&b.location));
            return Ok(found);
        }
    }
    Err(Error::conflict(format!("/{prefix}"), "is rewritten faster than it can be listed: read it again later")
        .into_store_error())
}

/// Below a directory that belongs to no table: everything but hidden names, and of the tables in it what they committed.
pub(crate) async fn ungoverned(
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    listed: Vec<ObjectMeta>,
) -> Result<Option<Vec<ObjectMeta>>> {
    let listed = without_markers(prefix, listed);
    let mut tables: BTreeMap<Path, Option<Manifest>> = BTreeMap::new();
    for meta in &listed {
        if let Some(table) = table_with_manifest(prefix, &meta.location) {
            tables.entry(table).or_insert(None);
        }
    }
    for (table, manifest) in &mut tables {
        *manifest = manifest::newest(store, table).await?;
    }
    if tables.is_empty() {
        let is_shown = |meta: &ObjectMeta| !is_hidden(relative(prefix, &meta.location));
        return Ok(Some(listed.into_iter().filter(is_shown).collect()));
    }
    // A table inside another one belongs to the outer one, which names its own files only.
    let outermost: Vec<(&Path, &Manifest)> = tables
        .iter()
        .filter_map(|(table, manifest)| Some((table, manifest.as_ref()?)))
        .filter(|(table, _)| {
            !tables.iter().any(|(outer, m)| m.is_some() && outer != *table && table.prefix_matches(outer))
        })
        .collect();
    let known: HashMap<Path, ObjectMeta> = listed.into_iter().map(|meta| (meta.location.clone(), meta)).collect();
    let mut found: Vec<ObjectMeta> = known
        .values()
        .filter(|meta| !is_hidden(relative(prefix, &meta.location)))
        .filter(|meta| !outermost.iter().any(|(table, _)| meta.location.prefix_matches(table)))
        .cloned()
        .collect();
    for (table, manifest) in outermost {
        match files_of(store, table, manifest, prefix, &known).await? {
            Some(files) => found.extend(files),
            None => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// Leaves out the empty objects by which some tools show directories in a bucket.
fn without_markers(prefix: &Path, mut listed: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    if !listed.iter().any(|meta| meta.size == 0) {
        return listed;
    }
    let mut directories: HashSet<Path> = [prefix.clone()].into();
    for meta in &listed {
        let mut next = meta.location.parent();
        while let Some(directory) = next {
            next = directory.parent();
            if !directories.insert(directory) {
                break;
            }
        }
    }
    listed.retain(|meta| meta.size > 0 || !directories.contains(&meta.location));
    listed
}

/// The files of one manifest below `prefix`; `None` when a newer manifest has replaced it meanwhile.
async fn files_of(
    store: &Arc<dyn ObjectStore>,
    table: &Path,
    manifest: &Manifest,
    prefix: &Path,
    known: &HashMap<Path, ObjectMeta>,
) -> Result<Option<Vec<ObjectMeta>>> {
    let mut found = Vec::new();
    for file in &manifest.files {
        let path = manifest::below(table, &file.path);
        if !is_below(&path, prefix) {
            continue;
        }
        // Not in the listing: committed after the directory was read.
        let meta = match known.get(&path) {
            Some(meta) => meta.clone(),
            None => match store.head(&path).await {
                Ok(meta) => meta,
                Err(object_store::Error::NotFound { .. }) => {
                    let now = manifest::newest(store, table).await?;
                    if now.is_some_and(|now| now.version != manifest.version) {
                        return Ok(None);
                    }
                    let reason = format!(
                        "is missing, although version {} of the table /{table} names it: restore it or write the table again",
                        manifest.version
                    );
                    return Err(Error::damaged(format!("/{path}"), reason).into_store_error());
                }
                Err(e) => return Err(e),
            },
        };
        if meta.size != file.bytes {
            let reason = format!("has {} bytes, its table's manifest says {}: it is damaged", meta.size, file.bytes);
            return Err(Error::damaged(format!("/{path}"), reason).into_store_error());
        }
        found.push(meta);
    }
    Ok(Some(found))
}

/// A file that was listed and is gone: whether a commit has replaced it, which its table's manifest tells.
async fn replaced(store: &Arc<dyn ObjectStore>, file: &Path, gone: object_store::Error) -> object_store::Error {
    let Ok(Some((table, manifest))) = table_of(store, &file.parent().unwrap_or_default()).await else { return gone };
    if manifest.files.iter().any(|named| manifest::below(&table, &named.path) == *file) {
        return gone;
    }
    Error::Replaced { location: format!("/{file}") }.into_store_error()
}

/// The table directory of a manifest's own path, for manifests below `prefix`.
fn table_with_manifest(prefix: &Path, path: &Path) -> Option<Path> {
    let meta = path.parent()?;
    let is_manifest = meta.filename() == Some(manifest::META) && manifest::version_of(path.filename()?).is_some();
    let table = is_manifest.then(|| meta.parent().unwrap_or_default())?;
    table.prefix_matches(prefix).then_some(table)
}

fn is_below(path: &Path, prefix: &Path) -> bool {
    path != prefix && path.prefix_matches(prefix)
}

/// The text of `path` after `prefix/`.
pub(crate) fn relative<'a>(prefix: &Path, path: &'a Path) -> &'a str {
    path.as_ref().strip_prefix(prefix.as_ref()).map_or(path.as_ref(), |rest| rest.trim_start_matches('/'))
}

impl fmt::Display for CommittedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "committed files of {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CommittedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let unconditional = options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.if_modified_since.is_none()
            && options.if_unmodified_since.is_none()
            && options.version.is_none();
        if options.head
            && unconditional
            && let Some(meta) = self.listings.as_ref().and_then(|listings| listings.head(location))
        {
            let payload = GetResultPayload::Stream(futures::stream::empty().boxed());
            return Ok(GetResult { payload, range: 0..meta.size, meta, attributes: Default::default() });
        }
        let head = options.head;
        match self.inner.get_opts(location, options).await {
            Err(gone @ object_store::Error::NotFound { .. }) if !head => {
                Err(replaced(&self.inner, location, gone).await)
            }
            got => got,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.inner.get_ranges(location, ranges).await {
            Err(gone @ object_store::Error::NotFound { .. }) => Err(replaced(&self.inner, location, gone).await),
            got => got,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, listings) = (Arc::clone(&self.inner), self.listings.clone());
        let prefix = prefix.cloned().unwrap_or_default();
        let found = async move { visible_once(&store, listings, &prefix).await };
        let owned = |found: Arc<Vec<ObjectMeta>>| Arc::try_unwrap(found).unwrap_or_else(|kept| kept.to_vec());
        found
            .map(move |found| found.map(|found| futures::stream::iter(owned(found).into_iter().map(Ok))))
            .into_stream()
            .try_flatten()
            .boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.list(prefix).try_filter(move |meta| futures::future::ready(meta.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        if table_of(&self.inner, &prefix).await?.is_some() {
            return Ok(one_level(&prefix, visible(&self.inner, &prefix).await?));
        }
        let mut listed = self.inner.list_with_delimiter(Some(&prefix)).await?;
        listed.objects.retain(|meta| !is_hidden(relative(&prefix, &meta.location)));
        // A directory is hidden when anything in it would be.
        listed.common_prefixes.retain(|path| !is_hidden(&format!("{}/x", relative(&prefix, path))));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// Splits a recursive listing into the objects of `prefix` itself and the directories below it.
fn one_level(prefix: &Path, found: Vec<ObjectMeta>) -> ListResult {
    let mut listed = ListResult { common_prefixes: vec![], objects: vec![] };
    for meta in found {
        match relative(prefix, &meta.location).split_once('/') {
            None => listed.objects.push(meta),
            Some((first, _)) => {
                let directory = manifest::below(prefix, first);
                if listed.common_prefixes.last() != Some(&directory) {
                    listed.common_prefixes.push(directory);
                }
            }
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_are_shown_by_empty_objects_are_no_files() {
        let object = |name: &str, size| ObjectMeta {
            location: Path::from(name),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        };
        let listed =
            vec![object("raw", 0), object("raw/2013", 0), object("raw/2013/x.csv", 5), object("raw/empty.csv", 0)];
        let left = without_markers(&Path::from("raw"), listed);
        let left: Vec<&str> = left.iter().map(|meta| meta.location.as_ref()).collect();
        assert_eq!(left, ["raw/2013/x.csv", "raw/empty.csv"]);
    }
}
