//! Immutable, versioned directories for models, and what is needed around them.
//!
//! ```text
//! <warehouse>/models/late_flights/3/manifest.json        which files, their sizes and SHA-256: the commit point
//! <warehouse>/models/late_flights/3/9f3c.../weights      the files, in a directory of the publisher's own
//! <warehouse>/models/late_flights/_alias/champion.json   {"version": 3}
//! <warehouse>/models/late_flights/_about.json            what people say of the model: {"description": "..."}
//! <warehouse>/models/late_flights/_publishing/<id>.lock  a publisher at work
//! ```
//!
//! Files are written first, into a directory that nobody else uses; then the manifest is put unless it exists. Of two
//! publishers that want the same version one wins, whoever was first, and no byte of the other's is ever visible. A
//! version is never changed and its number never used again while the model exists. Every read is checked against the
//! manifest's hash, and the manifest against its own seal.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::publish::{Publisher, clean};
use crate::sealed::{self, sha256_hex};
use crate::store::Stores;

pub(crate) const MANIFEST: &str = "manifest.json";
const REMOVED: &str = "_removed";
pub(crate) const PUBLISHING: &str = "_publishing";
pub(crate) const ALIASES: &str = "_alias";
const ABOUT: &str = "_about.json";
/// The layout of an artifact's manifest; a reader refuses a newer one.
pub(crate) const FORMAT: u32 = 1;
/// Losing the race for a version this often means that something is wrong.
const ATTEMPTS: usize = 1000;

/// A published version of a model, with its list of files read and checked.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The model's name.
    pub name: String,
    /// 1, 2, 3, ...
    pub version: u64,
    /// The version's directory.
    pub location: Location,
    /// Lower-case hexadecimal SHA-256 of the manifest: as good as one over all files.
    pub manifest_sha256: String,
    pub(crate) manifest: ArtifactManifest,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// As the publisher named it.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ArtifactManifest {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) directory: String,
    pub(crate) files: Vec<ArtifactFile>,
}

impl Artifact {
    /// The files, sorted by name.
    pub fn files(&self) -> &[ArtifactFile] {
        &self.manifest.files
    }

    /// Size of all files.
    pub fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes).sum()
    }

    /// Where a file's bytes are.
    pub fn file_location(&self, file: &str) -> Location {
        self.location.join(&self.manifest.directory).join(file)
    }
}

/// The artifacts of one kind in a warehouse. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    pub(crate) stores: Stores,
    root: Location,
}

impl ArtifactStore {
    /// The models of a warehouse.
    pub fn new(stores: Stores, warehouse: Location) -> Self {
        Self::of_kind(stores, warehouse, "models")
    }

    /// Artifacts of another kind, in a directory of that name.
    pub fn of_kind(stores: Stores, warehouse: Location, kind: &str) -> Self {
        Self { stores, root: warehouse.join(kind).as_directory() }
    }

    /// The stores it reads and writes through.
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The directory of all models.
    pub fn location(&self) -> &Location {
        &self.root
    }

    /// Publishes the next version, whatever its number is.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none or a file listed twice; the store's.
    pub async fn publish(&self, name: &str, files: Vec<(String, Bytes)>) -> Result<Artifact> {
        let publisher = Publisher::begin(self, name, files).await?;
        let published = Self::publish_next(&publisher).await;
        publisher.end().await;
        published
    }

    async fn publish_next(publisher: &Publisher) -> Result<Artifact> {
        for _ in 0..ATTEMPTS {
            let version = publisher.next_version().await?;
            if let Some(artifact) = publisher.publish(version).await? {
                return Ok(artifact);
            }
        }
        Err(Error::conflict(&publisher.home.location, "other publishers were faster each time"))
    }

    /// Publishes exactly `version` (the latest one plus 1; 1 for a new model), so that of two who started from the same
    /// state one wins.
    ///
    /// # Errors
    /// [`Error::Conflict`] when that version exists already or is not the next one; otherwise as [`ArtifactStore::publish`].
    pub async fn publish_exclusive(&self, name: &str, version: u64, files: Vec<(String, Bytes)>) -> Result<Artifact> {
        let publisher = Publisher::begin(self, name, files).await?;
        let next = publisher.next_version().await;
        let published = match next {
            Ok(next) if next == version => publisher.publish(version).await,
            Ok(_) => Ok(None),
            Err(e) => Err(e),
        };
        let home = publisher.home.location.clone();
        publisher.end().await;
        published?.ok_or_else(|| {
            Error::conflict(
                home.join(&version.to_string()),
                format!("version {version} of {name} was not created: another process has published {name} meanwhile"),
            )
        })
    }

    /// The version that the next publish will get; pass it to [`ArtifactStore::publish_exclusive`].
    ///
    /// # Errors
    /// The store's.
    pub async fn next_version(&self, name: &str) -> Result<u64> {
        next_version(&self.home(name)?).await
    }

