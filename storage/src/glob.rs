//! Which files a name means: one file, everything visible below a directory, or what matches a glob.
//!
//! In a glob `*` and `?` stay within one name, `[a-c]` is a set, `**` crosses directories and `{a,b}` is either. Hidden
//! names and uncommitted files are never found (see `committed.rs`); the result is sorted by path, so it does not
//! depend on the order in which a store lists.

use std::time::SystemTime;

use ::glob::{MatchOptions, Pattern};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::committed::{self, relative};
use crate::directory::{Directory, Entries};
use crate::error::{Error, Result};
use crate::location::{Location, has_glob};
use crate::manifest;
use crate::store::Stores;

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Where.
    pub location: Location,
    /// Bytes.
    pub size: u64,
    /// As the store says.
    pub last_modified: SystemTime,
    /// The store's own record of it.
    pub meta: ObjectMeta,
}

impl FoundFile {
    fn new(at: &Location, meta: ObjectMeta) -> Self {
        let location = at.at_path(meta.location.as_ref());
        Self { location, size: meta.size, last_modified: meta.last_modified.into(), meta }
    }
}

/// A `*` does not cross a `/`; hidden names were left out before.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// The files that `location` means, sorted by path. An empty list only for a table that was committed empty.
///
/// # Errors
/// [`Error::NotFound`] naming the path, with the nearest name in its directory; [`Error::Location`] for a glob that is
/// none; the store's.
pub async fn expand(stores: &Stores, location: &Location) -> Result<Vec<FoundFile>> {
    // A file may really be called `a[1].csv`.
    let here = Directory::open(stores, location)?;
    if !location.is_directory_like()
        && let Some(meta) = here.as_object().await?
    {
        return Ok(vec![FoundFile::new(location, meta)]);
    }
    if location.is_glob() {
        return matching(stores, location).await;
    }
    if location.scheme().is_web() && !location.is_directory_like() && !is_listed(&here).await {
        return Err(missing(location, &here).await);
    }
    below(stores, location, &here).await
}

/// Whether a web server says that something is below; most say nothing.
async fn is_listed(here: &Directory) -> bool {
    here.entries().await.is_ok_and(|entries| !entries.files.is_empty() || !entries.directories.is_empty())
}

async fn below(stores: &Stores, location: &Location, here: &Directory) -> Result<Vec<FoundFile>> {
    let found = visible(stores, location, location.path()).await?;
    if !found.is_empty() || is_committed(here).await? {
        return Ok(found);
    }
    if location.is_directory_like() && here.as_object().await?.is_some() {
        return Err(Error::not_found(location, "is a file, not a directory: write it without the / at its end"));
    }
    if !exists(here).await? {
        return Err(missing(location, here).await);
    }
    Err(Error::not_found(location, nothing_visible(location, here).await?))
}

/// Whether the directory itself holds a manifest: then no files is a fact and not a mistake.
async fn is_committed(here: &Directory) -> Result<bool> {
    let newest = manifest::newest(here.store(), here.path()).await;
    Ok(newest.map_err(|e| Error::at(&here.location, e))?.is_some_and(|manifest| manifest.is_committed()))
}

async fn exists(here: &Directory) -> Result<bool> {
    if let Some(path) = here.location.local_path() {
        return Ok(path.exists());
    }
    let entries = here.entries().await?;
    Ok(!entries.files.is_empty() || !entries.directories.is_empty())
}

async fn nothing_visible(location: &Location, here: &Directory) -> Result<String> {
    let table = committed::table_of(here.store(), here.path()).await.map_err(|e| Error::at(location, e))?;
    if let Some((table, manifest)) = table {
        let table = location.at_path(&format!("{table}/"));
        let version = manifest.version;
        return Ok(format!("has no files that the table {table} (version {version}) names"));
    }
    let entries = here.entries().await?;
    Ok(if entries.files.is_empty() && entries.directories.is_empty() {
        "is an empty directory".into()
    } else {
        "has no visible files (names that begin with _ or . are hidden)".into()
    })
}

async fn visible(stores: &Stores, at: &Location, prefix: &Path) -> Result<Vec<FoundFile>> {
    let (store, _) = stores.reader(at)?;
    let found: Vec<ObjectMeta> = store.list(Some(prefix)).try_collect().await.map_err(|e| Error::at(at, e))?;
    Ok(found.into_iter().map(|meta| FoundFile::new(at, meta)).collect())
}

