//! The models of a warehouse: which there are, which one a name means, and the models that are loaded.
//!
//! Loaded models are kept for the process under their id, the place and hash of an immutable version; plans carry only the
//! id. A model that a script being checked would make is known by its shape alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use datafusion::common::TableReference;
use engine::{Error, Result, Session, near};
use storage::{Artifact, ArtifactStore, Location, Stores};

use crate::headline::Headline;
use crate::kernel;
use crate::live::{self, Running};
use crate::model::estimator::Trained;
use crate::model::files::{self, ModelRecord, RowCounts};
use crate::model::{ModelShape, Predictor};
use crate::name::{ModelName, VersionChoice};
use crate::transform::{InputColumn, LabelSource};

/// A model in memory.
pub(crate) struct Loaded {
    pub(crate) predictor: Predictor,
    pub(crate) version: u64,
    pub(crate) training: Vec<RecordBatch>,
    held_out: OnceLock<(SchemaRef, Vec<RecordBatch>)>,
}

impl Loaded {
    /// Labels and scores of the held-out rows.
    pub(crate) fn held_out(&self) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let name = &self.predictor.shape().name;
        self.held_out
            .get()
            .cloned()
            .ok_or_else(|| Error::invalid(format!("the held-out rows of {name} are not loaded")))
    }
}

/// What is known of a model that a plan names.
#[derive(Clone)]
pub(crate) enum Known {
    /// All.
    Loaded(Arc<Loaded>),
    /// It will be made by an earlier statement of the script that is being checked.
    Planned(Arc<ModelShape>),
    /// It is being trained somewhere, and no more is known than what the run says of itself.
    Running(Arc<ModelShape>, Arc<Running>),
}

impl Known {
    /// Names and types.
    pub(crate) fn shape(&self) -> &Arc<ModelShape> {
        match self {
            Known::Loaded(loaded) => loaded.predictor.shape(),
            Known::Planned(shape) | Known::Running(shape, _) => shape,
        }
    }

    /// The model itself.
    pub(crate) fn predictor(&self) -> Option<&Predictor> {
        match self {
            Known::Loaded(loaded) => Some(&loaded.predictor),
            Known::Planned(_) | Known::Running(..) => None,
        }
    }
}

static CACHE: OnceLock<Mutex<HashMap<String, Known>>> = OnceLock::new();

fn cache() -> std::sync::MutexGuard<'static, HashMap<String, Known>> {
    // Entries are whole when they are put in, so a poisoned lock is still good.
    CACHE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The model under an id that [`load_for_planning`] gave.
pub(crate) fn cached(id: &str) -> Result<Known> {
    cache().get(id).cloned().ok_or_else(|| Error::invalid(format!("the model {id} is not loaded in this process")))
}

/// The stores from which a process that executes plans for others loads models.
static WORKER: OnceLock<Stores> = OnceLock::new();

/// Lets this process load the models that plans from elsewhere name.
pub(crate) fn serve_from(stores: &Stores) {
    // Every session of a process has the same stores, so the first to come is as good as any.
    let _ = WORKER.set(stores.clone());
}

/// The model under an id, loaded if it has to be: a plan from another process carries nothing but the id.
pub(crate) fn find(id: &str) -> Result<Known> {
    let Some(stores) = WORKER.get().filter(|_| !cache().contains_key(id)) else { return cached(id) };
    // Plans are executed on threads that must not wait for a store, so another one does.
    let loading = std::thread::scope(|scope| {
        let load = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| Error::Query(error.into()))?.block_on(load_by_id(stores, id))
        };
        scope.spawn(load).join()
    });
    let loaded = loading.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(cache().entry(id.to_string()).or_insert(Known::Loaded(Arc::new(loaded))).clone())
}

/// `<warehouse>/models/<name>/<version>#<hash>!<kernel>`. The kernel is that of whoever planned the query, so that all parts of
/// it predict alike.
async fn load_by_id(stores: &Stores, id: &str) -> Result<Loaded> {
    let foreign = || Error::invalid(format!("{id} is no model's id: another version planned the query"));
    let (artifact_id, kernel) = id.rsplit_once('!').ok_or_else(foreign)?;
    let (place, _) = artifact_id.rsplit_once('#').ok_or_else(foreign)?;
    let place = Location::parse(place)?;
    let version = place.file_name().and_then(|name| name.parse().ok()).ok_or_else(foreign)?;
    let home = place.parent().ok_or_else(foreign)?;
    let name = home.file_name().ok_or_else(foreign)?.to_string();
    let warehouse = home.parent().and_then(|models| models.parent()).ok_or_else(foreign)?;
    let store = ArtifactStore::new(stores.clone(), warehouse);
    let artifact = store.open(&name, Some(version)).await?;
    if self::artifact_id(&artifact) != artifact_id {
        return Err(Error::invalid(format!("the model {name}@{version} was changed while the query ran")));
    }
    load_from(&store, &artifact, kernel.parse()?).await
}

