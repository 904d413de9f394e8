//! A session: the tables, functions, options and parameters that statements share, and the memory, threads and
//! temporary space they may use. It leaves running to [`crate::runner`], reading to [`crate::source`], scripts to
//! [`crate::script`]. Cloning is cheap and gives the same session.

mod planning;

use std::collections::HashMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arrow::array::RecordBatch;
use datafusion::common::{ResolvedTableReference, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use storage::{Location, Stores, Workspace};
use tokio::sync::OnceCell;

use crate::analysis;
use crate::configuration::{RUNTIME, carry_over, configuration, set_runtime, update_functions};
use crate::error::{Error, Result};
use crate::expression::with_language;
use crate::extension::Extension;
use crate::fault;
use crate::functions;
use crate::gang::{Gangs, ThreadGangs};
use crate::memory::FairPool;
use crate::mistake::{KnownNames, explain};
use crate::options::{self, Options};
use crate::rules;
use crate::runner::{Gather, LocalRunner, Runner};
use crate::script::keys::Keys;
use crate::script::parameters::{Parameter, Parameters};
use crate::sink::SinkPlanner;
use crate::source::{FileCatalogs, FileTables, Planned, StoreRegistry, Unreadable, diagnose};
use crate::syntax::versions::Versions;
use crate::temporary::TemporaryDirectory;

/// See the module.
#[derive(Clone)]
pub struct Session {
    inner: Shared,
}

/// What the clones of a session share. That it may go from thread to thread is proven where it is made, once: the
/// compiler would otherwise walk through every type of the query engine for each future that holds a session, which took
/// most of the time that `ml` needs to compile.
#[derive(Clone)]
struct Shared(Arc<dyn Held>);

trait Held: Send + Sync {
    fn inner(&self) -> &Inner;
}

impl Held for Inner {
    fn inner(&self) -> &Inner {
        self
    }
}

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.0.inner()
    }
}

struct Inner {
    context: SessionContext,
    stores: Stores,
    extension: Extension,
    runner: Arc<dyn Runner>,
    memory: Arc<FairPool>,
    warehouse: Location,
    options: RwLock<Arc<Options>>,
    /// What RESET goes back to.
    initial: Arc<Options>,
    parameters: Mutex<Parameters>,
    temporary: TemporaryDirectory,
    /// Temporary files that all processes of a cluster see; made when first needed.
    shared: OnceCell<Workspace>,
    planned: Planned,
    /// Tables at a version, as statements have asked for them.
    versions: Versions,
    /// What must be unique in tables in memory.
    keys: Keys,
    /// Why plans of the running statement were executed in this process, where a cluster was asked for.
    places: Mutex<Vec<String>>,
    /// Memory of tables that are held in it, by name.
    held: Mutex<HashMap<TableReference, Arc<MemoryReservation>>>,
}

/// Where the temporary files lie that all processes of a cluster must see: beside the models, which they see too.
const SHARED: &str = "_temporary/";

/// Collects what a session needs.
#[derive(Default)]
pub struct SessionBuilder {
    stores: Stores,
    options: Options,
    extension: Extension,
    runner: Option<Arc<dyn Runner>>,
}