async fn matching(stores: &Stores, location: &Location) -> Result<Vec<FoundFile>> {
    let text = location.path().as_ref();
    let fixed: Vec<&str> = text.split('/').take_while(|name| !has_glob(name)).collect();
    let base = location.at_path(&format!("{}/", fixed.join("/")));
    let pattern = text.strip_prefix(&fixed.join("/")).unwrap_or(text).trim_start_matches('/');
    let patterns = compiled(location, pattern)?;
    let (candidates, directories) = match narrowed(stores, &base, pattern).await? {
        Some(found) => found,
        None => (visible(stores, location, base.path()).await?, Vec::new()),
    };
    let name = |file: &FoundFile| relative(base.path(), &file.meta.location).to_string();
    let matches = |text: &str| patterns.iter().any(|pattern| pattern.matches_with(text, MATCHING));
    let below_match = |text: &str| text.match_indices('/').any(|(at, _)| matches(&text[..at]));
    let only_directories = directories.iter().any(|directory| matches(relative(base.path(), directory)))
        || candidates.iter().any(|file| below_match(&name(file)));
    let found: Vec<FoundFile> = candidates.into_iter().filter(|file| matches(&name(file))).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let here = Directory::open(stores, &base)?;
    if !exists(&here).await? {
        return Err(without_base(location, &base, &here).await?);
    }
    let count = visible(stores, location, base.path()).await?.len();
    let reason = if only_directories {
        "matches directories only: add /* or /** for the files in them".to_string()
    } else {
        format!("no file matches ({count} visible {} below {base})", if count == 1 { "file" } else { "files" })
    };
    Err(Error::not_found(location, reason))
}

/// Files among which are those that a glob means, and the visible directories on their first level.
type Narrowed = (Vec<FoundFile>, Vec<Path>);

/// What a glob may mean, without listing the directories whose names do not match its first
/// part; `None` where all must be listed: below a table, whose files its manifest names, and for a glob that begins with
/// `**`.
async fn narrowed(stores: &Stores, base: &Location, pattern: &str) -> Result<Option<Narrowed>> {
    let patterns = braces(pattern);
    if patterns.iter().any(|text| text.starts_with("**")) {
        return Ok(None);
    }
    let firsts: Vec<Pattern> =
        patterns.iter().filter_map(|text| Pattern::new(text.split('/').next().unwrap_or_default()).ok()).collect();
    let (store, _) = stores.open(base)?;
    let told = |e| Error::at(base, e);
    let level = store.list_with_delimiter(Some(base.path())).await.map_err(told)?;
    let named = |path: &Path| path.filename().is_some_and(|name| !committed::is_hidden(&format!("{name}/x")));
    let matches =
        |path: &Path| firsts.iter().any(|first| first.matches_with(path.filename().unwrap_or_default(), MATCHING));
    if level.common_prefixes.iter().any(|path| path.filename() == Some(manifest::META))
        || committed::table_of(&store, base.path()).await.map_err(told)?.is_some()
    {
        return Ok(None);
    }
    let mut listed = level.objects;
    let directories: Vec<Path> = level.common_prefixes.into_iter().filter(named).collect();
    if patterns.iter().any(|text| text.contains('/')) {
        let below: Vec<&Path> = directories.iter().filter(|path| matches(path)).collect();
        let lists: Vec<_> = below.iter().map(|path| committed::listed(&store, path)).collect();
        let lists: Vec<Vec<ObjectMeta>> =
            futures::stream::iter(lists).buffer_unordered(committed::PARALLEL).try_collect().await.map_err(told)?;
        listed.extend(lists.into_iter().flatten());
    }
    let found = committed::ungoverned(&store, base.path(), listed).await.map_err(told)?;
    let found = found.map(|mut found| {
        found.sort_by(|a, b| a.location.cmp(&b.location));
        found
    });
    if let Some(found) = &found {
        stores.keep_heads(base, found);
    }
    let files = |found: Vec<ObjectMeta>| found.into_iter().map(|meta| FoundFile::new(base, meta)).collect();
    Ok(found.map(|found| (files(found), directories)))
}