fn planned_id(session: &Session, name: &str) -> String {
    format!("planned:{}/{name}", session.context().session_id())
}

/// Lets later statements of a script that is being checked refer to a model that does not exist yet.
pub(crate) fn plan_model(session: &Session, shape: ModelShape) {
    cache().insert(planned_id(session, &shape.name), Known::Planned(Arc::new(shape)));
}

/// The model has been made, or would have been dropped.
pub(crate) fn forget_planned(session: &Session, name: &ModelName) {
    cache().remove(&planned_id(session, &name.name));
}

pub(crate) fn store(session: &Session) -> ArtifactStore {
    ArtifactStore::new(session.stores().clone(), session.warehouse().clone())
}

/// Finds the version that a name means.
///
/// # Errors
/// No such model, version or alias; names the near ones.
pub(crate) async fn resolve(session: &Session, name: &ModelName) -> Result<Option<Artifact>> {
    if name.version == VersionChoice::Latest && cache().contains_key(&planned_id(session, &name.name)) {
        return Ok(None);
    }
    open(session, name).await.map(Some)
}

/// The name with the number of the version that it means.
///
/// # Errors
/// No such model, version or alias; names the near ones.
pub async fn version_of(session: &Session, name: &ModelName) -> Result<ModelName> {
    let artifact = open(session, name).await?;
    Ok(ModelName { name: artifact.name, version: VersionChoice::Number(artifact.version) })
}

async fn open(session: &Session, name: &ModelName) -> Result<Artifact> {
    let store = store(session);
    let number = match &name.version {
        VersionChoice::Latest => None,
        VersionChoice::Number(number) => Some(*number),
        VersionChoice::Alias(alias) => {
            let aliases = store.aliases(&name.name).await?;
            match aliases.get(alias) {
                Some(number) => Some(*number),
                None if store.versions(&name.name).await?.is_empty() => None,
                None => {
                    let error = Error::invalid(format!("the model {} has no alias {alias}", name.name));
                    return Err(match near(alias, aliases.keys().map(String::as_str)) {
                        Some(known) => error.with_hint(format!("did you mean {}@{known}?", name.name)),
                        None => error,
                    });
                }
            }
        }
    };
    let versions = store.versions(&name.name).await?;
    if versions.is_empty() {
        let names = store.list().await?;
        let error = Error::invalid(format!("there is no model {} in {}", name.name, session.warehouse()));
        return Err(match near(&name.name, names.iter().map(String::as_str)) {
            Some(known) => error.with_hint(format!("did you mean {known}?")),
            None if names.is_empty() => error.with_hint("CREATE MODEL makes one"),
            None => error.with_hint(format!("there are {}", names.join(", "))),
        });
    }
    if let Some(number) = number.filter(|number| !versions.contains(number)) {
        let known = versions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(format!("the model {} has no version {number}", name.name))
            .with_hint(format!("its versions are {known}")));
    }
    Ok(store.open(&name.name, number).await?)
}

/// Finds and loads the model that a statement names and gives the id under which it is cached.
pub(crate) async fn load_for_planning(session: &Session, name: &ModelName, with_held_out: bool) -> Result<String> {
    let Some(artifact) = resolve(session, name).await? else { return Ok(planned_id(session, &name.name)) };
    let kernel = kernel::choose(kernel_choice(session)?)?.kernel;
    let id = format!("{}!{}", artifact_id(&artifact), kernel.name());
    let known = cached(&id).ok();
    let loaded = match known {
        Some(Known::Loaded(loaded)) => loaded,
        _ => {
            let loaded = Arc::new(load_artifact(session, &artifact).await?);
            cache().insert(id.clone(), Known::Loaded(loaded.clone()));
            loaded
        }
    };
    if with_held_out && loaded.held_out.get().is_none() {
        let bytes = store(session).read(&artifact, files::HELD_OUT).await?;
        // Another statement may have read them meanwhile; they are the same.
        let _ = loaded.held_out.set(files::from_arrow(&bytes)?);
    }
    Ok(id)
}

