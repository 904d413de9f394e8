//! [`Location`] -> `ObjectStore`: one set of stores per session, instrumented.
//!
//! Two views of the same bytes: [`Stores::open`] is the raw store, for writers; [`Stores::reader`] shows what is
//! committed (see `committed.rs`), for everything that scans.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::answer::Answer;
use crate::backend::{self, Condition, Facts};
use crate::committed::CommittedStore;
use crate::directory::Directory;
use crate::durable::blocking;
use crate::error::{Error, Result};
use crate::instrument::{Counters, Instrumented, Meter};
use crate::listings::Listings;
use crate::local::LocalStore;
use crate::location::{Location, Scheme};
use crate::manifest::META;
use crate::sealed::hex;
use crate::settings::{self, StoreSettings};
use crate::transport::{Connector, Transport};

/// How much of an object is in memory while it is hashed.
const HASH_PIECE_BYTES: u64 = 4 << 20;
/// What is sent in one request of an object that is sent in several. No store wants more than 10,000 of them.
const PUT_PIECE_BYTES: usize = 16 << 20;

/// All stores of a session. Cloning is cheap and shares everything, memory stores and counters included.
#[derive(Debug, Clone)]
pub struct Stores {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    meter: Arc<Meter>,
    local: Views,
    memory: Mutex<HashMap<String, Views>>,
    /// Scheme and bucket -> its store.
    remote: Mutex<HashMap<(Scheme, String), Remote>>,
    settings: StoreSettings,
    /// What OPTIONS of statements said about a bucket.
    said: Mutex<HashMap<(Scheme, String), BTreeMap<&'static str, String>>>,
    connector: Connector,
    /// Leases held in this process on stores that no other process can see.
    leases: Arc<Mutex<HashSet<String>>>,
    /// Memory is to be treated as a store of objects: neither renames nor locks.
    plain_objects: bool,
}

/// A store behind a network.
#[derive(Debug, Clone)]
struct Remote {
    views: Views,
    facts: Facts,
    /// Found by trying, where nobody could know it.
    condition: Arc<tokio::sync::OnceCell<Condition>>,
    listings: Arc<Listings>,
}

/// The two views of one store.
#[derive(Debug, Clone)]
struct Views {
    raw: Arc<dyn ObjectStore>,
    committed: Arc<dyn ObjectStore>,
}

impl Views {
    fn new(store: Arc<dyn ObjectStore>, meter: &Arc<Meter>) -> Self {
        Self::keeping(store, meter, false, None)
    }

    fn keeping(
        store: Arc<dyn ObjectStore>,
        meter: &Arc<Meter>,
        counted_below: bool,
        listings: Option<Arc<Listings>>,
    ) -> Self {
        let raw = Instrumented::new(store, Arc::clone(meter), counted_below, listings.clone());
        let raw: Arc<dyn ObjectStore> = Arc::new(raw);
        Self { committed: Arc::new(CommittedStore::new(Arc::clone(&raw), listings)), raw }
    }
}

impl Default for Stores {
    fn default() -> Self {
        Self::new()
    }
}

impl Stores {
    /// Fresh stores: the machine's disks, and an empty memory. Stores behind a network are asked anonymously or with what
    /// OPTIONS give; [`Stores::with`] takes settings and the environment.
    pub fn new() -> Self {
        Self::with(StoreSettings::default())
    }

    /// Fresh stores with these settings.
    pub fn with(settings: StoreSettings) -> Self {
        Self::build(settings, false)
    }

    /// Stores of which memory behaves like a bucket: no renames, no locks.
    #[cfg(test)]
    pub(crate) fn of_plain_objects(lease_timeout: Duration) -> Self {
        let mut settings = StoreSettings::default();
        settings.set("storage.lease_timeout", &lease_timeout.as_secs_f64().to_string()).expect("a number of seconds");
        Self::build(settings, true)
    }

    fn build(settings: StoreSettings, plain_objects: bool) -> Self {
        let meter = Arc::new(Meter::default());
        let local = Views::new(Arc::new(LocalStore::new()), &meter);
        let connector = Connector(Arc::new(Transport::new(Arc::clone(&meter), settings.max_requests())));
        Self {
            inner: Arc::new(Inner {
                meter,
                local,
                memory: Mutex::default(),
                remote: Mutex::default(),
                settings,
                said: Mutex::default(),
                connector,
                leases: Arc::default(),
                plain_objects,
            }),
        }
    }

