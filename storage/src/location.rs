//! Text as a user writes it -> [`Location`]: which store, and which path in it.
//!
//! A location is canonical: relative paths are made absolute against the working directory, `.` and `..` are resolved by
//! text, and double slashes collapse. It says nothing about whether anything is there.

use std::fmt;
use std::path::PathBuf;

use object_store::path::Path;
use url::Url;

use crate::error::{Error, Result};

/// How bytes behind a scheme are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Files of this machine: bare paths and `file://`.
    File,
    /// This process's memory: `memory://`, gone when the process ends.
    Memory,
    /// Amazon S3 and what speaks its language.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage and Data Lake.
    Azure,
    /// A web server, readable by anyone on the way.
    Http,
    /// A web server.
    Https,
    /// Hadoop's file system.
    Hdfs,
    /// Hadoop's view of several file systems, as its configuration mounts them.
    Viewfs,
}

impl Scheme {
    /// Whether a new name for a file costs nothing and appears in one step.
    pub(crate) fn renames(self) -> bool {
        matches!(self, Scheme::File | Scheme::Memory | Scheme::Hdfs | Scheme::Viewfs)
    }

    /// Whether bytes come over a network, from a store that other machines write to.
    pub fn is_remote(self) -> bool {
        !matches!(self, Scheme::File | Scheme::Memory)
    }

    /// Whether it keeps directories.
    pub(crate) fn is_hadoop(self) -> bool {
        matches!(self, Scheme::Hdfs | Scheme::Viewfs)
    }

    /// Whether it is a web server, which is only read.
    pub fn is_web(self) -> bool {
        matches!(self, Scheme::Http | Scheme::Https)
    }

    /// How the canonical URL begins.
    fn name(self, authority: &str) -> &'static str {
        match self {
            Scheme::File => "file",
            Scheme::Memory => "memory",
            Scheme::S3 => "s3",
            Scheme::Gcs => "gs",
            // With the account in it, it is Hadoop's form.
            Scheme::Azure if authority.contains('@') => "abfss",
            Scheme::Azure => "az",
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Hdfs => "hdfs",
            Scheme::Viewfs => "viewfs",
        }
    }
}

/// A scheme's row in the table: its spellings, and either how it is opened or what it is waiting for.
struct SchemeRow {
    names: &'static [&'static str],
    opens: Option<Scheme>,
    what: &'static str,
}

/// Every scheme that users of this field write. A row without `opens` keeps its place for a later build: the message is
/// then "not in this build yet" and never "unknown".
const SCHEMES: &[SchemeRow] = &[
    SchemeRow { names: &["file"], opens: Some(Scheme::File), what: "local files" },
    SchemeRow { names: &["memory"], opens: Some(Scheme::Memory), what: "memory of this process" },
    SchemeRow { names: &["s3", "s3a", "s3n"], opens: Some(Scheme::S3), what: "Amazon S3 and compatible stores" },
    SchemeRow { names: &["gs", "gcs"], opens: Some(Scheme::Gcs), what: "Google Cloud Storage" },
    SchemeRow {
        names: &["az", "azure", "abfs", "abfss", "adl", "wasb", "wasbs"],
        opens: Some(Scheme::Azure),
        what: "Azure Blob Storage and Data Lake",
    },
    SchemeRow { names: &["hdfs"], opens: Some(Scheme::Hdfs), what: "Hadoop file systems" },
    SchemeRow { names: &["viewfs"], opens: Some(Scheme::Viewfs), what: "mounts of Hadoop file systems" },
    SchemeRow { names: &["webhdfs", "swebhdfs"], opens: None, what: "Hadoop file systems over HTTP; hdfs:// is read" },
    SchemeRow { names: &["http"], opens: Some(Scheme::Http), what: "web servers" },
    SchemeRow { names: &["https"], opens: Some(Scheme::Https), what: "web servers" },
    SchemeRow { names: &["hf"], opens: None, what: "Hugging Face data sets" },
];

/// A canonical place of bytes: a file, a directory, or a glob over them.
///
/// Displayed as a path when local and as a URL otherwise; what is displayed parses to the same location.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    scheme: Scheme,
    authority: String,
    path: Path,
    directory: bool,
    url: Url,
}