/// As [`load_for_planning`], for the loss curve: of the run that is training now, when the name leaves the version open and
/// there is one, otherwise of a finished version.
pub(crate) async fn load_curve_for_planning(session: &Session, name: &ModelName) -> Result<String> {
    let planned = cache().contains_key(&planned_id(session, &name.name));
    if name.version == VersionChoice::Latest && !planned {
        // In this order: a run publishes its version before it takes its notice down.
        let run = live::running(session, &name.name).await?.pop();
        let latest = store(session).versions(&name.name).await?.last().copied().unwrap_or(0);
        if let Some(run) = run.filter(|run| run.version > latest) {
            let id = format!("running:{}/{}", session.context().session_id(), name.name);
            let shape = ModelShape {
                name: run.model.clone(),
                model_type: run.model_type,
                label: run.label.clone(),
                label_source: LabelSource::Column(run.label.clone()),
                label_type: arrow::datatypes::DataType::Null,
                inputs: Vec::new(),
                classes: None,
            };
            cache().insert(id.clone(), Known::Running(Arc::new(shape), Arc::new(run)));
            return Ok(id);
        }
    }
    load_for_planning(session, name, false).await
}

fn artifact_id(artifact: &Artifact) -> String {
    format!("{}#{}", artifact.location, &artifact.manifest_sha256[..16])
}

/// Loads a model for prediction.
///
/// # Errors
/// No such model; a file that was changed; golden rows that come out differently.
pub async fn load(session: &Session, name: &ModelName) -> Result<Arc<Predictor>> {
    let artifact = open(session, name).await?;
    Ok(Arc::new(load_artifact(session, &artifact).await?.predictor))
}

async fn load_artifact(session: &Session, artifact: &Artifact) -> Result<Loaded> {
    load_from(&store(session), artifact, kernel_choice(session)?).await
}

async fn load_from(store: &ArtifactStore, artifact: &Artifact, kernel: kernel::KernelChoice) -> Result<Loaded> {
    // Also those that loading does without: reading is what finds a flipped byte.
    let mut read: BTreeMap<&str, Bytes> = BTreeMap::new();
    for file in artifact.files() {
        read.insert(&file.name, store.read(artifact, &file.name).await?);
    }
    let kernel = kernel::choose(kernel)?.kernel;
    let take = |file: &str| read.get(file).cloned().ok_or_else(|| Error::invalid(format!("{file} was not read")));
    let predictor = Predictor::open(&take, kernel).map_err(|error| match error {
        Error::Invalid { message, hint, .. } => {
            let error = Error::invalid(format!("the model {}@{}: {message}", artifact.name, artifact.version));
            hint.into_iter().fold(error, |error, hint| error.with_hint(hint))
        }
        other => other,
    })?;
    let training = files::from_parquet(take(files::TRAINING)?)?;
    Ok(Loaded { predictor, version: artifact.version, training, held_out: OnceLock::new() })
}

/// The kernel that the session asks for.
pub(crate) fn kernel_choice(session: &Session) -> Result<kernel::KernelChoice> {
    session.setting("ml.kernel").map_or(Ok(kernel::KernelChoice::Auto), |text| text.parse())
}

/// What ALTER MODEL may say of a model.
pub(crate) const DESCRIPTION: &str = "description";

/// A version of a model, as lists show it.
#[derive(Debug, Clone)]
pub struct ModelSummary {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Aliases that point to it.
    pub aliases: Vec<String>,
    /// As in the option `model_type`.
    pub model_type: &'static str,
    /// What it predicts.
    pub label: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// Rows that it was trained on, and others.
    pub rows: RowCounts,
    /// The metric that people look at first.
    pub headline: Option<Headline>,
    /// Wall time of its statement, in milliseconds; of older models that of the iterations.
    pub duration_ms: u64,
    /// What ALTER MODEL ... SET OPTIONS (description = ...) says of all versions.
    pub description: Option<String>,
    /// Size of its files.
    pub bytes: u64,
    /// Its directory.
    pub location: String,
}

/// All that is known of a version of a model, for people.
#[derive(Debug, Clone)]
pub struct ModelDetails {
    /// As in lists.
    pub summary: ModelSummary,
    /// `model.json`: specification, lineage, kernel.
    pub record: serde_json::Value,
    /// `metrics.json`.
    pub metrics: serde_json::Value,
    /// File, bytes, SHA-256.
    pub files: Vec<(String, u64, String)>,
}

