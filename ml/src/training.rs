//! CREATE MODEL from end to end: check, gather rows, fit the transform, build shards, train, evaluate, publish. Until the
//! last step nothing is visible, and what an error leaves behind is removed.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use bytes::Bytes;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, cast};
use datafusion::prelude::Column;
use engine::events::{Event, Outcome, Progress};
use engine::extension::{Finished, JobContext};
use engine::{Error, Result, Session};
use serde_json::json;

use crate::chance::chances;
use crate::checkpoint::Checkpoints;
use crate::distributed::{Cluster, Place};
use crate::encoder::{LABEL, RowEncoder};
use crate::estimate::{self, Trained};
use crate::evaluation;
use crate::gathered::Gathered;
use crate::headline::Headline;
use crate::kernel::{self, ChosenKernel};
use crate::lineage::{self, Lineage};
use crate::live::{Curve, Live, Running};
use crate::materialize::{Part, Split, TrainingRows};
use crate::model::files::{self, ModelRecord, RowCounts};
use crate::model::{ModelShape, Predictor, golden};
use crate::name::ModelName;
use crate::registry;
use crate::spec::{CheckedSpec, ClassWeights, Estimator, IfExists, ModelSpec};
use crate::statement::CreateModel;
use crate::statistics::Rows;
use crate::transform::{
    AutomaticOptions, Find, FitOptions, FrozenTransform, InputColumn, LabelEncoding, LabelSpec, LabelTask, Source,
    Target, TransformSpec, of_the_clause,
};

/// A specification that fits its query: ready to be trained.
struct Planned {
    spec: CheckedSpec,
    /// With plain column types.
    query: DataFrame,
    transform: TransformSpec,
    label: LabelSpec,
}

/// A model that has been trained and not yet published.
struct Made {
    files: Vec<(String, Bytes)>,
    rows: RowCounts,
    kernel: ChosenKernel,
    metrics: serde_json::Value,
}

fn plan(session: &Session, spec: &ModelSpec, query: &DataFrame) -> Result<Planned> {
    let tables: Vec<Option<TableReference>> = query.schema().iter().map(|(table, _)| table.cloned()).collect();
    let query = normalised(query.clone())?;
    let schema = query.schema().as_arrow().clone();
    let mut spec = spec.check(&schema)?;
    if let Some(seed) = session.setting("ml.seed").filter(|_| !spec.seed_given) {
        spec.seed = seed
            .parse()
            .map_err(|_| Error::Usage(format!("ml.seed: expected a whole number of at least 0, got `{seed}`")))?;
    }
    let labels = [spec.label.clone()];
    let categories_max = spec.categories_max();
    let transform = match spec.transform.take() {
        Some(list) => {
            let source = Source {
                columns: &schema,
                tables: &tables,
                split_column: spec.split.column(),
                categories_max,
                standardise: spec.standardise,
            };
            let (transform, bound) =
                written(session, &list, source, &labels).map_err(|error| placed(error, spec.transform_offset))?;
            spec.transform = Some(bound);
            transform
        }
        None => {
            let is_feature = |field: &&FieldRef| Some(field.name().as_str()) != spec.split.column();
            let visible = Schema::new(schema.fields().iter().filter(is_feature).cloned().collect::<Vec<_>>());
            let categories = spec.category_encoding;
            let options = AutomaticOptions { categories, categories_max, standardise: spec.standardise };
            TransformSpec::automatic(&visible, &labels, options)?
        }
    };
    let label = transform.label(&spec.label)?;
    check_label_type(&spec, &label.data_type)?;
    Ok(Planned { spec, query, transform, label })
}

/// The transform that TRANSFORM says, and its text with the values of parameters in their places.
fn written(session: &Session, list: &str, source: Source<'_>, labels: &[String]) -> Result<(TransformSpec, String)> {
    let items = session.select_list(list).map_err(of_the_clause)?;
    let transform = TransformSpec::of_list(&items, source, labels)?;
    // As it was written where it says all.
    let bound = match list.contains('$') {
        true => items.iter().map(|listed| listed.item.to_string()).collect::<Vec<_>>().join(", "),
        false => list.to_owned(),
    };
    Ok((transform, bound))
}

