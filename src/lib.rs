//! Raw data in, trained models out: SQL on partitioned Arrow data, models trained where the data is.
//!
//! This is the library beside the `gristmill` program, for Rust programs that want the same job: a session over files,
//! queries as DataFusion data frames, job scripts.
//!
//! ```
//! # fn main() -> gristmill::Result<()> {
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let session = gristmill::session(gristmill::Options::default())?;
//! let frame = session.plan_query("SELECT 6 * 7 AS answer").await?;
//! let batches = frame.collect().await?;
//! assert_eq!(batches[0].num_rows(), 1);
//! # Ok(())
//! # })
//! # }
//! ```

// The provider of the BLAS symbols that the matrix kernel calls; only the final binary links one.
#[cfg(feature = "openblas")]
extern crate blas_src as _;
#[cfg(feature = "openblas")]
extern crate openblas_src as _;

pub use datafusion::dataframe::DataFrame;
pub use engine::events::{Event, EventSink, Outcome, Progress, StatementReport};
pub use engine::script::{RunSettings, Script};
pub use engine::{Collected, Error, Extension, JobReport, Options, Place, Result, ResultSink, Session};
pub use storage::{Location, Stores};

/// What the model crate adds to the engine: statements, relations and functions. The same value for every session, here
/// and in the program.
pub fn extension() -> Extension {
    Extension::default()
}

/// A session with every statement and function that the `gristmill` program knows.
///
/// # Errors
/// Options that cannot be kept: a temporary directory that cannot be made, a warehouse that is no location.
pub fn session(options: Options) -> Result<Session> {
    Session::builder(Stores::new(), options).extension(extension()).build()
}
