//! What is at a place, for people: the entries of a directory, and how much is below each.

use std::collections::BTreeMap;

use crate::committed::relative;
use crate::error::{Error, Result};
use crate::glob::expand;
use crate::location::Location;
use crate::store::Stores;

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the place that was asked for; a directory ends with `/`.
    pub name: String,
    /// Size; `None` for a directory.
    pub bytes: Option<u64>,
    /// When, as the store says, in UTC; `None` for a directory.
    pub modified: Option<String>,
}

/// How much is below a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of files.
    pub files: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// The entries of a directory, a file itself, or the files that a glob means; hidden and uncommitted ones are left out as
/// for every reader.
///
/// # Errors
/// As [`expand`].
pub async fn entries(stores: &Stores, location: &Location) -> Result<Vec<Entry>> {
    let base = fixed_part(location);
    let file = |meta: &object_store::ObjectMeta, base: &Location| Entry {
        name: match relative(base.path(), &meta.location) {
            "" => meta.location.filename().unwrap_or_default().to_string(),
            name => name.to_string(),
        },
        bytes: Some(meta.size),
        modified: Some(meta.last_modified.format("%Y-%m-%d %H:%M:%S").to_string()),
    };
    if !location.is_glob() {
        let (store, path) = stores.reader(location)?;
        let listed = store.list_with_delimiter(Some(&path)).await.map_err(|e| Error::at(location, e))?;
        let directories = listed.common_prefixes.iter().map(|path| Entry {
            name: format!("{}/", path.filename().unwrap_or_default()),
            bytes: None,
            modified: None,
        });
        let mut found: Vec<Entry> = directories.chain(listed.objects.iter().map(|meta| file(meta, location))).collect();
        if !found.is_empty() {
            found.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(found);
        }
    }
    Ok(expand(stores, location).await?.iter().map(|found| file(&found.meta, &base)).collect())
}

/// Files and bytes below each entry of a directory.
///
/// # Errors
/// As [`expand`].
pub async fn amounts(stores: &Stores, location: &Location) -> Result<BTreeMap<String, Amount>> {
    let base = fixed_part(location);
    let mut amounts: BTreeMap<String, Amount> = BTreeMap::new();
    for found in expand(stores, location).await? {
        let name = relative(base.path(), &found.meta.location);
        let first = match name.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None if name.is_empty() => found.location.file_name().unwrap_or_default().to_string(),
            None => name.to_string(),
        };
        let amount = amounts.entry(first).or_default();
        amount.files += 1;
        amount.bytes += found.size;
    }
    Ok(amounts)
}

/// The directory in which a glob begins.
fn fixed_part(location: &Location) -> Location {
    let mut base = location.clone();
    while base.is_glob() {
        base = base.parent().unwrap_or_else(|| base.root());
    }
    base
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::on_both;

    on_both!(entries_and_amounts);

    async fn entries_and_amounts(stores: Stores, root: Location) {
        for name in ["a.csv", "d/b.csv", "d/e/c.csv", "_hidden/x.csv"] {
            stores.put_atomic(&root.join(name), Bytes::from(name)).await.unwrap();
        }
        let names = async |at: &str| -> Vec<String> {
            entries(&stores, &root.join(at)).await.unwrap().into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names("").await, ["a.csv", "d/"]);
        assert_eq!(names("d/").await, ["b.csv", "e/"]);
        assert_eq!(names("a.csv").await, ["a.csv"]);
        assert_eq!(names("d/**/*.csv").await, ["b.csv", "e/c.csv"]);
        assert!(entries(&stores, &root.join("nothing/")).await.is_err());
        let amounts = amounts(&stores, &root).await.unwrap();
        assert_eq!(amounts["d/"], Amount { files: 2, bytes: 16 });
        assert_eq!(amounts["a.csv"], Amount { files: 1, bytes: 5 });
        assert_eq!(amounts.len(), 2);
    }
}
