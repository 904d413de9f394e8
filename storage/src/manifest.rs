//! The manifest: which files a table consists of, since which commit.
//!
//! A table directory holds `_gristmill/manifest-<n>.json` for n = 0, 1, 2, ... Each names the table's whole content (not
//! a difference); the newest one counts. A number is written once, by a conditional put, and never free again: when a
//! manifest is two versions old, or older than a writer keeps, it is emptied, not deleted, so that a slow writer that still believes in version n cannot
//! create n + 1 after everybody else has gone on to n + 2. Version 0 is the baseline: what was visible before the first
//! commit.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::sealed;

/// Where a table keeps its manifests, its staged files and its locks.
pub const META: &str = "_gristmill";
/// The layout of the files in [`META`]; a reader refuses a newer one.
const FORMAT: u32 = 1;
/// So many writers that were taken for dead are remembered; one that comes back later than that many others finds its
/// files gone before it commits.
const FENCED_MAX: usize = 1000;
/// A newest manifest that vanishes or is emptied between listing and reading means that a commit happened: look again.
const ATTEMPTS: usize = 100;

/// A committed file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative to the table, with `/` between names: `month=1/part-00000-....parquet`.
    pub path: String,
    /// Rows, where the writer counted them (not for files that were there before the first commit).
    pub rows: Option<u64>,
    /// Size on disk.
    pub bytes: u64,
    /// Lower-case hexadecimal SHA-256, where the writer computed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

/// Names and types of columns, as whoever reads and writes them spells the types.
pub type Columns = Vec<(String, String)>;

/// A table's whole content at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// 0 is the content before the first commit.
    pub version: u64,
    /// The commit that published it; empty while nobody has committed anything.
    pub commit: String,
    /// Sorted by path.
    pub files: Vec<DataFile>,
    /// Of all files together, those of partitions aside; absent when somebody wrote who did not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub columns: Option<Columns>,
    /// Writers that were taken for dead, on stores without locks: they may not commit any more.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) fenced: Vec<String>,
}

impl Manifest {
    pub(crate) fn new(version: u64, commit: &str, mut files: Vec<DataFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { format: FORMAT, version, commit: commit.to_string(), files, columns: None, fenced: Vec::new() }
    }

    /// The next version, of other content.
    pub(crate) fn followed_by(&self, commit: &str, files: Vec<DataFile>) -> Self {
        Self { fenced: self.fenced.clone(), ..Self::new(self.version + 1, commit, files) }
    }

    /// The same version, of a table with these columns.
    pub(crate) fn with_columns(self, columns: Option<Columns>) -> Self {
        Self { columns, ..self }
    }

    /// The next version, of the same content, in which a writer may not commit any more.
    pub(crate) fn fencing(&self, writer: &str) -> Self {
        let mut next = self.followed_by(&self.commit, self.files.clone());
        next.columns = self.columns.clone();
        next.fenced.push(writer.to_string());
        let excess = next.fenced.len().saturating_sub(FENCED_MAX);
        next.fenced.drain(..excess);
        next
    }

    /// Whether somebody has committed something; else it only says what was there before.
    pub(crate) fn is_committed(&self) -> bool {
        !self.commit.is_empty()
    }

    /// Whether a file of this writer is part of it.
    pub(crate) fn has_files_of(&self, id: &str) -> bool {
        let mark = format!("-{id}-");
        self.files.iter().any(|file| file.path.contains(&mark))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        sealed::seal(self)
    }

    pub(crate) fn contains(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok()
    }

    pub(crate) fn parse(bytes: &[u8], path: &Path, version: u64) -> Result<Self, Error> {
        let name = format!("/{path}");
        let manifest: Self = sealed::unseal(bytes).map_err(|reason| Error::damaged(&name, reason))?;
        if manifest.format > FORMAT {
            let reason =
                format!("has format {}, this build reads up to {FORMAT}: use a newer gristmill", manifest.format);
            return Err(Error::damaged(name, reason));
        }
        if manifest.version != version {
            return Err(Error::damaged(name, format!("says that it is version {}", manifest.version)));
        }
        Ok(manifest)
    }
}

/// `manifest-0000000012.json`
pub(crate) fn file_name(version: u64) -> String {
    format!("manifest-{version:010}.json")
}

/// The version in a manifest's name.
pub(crate) fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("manifest-")?.strip_suffix(".json")?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// `<table>/<relative>` as a store path.
pub(crate) fn below(table: &Path, relative: &str) -> Path {
    let text = if table.is_root() { relative.to_string() } else { format!("{table}/{relative}") };
    Path::parse(text).expect("a store path and a relative path of a manifest make a path")
}

/// The newest manifest of a table directory; `None` when it has none.
///
/// # Errors
/// The store's; a damaged manifest is our own error wrapped in it (`Error::at` takes it out).
pub(crate) async fn newest(store: &Arc<dyn ObjectStore>, table: &Path) -> object_store::Result<Option<Manifest>> {
    let meta = below(table, META);
    for _ in 0..ATTEMPTS {
        let listed = store.list_with_delimiter(Some(&meta)).await?;
        let newest = listed.objects.iter().filter_map(|object| version_of(object.location.filename()?)).max();
        let Some(version) = newest else { return Ok(None) };
        let path = below(&meta, &file_name(version));
        let read = async { store.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => return Manifest::parse(&bytes, &path, version).map(Some).map_err(Error::into_store_error),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Error::conflict(format!("/{meta}"), "its newest manifest is empty: the table is damaged").into_store_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_versions() {
        assert_eq!(file_name(12), "manifest-0000000012.json");
        assert_eq!(version_of(&file_name(12)), Some(12));
        assert_eq!(version_of("manifest-12345678901.json"), Some(12_345_678_901));
        for other in ["manifest-.json", "manifest-1.json.tmp", "manifest-x.json", "plan.json"] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut manifest = Manifest::new(3, "c", vec![]);
        manifest.format = 9;
        let path = Path::from("t/_gristmill/manifest-0000000003.json");
        let message = Manifest::parse(&manifest.to_bytes(), &path, 3).unwrap_err().to_string();
        assert_eq!(
            message,
            "/t/_gristmill/manifest-0000000003.json: has format 9, this build reads up to 1: use a newer gristmill"
        );
    }
}
