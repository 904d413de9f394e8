//! What can go wrong, named by what the caller can do about it; printed once, at the edge.

use std::fmt;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a statement, a job or a session did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user's text or data is wrong: correct it and run again. `hint` names the near thing or the way out.
    #[error("{message}")]
    Invalid {
        /// One sentence with the nouns in it: which column, which option, expected and got.
        message: String,
        /// Byte offset into the statement's own text, where it is known.
        offset: Option<usize>,
        /// "did you mean ...", or what to do.
        hint: Option<String>,
    },
    /// An option, flag or configuration value is wrong (exit code 2).
    #[error("{0}")]
    Usage(String),
    /// An ASSERT that did not hold (exit code 3).
    #[error("assertion failed: {0}")]
    Assertion(String),
    /// The job was asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The cluster cannot be reached, or was lost (exit code 5).
    #[error("{0}")]
    Cluster(String),
    /// Planning or execution failed in the query engine.
    #[error(transparent)]
    Query(#[from] datafusion::error::DataFusionError),
    /// Reading or committing bytes failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Another process has replaced a table while it was read: what is run again reads the new one.
    #[error("{0}")]
    Replaced(String),
    /// A panic: the program's fault and not the user's.
    #[error("a fault of the program, please report: {0}")]
    Fault(String),
    /// An error at a place of a script: what failed, and where.
    #[error("{place}: {source}")]
    At {
        /// file:line:column with the source line.
        place: Box<Place>,
        /// What failed there.
        source: Box<Error>,
    },
}

/// A place in a script, good for `file:line:column` and for a caret under the source line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The script's name as the user gave it; `-c` and `<stdin>` for text without a file.
    pub file: String,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// The whole source line, without its end.
    pub source_line: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Error {
    /// The user's mistake, in one sentence.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid { message: message.into(), offset: None, hint: None }
    }

    /// What storage has said, wherever on its way up it was wrapped.
    pub(crate) fn of_storage(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let said = storage::Error::inside(error)?;
        Some(match said {
            storage::Error::Replaced { .. } => Error::Replaced(said.to_string()),
            _ => Error::invalid(said.to_string()),
        })
    }

    /// Adds where in the statement's text it is.
    #[must_use]
    pub fn at_offset(mut self, at: usize) -> Self {
        if let Error::Invalid { offset, .. } = &mut self {
            offset.get_or_insert(at);
        }
        self
    }

    /// Where in the statement's text it is, when that is known.
    pub fn offset(&self) -> Option<usize> {
        match self {
            Error::Invalid { offset, .. } => *offset,
            _ => None,
        }
    }

    /// The same error of a text that begins `by` bytes into another.
    #[must_use]
    pub fn shifted(mut self, by: usize) -> Self {
        if let Error::Invalid { offset: Some(offset), .. } = &mut self {
            *offset += by;
        }
        self
    }

    /// The error itself, without its place.
    pub fn innermost(&self) -> &Error {
        match self {
            Error::At { source, .. } => source.innermost(),
            error => error,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Error::Invalid { hint, .. } = &mut self {
            hint.get_or_insert(text.into());
        }
        self
    }
}

/// The candidate nearest to `word` when one is close enough to be what was meant.
///
/// Case is ignored; at most a third of the letters may differ (Damerau-Levenshtein), one of two or more. A word of one letter
/// is near none: all such words would be.
pub fn near<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let allowed = |candidate: &str| {
        let letters = candidate.chars().count().max(lower.chars().count());
        (letters / 3).max(usize::from(letters > 1))
    };
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