impl Location {
    /// Reads a bare path (absolute, or relative to the working directory) or a URL of any scheme in the table.
    ///
    /// # Errors
    /// [`Error::Location`] for a scheme that is unknown or not in this build, for text that is no path, and for a URL that
    /// carries a password or a signature (which is not repeated in the message).
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_in(text, None)
    }

    /// As [`Location::parse`], with paths relative to this absolute directory; `None` is the working directory.
    ///
    /// # Errors
    /// As [`Location::parse`].
    pub fn parse_in(text: &str, directory: Option<&str>) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(bad(text, "an empty text is no location"));
        }
        refuse_two_schemes(text)?;
        match split_scheme(text) {
            None => Self::bare(text, directory),
            Some((name, rest)) => match lookup(name).ok_or_else(|| bad(text, unknown_scheme(name)))? {
                SchemeRow { opens: Some(Scheme::File), .. } => Self::file_url(text, rest),
                SchemeRow { opens: Some(Scheme::Memory), .. } => Self::memory_url(text, rest),
                SchemeRow { opens: Some(scheme), .. } => Self::remote_url(*scheme, name, text, rest),
                SchemeRow { opens: None, what, .. } => Err(bad(
                    text,
                    format!("{name}:// ({what}) is not in this build yet: use a local path, file:// or memory://"),
                )),
            },
        }
    }

    fn bare(text: &str, directory: Option<&str>) -> Result<Self> {
        if text.starts_with('/') {
            return Self::build(Scheme::File, "", text, text);
        }
        if let Some(directory) = directory {
            return Self::build(Scheme::File, "", &format!("{directory}/{text}"), text);
        }
        let base = std::env::current_dir().map_err(|e| {
            bad(text, format!("a relative path needs the working directory, which cannot be read: {e}"))
        })?;
        let base = base.to_str().ok_or_else(|| bad(text, "the working directory's name is not UTF-8"))?;
        Self::build(Scheme::File, "", &format!("{base}/{text}"), text)
    }

    fn file_url(text: &str, rest: &str) -> Result<Self> {
        let path = match rest.strip_prefix("//") {
            Some(after) => after.strip_prefix("localhost").filter(|p| p.starts_with('/')).unwrap_or(after),
            None => rest,
        };
        if !path.starts_with('/') {
            return Err(bad(
                text,
                format!("a file URL has three slashes (file:///{path}); a relative path is written without file://"),
            ));
        }
        Self::build(Scheme::File, "", &decoded(text, path)?, text)
    }

    fn memory_url(text: &str, rest: &str) -> Result<Self> {
        let after = rest.strip_prefix("//").ok_or_else(|| bad(text, "write memory:// with two slashes"))?;
        let (authority, path) = after.split_once('/').unwrap_or((after, ""));
        if authority.contains(['*', '?', '[', '{']) {
            return Err(bad(text, "a glob begins after the first name: memory://name/*.parquet"));
        }
        Self::build(Scheme::Memory, authority, &decoded(text, path)?, text)
    }

    fn remote_url(scheme: Scheme, name: &str, text: &str, rest: &str) -> Result<Self> {
        let after = rest.strip_prefix("//").ok_or_else(|| bad(text, format!("write {name}:// with two slashes")))?;
        let (authority, path) = after.split_once('/').unwrap_or((after, ""));
        let authority = checked_authority(scheme, name, authority, text)?;
        if scheme.is_web()
            && let Some((before, _)) = path.split_once('?')
        {
            // What follows may be a signature: it is not repeated.
            let shown = format!("{name}://{authority}/{before}?...");
            return Err(bad(&shown, "web servers are read by path: a query (what follows the ?) cannot be asked"));
        }
        Self::build(scheme, &authority, &decoded(text, path)?, text)
    }

    /// From decoded path text; `written` is what the user wrote, for the message.
    fn build(scheme: Scheme, authority: &str, path: &str, written: &str) -> Result<Self> {
        let (segments, directory) = normalised(path);
        let path = Path::parse(segments.join("/"))
            .map_err(|_| bad(written, "a path holds no control characters (tab, newline)"))?;
        let base = format!("{}://{authority}/", scheme.name(authority));
        let mut url = Url::parse(&base).map_err(|e| bad(written, format!("no URL: {e}")))?;
        {
            let mut parts = url.path_segments_mut().map_err(|()| bad(written, "no URL with a path"))?;
            parts.clear().extend(path.parts().map(|part| part.as_ref().to_string()));
            if directory && !path.is_root() {
                parts.push("");
            }
        }
        Ok(Self { scheme, authority: authority.to_string(), directory: directory || path.is_root(), path, url })
    }

    /// Which kind of store opens it.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What stands between the scheme and the path: a bucket's name, or nothing.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path inside the store, decoded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The canonical URL, percent-encoded; ends with `/` when [`is_directory_like`](Self::is_directory_like).
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of the whole store that holds it (`file:///`, `memory://name/`).
    pub fn store_url(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path("/");
        url
    }

    /// A place below this one. `relative` is plain text, not percent-encoded; a trailing `/` makes it directory-like.
    #[must_use]
    pub fn join(&self, relative: &str) -> Self {
        // A control character is no part of a name anywhere: encoding it keeps this method free of an error case.
        let clean: String = relative
            .chars()
            .map(|c| if c.is_ascii_control() { format!("%{:02X}", u32::from(c)) } else { c.to_string() })
            .collect();
        Self::build(self.scheme, &self.authority, &format!("{}/{clean}", self.path), relative)
            .expect("a canonical path and text without control characters make a path")
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let text = self.path.as_ref();
        if text.is_empty() {
            return None;
        }
        let parent = text.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(self.at_path(&format!("{parent}/")))
    }

    /// The same place, marked as a directory (ends with `/`).
    #[must_use]
    pub fn as_directory(&self) -> Self {
        self.at_path(&format!("{}/", self.path))
    }

    /// Another object of the same store.
    #[must_use]
    pub fn sibling(&self, path: &Path) -> Self {
        self.at_path(path.as_ref())
    }

    /// The whole store.
    pub(crate) fn root(&self) -> Self {
        self.at_path("/")
    }

    /// Another path of the same store; `path` is decoded text.
    pub(crate) fn at_path(&self, path: &str) -> Self {
        Self::build(self.scheme, &self.authority, path, path).expect("a path that the store gave is a path")
    }

    /// Whether the path holds `*`, `?`, `[` or `{`.
    pub fn is_glob(&self) -> bool {
        has_glob(self.path.as_ref())
    }

    /// Whether it was written with a `/` at its end (or is the root).
    pub fn is_directory_like(&self) -> bool {
        self.directory
    }

    /// The path on this machine's disk; `None` when it is elsewhere.
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::File).then(|| PathBuf::from(format!("/{}", self.path)))
    }

    /// The last name of the path; `None` for the root.
    pub fn file_name(&self) -> Option<&str> {
        self.path.filename()
    }

    /// What follows the last `.` of the last name, when a name stands before it.
    pub fn extension(&self) -> Option<&str> {
        self.path.extension()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            Scheme::File => {
                let slash = if self.directory && !self.path.is_root() { "/" } else { "" };
                write!(f, "/{}{slash}", self.path)
            }
            // As a URL, but with the characters of globs as they were typed.
            scheme => {
                write!(f, "{}://{}/", scheme.name(&self.authority), self.authority)?;
                for c in self.path.as_ref().chars() {
                    match c {
                        '%' | ' ' => write!(f, "%{:02X}", u32::from(c))?,
                        c => write!(f, "{c}")?,
                    }
                }
                if self.directory && !self.path.is_root() { f.write_str("/") } else { Ok(()) }
            }
        }
    }
}