/// An error of the clause that begins at `clause` in the statement; programs have no statement.
fn placed(error: Error, clause: Option<usize>) -> Error {
    match (error, clause) {
        (error, Some(clause)) => error.at_offset(0).shifted(clause),
        (Error::Invalid { message, hint, .. }, None) => Error::Invalid { message, offset: None, hint },
        (other, None) => other,
    }
}

/// What fitting the label would find out, before anything is read.
fn check_label_type(spec: &CheckedSpec, kind: &DataType) -> Result<()> {
    let fits = match task(spec) {
        LabelTask::Regression => kind.is_numeric(),
        LabelTask::Classification => {
            kind.is_integer()
                || matches!(kind, DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
    };
    if fits {
        return Ok(());
    }
    let (what, hint) = match task(spec) {
        LabelTask::Regression => ("numbers", "for classes use logistic_reg or dnn_classifier"),
        LabelTask::Classification => {
            let hint = match kind.is_numeric() {
                true => "for classes cast it: CAST(y AS BIGINT); to predict a number use linear_reg or dnn_regressor",
                false => "cast it: CAST(y AS VARCHAR)",
            };
            ("strings, integers or booleans", hint)
        }
    };
    let (label, name) = (&spec.label, spec.model_type.name());
    Err(Error::invalid(format!("the label {label} has type {kind}, but {name} predicts {what}")).with_hint(hint))
}

fn task(spec: &CheckedSpec) -> LabelTask {
    if spec.model_type.is_classifier() { LabelTask::Classification } else { LabelTask::Regression }
}

/// `gristmill check`: plans the model and lets later statements of the script refer to it.
pub(crate) async fn check(session: &Session, spec: &ModelSpec, query: &DataFrame) -> Result<()> {
    let planned = plan(session, spec, query)?;
    registry::plan_model(
        session,
        ModelShape {
            name: planned.spec.name.clone(),
            model_type: planned.spec.model_type,
            label: planned.spec.label.clone(),
            label_source: planned.label.source,
            label_type: planned.label.data_type,
            inputs: feature_inputs(&planned.transform)?,
            classes: None,
        },
    );
    Ok(())
}

/// The raw columns that a prediction will read.
fn feature_inputs(transform: &TransformSpec) -> Result<Vec<InputColumn>> {
    let columns = transform.raw_columns_of(transform.features.iter().map(|feature| feature.column.as_str()))?;
    Ok(transform.inputs().iter().filter(|input| columns.contains(&input.name)).cloned().collect())
}

/// CREATE MODEL.
pub(crate) async fn create(session: &Session, statement: &CreateModel, job: &JobContext) -> Result<Finished> {
    let query = session.plan_query(&statement.query).await.map_err(|error| error.shifted(statement.query_offset))?;
    train_and_publish(session, &statement.spec, &query, job).await
}

/// Trains a model on the rows of a query and publishes it: what CREATE MODEL does, for programs.
///
/// # Errors
/// A specification that does not fit the query, data that cannot be learned from, a model of that name.
pub async fn train(session: &Session, spec: &ModelSpec, query: DataFrame, job: &JobContext) -> Result<Finished> {
    crate::name::check_name(&spec.name)?;
    train_and_publish(session, spec, &query, job).await
}

async fn train_and_publish(
    session: &Session,
    spec: &ModelSpec,
    query: &DataFrame,
    job: &JobContext,
) -> Result<Finished> {
    let planned = plan(session, spec, query)?;
    let name = planned.spec.name.clone();
    let store = registry::store(session);
    let versions = store.versions(&name).await?;
    if let Some(latest) = versions.last() {
        match planned.spec.if_exists {
            IfExists::Replace => {}
            IfExists::Keep => {
                let kept =
                    Outcome::Fact { name: "model".into(), value: format!("{name}@{latest} exists and was kept") };
                return Ok(Finished { outcomes: vec![kept], ..Finished::default() });
            }
            IfExists::Error => return Err(exists(&name)),
        }
    }
    let next = store.next_version(&name).await?;
    let (if_exists, publish_if) = (planned.spec.if_exists, planned.spec.publish_if.clone());
    for chance in
        chances(planned.query.logical_plan())?.iter().filter(|chance| chance.is_met(session.runner().is_remote()))
    {
        job.emit(Event::Warning(format!("{}; trained again, the model may be another", chance.reason())));
    }
    let lineage = Lineage::new(session, &planned.query, job);
    let (lineage, kernel) = tokio::try_join!(lineage, choose_kernel(session, &planned.spec))?;
    let run = run_id(&planned, &lineage, &kernel);
    let checkpoints = Checkpoints::new(session, &name, &run)?;
    let live = Live::post(session, running(&planned.spec, next)).await;
    let made = make(session, planned, lineage, kernel, &checkpoints, live.curve(), job).await;
    // A run that ended, well or not, needs no checkpoint; only one that was killed leaves its own for the next.
    checkpoints.remove().await;
    let refusal = match (&made, &publish_if) {
        (Ok(made), Some(condition)) => condition.refusal(&name, &made.metrics)?,
        _ => None,
    };
    let published = match refusal.map_or(made, Err) {
        Ok(Made { files, rows, kernel, metrics }) => {
            let published = match if_exists {
                IfExists::Replace => store.publish(&name, files).await,
                IfExists::Error | IfExists::Keep => store.publish_exclusive(&name, next, files).await,
            };
            Ok((published, rows, kernel, metrics))
        }
        Err(error) => Err(error),
    };
    // Not before the version is there: whoever asks for the curve finds one of the two.
    live.end().await;
    let (published, rows, kernel, metrics) = published?;
    let artifact = match published {
        Ok(artifact) => artifact,
        Err(storage::Error::Conflict { .. }) if if_exists == IfExists::Keep => {
            let kept = Outcome::Fact { name: "model".into(), value: format!("{name} was made meanwhile and kept") };
            return Ok(Finished { outcomes: vec![kept], ..Finished::default() });
        }
        Err(storage::Error::Conflict { .. }) => {
            return Err(exists(&name).with_hint(
                "another process created it while this one was training; CREATE OR REPLACE MODEL makes a new version",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    registry::forget_planned(session, &ModelName::latest(name.clone()));
    let fact = |name: &str, value: String| Outcome::Fact { name: name.into(), value };
    let mut outcomes = vec![fact("model", format!("{name}@{}", artifact.version))];
    outcomes.extend(Headline::of(&metrics).map(|Headline { name, value, rows, of }| {
        fact("evaluation", format!("{name} {value:.4} on {} {of} rows", estimate::thousands(rows as f64)))
    }));
    outcomes.push(fact("kernel", kernel.to_string()));
    Ok(Finished { rows: Some(rows.train as u64), outcomes, result: None })
}

/// What a run says of itself before its first iteration.
fn running(spec: &CheckedSpec, version: u64) -> Running {
    Running {
        model: spec.name.clone(),
        version,
        model_type: spec.model_type,
        label: spec.label.clone(),
        history: Vec::new(),
    }
}

fn exists(name: &str) -> Error {
    Error::invalid(format!("the model {name} exists already"))
        .with_hint("CREATE OR REPLACE MODEL makes a new version, CREATE MODEL IF NOT EXISTS keeps the old one")
}

/// Names a run by all that decides its bytes: the specification, the query and its inputs.
fn run_id(planned: &Planned, lineage: &Lineage, kernel: &ChosenKernel) -> String {
    let identity = json!({
        "spec": planned.spec,
        "query": planned.query.logical_plan().display_indent().to_string(),
        "inputs": lineage.inputs,
        "kernel": kernel.fingerprint,
        "version": env!("CARGO_PKG_VERSION"),
    });
    storage::sha256_hex(identity.to_string().as_bytes())[..32].to_string()
}

/// A model that was trained again.
pub(crate) struct Retrained {
    pub(crate) files: Vec<(String, Bytes)>,
    pub(crate) kernel: ChosenKernel,
    pub(crate) versions: std::collections::BTreeMap<String, String>,
}

/// Trains a statement's model again, with the seed and the kernel of its first time, and publishes nothing.
pub(crate) async fn retrain(
    session: &Session,
    statement: &CreateModel,
    record: &ModelRecord,
    job: &JobContext,
) -> Result<Retrained> {
    let query = session.plan_query(&statement.query).await.map_err(|error| error.shifted(statement.query_offset))?;
    let mut planned = plan(session, &statement.spec, &query)?;
    planned.spec.seed = record.spec.seed;
    // A kernel that this build lacks cannot be asked for; then the comparison says so.
    planned.spec.kernel = record.kernel.parse().ok().filter(|choice| kernel::choose(*choice).is_ok());
    let lineage = Lineage::new(session, &planned.query, job).await?;
    let versions = lineage.versions.clone();
    let kernel = choose_kernel(session, &planned.spec).await?;
    let made = make(session, planned, lineage, kernel, &Checkpoints::none(session), Curve::unread(), job).await?;
    Ok(Retrained { files: made.files, kernel: made.kernel, versions })
}

/// The input files of a statement's training query, as they are now.
pub(crate) async fn inputs_now(session: &Session, statement: &CreateModel) -> Result<Vec<lineage::InputFile>> {
    let query = session.plan_query(&statement.query).await.map_err(|error| error.shifted(statement.query_offset))?;
    lineage::input_files(session, &normalised(query)?).await
}

async fn choose_kernel(session: &Session, spec: &CheckedSpec) -> Result<ChosenKernel> {
    let choice = spec.kernel.map_or_else(|| registry::kernel_choice(session), Ok)?;
    blocking(move || kernel::choose(choice)).await
}

async fn make(
    session: &Session,
    planned: Planned,
    lineage: Lineage,
    kernel: ChosenKernel,
    checkpoints: &Checkpoints,
    curve: Curve,
    job: &JobContext,
) -> Result<Made> {
    let cluster = Cluster::of(session, &planned.spec).await?.map(Arc::new);
    let made = make_on(session, planned, lineage, kernel, checkpoints, curve, cluster.clone(), job).await;
    // Whoever else still has it removes the files when he is done.
    if let Some(cluster) = cluster.and_then(Arc::into_inner) {
        cluster.close().await;
    }
    made
}

async fn make_on(
    session: &Session,
    planned: Planned,
    lineage: Lineage,
    kernel: ChosenKernel,
    checkpoints: &Checkpoints,
    curve: Curve,
    cluster: Option<Arc<Cluster>>,
    job: &JobContext,
) -> Result<Made> {
    let Planned { spec, query, transform, label } = planned;
    let gathered = gather(session, &query, label.base.clone(), &spec, cluster.as_deref(), job).await?;
    let rows = gathered.rows();
    let split = Split::decide(&spec.split, rows).await?;
    let (frozen, labels) = match fit(session, rows, &split, &transform, &spec, &label, job).await {
        Ok(fitted) => fitted,
        Err(_) if rows.part(&split, Part::Train).await?.count().await? == 0 => {
            return Err(nothing_to_train_on(&split, rows.rows()));
        }
        Err(error) => return Err(error),
    };
    let (all_rows, null_labels) = (rows.rows(), rows.null_labels());
    let labels = match &spec.estimator {
        Estimator::Linear(settings) => labels.for_training(settings.fit_intercept, false)?,
        Estimator::Network(_) => labels.for_training(true, true)?,
    };
    let weights = class_weights(&spec, &labels)?;
    let encoder = RowEncoder { transform: frozen, labels, weights };
    let counted = gathered.counted(&split).await?;
    let (session, job, checkpoints) = (session.clone(), job.clone(), checkpoints.clone());
    blocking(move || {
        let sharded = counted.shards(&session, &spec, &split, &encoder, &job)?;
        let counts = RowCounts {
            train: sharded.train.total_rows(),
            eval: sharded.eval.as_ref().map_or(0, |s| s.total_rows()),
            test: sharded.test.as_ref().map_or(0, |s| s.total_rows()),
            without_label: null_labels as usize,
        };
        if counts.train == 0 {
            return Err(nothing_to_train_on(&split, all_rows));
        }
        let place = match &cluster {
            Some(cluster) => Place::of(cluster, &sharded, &encoder, &kernel, &checkpoints, &job)?,
            None => None,
        };
        let (labels, place) = (encoder.labels.clone(), place.as_ref());
        let Trained { trained, history, notes, warnings } =
            estimate::train(&session, &spec, &labels, &sharded, &kernel, &checkpoints, place, &curve, &job)?;
        for note in notes {
            job.emit(Event::Note(note));
        }
        for warning in warnings {
            job.emit(Event::Warning(warning));
        }
        let frozen = encoder.transform;
        let record = ModelRecord {
            format: files::FORMAT,
            label: labels,
            inputs: frozen.feature_inputs().cloned().collect(),
            trained: trained.shape(),
            rows: counts,
            kernel: kernel.kernel.name().to_string(),
            kernel_fingerprint: kernel.fingerprint.clone(),
            lineage: lineage.finished(),
            spec,
        };
        let weights = trained.to_safetensors()?;
        let predictor = Predictor::new(record, frozen, trained, kernel.kernel)?;
        let held_out = evaluation::held_out(&predictor, &weights, &sharded, place, &job)?;
        if let Some(warning) = held_out.worse_than_nothing(&predictor) {
            job.emit(Event::Warning(warning));
        }
        let list: Vec<(&str, Vec<u8>)> = vec![
            (files::WEIGHTS, weights),
            (files::MODEL, files::to_json(&predictor.record)?),
            (files::TRANSFORM, predictor.transform.to_json()?.into_bytes()),
            (files::METRICS, files::to_json(&held_out.metrics)?),
            (files::TRAINING, files::to_parquet(&files::training_batch(&history)?)?),
            (files::GOLDEN, golden::make(&predictor, &sharded.golden)?),
            (files::HELD_OUT, files::to_arrow(&held_out.schema, &held_out.batches)?),
            (files::MLMODEL, files::mlmodel(&predictor.record).into_bytes()),
        ];
        let files = list.into_iter().map(|(name, bytes)| (name.to_string(), Bytes::from(bytes))).collect();
        Ok(Made { files, rows: counts, kernel, metrics: held_out.metrics })
    })
    .await
}

/// Arithmetic runs on a thread of its own, never on those that wait for storage.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => match panicked.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Cancelled),
        },
    }
}

/// A column by exactly this name, without SQL's folding.
fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The same query with plain column types: dictionaries and views become what they stand for, since both would drag
/// their shared buffers along wherever a few rows go.
fn normalised(query: DataFrame) -> Result<DataFrame> {
    let mut names: Vec<&str> = Vec::new();
    let mut columns: Vec<Expr> = Vec::new();
    for (qualifier, field) in query.schema().iter() {
        if names.contains(&field.name().as_str()) {
            return Err(Error::invalid(format!("the training query has two columns called {}", field.name())));
        }
        names.push(field.name());
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let plain = plain_type(field.data_type());
        let column = if plain == *field.data_type() { column } else { cast(column, plain) };
        columns.push(column.alias(field.name()));
    }
    Ok(query.clone().select(columns)?)
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// Runs the query and gathers its rows, each with its label beside it.
async fn gather(
    session: &Session,
    query: &DataFrame,
    label: Expr,
    spec: &CheckedSpec,
    cluster: Option<&Cluster>,
    job: &JobContext,
) -> Result<Gathered> {
    let columns = query.schema().fields().iter().map(|field| column(field.name()));
    let labelled = query.clone().select(columns.chain([label.alias(LABEL)]).collect::<Vec<_>>())?;
    let gathered = Gathered::of(session, labelled, spec, cluster.map(Cluster::place), job).await?;
    let (with, without) = (gathered.rows().rows(), gathered.rows().null_labels());
    if with + without == 0 {
        return Err(Error::invalid("the training query gave no rows"));
    }
    if with == 0 {
        return Err(Error::invalid(format!(
            "the label {} is NULL in all {without} rows of the training query",
            spec.label
        )));
    }
    if without > 0 {
        let of = with + without;
        let text = format!("the label {} is NULL in {without} of {of} rows: they are left out of training", spec.label);
        job.emit(Event::Warning(text));
    }
    Ok(gathered)
}

pub(crate) fn tell(job: &JobContext, task: &str, done: u64, total: Option<u64>) {
    job.emit(Event::Progress(Progress { task: task.into(), done, total, unit: "rows", fields: Vec::new() }));
}

/// The transform and the label. A label that is fitted itself can only be looked at when the transform is known; other labels
/// come first, since categories may be encoded with them.
async fn fit(
    session: &Session,
    rows: &dyn TrainingRows,
    split: &Split,
    transform: &TransformSpec,
    spec: &CheckedSpec,
    label: &LabelSpec,
    job: &JobContext,
) -> Result<(FrozenTransform, LabelEncoding)> {
    if label.is_fitted {
        let frozen = fit_transform(session, rows, split, transform, None, job).await?;
        let finished = frozen.finished_label_call(column(LABEL))?;
        let labels = fit_label(rows, spec, finished, &label.data_type).await?;
        return Ok((frozen, labels));
    }
    let labels = fit_label(rows, spec, column(LABEL), &label.data_type).await?;
    let target = Target { label: column(LABEL), encoding: labels.clone() };
    Ok((fit_transform(session, rows, split, transform, Some(target), job).await?, labels))
}

/// Classes are those of all rows, so that a rare one that only the held-out rows show does not end the evaluation.
async fn fit_label(
    rows: &dyn TrainingRows,
    spec: &CheckedSpec,
    label: Expr,
    label_type: &DataType,
) -> Result<LabelEncoding> {
    let all = rows.part(&Split::None, Part::Train).await?;
    Ok(LabelEncoding::fit(&all, &spec.label, label, label_type, task(spec)).await?.encoding)
}

/// Rows up to which exact medians of all columns are computed for ML.FEATURE_INFO: they need memory for each distinct
/// value.
const MEDIANS_UP_TO: u64 = 5_000_000;

/// Bytes of a tally for each distinct value, while partitions' tallies are merged.
const TALLY_BYTES: u64 = 64;

/// The same on its way to another process, where it is written densely.
const TRAVELLING_TALLY_BYTES: u64 = 12;

/// Bytes of all tallies together that travel between processes in one message, at most.
const TRAVELLING_BYTES: u64 = 64 << 20;

/// Quantiles are counted where tallies of all columns would fit into a quarter of the limit, and into a message where they
/// travel.
fn find_quantiles(limit: Option<usize>, rows: &dyn TrainingRows, train: &Rows) -> Find {
    let columns = rows.schema().fields().len() as u64;
    let numbers = rows.rows().saturating_mul(columns);
    let travels = train.is_remote() && numbers.saturating_mul(TRAVELLING_TALLY_BYTES) > TRAVELLING_BYTES;
    match limit {
        _ if travels => Find::BySorting,
        Some(limit) if numbers.saturating_mul(TALLY_BYTES) > limit as u64 / 4 => Find::BySorting,
        _ => Find::ByCounting,
    }
}

async fn fit_transform(
    session: &Session,
    rows: &dyn TrainingRows,
    split: &Split,
    transform: &TransformSpec,
    target: Option<Target>,
    job: &JobContext,
) -> Result<FrozenTransform> {
    tell(job, "fit transform", 0, None);
    let train = rows.part(split, Part::Train).await?;
    let quantiles = find_quantiles(session.memory_limit(), rows, &train);
    let options = FitOptions { medians: rows.rows() <= MEDIANS_UP_TO, target, quantiles };
    let frozen = transform.fit(&train, &options).await?;
    for warning in frozen.warnings() {
        job.emit(Event::Warning(warning.clone()));
    }
    tell(job, "fit transform", rows.rows(), Some(rows.rows()));
    Ok(frozen)
}

fn nothing_to_train_on(split: &Split, all: u64) -> Error {
    match split {
        Split::Column { name } => {
            Error::invalid(format!("DATA_SPLIT_COL `{name}` is FALSE in none of {all} rows: none is left to train on"))
                .with_hint("TRUE and NULL hold a row out for evaluation, FALSE trains on it")
        }
        _ => Error::invalid(format!("the split leaves none of {all} rows to train on")),
    }
}

/// The weight of each class; empty when all are 1.
fn class_weights(spec: &CheckedSpec, labels: &LabelEncoding) -> Result<Vec<f32>> {
    let (Some(classes), Some(counts)) = (labels.classes(), labels.class_counts()) else { return Ok(Vec::new()) };
    match &spec.class_weights {
        ClassWeights::Equal => Ok(Vec::new()),
        ClassWeights::Balanced => {
            let rows: u64 = counts.iter().sum();
            Ok(counts.iter().map(|count| (rows as f64 / (counts.len() as f64 * *count as f64)) as f32).collect())
        }
        ClassWeights::Given(given) => {
            for (label, _) in given {
                if !classes.contains(label) {
                    let error = Error::invalid(format!("class_weights: {} has no class '{label}'", spec.label));
                    return Err(match engine::near(label, classes.iter().map(String::as_str)) {
                        Some(near) => error.with_hint(format!("did you mean '{near}'?")),
                        None => error.with_hint(format!("classes are {}", classes.join(", "))),
                    });
                }
            }
            let weight =
                |class: &String| given.iter().find(|(label, _)| label == class).map_or(1.0, |(_, w)| *w as f32);
            Ok(classes.iter().map(weight).collect())
        }
    }
}