    /// The published versions in ascending order; empty when there is no such model.
    ///
    /// # Errors
    /// The store's.
    pub async fn versions(&self, name: &str) -> Result<Vec<u64>> {
        let home = self.home(name)?;
        let mut found = Vec::new();
        for version in numbers(&home).await? {
            if home.size(&format!("{version}/{MANIFEST}")).await?.is_some() {
                found.push(version);
            }
        }
        Ok(found)
    }

    /// The newest version; `None` when there is no such model.
    ///
    /// # Errors
    /// The store's, and [`Error::Damaged`].
    pub async fn latest(&self, name: &str) -> Result<Option<Artifact>> {
        match self.versions(name).await?.last() {
            Some(version) => self.load(name, *version).await,
            None => Ok(None),
        }
    }

    /// Opens a version, or the newest one.
    ///
    /// # Errors
    /// [`Error::NotFound`] saying which versions there are; [`Error::Damaged`]; the store's.
    pub async fn open(&self, name: &str, version: Option<u64>) -> Result<Artifact> {
        let found = match version {
            Some(version) => self.load(name, version).await?,
            None => self.latest(name).await?,
        };
        match found {
            Some(artifact) => Ok(artifact),
            None => Err(self.missing(name, version).await?),
        }
    }

    async fn missing(&self, name: &str, version: Option<u64>) -> Result<Error> {
        let versions = self.versions(name).await?;
        let reason = match version {
            Some(version) if !versions.is_empty() => {
                let known: Vec<String> = versions.iter().map(u64::to_string).collect();
                format!("there is no version {version} of {name} (there is {})", known.join(", "))
            }
            _ => format!("there is no {name}"),
        };
        Ok(Error::not_found(self.home(name)?.location, reason))
    }

    async fn load(&self, name: &str, version: u64) -> Result<Option<Artifact>> {
        let here = self.home(name)?.child(&version.to_string());
        let Some(bytes) = here.get(MANIFEST).await? else { return Ok(None) };
        let at = here.location.join(MANIFEST);
        let manifest: ArtifactManifest = sealed::unseal(&bytes).map_err(|reason| Error::damaged(&at, reason))?;
        if manifest.format > FORMAT {
            return Err(Error::damaged(at, format!("has format {}, this build reads up to {FORMAT}", manifest.format)));
        }
        if manifest.name != name || manifest.version != version {
            let reason = format!(
                "belongs to version {} of {}: the directory was copied or renamed",
                manifest.version, manifest.name
            );
            return Err(Error::damaged(at, reason));
        }
        let (name, manifest_sha256) = (name.to_string(), sha256_hex(&bytes));
        Ok(Some(Artifact { name, version, location: here.location, manifest_sha256, manifest }))
    }

    /// Reads a file and checks it.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the file when a byte differs from what was published; [`Error::NotFound`] when the
    /// artifact has no such file.
    pub async fn read(&self, artifact: &Artifact, file: &str) -> Result<Bytes> {
        let at = artifact.file_location(file);
        let Some(record) = artifact.files().iter().find(|record| record.name == file) else {
            let known: Vec<&str> = artifact.files().iter().map(|record| record.name.as_str()).collect();
            let reason =
                format!("{}@{} has no such file (it has {})", artifact.name, artifact.version, known.join(", "));
            return Err(Error::not_found(at, reason));
        };
        let bytes = match self.stores.get(&at).await {
            Err(Error::NotFound { .. }) => {
                let reason = format!("is missing: {}@{} is damaged", artifact.name, artifact.version);
                return Err(Error::damaged(at, reason));
            }
            other => other?,
        };
        let got = sha256_hex(&bytes);
        if bytes.len() as u64 != record.bytes || got != record.sha256 {
            let reason = format!(
                "is damaged: {} bytes with SHA-256 {got}, but {}@{} was published with {} bytes and {}",
                bytes.len(),
                artifact.name,
                artifact.version,
                record.bytes,
                record.sha256
            );
            return Err(Error::damaged(at, reason));
        }
        Ok(bytes)
    }

    /// Reads every file, to see that none is damaged.
    ///
    /// # Errors
    /// As [`ArtifactStore::read`], for the first file that is.
    pub async fn verify(&self, artifact: &Artifact) -> Result<()> {
        for file in artifact.files() {
            self.read(artifact, &file.name).await?;
        }
        Ok(())
    }

