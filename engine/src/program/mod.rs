//! What Rust programs call instead of writing scripts: one statement, files as a frame, a frame as files. Everything goes
//! the way that statements go: through storage's listings, the sink and the commit.

mod read;
mod spread;
mod statement;
mod write;

pub use read::Read;
pub use write::{Write, Written};
