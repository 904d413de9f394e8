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
    SchemeRow { names: &["s3", "s3a", "s3n"], opens: None, what: "Amazon S3 and compatible stores" },
    SchemeRow { names: &["gs", "gcs"], opens: None, what: "Google Cloud Storage" },
    SchemeRow {
        names: &["az", "azure", "abfs", "abfss", "adl", "wasb", "wasbs"],
        opens: None,
        what: "Azure Blob Storage and Data Lake",
    },
    SchemeRow { names: &["hdfs", "webhdfs", "swebhdfs", "viewfs"], opens: None, what: "Hadoop file systems" },
    SchemeRow { names: &["http", "https"], opens: None, what: "web servers" },
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
    /// Reads a bare path (absolute, or relative to the working directory), `file://` or `memory://`.
    ///
    /// # Errors
    /// [`Error::Location`] for a scheme that is unknown or not in this build, and for text that is no path.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(bad(text, "an empty text is no location"));
        }
        match split_scheme(text) {
            None => Self::bare(text),
            Some((name, rest)) => match lookup(name).ok_or_else(|| bad(text, unknown_scheme(name)))? {
                SchemeRow { opens: Some(Scheme::File), .. } => Self::file_url(text, rest),
                SchemeRow { opens: Some(Scheme::Memory), .. } => Self::memory_url(text, rest),
                SchemeRow { opens: None, what, .. } => Err(bad(
                    text,
                    format!("{name}:// ({what}) is not in this build yet: use a local path, file:// or memory://"),
                )),
            },
        }
    }

    fn bare(text: &str) -> Result<Self> {
        if text.starts_with('/') {
            return Self::build(Scheme::File, "", text, text);
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

    /// From decoded path text; `written` is what the user wrote, for the message.
    fn build(scheme: Scheme, authority: &str, path: &str, written: &str) -> Result<Self> {
        let (segments, directory) = normalised(path);
        let path = Path::parse(segments.join("/"))
            .map_err(|_| bad(written, "a path holds no control characters (tab, newline)"))?;
        let base = match scheme {
            Scheme::File => "file:///".to_string(),
            Scheme::Memory => format!("memory://{authority}/"),
        };
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
            Scheme::Memory => f.write_str(self.url.as_str()),
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
        None => format!("unknown scheme {name}://: use a local path, file:// or memory://"),
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
mod tests {
    use super::*;

    #[test]
    fn text_becomes_canonical() {
        let cwd = std::env::current_dir().unwrap().to_str().unwrap().to_string();
        let cases = [
            ("/a/b.csv", "/a/b.csv".to_string(), "file:///a/b.csv".to_string()),
            ("/a//b/./../c/", "/a/c/".into(), "file:///a/c/".into()),
            ("file:///a/b%20c.csv", "/a/b c.csv".into(), "file:///a/b%20c.csv".into()),
            ("file://localhost/a", "/a".into(), "file:///a".into()),
            ("file:/a", "/a".into(), "file:///a".into()),
            ("/a/b%20c", "/a/b%20c".into(), "file:///a/b%2520c".into()),
            ("/data/x-?.csv", "/data/x-?.csv".into(), "file:///data/x-%3F.csv".into()),
            ("memory://m/t/x", "memory://m/t/x".into(), "memory://m/t/x".into()),
            ("memory:///t/x/", "memory:///t/x/".into(), "memory:///t/x/".into()),
            ("memory://", "memory:///".into(), "memory:///".into()),
            ("/", "/".into(), "file:///".into()),
            ("FILE:///a", "/a".into(), "file:///a".into()),
            ("a b/c.csv", format!("{cwd}/a b/c.csv"), format!("file://{cwd}/a%20b/c.csv")),
            ("odd:name.csv", format!("{cwd}/odd:name.csv"), format!("file://{cwd}/odd:name.csv")),
        ];
        for (text, display, url) in cases {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.to_string(), display, "{text}");
            assert_eq!(location.url().as_str(), url, "{text}");
            assert_eq!(Location::parse(&location.to_string()).unwrap(), location, "{text}: display parses back");
            assert_eq!(Location::parse(location.url().as_str()).unwrap(), location, "{text}: URL parses back");
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let cases = [
            ("s3://bucket/x", "s3://bucket/x: s3:// (Amazon S3 and compatible stores) is not in this build yet"),
            ("gs://b", "Google Cloud Storage"),
            ("abfss://c@a/x", "Azure"),
            ("hdfs://n:8020/x", "Hadoop"),
            ("https://h/x.csv", "web servers"),
            ("memry://x", "unknown scheme memry://, did you mean memory://?"),
            ("fil:///x", "did you mean file://?"),
            ("quux://x", "unknown scheme quux://: use a local path"),
            ("file://a/b", "three slashes (file:///a/b)"),
            ("", "empty text"),
            ("a\tb", "control characters"),
        ];
        for (text, expected) in cases {
            let message = Location::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn parts() {
        let table = Location::parse("memory://m/warehouse/flights/").unwrap();
        assert!(table.is_directory_like() && !table.is_glob());
        let file = table.join("month=1/part 0%.parquet");
        assert_eq!(file.to_string(), "memory://m/warehouse/flights/month=1/part%200%25.parquet");
        assert_eq!(file.file_name(), Some("part 0%.parquet"));
        assert_eq!(file.extension(), Some("parquet"));
        assert_eq!(file.local_path(), None);
        assert_eq!(file.parent().unwrap(), table.join("month=1/"));
        assert_eq!(file.store_url().as_str(), "memory://m/");
        assert_eq!(table.join("a\nb").file_name(), Some("a%0Ab"));
        let local = Location::parse("/x/*.csv").unwrap();
        assert!(local.is_glob());
        assert_eq!(local.local_path().unwrap(), PathBuf::from("/x/*.csv"));
        assert_eq!(Location::parse("/").unwrap().parent(), None);
        assert_eq!(Location::parse("/x").unwrap().as_directory().to_string(), "/x/");
    }
}
