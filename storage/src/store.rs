//! [`Location`] -> `ObjectStore`: one set of stores per session, instrumented.
//!
//! Two views of the same bytes: [`Stores::open`] is the raw store, for writers; [`Stores::reader`] shows what is
//! committed (see `committed.rs`), for everything that scans.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use sha2::{Digest, Sha256};

use crate::committed::CommittedStore;
use crate::directory::Directory;
use crate::durable::blocking;
use crate::error::{Error, Result};
use crate::instrument::{Counters, Instrumented, Meter};
use crate::local::LocalStore;
use crate::location::{Location, Scheme};
use crate::sealed::hex;

/// How much of an object is in memory while it is hashed.
const HASH_PIECE_BYTES: u64 = 4 << 20;

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
    /// Leases held in this process on stores that no other process can see.
    leases: Arc<Mutex<HashSet<String>>>,
}

/// The two views of one store.
#[derive(Debug, Clone)]
struct Views {
    raw: Arc<dyn ObjectStore>,
    committed: Arc<dyn ObjectStore>,
}

impl Views {
    fn new(store: Arc<dyn ObjectStore>, meter: &Arc<Meter>) -> Self {
        let raw: Arc<dyn ObjectStore> = Arc::new(Instrumented::new(store, Arc::clone(meter)));
        Self { committed: Arc::new(CommittedStore::new(Arc::clone(&raw))), raw }
    }
}

impl Default for Stores {
    fn default() -> Self {
        Self::new()
    }
}

impl Stores {
    /// Fresh stores: the machine's disks, and an empty memory.
    pub fn new() -> Self {
        let meter = Arc::new(Meter::default());
        let local = Views::new(Arc::new(LocalStore::new()), &meter);
        Self { inner: Arc::new(Inner { meter, local, memory: Mutex::default(), leases: Arc::default() }) }
    }

    /// The raw store and the path in it, for writers: everything is visible, hidden and uncommitted names included.
    ///
    /// # Errors
    /// None in this build; a later scheme may lack credentials.
    pub fn open(&self, location: &Location) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((self.views(location).raw, location.path().clone()))
    }

    /// The store as readers see it: listings leave out names that begin with `_` or `.`, and in a table directory
    /// everything that its newest commit manifest does not name.
    ///
    /// # Errors
    /// As [`Stores::open`].
    pub fn reader(&self, location: &Location) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((self.views(location).committed, location.path().clone()))
    }

    /// What went through these stores so far.
    pub fn counters(&self) -> Counters {
        self.inner.meter.snapshot()
    }

    fn views(&self, location: &Location) -> Views {
        match location.scheme() {
            Scheme::File => self.inner.local.clone(),
            Scheme::Memory => held(&self.inner.memory)
                .entry(location.authority().to_string())
                .or_insert_with(|| Views::new(Arc::new(InMemory::new()), &self.inner.meter))
                .clone(),
        }
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

/// A poisoned lock here protects a map that is valid after any panic.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealed::sha256_hex;
    use crate::testing::on_both;

    on_both!(a_part_that_is_not_there_is_damage, counters_count, hashes_piece_by_piece, views_of_one_memory);

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