impl SessionBuilder {
    /// What a crate above adds: functions, relations, statements.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extension = extension;
        self
    }

    /// Where plans are executed; in this process unless said otherwise.
    #[must_use]
    pub fn runner(mut self, runner: Arc<dyn Runner>) -> Self {
        self.runner = Some(runner);
        self
    }

    /// Makes the session.
    ///
    /// # Errors
    /// A temporary directory that cannot be made, a warehouse that is no location, a `datafusion.*` value that is wrong.
    pub fn build(self) -> Result<Session> {
        let SessionBuilder { stores, options, extension, runner } = self;
        let runner = runner.unwrap_or_else(|| Arc::new(LocalRunner));
        let temporary = TemporaryDirectory::new(options.temp_dir.as_deref())?;
        let memory = Arc::new(FairPool::new(options.memory_limit));
        let mut disk =
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![temporary.path().join("spill")]));
        disk.set_max_temp_directory_size(options.spill_limit.unwrap_or(u64::MAX));
        // A listing that is kept would not show what a COPY of the same script has just written.
        let caches = CacheManagerConfig::default().with_list_files_cache_limit(0);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&memory) as Arc<dyn MemoryPool>)
            .with_disk_manager_builder(disk)
            .with_cache_manager(caches)
            .with_object_store_registry(Arc::new(StoreRegistry::new(stores.clone(), Arc::clone(&memory))))
            .build_arc()?;

        let footers = runtime.cache_manager.get_file_metadata_cache();
        let mut logical = rules::logical();
        logical.push(Arc::new(Unreadable));
        let builder = SessionStateBuilder::new()
            .with_config(configuration(&options, runner.as_ref())?)
            .with_runtime_env(runtime)
            .with_query_planner(Arc::new(SinkPlanner::new(stores.clone())))
            .with_optimizer_rules(logical)
            .with_physical_optimizer_rules(rules::physical(&memory, &footers, runner.is_remote()));
        let builder = with_language(builder, runner.is_remote()).with_default_features();
        let mut state = with_extension(builder, &extension).build();
        let (planned, versions) = (Planned::default(), Versions::default());
        let tables =
            Arc::new(FileTables::new(stores.clone(), planned.clone(), versions.clone(), options.directory.clone()));
        let catalogs = FileCatalogs::new(Arc::clone(state.catalog_list()), Arc::clone(&tables) as _);
        state.register_catalog_list(Arc::new(catalogs));
        functions::register(&mut state)?;
        functions::series::register(&mut state);
        update_functions(&mut state)?;
        for function in &extension.aggregate_functions {
            datafusion::logical_expr::registry::FunctionRegistry::register_udaf(&mut state, Arc::clone(function))?;
        }
        for function in &extension.scalar_functions {
            datafusion::logical_expr::registry::FunctionRegistry::register_udf(&mut state, Arc::clone(function))?;
        }
        let context = SessionContext::new_with_state(state);
        tables.attach(&context);

        let warehouse = options.place(&options.warehouse)?;
        let options = Arc::new(options);
        Ok(Session {
            inner: Shared(Arc::new(Inner {
                context,
                stores,
                extension,
                runner,
                memory,
                warehouse,
                initial: Arc::clone(&options),
                options: RwLock::new(options),
                parameters: Mutex::new(Parameters::default()),
                temporary,
                shared: OnceCell::new(),
                planned,
                versions,
                keys: Keys::default(),
                places: Mutex::default(),
                held: Mutex::default(),
            })),
        })
    }
}

fn with_extension(builder: SessionStateBuilder, extension: &Extension) -> SessionStateBuilder {
    let ours = analysis::relation_planners().into_iter();
    builder.with_relation_planners(ours.chain(extension.relation_planners.iter().cloned()).collect())
}

/// Options that cannot change once there is a session.
fn refuse_fixed(key: &str) -> Result<()> {
    match options::KEYS.iter().find(|option| option.key == key && !option.in_scripts) {
        Some(option) => Err(Error::Usage(format!(
            "{} is fixed when the session begins; use --set, or the configuration file",
            option.key
        ))),
        None => Ok(()),
    }
}

impl Session {
    /// Begins a session over these stores.
    pub fn builder(stores: Stores, options: Options) -> SessionBuilder {
        SessionBuilder { stores, options, extension: Extension::default(), runner: None }
    }

    /// The query engine's own context: tables, functions, configuration.
    pub fn context(&self) -> &SessionContext {
        &self.inner.context
    }

    /// The object stores, with their counters.
    pub fn stores(&self) -> &Stores {
        &self.inner.stores
    }