impl std::str::FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

pub(crate) fn has_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn bad(location: &str, reason: impl Into<String>) -> Error {
    Error::Location { location: location.to_string(), reason: reason.into() }
}

/// `name:` before `//`, or `file:`; a lone colon is part of a file's name.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (is_name && (rest.starts_with("//") || name.eq_ignore_ascii_case("file"))).then_some((name, rest))
}

/// `s3://gs://bucket/x`, `/data/s3://bucket/x`: two places in one text are none.
fn refuse_two_schemes(text: &str) -> Result<()> {
    let first = split_scheme(text);
    let rest = first.map_or(text, |(_, rest)| rest.trim_start_matches('/'));
    let Some((before, _)) = rest.split_once("://") else { return Ok(()) };
    let second = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    if lookup(second).is_none() {
        return Ok(());
    }
    Err(bad(
        text,
        match first {
            Some((first, _)) => format!("has two schemes, {first}:// and {second}://: leave one of them out"),
            None => format!("has {second}:// in the middle of a path: begin with it"),
        },
    ))
}

/// What stands between the scheme and the path, in one spelling.
fn checked_authority(scheme: Scheme, name: &str, authority: &str, text: &str) -> Result<String> {
    if has_glob(authority) {
        return Err(bad(text, format!("a glob begins after the first name: {name}://name/*.parquet")));
    }
    if scheme != Scheme::Azure
        && let Some((_, host)) = authority.rsplit_once('@')
    {
        let shown = format!("{name}://...@{host}");
        return Err(bad(
            &shown,
            "keys and passwords do not belong in a location: see docs/storage.md for their places",
        ));
    }
    match scheme {
        Scheme::S3 | Scheme::Gcs if authority.is_empty() => {
            Err(bad(text, format!("names no bucket: {name}://bucket/path")))
        }
        Scheme::Azure if authority.is_empty() => Err(bad(text, format!("names no container: {name}://container/path"))),
        Scheme::Http | Scheme::Https if authority.is_empty() => {
            Err(bad(text, format!("names no server: {name}://host/path")))
        }
        Scheme::S3 | Scheme::Gcs if authority.contains(':') => Err(bad(
            text,
            format!("{authority} is no bucket's name; the address of a store is its endpoint, an option"),
        )),
        Scheme::Azure => match authority.split_once('@') {
            None if authority.contains(['.', ':']) => Err(bad(
                text,
                format!("{authority} is no container's name: {name}://container@account.dfs.core.windows.net/path"),
            )),
            None => Ok(authority.to_string()),
            Some((container, account)) => {
                if container.is_empty() || container.contains([':', '.']) || account.is_empty() {
                    // The part before the @ may be a key that somebody took for a password.
                    let shown = format!("{name}://...@{account}");
                    return Err(bad(&shown, format!("write {name}://container@account.dfs.core.windows.net/path")));
                }
                let account = account.split_once('.').map_or(account, |(account, _)| account).to_lowercase();
                let domain = if authority.contains(".fabric.microsoft.com") {
                    "dfs.fabric.microsoft.com"
                } else {
                    "dfs.core.windows.net"
                };
                Ok(format!("{container}@{account}.{domain}"))
            }
        },
        Scheme::Http | Scheme::Https => {
            let url = Url::parse(&format!("{name}://{authority}/")).map_err(|e| bad(text, format!("no URL: {e}")))?;
            let host = url.host_str().unwrap_or_default();
            Ok(url.port().map_or(host.to_string(), |port| format!("{host}:{port}")))
        }
        _ => Ok(authority.to_string()),
    }
}