fn compiled(location: &Location, pattern: &str) -> Result<Vec<Pattern>> {
    braces(pattern)
        .into_iter()
        .map(|text| {
            Pattern::new(&text).map_err(|e| Error::Location {
                location: location.to_string(),
                reason: format!("is no glob: {} at \"{text}\"", e.msg),
            })
        })
        .collect()
}

/// `a{b,c{d,e}}` -> `ab`, `acd`, `ace`. A brace without its partner stands for itself.
fn braces(pattern: &str) -> Vec<String> {
    let Some((open, close)) = outermost_braces(pattern) else { return vec![pattern.to_string()] };
    let (before, inside, after) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let rests = braces(after);
    alternatives(inside)
        .into_iter()
        .flat_map(braces)
        .flat_map(|choice| rests.iter().map(move |rest| format!("{before}{choice}{rest}")))
        .collect()
}

fn outermost_braces(pattern: &str) -> Option<(usize, usize)> {
    let open = pattern.find('{')?;
    let mut depth = 0;
    for (at, c) in pattern.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((open, at));
        }
    }
    None
}

/// Splits at commas that are in no inner brace.
fn alternatives(inside: &str) -> Vec<&str> {
    let mut depth = 0;
    inside
        .split(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        })
        .collect()
}

/// A glob in a directory that is not there: which name was meant, or how far the way to it exists.
async fn without_base(location: &Location, base: &Location, here: &Directory) -> Result<Error> {
    if has_home(base) {
        return Ok(missing(base, here).await);
    }
    let parent = base.parent().map(|parent| here.elsewhere(&parent));
    let entries = match &parent {
        Some(parent) => parent.entries().await.unwrap_or_default(),
        None => Entries::default(),
    };
    if let (Some(parent), Some(near)) = (&parent, near(base, &entries)) {
        let near = parent.location.join(near);
        return Ok(Error::not_found(location, format!("no file matches: there is no {base}, did you mean {near}?")));
    }
    let mut nearest = base.clone();
    while let Some(parent) = nearest.parent() {
        nearest = parent;
        if exists(&here.elsewhere(&nearest)).await? {
            break;
        }
    }
    Ok(Error::not_found(location, format!("no file matches: there is no {base}; the way to it ends at {nearest}")))
}

fn has_home(location: &Location) -> bool {
    location.path().parts().any(|name| name.as_ref() == "~")
}

/// Says how far the path exists and which name is near the missing one.
async fn missing(location: &Location, here: &Directory) -> Error {
    if has_home(location) {
        return Error::not_found(
            location,
            "no such file or directory (~ is not expanded: write the home directory out)",
        );
    }
    let plain = "no such file or directory";
    let (Some(parent), Some(_)) = (location.parent(), location.file_name()) else {
        return Error::not_found(location, plain);
    };
    let parent = here.elsewhere(&parent);
    let Ok(entries) = parent.entries().await else { return Error::not_found(location, plain) };
    if entries.files.is_empty() && entries.directories.is_empty() {
        if parent.location.local_path().is_some_and(|path| !path.exists()) {
            return Error::not_found(location, format!("{plain} (there is no directory {})", parent.location));
        }
        return Error::not_found(location, plain);
    }
    match near(location, &entries) {
        Some(near) => Error::not_found(location, format!("{plain}, did you mean {}?", parent.location.join(near))),
        None => Error::not_found(location, plain),
    }
}