    /// What the session was told, `SET` included.
    pub fn options(&self) -> Arc<Options> {
        Arc::clone(&self.inner.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What another crate added.
    pub fn extension(&self) -> &Extension {
        &self.inner.extension
    }

    /// How plans are executed.
    pub fn runner(&self) -> &Arc<dyn Runner> {
        &self.inner.runner
    }

    /// Where gangs are formed: on the cluster that executes this session's plans, or in this process.
    pub fn gangs(&self) -> Arc<dyn Gangs> {
        self.inner.runner.gangs().unwrap_or_else(|| {
            Arc::new(ThreadGangs {
                tasks: self.inner.extension.gang_tasks.clone(),
                stores: self.inner.stores.clone(),
                scratch: self.temp_dir(),
                threads: self.threads(),
                memory: self.memory_limit().map(|bytes| bytes as u64),
            })
        })
    }

    /// Where models live.
    pub fn warehouse(&self) -> &Location {
        &self.inner.warehouse
    }

    /// A directory for spilled data, on this machine's disk; it goes when the session does.
    pub fn temp_dir(&self) -> PathBuf {
        self.inner.temporary.path().to_path_buf()
    }

    /// A directory, not made yet, for files that whoever executes plans can see; it goes with the session.
    pub(crate) async fn new_shared_place(&self) -> Result<Location> {
        let place = self.warehouse().as_directory().join(SHARED);
        let take = || Workspace::open(&self.inner.stores, &place);
        let shared = self.inner.shared.get_or_try_init(take).await?;
        Ok(shared.location().join(&format!("{}/", uuid::Uuid::new_v4().simple())))
    }

    /// Bytes that queries, and whoever else works for this session, may hold.
    pub fn memory_limit(&self) -> Option<usize> {
        self.inner.memory.limit()
    }

    /// Tells what the process takes whatever this session does: memory that a limit leaves to operators is less by that.
    pub fn count_process(&self, bytes: u64) {
        self.inner.memory.set_process(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// The most memory that was reserved at once.
    pub fn peak_reserved(&self) -> usize {
        self.inner.memory.peak()
    }

    /// Remembers what a table in memory takes until it is replaced or dropped.
    pub(crate) fn hold(&self, table: &TableReference, reservation: Option<Arc<MemoryReservation>>) {
        let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        match reservation {
            Some(reservation) => held.insert(table.clone(), reservation),
            None => held.remove(table),
        };
    }

    /// What must be unique in the session's tables in memory.
    pub(crate) fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The table's whole name.
    pub(crate) fn resolved(&self, table: &TableReference) -> ResolvedTableReference {
        let state = self.inner.context.state_ref();
        let catalog = state.read().config_options().catalog.clone();
        table.clone().resolve(&catalog.default_catalog, &catalog.default_schema)
    }

    /// The pool in which that memory is reserved.
    pub fn memory_pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.inner.memory) as _
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.options().threads
    }

    /// A setting by its key, as text: one of the engine's own or one that an extension owns, such as `ml.kernel`.
    pub fn setting(&self, key: &str) -> Option<String> {
        self.options().get(key)
    }

    /// Changes an option, as `SET` does.
    ///
    /// # Errors
    /// An unknown key, a wrong value, or an option that is fixed once the session has begun.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let key = options::canonical(key);
        refuse_fixed(&key)?;
        if key.starts_with("storage.") {
            return Err(Error::Usage(format!(
                "{key} is fixed when the session begins; use --set, the configuration file, or OPTIONS of the statement"
            )));
        }
        if key.starts_with(RUNTIME) {
            return set_runtime(&self.inner.context, &key, Some(value));
        }
        self.change(|options| options.set(&key, value, &self.extension_keys()))
    }

    /// Gives an option the value with which the session began, as `RESET` does.
    ///
    /// # Errors
    /// An unknown key, or an option that is fixed once the session has begun.
    pub fn reset(&self, key: &str) -> Result<()> {
        let key = options::canonical(key);
        refuse_fixed(&key)?;
        if key.starts_with(RUNTIME) {
            return set_runtime(&self.inner.context, &key, None);
        }
        self.change(|options| options.reset(&key, &self.inner.initial, &self.extension_keys()))
    }

    fn change(&self, change: impl FnOnce(&mut Options) -> Result<()>) -> Result<()> {
        let mut guard = self.inner.options.write().unwrap_or_else(PoisonError::into_inner);
        let mut options = Options::clone(&guard);
        change(&mut options)?;
        carry_over(&self.inner.context, &guard, &options, self.inner.runner.as_ref())?;
        self.inner.memory.set_limit(options.memory_limit);
        *guard = Arc::new(options);
        Ok(())
    }

    /// The keys that the extension owns.
    pub fn extension_keys(&self) -> Vec<&'static str> {
        self.inner.extension.settings.iter().map(|setting| setting.key).collect()
    }

