//! Raw data in, trained models out: SQL on partitioned Arrow data, models trained where the data is.
//!
//! This is the library beside the `gristmill` program, for Rust programs that want the same job: a [`Session`] over files,
//! queries as DataFusion [`DataFrame`]s, job [`Script`]s, and models: a [`ModelSpec`] with the options of `CREATE MODEL`,
//! [`train`], [`evaluate`], [`predict`]. What a program trains, SQL and the command line can use, and the other way round.
//!
//! ```
//! use gristmill::{ModelSpec, Options, evaluate, predict, train};
//!
//! # fn main() -> gristmill::Result<()> {
//! # let directory = std::env::temp_dir().join(format!("gristmill-doc-{}", std::process::id()));
//! # let warehouse = directory.display().to_string();
//! # tokio::runtime::Runtime::new().expect("threads").block_on(async {
//! let session = gristmill::session(Options { warehouse, ..Options::default() })?;
//! let rows = session.plan_query("SELECT value AS x, value > 300 AS large FROM generate_series(1, 1000)").await?;
//!
//! let spec = ModelSpec::new("large").option("model_type", "logistic_reg").option("input_label_cols", "large");
//! let model = train(&session, &spec, rows.clone()).await?;
//! assert_eq!(model.to_string(), "large@1");
//!
//! let metrics = evaluate(&session, &model, None).await?; // on the rows that training never saw
//! metrics.show().await?;
//! let predictions = predict(&session, &model, rows).await?;
//! assert_eq!(predictions.count().await?, 1000);
//! # std::fs::remove_dir_all(directory).expect("the warehouse can be removed");
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! A whole job script runs with [`Session::run_script`]; [`Session::context`] is DataFusion's own context, with all that it
//! offers.

// The provider of the BLAS symbols that the matrix kernel calls; only the final binary links one.
#[cfg(feature = "openblas")]
extern crate blas_src as _;
#[cfg(feature = "openblas")]
extern crate openblas_src as _;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use datafusion::dataframe::DataFrame;
pub use engine::events::{Event, EventSink, Outcome, Progress, StatementReport};
pub use engine::extension::JobContext;
pub use engine::script::{RunSettings, Script};
pub use engine::{Collected, Error, Extension, JobReport, Options, Place, Result, ResultSink, Session};
pub use ml::{IfExists, ModelName, ModelSpec, extension};
pub use storage::{Location, Stores};
pub use tokio_util::sync::CancellationToken;

/// A session with every statement and function that the `gristmill` program knows.
///
/// # Errors
/// Options that cannot be kept: a temporary directory that cannot be made, a warehouse that is no location.
pub fn session(options: Options) -> Result<Session> {
    Session::builder(Stores::new(), options).extension(extension()).build()
}

/// Trains a model on the rows of `frame` and publishes it in the session's warehouse: `CREATE MODEL` for programs. Gives
/// the name with its version.
///
/// # Errors
/// Options that do not exist or do not fit the data (names them), data that cannot be learned from, a name that is taken
/// unless [`ModelSpec::if_exists`] says otherwise.
pub async fn train(session: &Session, spec: &ModelSpec, frame: DataFrame) -> Result<ModelName> {
    train_with(session, spec, frame, Arc::new(|_| {}), CancellationToken::new()).await
}

/// [`train`] with progress and a way to stop.
///
/// # Errors
/// Those of [`train`], and [`Error::Cancelled`].
pub async fn train_with(
    session: &Session,
    spec: &ModelSpec,
    frame: DataFrame,
    events: EventSink,
    cancel: CancellationToken,
) -> Result<ModelName> {
    let parameters = Arc::new(session.parameters().texts());
    // No script made this model: its lineage says so.
    let job = JobContext { events, cancel, statement_text: String::new(), script_text: "".into(), parameters };
    let finished = ml::train_model(session, spec, frame, &job).await?;
    let name = finished.outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Fact { name, value } if name == "model" => value.split_whitespace().next(),
        _ => None,
    });
    ModelName::parse(name.expect("training names the model that it published"))
}

/// The model's metrics on `frame`, or on the rows that were held out when it was trained: one row with the columns of
/// `ML.EVALUATE`.
///
/// # Errors
/// No such model; a frame without the model's columns.
pub async fn evaluate(session: &Session, model: &ModelName, frame: Option<DataFrame>) -> Result<DataFrame> {
    relation(session, "ML.EVALUATE", model, frame).await
}

/// The rows of `frame` with the model's predictions beside them: the columns of `ML.PREDICT`.
///
/// # Errors
/// No such model; a frame without the model's columns.
pub async fn predict(session: &Session, model: &ModelName, frame: DataFrame) -> Result<DataFrame> {
    relation(session, "ML.PREDICT", model, Some(frame)).await
}

/// Plans `SELECT * FROM function(MODEL model, TABLE frame)`, so that programs predict on the same path as SQL.
async fn relation(session: &Session, function: &str, model: &ModelName, frame: Option<DataFrame>) -> Result<DataFrame> {
    static FRAMES: AtomicUsize = AtomicUsize::new(0);
    let Some(frame) = frame else {
        return session.plan_query(&format!("SELECT * FROM {function}(MODEL \"{model}\")")).await;
    };
    // The frame needs a name while the call is planned; the plan then holds the frame itself.
    let name = format!("gristmill_frame_{}", FRAMES.fetch_add(1, Ordering::Relaxed));
    session.context().register_table(&*name, frame.into_view())?;
    let planned = session.plan_query(&format!("SELECT * FROM {function}(MODEL \"{model}\", TABLE {name})")).await;
    session.context().deregister_table(&*name)?;
    planned
}