/// All versions of all models, by name and version.
///
/// # Errors
/// A warehouse that cannot be read, a model that is damaged.
pub async fn list(session: &Session) -> Result<Vec<ModelSummary>> {
    list_in(&store(session)).await
}

pub(crate) async fn list_in(store: &ArtifactStore) -> Result<Vec<ModelSummary>> {
    let mut found = Vec::new();
    for name in store.list().await? {
        for version in store.versions(&name).await? {
            let artifact = store.open(&name, Some(version)).await?;
            found.push(summary(store, &artifact).await?.0);
        }
    }
    Ok(found)
}

async fn summary(store: &ArtifactStore, artifact: &Artifact) -> Result<(ModelSummary, Bytes)> {
    let bytes = store.read(artifact, files::MODEL).await?;
    let record: ModelRecord = files::from_json(files::MODEL, &bytes)?;
    let aliases = store.aliases(&artifact.name).await?;
    let metrics: serde_json::Value = files::from_json(files::METRICS, &store.read(artifact, files::METRICS).await?)?;
    let duration_ms = match record.lineage.duration_ms {
        Some(duration) => duration,
        None => files::curve_ms(&files::from_parquet(store.read(artifact, files::TRAINING).await?)?),
    };
    let description = store.about(&artifact.name).await?.remove(DESCRIPTION);
    let summary = ModelSummary {
        name: artifact.name.clone(),
        version: artifact.version,
        aliases: aliases.into_iter().filter(|(_, v)| *v == artifact.version).map(|(alias, _)| alias).collect(),
        model_type: record.spec.model_type.name(),
        label: record.spec.label.clone(),
        created: record.lineage.created.clone(),
        rows: record.rows,
        headline: Headline::of(&metrics),
        duration_ms,
        description,
        bytes: artifact.bytes(),
        location: artifact.location.to_string(),
    };
    Ok((summary, bytes))
}

/// All about one version.
///
/// # Errors
/// No such model; a file that was changed.
pub async fn show(session: &Session, name: &ModelName) -> Result<ModelDetails> {
    let store = store(session);
    let artifact = open(session, name).await?;
    let (summary, record) = summary(&store, &artifact).await?;
    let metrics = store.read(&artifact, files::METRICS).await?;
    Ok(ModelDetails {
        summary,
        record: files::from_json(files::MODEL, &record)?,
        metrics: files::from_json(files::METRICS, &metrics)?,
        files: artifact.files().iter().map(|f| (f.name.clone(), f.bytes, f.sha256.clone())).collect(),
    })
}

/// Aliases that name a version, or a version of the model when the name names none: what [`remove`] would take with it.
///
/// # Errors
/// No such model.
pub async fn aliases_of(session: &Session, name: &ModelName) -> Result<BTreeMap<String, u64>> {
    let version = open(session, name).await?.version;
    let mut aliases = store(session).aliases(&name.name).await?;
    if name.version != VersionChoice::Latest {
        aliases.retain(|_, named| *named == version);
    }
    Ok(aliases)
}

/// The weights of a version by name: of a linear model each coefficient in units of the columns, of a network the norm of each
/// of its tensors.
///
/// # Errors
/// No such model; a file that was changed.
pub async fn weights(session: &Session, name: &ModelName) -> Result<Vec<(String, f64)>> {
    let predictor = load(session, name).await?;
    match predictor.trained() {
        Trained::Linear(model) => Ok(crate::relation::named_weights(&predictor, model)),
        Trained::Network(network) => {
            let parameters = network.parameters();
            let norm = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let views = network.views().iter();
            Ok(views.map(|view| (format!("{} (norm)", view.name), norm(&parameters[view.range.clone()]))).collect())
        }
    }
}

/// Removes a version, or the model with all its versions when the name names none. Gives the number of versions removed.
///
/// # Errors
/// No such model, unless `if_exists`.
pub async fn remove(session: &Session, name: &ModelName, if_exists: bool) -> Result<usize> {
    let store = store(session);
    let versions = store.versions(&name.name).await?;
    if versions.is_empty() && if_exists {
        return Ok(0);
    }
    let version = match &name.version {
        VersionChoice::Latest if !versions.is_empty() => None,
        _ => Some(open(session, name).await?.version),
    };
    store.remove(&name.name, version).await?;
    Ok(version.map_or(versions.len(), |_| 1))
}