/// The name beside a missing one that was probably meant.
fn near<'a>(missing: &Location, beside: &'a Entries) -> Option<&'a str> {
    let name = missing.file_name()?;
    let lower = name.to_lowercase();
    let near = beside
        .files
        .iter()
        .chain(&beside.directories)
        .filter(|other| !committed::is_hidden(other))
        .map(|other| (strsim::damerau_levenshtein(&lower, &other.to_lowercase()), other))
        .filter(|(distance, other)| *distance <= (other.chars().count().max(name.chars().count()) / 3).max(1))
        .min();
    near.map(|(_, other)| other.as_str())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::on_both;

    on_both!(files_directories_globs, what_is_missing_is_named);

    async fn files_directories_globs(stores: Stores, root: Location) {
        let names = [
            "a.csv",
            "b.parquet",
            "d/c.csv",
            "d/e/f.csv",
            "d/_tmp/x.csv",
            "d/.y.csv",
            "year=2013/m=1/p.csv",
            "_hidden.csv",
            "z[1].csv",
        ];
        for name in names {
            stores.put_atomic(&root.join(name), Bytes::from(name)).await.unwrap();
        }
        let cases = [
            ("a.csv", vec!["a.csv"]),
            ("z[1].csv", vec!["z[1].csv"]),
            ("_hidden.csv", vec!["_hidden.csv"]),
            ("d", vec!["d/c.csv", "d/e/f.csv"]),
            ("d/", vec!["d/c.csv", "d/e/f.csv"]),
            ("*.csv", vec!["a.csv", "z[1].csv"]),
            ("?.*", vec!["a.csv", "b.parquet"]),
            ("[ab].*", vec!["a.csv", "b.parquet"]),
            ("d/*.csv", vec!["d/c.csv"]),
            ("d/**/*.csv", vec!["d/c.csv", "d/e/f.csv"]),
            (
                "**/*.{csv,parquet}",
                vec!["a.csv", "b.parquet", "d/c.csv", "d/e/f.csv", "year=2013/m=1/p.csv", "z[1].csv"],
            ),
            ("year=*/m={1,2}/*", vec!["year=2013/m=1/p.csv"]),
        ];
        for (text, expected) in cases {
            let found = expand(&stores, &root.join(text)).await.unwrap();
            let got: Vec<&str> = found.iter().map(|file| relative(root.path(), &file.meta.location)).collect();
            assert_eq!(got, expected, "{text}");
            assert!(found.iter().all(|file| file.size == relative(root.path(), file.location.path()).len() as u64));
        }
    }

    async fn what_is_missing_is_named(stores: Stores, root: Location) {
        stores.put_atomic(&root.join("data/flights.parquet"), Bytes::from("x")).await.unwrap();
        stores.put_atomic(&root.join("hidden/_x"), Bytes::from("x")).await.unwrap();
        let cases = [
            ("data/flihgts.parquet", "no such file or directory, did you mean <root>data/flights.parquet?"),
            ("dta/", "no such file or directory, did you mean <root>data?"),
            ("data/weather.csv", "no such file or directory"),
            ("data/*.csv", "no file matches (1 visible file below <root>data/)"),
            ("~/x.csv", "no such file or directory (~ is not expanded: write the home directory out)"),
            ("d*", "matches directories only: add /* or /** for the files in them"),
            ("dada/*.csv", "no file matches: there is no <root>dada/, did you mean <root>data?"),
            ("data/2013/m/*.csv", "no file matches: there is no <root>data/2013/m/; the way to it ends at <root>data/"),
            ("data/[.csv", "is no glob: invalid range pattern at \"[.csv\""),
            ("hidden/", "has no visible files (names that begin with _ or . are hidden)"),
            ("data/flights.parquet/", "is a file, not a directory: write it without the / at its end"),
        ];
        for (text, expected) in cases {
            let error = expand(&stores, &root.join(text)).await.unwrap_err().to_string();
            let expected = expected.replace("<root>", &root.to_string());
            assert!(error.ends_with(&format!(": {expected}")), "{text}: {error}");
            assert!(error.starts_with(&root.to_string()), "{text}: {error}");
        }
        if let Some(path) = root.local_path() {
            std::fs::create_dir(path.join("empty")).unwrap();
            let error = expand(&stores, &root.join("empty")).await.unwrap_err().to_string();
            assert!(error.ends_with("empty: is an empty directory"), "{error}");
            let error = expand(&stores, &root.join("no/such/x.csv")).await.unwrap_err().to_string();
            assert!(error.ends_with(&format!("(there is no directory {root}no/such/)")), "{error}");
        }
    }

    #[test]
    fn braces_expand() {
        let cases = [
            ("a", vec!["a"]),
            ("a{b,c}d", vec!["abd", "acd"]),
            ("{a,b{c,d}}/{e,f}", vec!["a/e", "a/f", "bc/e", "bc/f", "bd/e", "bd/f"]),
            ("a{b", vec!["a{b"]),
            ("{}x", vec!["x"]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(braces(pattern), expected, "{pattern}");
        }
    }
}
