//! Publishing a version of an artifact: files first, then the manifest unless it exists.
//!
//! A publisher writes into a directory of its own and holds a lease while it works, so that the next one can remove what
//! a dead one left without touching the files of one at work.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use uuid::Uuid;

use crate::artifact::{
    ALIASES, Artifact, ArtifactFile, ArtifactManifest, ArtifactStore, FORMAT, MANIFEST, PUBLISHING, check_name,
    next_version, numbers,
};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::fault;
use crate::lease::{Lease, StoreClock, lease_id};
use crate::sealed::{self, sha256_hex};
use crate::store::Stores;

/// One publish at work, with its lease.
pub(crate) struct Publisher {
    pub(crate) home: Directory,
    name: String,
    id: String,
    files: Vec<(String, Bytes)>,
    records: Vec<ArtifactFile>,
    lease: Option<Lease>,
    /// Nothing was published, so the directories that were made for it go.
    failed: AtomicBool,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.lease.take());
        if !self.failed.load(Ordering::Relaxed) {
            return;
        }
        // The leases', the artifact's, its kind's, the warehouse.
        let mut next = Some(self.home.child(PUBLISHING).location);
        for _ in 0..4 {
            let Some(location) = next.take() else { return };
            // Refused by the disk for the first one that is not empty.
            if location.local_path().is_some_and(|path| std::fs::remove_dir(path).is_ok()) {
                next = location.parent();
            }
        }
    }
}

impl Publisher {
    pub(crate) async fn begin(store: &ArtifactStore, name: &str, mut files: Vec<(String, Bytes)>) -> Result<Self> {
        let home = store.home(name)?;
        files.sort_by(|a, b| a.0.cmp(&b.0));
        for (at, (file, _)) in files.iter().enumerate() {
            let twice = at > 0 && files[at - 1].0 == *file;
            if twice || file.split('/').any(|part| check_name(&home.location, part).is_err()) {
                return Err(Error::invalid(&home.location, format!("{file:?} is no file name, or is listed twice")));
            }
        }
        if !store.stores.creates_once(&home.location).await? {
            let reason = "is on a store that cannot put an object only where none is: two who publish at once could both win \
                          (storage.single_writer = true says that there is no other)";
            return Err(Error::invalid(&home.location, reason));
        }
        clean(&store.stores, &home).await?;
        let id = Uuid::new_v4().simple().to_string()[..16].to_string();
        let lease = Lease::take(&store.stores, &home.child(PUBLISHING), &id).await?;
        fault::point("artifact.begun");
        let record = |(name, bytes): &(String, Bytes)| ArtifactFile {
            name: name.clone(),
            bytes: bytes.len() as u64,
            sha256: sha256_hex(bytes),
        };
        let records = files.iter().map(record).collect();
        let (lease, failed) = (Some(lease), AtomicBool::new(false));
        Ok(Self { home, name: name.to_string(), id, files, records, lease, failed })
    }

    /// Gives the lease back, and waits for that where it takes a request.
    pub(crate) async fn end(mut self) {
        if let Some(lease) = self.lease.take().filter(|_| self.home.beats) {
            lease.release().await;
        }
    }

    pub(crate) async fn next_version(&self) -> Result<u64> {
        next_version(&self.home).await
    }

    /// `None` when somebody else has that version: nothing of this attempt is left.
    pub(crate) async fn publish(&self, version: u64) -> Result<Option<Artifact>> {
        let here = self.home.child(&version.to_string());
        let own = here.child(&self.id);
        let published = self.write(&here, &own, version).await;
        if !matches!(published, Ok(Some(_))) {
            self.failed.store(published.is_err(), Ordering::Relaxed);
            let _ = own.remove_all().await;
            self.home.prune(&version.to_string());
        }
        published
    }

    async fn write(&self, here: &Directory, own: &Directory, version: u64) -> Result<Option<Artifact>> {
        for (file, bytes) in &self.files {
            own.put(file, bytes.clone()).await?;
            fault::point("artifact.written_one");
        }
        fault::point("artifact.written");
        let manifest = ArtifactManifest {
            format: FORMAT,
            name: self.name.clone(),
            version,
            directory: self.id.clone(),
            files: self.records.clone(),
        };
        let text = sealed::seal(&manifest);
        let manifest_sha256 = sha256_hex(&text);
        let put = here.create(MANIFEST, text.clone()).await;
        // A put may have taken effect although a later step of it failed: look whose manifest is there.
        let ours = match &put {
            Ok(created) => *created,
            Err(_) => here.get(MANIFEST).await?.is_some_and(|found| found == text),
        };
        if !ours {
            return put.map(|_| None);
        }
        fault::point("artifact.manifest");
        let (name, location) = (self.name.clone(), here.location.clone());
        Ok(Some(Artifact { name, version, location, manifest_sha256, manifest }))
    }
}

/// Removes what dead publishers left, and the files of removed versions.
pub(crate) async fn clean(stores: &Stores, home: &Directory) -> Result<()> {
    let clock = StoreClock::default();
    for version in numbers(home).await? {
        let here = home.child(&version.to_string());
        for own in here.entries().await?.directories {
            // The order matters: once its publisher is known to be gone, what the manifest says is final.
            let Some(_lease) = Lease::of_dead(stores, &home.child(PUBLISHING), &own, &clock).await? else { continue };
            let named = match here.get(MANIFEST).await? {
                Some(bytes) => sealed::unseal::<ArtifactManifest>(&bytes).map(|manifest| manifest.directory == own),
                // A writer that was taken for dead may come back where leases are signs of life, and publish what is here;
                // it goes when the version's manifest, which can be created once, is another's.
                None if home.beats => Ok(true),
                None => Ok(false),
            };
            // A damaged manifest proves nothing: leave everything for whoever repairs it.
            if named == Ok(false) {
                here.child(&own).remove_all().await?;
            }
        }
        here.remove_abandoned_temporaries().await?;
        home.prune(&version.to_string());
    }
    let publishing = home.child(PUBLISHING);
    for file in publishing.entries().await?.files {
        if let Some(id) = lease_id(&file) {
            // Dropping the lease of a dead publisher removes its file.
            drop(Lease::of_dead(stores, &publishing, id, &clock).await?);
        }
    }
    home.child(ALIASES).remove_abandoned_temporaries().await?;
    publishing.remove_abandoned_temporaries().await
}