    /// The raw store and the path in it, for writers: everything is visible, hidden and uncommitted names included.
    ///
    /// # Errors
    /// [`Error::Location`] for a store that cannot be built from its settings: no account, half a key, an endpoint
    /// without TLS that nobody has allowed.
    pub fn open(&self, location: &Location) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((self.views(location)?.raw, location.path().clone()))
    }

    /// The store as readers see it: listings leave out names that begin with `_` or `.`, and in a table directory
    /// everything that its newest commit manifest does not name.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn reader(&self, location: &Location) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((self.views(location)?.committed, location.path().clone()))
    }

    /// Settings for the bucket of `location` from the OPTIONS of a statement; they hold until the session ends.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a key or a value that is none, for OPTIONS of a place that is no such store, and for a bucket
    /// that was opened in another way before: which of two keys a query would use must not depend on the order.
    pub fn configure<'a>(
        &self,
        location: &Location,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let given = settings::parsed(&location.to_string(), options)?;
        if given.is_empty() {
            return Ok(());
        }
        if !location.scheme().is_remote() {
            return Err(Error::invalid(location, "is no store with keys and endpoints: leave those OPTIONS out"));
        }
        let key = (location.scheme(), location.authority().to_string());
        let mut said = held(&self.inner.said);
        match said.get(&key) {
            Some(before) if *before == given => Ok(()),
            None if !held(&self.inner.remote).contains_key(&key) => {
                said.insert(key, given);
                Ok(())
            }
            _ => Err(Error::invalid(
                location.root(),
                "was opened with other OPTIONS before: one session asks a bucket in one way (put it into the configuration)",
            )),
        }
    }

    /// What is known of the store behind a location; `None` for files and memory.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn facts(&self, location: &Location) -> Result<Option<Facts>> {
        if !location.scheme().is_remote() {
            return Ok(None);
        }
        self.remote(location).map(|remote| Some(remote.facts))
    }

    /// A statement begins: what an earlier one has listed is looked up again.
    pub fn forget_listings(&self) {
        for remote in held(&self.inner.remote).values() {
            remote.listings.forget();
        }
    }

    /// Keeps what a glob has found, for the plan that will ask for each file.
    pub(crate) fn keep_heads(&self, at: &Location, found: &[ObjectMeta]) {
        let key = (at.scheme(), at.authority().to_string());
        if let Some(remote) = held(&self.inner.remote).get(&key) {
            remote.listings.keep_heads(found);
        }
    }

    /// What went through these stores so far.
    pub fn counters(&self) -> Counters {
        self.inner.meter.snapshot()
    }

    fn views(&self, location: &Location) -> Result<Views> {
        match location.scheme() {
            Scheme::File => Ok(self.inner.local.clone()),
            Scheme::Memory => Ok(held(&self.inner.memory)
                .entry(location.authority().to_string())
                .or_insert_with(|| Views::new(Arc::new(InMemory::new()), &self.inner.meter))
                .clone()),
            _ => self.remote(location).map(|remote| remote.views),
        }
    }

    fn remote(&self, location: &Location) -> Result<Remote> {
        let key = (location.scheme(), location.authority().to_string());
        if let Some(open) = held(&self.inner.remote).get(&key) {
            return Ok(open.clone());
        }
        let said = held(&self.inner.said).get(&key).cloned().unwrap_or_default();
        let (store, facts) = backend::build(location, &self.inner.settings.overlaid(&said), &self.inner.connector)?;
        if let Some((region, from)) = &facts.region
            && from.starts_with("guessed")
        {
            tracing::info!("{}: region {region}, {from}", location.root());
        }
        // Requests over HTTP are counted where they are made, those that are repeated included.
        let counted_below = !matches!(location.scheme(), Scheme::Hdfs | Scheme::Viewfs);
        let listings = Arc::new(Listings::default());
        let views = Views::keeping(store, &self.inner.meter, counted_below, Some(Arc::clone(&listings)));
        let remote = Remote { views, facts, condition: Arc::default(), listings };
        // Another thread may have been faster: all share one.
        Ok(held(&self.inner.remote).entry(key).or_insert(remote).clone())
    }

    /// Whether an object can be put there only where none is, so that of several writers exactly one is first; also where
    /// the user says that there are not several.
    ///
    /// # Errors
    /// A store that cannot be asked.
    pub async fn creates_once(&self, at: &Location) -> Result<bool> {
        Ok(self.single_writer() || self.condition(at).await? != Condition::None)
    }

    /// How writers on this store decide who is first. Where nobody can know it, it is tried once, in `at`.
    pub(crate) async fn condition(&self, at: &Location) -> Result<Condition> {
        if !at.scheme().is_remote() {
            return Ok(Condition::Native);
        }
        let remote = self.remote(at)?;
        match remote.facts.condition {
            Condition::Untried => remote.condition.get_or_try_init(|| tried(self, at)).await.copied(),
            known => Ok(known),
        }
    }

    /// Whether the user says that nobody else writes.
    pub(crate) fn single_writer(&self) -> bool {
        self.inner.settings.single_writer()
    }

    /// Whether files get new names there in one step, and without being copied.
    pub(crate) fn renames(&self, location: &Location) -> bool {
        location.scheme().renames() && !(self.inner.plain_objects && location.scheme() == Scheme::Memory)
    }

    /// Whether a lease there is a sign of life that is repeated, for want of locks.
    pub(crate) fn beats(&self, location: &Location) -> bool {
        location.scheme().is_remote() || (self.inner.plain_objects && location.scheme() == Scheme::Memory)
    }

    /// How long a writer may be silent there.
    pub(crate) fn lease_timeout(&self) -> Duration {
        self.inner.settings.lease_timeout()
    }

    pub(crate) fn leases(&self) -> Arc<Mutex<HashSet<String>>> {
        Arc::clone(&self.inner.leases)
    }

    /// Writes a whole object: readers see the old bytes or the new ones, and a crash leaves one of them (checkpoints).
    ///
    /// # Errors
    /// The store's, naming the location.
    pub async fn put_atomic(&self, location: &Location, bytes: Bytes) -> Result<()> {
        let (store, path) = self.open(location)?;
        let put = store.put_opts(&path, bytes.into(), PutMode::Overwrite.into()).await;
        put.map(|_| ()).map_err(|e| Error::at(location, e))
    }

    /// Writes a whole object out of a file of this machine, which is read from its beginning: it appears when all of it is
    /// there, and replaces what was there. What fails leaves nothing.
    ///
    /// # Errors
    /// The store's, naming the location; a file that cannot be read.
    pub async fn put_file(&self, location: &Location, mut file: File) -> Result<()> {
        let named = |e| Error::at(location, e);
        let (store, path) = self.open(location)?;
        file.rewind().map_err(|e| Error::Store { location: location.to_string(), source: Box::new(e) })?;
        let file = Arc::new(file);
        let first = next_piece(&file).await.map_err(named)?;
        if first.len() < PUT_PIECE_BYTES {
            return self.put_atomic(location, first).await;
        }
        let mut upload = store.put_multipart(&path).await.map_err(named)?;
        let mut piece = first;
        while !piece.is_empty() {
            upload.put_part(piece.into()).await.map_err(named)?;
            piece = next_piece(&file).await.map_err(named)?;
        }
        upload.complete().await.map(|_| ()).map_err(named)
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing is there; the store's otherwise.
    pub async fn get(&self, location: &Location) -> Result<Bytes> {
        let (store, path) = self.open(location)?;
        let read = async { store.get_opts(&path, Default::default()).await?.bytes().await };
        read.await.map_err(|e| Error::at(location, e))
    }

    /// Reads a part of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nothing is there, [`Error::Damaged`] when it is too short; the store's otherwise.
    pub async fn get_range(&self, location: &Location, range: Range<u64>) -> Result<Bytes> {
        let (store, path) = self.open(location)?;
        match store.get_range(&path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
            Err(e @ object_store::Error::NotFound { .. }) => Err(Error::at(location, e)),
            read => {
                let size = store.head(&path).await.map_err(|e| Error::at(location, e))?.size;
                if size < range.end {
                    let reason = format!("is too short: {size} bytes, expected at least {}", range.end);
                    return Err(Error::damaged(location, reason));
                }
                read.map_err(|e| Error::at(location, e))
            }
        }
    }

    /// Lower-case hexadecimal SHA-256 of an object of any size, read piece by piece.
    ///
    /// # Errors
    /// As [`Stores::get`].
    pub async fn sha256(&self, location: &Location) -> Result<String> {
        let (store, path) = self.open(location)?;
        let size = store.head(&path).await.map_err(|e| Error::at(location, e))?.size;
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < size {
            let end = size.min(at + HASH_PIECE_BYTES);
            let piece = store.get_range(&path, at..end).await.map_err(|e| Error::at(location, e))?;
            if piece.is_empty() {
                return Err(Error::damaged(location, format!("became shorter than {size} bytes while it was read")));
            }
            at += piece.len() as u64;
            // Hashing a piece takes milliseconds: not on the threads that wait for others.
            hash = blocking(move || {
                hash.update(&piece);
                Ok(hash)
            })
            .await
            .map_err(|e| Error::at(location, e))?;
        }
        Ok(hex(&hash.finalize()))
    }

    /// Removes an object or a whole directory, hidden names included. What is not there is no error.
    ///
    /// # Errors
    /// The store's, naming the location.
    pub async fn delete_prefix(&self, location: &Location) -> Result<()> {
        let whole = Directory::open(self, location)?;
        match whole.as_object().await? {
            Some(_) => whole.delete_self().await,
            None => whole.remove_all().await,
        }
    }
}

