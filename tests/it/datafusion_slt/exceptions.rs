//! `tests/slt/datafusion_exceptions.tsv`: records that do not give what DataFusion's files say, each with its reason.
//! One line a record: file, line (`*` is the whole file), runner (`*` is every one), kind, reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::upstream::REPOSITORY;

/// Why a record is not as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Ours is different, and means to be.
    Differs,
    /// Ours is wrong, and not mended yet.
    Fault,
    /// It cannot be run.
    Skip,
}

/// A line of the file.
#[derive(Debug, Clone)]
pub(super) struct Exception {
    pub(super) kind: Kind,
    pub(super) reason: String,
}

/// By file and line.
pub(super) struct Exceptions(BTreeMap<(String, u32), Exception>);

/// The line that stands for a whole file.
const WHOLE: u32 = 0;

impl Exceptions {
    pub(super) fn read(runner: &str) -> Self {
        let path = path();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut exceptions = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = || panic!("{}:{}: expected file, line, runner, kind, reason", path.display(), number + 1);
            let fields: Vec<&str> = line.split('\t').collect();
            let &[file, at, runners, kind, reason] = fields.as_slice() else { wrong() };
            let at = if at == "*" { WHOLE } else { at.parse().unwrap_or_else(|_| wrong()) };
            let kind = match kind {
                "differs" => Kind::Differs,
                "fault" => Kind::Fault,
                "skip" => Kind::Skip,
                _ => wrong(),
            };
            if runners == "*" || runners == runner {
                exceptions.insert((file.to_string(), at), Exception { kind, reason: reason.to_string() });
            }
        }
        Exceptions(exceptions)
    }

    /// What is said about a whole file.
    pub(super) fn file(&self, file: &str) -> Option<&Exception> {
        self.0.get(&(file.to_string(), WHOLE))
    }

    /// What is said about a record.
    pub(super) fn record(&self, file: &str, line: u32) -> Option<&Exception> {
        self.0.get(&(file.to_string(), line))
    }

    /// Records of which something is said, by file and line.
    pub(super) fn records(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.keys().filter(|(_, line)| *line != WHOLE).map(|(file, line)| (file.as_str(), *line))
    }
}

fn path() -> PathBuf {
    Path::new(REPOSITORY).join("tests/slt/datafusion_exceptions.tsv")
}