/// Lets an alias point to a version, or forgets it.
///
/// # Errors
/// No such model, version or alias.
pub async fn set_alias(session: &Session, name: &str, alias: &str, version: Option<u64>) -> Result<()> {
    let store = store(session);
    match version {
        Some(version) => {
            let meant = ModelName { name: name.to_string(), version: VersionChoice::Number(version) };
            open(session, &meant).await?;
            store.set_alias(name, alias, version).await?;
        }
        None => {
            open(session, &ModelName::latest(name)).await?;
            if !store.remove_alias(name, alias).await? {
                return Err(Error::invalid(format!("the model {name} has no alias {alias}")));
            }
        }
    }
    Ok(())
}

/// Says something of a model, as ALTER MODEL ... SET OPTIONS does.
///
/// # Errors
/// No such model.
pub(crate) async fn say(session: &Session, name: &str, sayings: &[(String, Option<String>)]) -> Result<()> {
    open(session, &ModelName::latest(name)).await?;
    Ok(store(session).say(name, sayings).await?)
}

/// The name under which a session has the rows that are to be predicted.
const TO_PREDICT: &str = "rows to predict";

/// Opens a file, a directory or a glob for [`prediction_query`]. Text is read with the types of the model's columns: digits are
/// text where training had text, and 2.5 will do for a number that is scaled anyway.
///
/// # Errors
/// No such model or file.
pub async fn open_for_prediction(session: &Session, name: &ModelName, data: &str) -> Result<()> {
    let model = load(session, name).await?;
    let kind = |input: &InputColumn| match model.transform.reads_as_number(&input.name) {
        true => DataType::Float64,
        false => input.data_type.clone(),
    };
    let types = model.shape().inputs.iter().map(|input| (input.name.clone(), kind(input))).collect();
    let rows = session.read(data).types(types).await?;
    session.context().deregister_table(TableReference::bare(TO_PREDICT))?;
    session.context().register_table(TableReference::bare(TO_PREDICT), rows.into_view())?;
    Ok(())
}

/// The query for predictions of the rows that [`open_for_prediction`] has opened. A format that cannot hold arrays gets the
/// probabilities as a column for each class.
pub fn prediction_query(name: &ModelName, threshold: Option<f64>, probs_as_columns: bool) -> String {
    let threshold = threshold.map(|threshold| format!("{threshold:?} AS threshold"));
    let columns = probs_as_columns.then(|| "TRUE AS probs_as_columns".to_string());
    let settings: Vec<String> = threshold.into_iter().chain(columns).collect();
    let settings = if settings.is_empty() { String::new() } else { format!(", STRUCT({})", settings.join(", ")) };
    format!("SELECT * FROM ML.PREDICT(MODEL \"{name}\", TABLE \"{TO_PREDICT}\"{settings})")
}

/// Predicts the rows of a file, a directory or a glob and writes them with the predictions: `input` and `output` as
/// users write locations; the output's format follows its extension (Parquet for a directory). In CSV each class has a
/// column for its probability.
///
/// # Errors
/// No such model or file; columns that the model reads and the file lacks.
pub async fn predict_file(
    session: &Session,
    name: &ModelName,
    input: &str,
    output: &str,
    settings: &engine::script::RunSettings,
) -> Result<engine::JobReport> {
    let format =
        match output.trim_end_matches(['/', '.']).rsplit_once('.').map(|(_, extension)| extension.to_lowercase()) {
            Some(extension) if matches!(extension.as_str(), "csv" | "tsv" | "json" | "jsonl" | "ndjson" | "arrow") => {
                match extension.as_str() {
                    "jsonl" | "ndjson" => "JSON".to_string(),
                    _ => extension.to_uppercase(),
                }
            }
            _ => "PARQUET".to_string(),
        };
    open_for_prediction(session, name, input).await?;
    let query = prediction_query(name, None, matches!(format.as_str(), "CSV" | "TSV"));
    let text = format!("COPY ({query}) TO '{}' STORED AS {format} MODE OVERWRITE", output.replace('\'', "''"));
    let script = engine::script::Script::parse("predict", text)?;
    session.run_script(&script, settings).await
}

/// What a model was, for training it again: its name with version, its record, the SHA-256 of its weights.
pub(crate) async fn read_for_reproduction(
    session: &Session,
    name: &ModelName,
) -> Result<(String, ModelRecord, String)> {
    let store = store(session);
    let artifact = open(session, name).await?;
    let record = files::from_json(files::MODEL, &store.read(&artifact, files::MODEL).await?)?;
    let weights = store.read(&artifact, files::WEIGHTS).await?;
    Ok((format!("{}@{}", artifact.name, artifact.version), record, storage::sha256_hex(&weights)))
}