    /// A declared parameter.
    pub fn parameter(&self, name: &str) -> Option<Parameter> {
        self.parameters().get(name).cloned()
    }

    /// Declares a parameter, or declares it anew.
    pub fn set_parameter(&self, parameter: Parameter) {
        self.lock_parameters().set(parameter);
    }

    /// All parameters declared so far.
    pub fn parameters(&self) -> Parameters {
        self.lock_parameters().clone()
    }

    fn lock_parameters(&self) -> MutexGuard<'_, Parameters> {
        self.inner.parameters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plan with this session around it.
    pub fn data_frame(&self, plan: LogicalPlan) -> DataFrame {
        DataFrame::new(self.inner.context.state(), plan)
    }

    /// Executes a query where plans of this session are executed; gives its partitions, each to be read by its own task.
    ///
    /// # Errors
    /// Whatever planning finds. What running meets comes with the rows.
    pub async fn execute(&self, frame: DataFrame) -> Result<Vec<SendableRecordBatchStream>> {
        let (_, plan) = frame.into_parts();
        Ok(fault::kept(self.inner.runner.run(self, plan, Gather::Partitions)).await?.partitions)
    }

    /// Executes a query and keeps its rows, which must be few.
    ///
    /// # Errors
    /// Whatever planning and running meet.
    pub async fn collect(&self, frame: DataFrame) -> datafusion::error::Result<Vec<RecordBatch>> {
        let (_, plan) = frame.into_parts();
        let execution = match fault::kept(self.inner.runner.run(self, plan, Gather::One)).await {
            Ok(execution) => execution,
            Err(Error::Query(error)) => return Err(error),
            Err(error) => return Err(DataFusionError::External(Box::new(error))),
        };
        futures::stream::iter(execution.partitions).flatten().try_collect().await
    }

    /// What the query engine says about the statement `text`, in the user's nouns.
    pub fn explain(&self, error: DataFusionError, text: &str) -> Error {
        explain(error, text, &self.known_names())
    }

    /// As [`Session::explain`], for an error of running `plan`: files that it reads are looked into, so that a damaged
    /// file or a bad row can be named.
    pub async fn explain_failure(&self, error: DataFusionError, plan: &LogicalPlan, text: &str) -> Error {
        match diagnose::scan(&self.inner.context.state(), plan, &error).await {
            Some(found) => found,
            None => self.explain(error, text),
        }
    }

    /// Remembers why a plan is executed in this process, where a cluster was asked for.
    pub(crate) fn note_place(&self, reason: String) {
        let mut places = self.inner.places.lock().unwrap_or_else(PoisonError::into_inner);
        if !places.contains(&reason) {
            places.push(reason);
        }
    }

    /// What was noted since this was last asked.
    pub(crate) fn take_places(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Places that a checked script would have written.
    pub(crate) fn planned(&self) -> &Planned {
        &self.inner.planned
    }

    /// Tables and views by name, those of the default schema without it.
    pub fn table_names(&self) -> Vec<String> {
        let state = self.inner.context.state_ref();
        let state = state.read();
        let defaults = &state.config_options().catalog;
        let mut names = Vec::new();
        for catalog_name in state.catalog_list().catalog_names() {
            let Some(catalog) = state.catalog_list().catalog(&catalog_name) else { continue };
            for schema_name in catalog.schema_names() {
                let Some(schema) = catalog.schema(&schema_name) else { continue };
                names.extend(schema.table_names().into_iter().map(|table| {
                    match (catalog_name == defaults.default_catalog, schema_name == defaults.default_schema) {
                        (true, true) => table,
                        (true, false) => format!("{schema_name}.{table}"),
                        _ => format!("{catalog_name}.{schema_name}.{table}"),
                    }
                }));
            }
        }
        names.sort();
        names
    }

    /// Functions of every kind by name.
    pub fn function_names(&self) -> Vec<String> {
        let state = self.inner.context.state_ref();
        let state = state.read();
        let mut names: Vec<String> = (state.scalar_functions().keys())
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys())
            .chain(state.table_functions().keys())
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn known_names(&self) -> KnownNames {
        KnownNames { tables: self.table_names(), functions: self.function_names() }
    }
}
