//! What can go wrong with bytes, named by what the caller can do.

/// Storage's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes could not be read, written or committed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no location that this build can open.
    #[error("{location}: {reason}")]
    Location {
        /// As the user wrote it.
        location: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}