fn lookup(name: &str) -> Option<&'static SchemeRow> {
    SCHEMES.iter().find(|row| row.names.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

fn unknown_scheme(name: &str) -> String {
    let lower = name.to_lowercase();
    let near = SCHEMES
        .iter()
        .flat_map(|row| row.names)
        .map(|known| (strsim::damerau_levenshtein(&lower, known), *known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min();
    match near {
        Some((_, known)) => format!("unknown scheme {name}://, did you mean {known}://?"),
        None => format!("unknown scheme {name}://: known are s3, gs, az, abfss, hdfs, http, https, file and memory"),
    }
}

fn decoded(written: &str, path: &str) -> Result<String> {
    // `from_url_path` refuses empty and dot segments, so they are resolved before decoding, and the slash is put back.
    let (segments, directory) = normalised(path);
    let path = Path::from_url_path(segments.join("/")).map_err(|e| bad(written, format!("no path in a URL: {e}")))?;
    Ok(format!("/{path}{}", if directory { "/" } else { "" }))
}

/// Segments without empty ones and `.`, with `..` resolved; and whether the text names a directory.
fn normalised(path: &str) -> (Vec<&str>, bool) {
    let mut segments = Vec::new();
    let mut directory = false;
    for segment in path.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    (segments, directory)
}

#[cfg(test)]
#[path = "location_tests.rs"]
mod tests;
