//! Rows: sessions, job scripts, tables, sinks, runners, gangs, events.

pub mod error;
pub mod events;
pub mod extension;
pub mod gang;
pub mod session;

pub use error::{Error, Place, Result, near};
pub use extension::Extension;
pub use session::Session;
