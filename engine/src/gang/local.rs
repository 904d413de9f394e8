//! The gang inside one process.