/// What comes next in a file, as much as one request takes; empty at its end.
async fn next_piece(file: &Arc<File>) -> object_store::Result<Bytes> {
    let file = Arc::clone(file);
    blocking(move || {
        let mut piece = Vec::new();
        let read = (&*file).take(PUT_PIECE_BYTES as u64).read_to_end(&mut piece);
        read.map_err(|e| object_store::Error::Generic { store: "local", source: Box::new(e) })?;
        Ok(piece.into())
    })
    .await
}

/// Puts an object where there is none, twice: a store that takes both has no condition.
async fn tried(stores: &Stores, at: &Location) -> Result<Condition> {
    let (store, _) = stores.open(at)?;
    let probe = at.join(&format!("{META}/probe-{}", Uuid::new_v4().simple()));
    let put = |text: &'static str| store.put_opts(probe.path(), text.into(), PutMode::Create.into());
    let condition = match put("first").await {
        Ok(_) => match put("second").await {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Condition::Native
            }
            Ok(_) => Condition::None,
            Err(e) => return Err(Error::at(&probe, e)),
        },
        // A server that does not know the header at all.
        Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => Condition::None,
        Err(e) => match Answer::of(&e) {
            Some(answer) if answer.status == 501 => Condition::None,
            _ => return Err(Error::at(&probe, e)),
        },
    };
    let _ = store.delete(probe.path()).await;
    Ok(condition)
}

