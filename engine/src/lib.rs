//! Rows: sessions, job scripts, tables, sinks, runners, gangs, events.

mod analysis;
pub mod cluster;
mod configuration;
mod delta;
pub mod dictionaries;
pub mod error;
pub mod events;
pub mod extension;
pub mod fault;
mod functions;
pub mod gang;
pub mod map_keys;
pub mod memory;
pub mod metrics;
mod mistake;
pub mod options;
mod program;
pub mod report;
pub mod result;
mod rules;
pub mod runner;
pub mod script;
pub mod session;
mod sink;
mod source;
mod syntax;
mod temporary;
pub mod work;

pub use error::{Error, Place, Result, near};
pub use extension::Extension;
pub use options::Options;
pub use program::{Read, Write, Written};
pub use report::JobReport;
pub use result::{Collected, ResultSink};
pub use script::{RunSettings, Script};
pub use session::Session;