    /// The names of all models that have a version, sorted.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<String>> {
        let mut names = Directory::open(&self.stores, &self.root)?.entries().await?.directories;
        names.retain(|name| check_name(&self.root, name).is_ok());
        names.sort();
        let mut found = Vec::new();
        for name in names {
            if !self.versions(&name).await?.is_empty() {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Removes a version (with the aliases that point to it), or the model with everything it has.
    ///
    /// # Errors
    /// [`Error::NotFound`] as [`ArtifactStore::open`]; the store's.
    pub async fn remove(&self, name: &str, version: Option<u64>) -> Result<()> {
        let home = self.home(name)?;
        let versions = self.versions(name).await?;
        let doomed: Vec<u64> = versions.iter().copied().filter(|v| version.is_none_or(|wanted| wanted == *v)).collect();
        if doomed.is_empty() {
            return Err(self.missing(name, version).await?);
        }
        for version in &doomed {
            // Newest first would show an old version as the latest for a moment; oldest first never does.
            home.create(&format!("{version}/{REMOVED}"), Vec::new()).await?;
            home.delete([format!("{version}/{MANIFEST}")]).await?;
        }
        for (alias, target) in self.aliases(name).await? {
            if doomed.contains(&target) {
                home.delete([alias_file(&alias)]).await?;
            }
        }
        clean(&self.stores, &home).await?;
        if version.is_none() && !self.is_being_published(&home).await? {
            home.remove_all().await?;
        }
        Ok(())
    }

    async fn is_being_published(&self, home: &Directory) -> Result<bool> {
        Ok(!home.child(PUBLISHING).entries().await?.files.is_empty())
    }

    /// Lets `alias` mean `version` from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such version; [`Error::Invalid`] for an alias that is no name or a number.
    pub async fn set_alias(&self, name: &str, alias: &str, version: u64) -> Result<()> {
        check_name(&self.root, alias)?;
        if alias.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid(
                &self.root,
                format!("alias {alias} looks like a version: begin it with a letter"),
            ));
        }
        self.open(name, Some(version)).await?;
        self.home(name)?.put(&alias_file(alias), sealed::seal(&AliasRecord { version })).await
    }

    /// Forgets an alias; false when there was none.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove_alias(&self, name: &str, alias: &str) -> Result<bool> {
        let known = self.aliases(name).await?.contains_key(alias);
        if known {
            self.home(name)?.delete([alias_file(alias)]).await?;
        }
        Ok(known)
    }

    /// Alias -> version.
    ///
    /// # Errors
    /// The store's, and [`Error::Damaged`].
    pub async fn aliases(&self, name: &str) -> Result<BTreeMap<String, u64>> {
        let home = self.home(name)?;
        let mut aliases = BTreeMap::new();
        for file in home.child(ALIASES).entries().await?.files {
            let Some(alias) = file.strip_suffix(".json") else { continue };
            let Some(bytes) = home.get(&alias_file(alias)).await? else { continue };
            let record: AliasRecord = sealed::unseal(&bytes)
                .map_err(|reason| Error::damaged(home.location.join(&alias_file(alias)), reason))?;
            aliases.insert(alias.to_string(), record.version);
        }
        Ok(aliases)
    }

    /// What people say of a model, of all its versions: names and texts.
    ///
    /// # Errors
    /// The store's, and [`Error::Damaged`].
    pub async fn about(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let home = self.home(name)?;
        let Some(bytes) = home.get(ABOUT).await? else { return Ok(BTreeMap::new()) };
        let record: AboutRecord =
            sealed::unseal(&bytes).map_err(|reason| Error::damaged(home.location.join(ABOUT), reason))?;
        Ok(record.about)
    }

    /// Says this of a model from now on; `None` takes back what was said. Of two who say something at once the last is heard.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such model; the store's.
    pub async fn say(&self, name: &str, sayings: &[(String, Option<String>)]) -> Result<()> {
        self.open(name, None).await?;
        let mut about = self.about(name).await?;
        for (what, text) in sayings {
            match text {
                Some(text) => about.insert(what.clone(), text.clone()),
                None => about.remove(what),
            };
        }
        self.home(name)?.put(ABOUT, sealed::seal(&AboutRecord { about })).await
    }

    pub(crate) fn home(&self, name: &str) -> Result<Directory> {
        check_name(&self.root, name)?;
        Directory::open(&self.stores, &self.root.join(name).as_directory())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct AliasRecord {
    version: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct AboutRecord {
    about: BTreeMap<String, String>,
}

fn alias_file(alias: &str) -> String {
    format!("{ALIASES}/{alias}.json")
}

/// Names become directories: letters, digits, `_`, `-` and `.`, not hidden, of a length that every disk takes.
pub(crate) fn check_name(root: &Location, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > 200 || name.starts_with(['_', '.']) || !name.chars().all(allowed) {
        let reason =
            format!("{name:?} is no name: letters, digits, _, - and . make one, and it begins with a letter or digit");
        return Err(Error::invalid(root, reason));
    }
    Ok(())
}

/// The numbers that were ever used, removed versions included, ascending.
pub(crate) async fn numbers(home: &Directory) -> Result<Vec<u64>> {
    let mut found: Vec<u64> = home.entries().await?.directories.iter().filter_map(|name| name.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}

pub(crate) async fn next_version(home: &Directory) -> Result<u64> {
    for version in numbers(home).await?.into_iter().rev() {
        // A directory with neither is that of a publisher at work, or of a dead one: the number is still free.
        for file in [MANIFEST, REMOVED] {
            if home.size(&format!("{version}/{file}")).await?.is_some() {
                return Ok(version + 1);
            }
        }
    }
    Ok(1)
}

#[cfg(test)]
#[path = "artifact_tests.rs"]
mod tests;