/// A poisoned lock here protects a map that is valid after any panic.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::sha256_hex;
    use crate::testing::on_both;

    on_both!(
        a_part_that_is_not_there_is_damage,
        counters_count,
        files_are_sent,
        hashes_piece_by_piece,
        views_of_one_memory
    );

    async fn files_are_sent(stores: Stores, root: Location) {
        for length in [0, 1, PUT_PIECE_BYTES, 2 * PUT_PIECE_BYTES + 1] {
            let mut file = tempfile::tempfile().unwrap();
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            std::io::Write::write_all(&mut file, &bytes).unwrap();
            stores.put_file(&root.join("x"), file).await.unwrap();
            assert!(stores.get(&root.join("x")).await.unwrap() == bytes, "{length} bytes");
        }
    }

    async fn a_part_that_is_not_there_is_damage(stores: Stores, root: Location) {
        let file = root.join("x");
        stores.put_atomic(&file, Bytes::from("0123456789")).await.unwrap();
        assert_eq!(stores.get_range(&file, 8..10).await.unwrap(), "89");
        for range in [8..11, 20..30] {
            let error = stores.get_range(&file, range).await.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("too short"), "{error}");
        }
        assert!(matches!(stores.get_range(&root.join("y"), 0..1).await.unwrap_err(), Error::NotFound { .. }));
    }

    async fn counters_count(stores: Stores, root: Location) {
        assert_eq!(stores.counters(), Counters::default());
        let file = root.join("x");
        stores.put_atomic(&file, Bytes::from("0123456789")).await.unwrap();
        let written = stores.counters();
        assert_eq!((written.requests, written.bytes_read, written.bytes_written), (1, 0, 10));
        let (reader, path) = stores.reader(&file).unwrap();
        reader.get_range(&path, 2..5).await.unwrap();
        reader.head(&path).await.unwrap();
        reader.get_ranges(&path, &[0..1, 8..10]).await.unwrap();
        let read = stores.clone().counters().since(written);
        assert_eq!((read.requests, read.bytes_read, read.bytes_written), (3, 6, 0));
        let mut upload = reader.put_multipart(&path).await.unwrap();
        upload.put_part("abc".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(stores.counters().since(written).bytes_written, 3);
    }

    async fn hashes_piece_by_piece(stores: Stores, root: Location) {
        let bytes: Vec<u8> = (0..HASH_PIECE_BYTES as usize + 1000).map(|i| (i % 251) as u8).collect();
        for length in [0, 1, HASH_PIECE_BYTES as usize, bytes.len()] {
            let file = root.join("x");
            stores.put_atomic(&file, Bytes::copy_from_slice(&bytes[..length])).await.unwrap();
            assert_eq!(stores.sha256(&file).await.unwrap(), sha256_hex(&bytes[..length]), "{length} bytes");
        }
        let error = stores.sha256(&root.join("nothing")).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }

    async fn views_of_one_memory(stores: Stores, root: Location) {
        let file = root.join("d/x");
        stores.put_atomic(&file, Bytes::from("text")).await.unwrap();
        assert_eq!(stores.clone().get(&file).await.unwrap(), "text", "a clone shares the bytes");
        let other = Location::parse("memory://another/base/d/x").unwrap();
        assert!(stores.get(&other).await.is_err(), "another name, another memory");
        stores.delete_prefix(&root.join("nothing")).await.unwrap();
        stores.delete_prefix(&root.join("d/")).await.unwrap();
        assert!(stores.get(&file).await.is_err());
        stores.put_atomic(&file, Bytes::from("text")).await.unwrap();
        stores.delete_prefix(&file).await.unwrap();
        assert!(stores.get(&file).await.is_err());
    }
}
