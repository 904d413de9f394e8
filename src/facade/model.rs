//! Training, and a model at work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::dataframe::DataFrame;
use engine::events::{EventSink, Outcome};
use engine::extension::JobContext;
use engine::{Result, Session};
use ml::{ModelName, ModelSpec};
use tokio_util::sync::CancellationToken;

use super::Metrics;

/// Trains a model on the rows of `frame` and publishes it in the session's warehouse: `CREATE MODEL` for programs. Which
/// rows are held out for [`Model::evaluate`] follows from the options `data_split_*`, which loss is made small from the
/// model type.
///
/// # Errors
/// Options that do not exist or do not fit the data (names them), data that cannot be learned from, a loss that diverges, a
/// name that is taken unless [`ModelSpec::or_replace`] or [`ModelSpec::if_exists`] says otherwise.
pub async fn train(session: &Session, spec: &ModelSpec, frame: DataFrame) -> Result<Model> {
    train_with(session, spec, frame, Arc::new(|_| {}), CancellationToken::new()).await
}

/// [`train`] with progress and a way to stop: `events` is told of scans, epochs, losses and samples a second, and must not
/// block.
///
/// # Errors
/// Those of [`train`], and [`engine::Error::Cancelled`].
pub async fn train_with(
    session: &Session,
    spec: &ModelSpec,
    frame: DataFrame,
    events: EventSink,
    cancel: CancellationToken,
) -> Result<Model> {
    let parameters = Arc::new(session.parameters().texts());
    // No script made this model: its lineage says so.
    let job = JobContext { events, cancel, statement_text: String::new(), script_text: "".into(), parameters };
    let finished = ml::train_model(session, spec, frame, &job).await?;
    let name = finished.outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Fact { name, value } if name == "model" => value.split_whitespace().next(),
        _ => None,
    });
    Model::open(session, name.expect("training names the model that it published")).await
}

/// One version of a model, with the session that it works in. Cloning is cheap.
///
/// Frames are lazy: [`Model::predict`] and its like plan, and the rows are computed when they are wanted.
#[derive(Clone)]
pub struct Model {
    session: Session,
    name: ModelName,
}

impl Model {
    /// A model of the session's warehouse: `name` for its newest version, `name@3` or `name@alias`. Models that SQL or the
    /// command line made are the same.
    ///
    /// # Errors
    /// No such model, version or alias (names the near one).
    pub async fn open(session: &Session, name: &str) -> Result<Model> {
        let name = ml::registry::version_of(session, &ModelName::parse(name)?).await?;
        Ok(Model { session: session.clone(), name })
    }

    /// Name and version.
    pub fn name(&self) -> &ModelName {
        &self.name
    }

    /// The metrics on the rows that were held out when the model was trained.
    ///
    /// # Errors
    /// A model that was trained without held-out rows; a model file that was changed.
    pub async fn evaluate(&self) -> Result<Metrics> {
        let row = self.relation("ML.EVALUATE", None, "").await?;
        Metrics::of_rows(&row.collect().await?)
    }

    /// The metrics on the rows of `frame`, which must hold the label. Rows whose label is NULL do not count.
    ///
    /// # Errors
    /// A frame without one of the model's columns or the label (names it), whatever running the frame's query finds.
    pub async fn evaluate_on(&self, frame: DataFrame) -> Result<Metrics> {
        let row = self.relation("ML.EVALUATE", Some(frame), "").await?;
        Metrics::of_rows(&row.collect().await?)
    }

    /// The rows of `frame` and beside them `predicted_<label>`, of the label's own type; classifiers add
    /// `predicted_<label>_probs`, a list of structs `label`, `prob` with the most probable class first. The model's columns are
    /// found by name; the frame may have others, and need not have the label.
    ///
    /// # Errors
    /// A frame without one of the model's columns (names it).
    pub async fn predict(&self, frame: DataFrame) -> Result<DataFrame> {
        self.relation("ML.PREDICT", Some(frame), "").await
    }

    /// [`Model::predict`] for two classes, with the probability, from 0 to 1, from which on the answer is the second class in
    /// sorted order; 0.5 is what [`Model::predict`] takes.
    ///
    /// # Errors
    /// Those of [`Model::predict`]; a threshold outside of 0 to 1, a model that is no classifier of two classes.
    pub async fn predict_at(&self, threshold: f64, frame: DataFrame) -> Result<DataFrame> {
        self.relation("ML.PREDICT", Some(frame), &format!(", STRUCT({threshold:?} AS threshold)")).await
    }

    /// What the model really sees of the rows of `frame`: its TRANSFORM applied.
    ///
    /// # Errors
    /// A frame without one of the model's columns (names it).
    pub async fn transform(&self, frame: DataFrame) -> Result<DataFrame> {
        self.relation("ML.TRANSFORM", Some(frame), "").await
    }

    /// How often each class was taken for each: `expected_label`, and a column of counts for each class. On the held-out rows
    /// without a frame.
    ///
    /// # Errors
    /// A model that is no classifier; those of [`Model::evaluate_on`].
    pub async fn confusion_matrix(&self, frame: Option<DataFrame>) -> Result<DataFrame> {
        self.relation("ML.CONFUSION_MATRIX", frame, "").await
    }

    /// A row for each threshold: `threshold`, `recall`, `false_positive_rate` and the four counts. On the held-out rows without
    /// a frame.
    ///
    /// # Errors
    /// A model that is no classifier of two classes; those of [`Model::evaluate_on`].
    pub async fn roc_curve(&self, frame: Option<DataFrame>) -> Result<DataFrame> {
        self.relation("ML.ROC_CURVE", frame, "").await
    }

    /// A row for each iteration or epoch: `loss` and `eval_loss` (means over rows), `learning_rate`, `duration_ms`.
    ///
    /// # Errors
    /// A model file that was changed.
    pub async fn training_info(&self) -> Result<DataFrame> {
        self.relation("ML.TRAINING_INFO", None, "").await
    }

    /// A row for each input column: range, mean, median, spread, categories and NULLs among the training rows.
    ///
    /// # Errors
    /// A model file that was changed.
    pub async fn feature_info(&self) -> Result<DataFrame> {
        self.relation("ML.FEATURE_INFO", None, "").await
    }

    /// The weights of a linear model: a row for each input that it sees, and the intercept.
    ///
    /// # Errors
    /// A model that is not linear.
    pub async fn weights(&self) -> Result<DataFrame> {
        self.relation("ML.WEIGHTS", None, "").await
    }

    /// Plans `SELECT * FROM function(MODEL model, TABLE frame)`, so that programs predict on the same path as SQL.
    async fn relation(&self, function: &str, frame: Option<DataFrame>, settings: &str) -> Result<DataFrame> {
        static FRAMES: AtomicUsize = AtomicUsize::new(0);
        let (session, model) = (&self.session, &self.name);
        let Some(frame) = frame else {
            return session.plan_query(&format!("SELECT * FROM {function}(MODEL \"{model}\"{settings})")).await;
        };
        // The frame needs a name while the call is planned; the plan then holds the frame itself.
        let name = format!("gristmill_frame_{}", FRAMES.fetch_add(1, Ordering::Relaxed));
        session.context().register_table(&*name, frame.into_view())?;
        let call = format!("SELECT * FROM {function}(MODEL \"{model}\", TABLE {name}{settings})");
        let planned = session.plan_query(&call).await;
        session.context().deregister_table(&*name)?;
        planned
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({})", self.name)
    }
}

/// `name@version`.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
