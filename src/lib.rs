//! Raw data in, trained models out: SQL on partitioned Arrow data, models trained where the data is.
//!
//! This is the library beside the `gristmill` program, for Rust programs that want the same job. A [`Session`] reads files as
//! frames ([`Session::read`]), runs SQL ([`Session::sql`], [`Session::run_script`]) and writes frames as files that appear whole or
//! not at all ([`Session::write`]). A frame is a DataFusion [`DataFrame`]: lazy, with joins, aggregates and expressions. A
//! [`ModelSpec`] says what is to be learned, [`train`] gives a [`Model`], which evaluates and predicts. What a program trains, SQL
//! and the command line can use, and the other way round.
//!
//! ```
//! use gristmill::prelude::*;
//!
//! # fn main() -> gristmill::Result<()> {
//! # let directory = std::env::temp_dir().join(format!("gristmill-doc-{}", std::process::id()));
//! # let (warehouse, out) = (directory.join("models").display().to_string(), directory.join("out/").display().to_string());
//! # tokio::runtime::Runtime::new().expect("threads").block_on(async {
//! let session = gristmill::session(Options { warehouse, ..Options::default() })?;
//! let rows = session.sql("SELECT value AS x, value > 300 AS large FROM generate_series(1, 1000)").await?;
//!
//! let spec = ModelSpec::logistic_reg("large").label("large").option("data_split_method", "RANDOM");
//! let model = train(&session, &spec, rows.clone()).await?;
//! assert_eq!(model.to_string(), "large@1");
//!
//! let metrics = model.evaluate().await?; // on the rows that training never saw
//! assert!(metrics["roc_auc"] > 0.99, "{metrics}");
//!
//! let large = model.predict(rows).await?.filter(col("predicted_large"))?;
//! let written = session.write(large, out).partitioned_by(["large"]).await?;
//! assert!((650..=750).contains(&written.rows));
//! # std::fs::remove_dir_all(directory).expect("the warehouse can be removed");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! The whole job on real data is `examples/late_flights.rs`. Everything asynchronous runs on tokio; work on matrices runs on
//! threads of its own. Errors are [`Error`]s that name the thing: the column, the option, the file.

// The provider of the BLAS symbols that the matrix kernel calls; only the final binary links one.
#[cfg(feature = "openblas")]
extern crate blas_src as _;
#[cfg(feature = "openblas")]
extern crate openblas_src as _;

use std::sync::Arc;

mod facade;

/// The query engine, in the version that this library is built with: expressions, functions, its own context
/// ([`Session::context`]).
pub use datafusion;
pub use datafusion::dataframe::DataFrame;
pub use engine::cluster::ClusterAddress;
use engine::cluster::{ClusterClient, Environment};
pub use engine::events::{Event, EventSink, Outcome, Progress, StatementReport};
pub use engine::extension::JobContext;
use engine::runner::ClusterRunner;
pub use engine::script::{RunSettings, Script};
pub use engine::{
    Collected, Error, Extension, JobReport, Options, Place, Read, Result, ResultSink, Session, Write, Written,
};
pub use facade::{Metrics, Model, Transform, train, train_with};
pub use ml::{IfExists, ModelName, ModelSpec, extension};
pub use storage::{Location, StoreSettings, Stores};
pub use tokio_util::sync::CancellationToken;

/// What most programs want: sessions, models, frames and the query engine's expressions to work on them.
pub mod prelude {
    pub use datafusion::functions_aggregate::count::count_all;
    pub use datafusion::functions_aggregate::expr_fn::{avg, count, max, median, min, stddev, sum};
    pub use datafusion::prelude::*;

    pub use crate::{Error, Metrics, Model, ModelSpec, Options, Result, Session, Transform, train};
}

/// A session with every statement and function that the `gristmill` program knows. Options are those of the configuration file;
/// [`Options::default`] uses all cores, no memory limit, and keeps models in `./warehouse`.
///
/// # Errors
/// Options that cannot be kept: a temporary directory that cannot be made, a warehouse that is no location.
pub fn session(options: Options) -> Result<Session> {
    let stores = stores(&options);
    Session::builder(stores, options).extension(extension()).build()
}

/// Stores with what the options say, in this process's environment: the variables of AWS, Google and Azure that their own
/// tools read as well.
fn stores(options: &Options) -> Stores {
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Stores::with(options.stores.clone().in_environment(environment))
}

/// As [`session`], with plans executed on the cluster that [`Options::cluster`] names; without one, in this process.
///
/// # Errors
/// [`Error::Cluster`] when the scheduler cannot be reached or has no executors for a minute; those of [`session`].
pub async fn cluster_session(options: Options) -> Result<Session> {
    let stores = stores(&options);
    let mut builder = Session::builder(stores.clone(), options.clone()).extension(extension());
    if let Some(address) = options.cluster {
        let environment = Environment::new(stores, extension());
        builder = builder.runner(Arc::new(ClusterRunner::connect(ClusterClient::new(address), environment).await?));
    }
    builder.build()
}
