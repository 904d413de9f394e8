//! A session: the tables, functions, options and parameters that statements share, and the memory, threads and
//! temporary space they may use. It leaves running to [`crate::runner`], reading to [`crate::source`], scripts to
//! [`crate::script`]. Cloning is cheap and gives the same session.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
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
use datafusion::sql::parser::{DFParserBuilder, Statement as SqlStatement};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use futures::{StreamExt, TryStreamExt};
use storage::{Location, Stores, Workspace};
use tokio::sync::OnceCell;

use crate::analysis;
use crate::configuration::{RUNTIME, carry_over, configuration, set_runtime, update_functions};
use crate::delta::DeltaTable;
use crate::error::{Error, Result};
use crate::expression::{Listed, read_list, with_language};
use crate::extension::Extension;
use crate::functions;
use crate::gang::{Gangs, ThreadGangs};
use crate::memory::FairPool;
use crate::mistake::{KnownNames, explain};
use crate::options::{self, Options};
use crate::rules;
use crate::runner::{Gather, LocalRunner, Runner};
use crate::script::field_access;
use crate::script::keys::Keys;
use crate::script::names::{SameName, name_columns, twins};
use crate::script::parameters::{Parameter, Parameters};
use crate::script::tokens::{self, offset_of};
use crate::sink::SinkPlanner;
use crate::source::{FileCatalogs, FileTables, Planned, StoreRegistry, Unreadable, diagnose};
use crate::syntax::versions::{self, Versions, Wanted};
use crate::syntax::{bigquery, clauses, from_first, row_values, spelling, units, using};
use crate::temporary::TemporaryDirectory;
use crate::{fault, syntax};

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
        let tables = Arc::new(FileTables::new(stores.clone(), planned.clone(), versions.clone()));
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

        let warehouse = Location::parse(&options.warehouse)?;
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

    /// Plans a query as a script's SELECT would be: parameters bound, extension syntax understood. Errors carry an offset
    /// into `sql`.
    ///
    /// # Errors
    /// Text that is no single query, names that do not exist, whatever planning finds.
    pub async fn plan_query(&self, sql: &str) -> Result<DataFrame> {
        self.inner.stores.forget_listings();
        fault::kept(async {
            let tokens = self.bind(sql)?;
            self.plan_tokens(sql, tokens).await
        })
        .await
    }

    /// The tokens of `text` with parameters in their places.
    pub fn bind(&self, text: &str) -> Result<Vec<TokenWithSpan>> {
        self.parameters().bind(text, tokens::tokenize_as(text, self.dialect().as_ref())?)
    }

    /// The items of the select list `text`, parameters bound.
    ///
    /// # Errors
    /// Text that is no select list, a parameter that was not declared; with its place.
    pub fn select_list(&self, text: &str) -> Result<Vec<Listed>> {
        read_list(text, self.bind(text)?, self.dialect().as_ref())
    }

    /// The dialect of SQL that statements are written in (`datafusion.sql_parser.dialect`).
    fn dialect(&self) -> Box<dyn Dialect> {
        let state = self.inner.context.state_ref();
        let name = state.read().config_options().sql_parser.dialect;
        dialect_from_str(name).unwrap_or_else(|| Box::new(GenericDialect {}))
    }

    /// Plans bound tokens of the statement `text` as a query.
    pub(crate) async fn plan_tokens(&self, text: &str, tokens: Vec<TokenWithSpan>) -> Result<DataFrame> {
        let plan = self.plan_statement(text, tokens).await?;
        if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_))
        {
            return Err(Error::invalid("expected a query").at_offset(0));
        }
        Ok(self.data_frame(twins::restore_unique(plan)?))
    }

    /// Plans bound tokens of the statement `text`, whatever kind of SQL statement it is.
    pub(crate) async fn plan_statement(&self, text: &str, tokens: Vec<TokenWithSpan>) -> Result<LogicalPlan> {
        Ok(self.plan_adjusted(text, tokens, |_| Ok(())).await?.0)
    }

    /// As [`Session::plan_statement`], with a last look at the parsed statement, which may change it and give something.
    pub(crate) async fn plan_adjusted<T>(
        &self,
        text: &str,
        tokens: Vec<TokenWithSpan>,
        adjust: impl Fn(&mut SqlStatement) -> Result<T>,
    ) -> Result<(LogicalPlan, T)> {
        let mut tokens = tokens;
        loop {
            let mut statement = self.parse_tokens(text, tokens.clone()).await?;
            let given = adjust(&mut statement)?;
            let state = self.inner.context.state();
            // Boxed: the future of a deep plan would otherwise sit on the caller's stack.
            match Box::pin(state.statement_to_plan(statement)).await {
                Ok(plan) => return Ok((plan, given)),
                Err(error) => match spelling::corrected(&error, &tokens) {
                    Some(corrected) => tokens = corrected,
                    None => return Err(self.explain(error, text)),
                },
            }
        }
    }

    /// Lets the extension rewrite bound tokens, then parses them.
    pub(crate) async fn parse_tokens(&self, text: &str, mut tokens: Vec<TokenWithSpan>) -> Result<SqlStatement> {
        for rewrite in &self.inner.extension.rewrites {
            tokens = rewrite.rewrite(self, tokens).await?;
        }
        tokens = units::read(from_first::complete(tokens), text)?;
        let limit = self.inner.context.state_ref().read().config_options().sql_parser.recursion_limit.get();
        let parse = || {
            let dialect = self.dialect();
            let parser = DFParserBuilder::new(tokens).with_dialect(dialect.as_ref());
            let mut parser = parser.with_recursion_limit(limit).build()?;
            parser.parse_statements()
        };
        let mut statements = parse().map_err(|error| self.explain(error, text))?;
        match (statements.pop_front(), statements.is_empty()) {
            (Some(mut statement), true) => {
                syntax::measure(&mut statement, text)?;
                name_columns(&mut statement).map_err(|SameName { name, place }| {
                    let error = Error::invalid(format!("two columns are named `{name}`"));
                    error.at_offset(offset_of(text, place)).with_hint("give one of them another name with AS")
                })?;
                bigquery::resolve_in(&mut statement, &|name| self.is_table(name));
                field_access::resolve_in(&mut statement);
                self.open_versions(&mut statement, text).await?;
                row_values::resolve_in(&mut statement)?;
                self.settle(&mut statement, text)?;
                using::prepare(&mut statement);
                syntax::balance(&mut statement, text)?;
                Ok(statement)
            }
            (None, _) => Err(Error::invalid("expected a statement").at_offset(0)),
            (Some(_), false) => Err(Error::invalid("expected one statement, got several").at_offset(0)),
        }
    }

    /// Opens the versions of Delta tables that the statement asks for.
    async fn open_versions(&self, statement: &mut SqlStatement, text: &str) -> Result<()> {
        if !self.dialect().supports_table_versioning() {
            return Ok(());
        }
        let asked = versions::asked(statement);
        let mut names = Vec::with_capacity(asked.len());
        for one in asked {
            let place = offset_of(text, one.table.span().start);
            let name = self.open_version(&one).await.map_err(|error| error.at_offset(place))?;
            names.push(name);
        }
        versions::replace(statement, names);
        Ok(())
    }

    async fn open_version(&self, asked: &versions::Asked) -> Result<String> {
        let enable = self.inner.context.state_ref().read().config_options().sql_parser.enable_ident_normalization;
        let table = object_name_to_table_reference(asked.table.clone(), enable)?;
        let provider = self.inner.context.table_provider(table.clone()).await?;
        let Some(delta) = provider.downcast_ref::<DeltaTable>() else {
            return Err(Error::invalid(format!("`{table}` is no Delta table, and other tables have no versions")));
        };
        let at = match &asked.wanted {
            Wanted::Version(number) => {
                let wrong = |_| Error::invalid(format!("VERSION AS OF takes a whole number from 0 on, got {number}"));
                delta.at_version(number.parse().map_err(wrong)?).await?
            }
            Wanted::Time(time) => {
                let frame = self.inner.context.sql(&format!("SELECT CAST({time} AS TIMESTAMP)")).await?;
                let batches = frame.collect().await?;
                let column = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| batch.column(0));
                let times = column.map(|column| cast(column, &DataType::Timestamp(TimeUnit::Millisecond, None)));
                let times = times.transpose().map_err(DataFusionError::from)?;
                let time = times.as_ref().map(|times| times.as_primitive::<TimestampMillisecondType>());
                match time.filter(|times| times.is_valid(0)) {
                    Some(times) => delta.at_time(times.value(0)).await?,
                    None => return Err(Error::invalid("TIMESTAMP AS OF takes a time")),
                }
            }
        };
        let name = format!("{table} at version {} of {}", at.version().unwrap_or_default(), at.location());
        self.inner.versions.add(name.clone(), Arc::new(at));
        Ok(name)
    }

    /// Whether there is a table or a view of this name, which holds no schema.
    fn is_table(&self, name: &str) -> bool {
        self.inner.context.table_exist(TableReference::bare(name)).unwrap_or(false)
    }

    /// Sees to it that no clause is dropped.
    fn settle(&self, statement: &mut SqlStatement, text: &str) -> Result<()> {
        let state = self.inner.context.state_ref();
        let state = state.read();
        let is_scalar = |name: &str| state.scalar_functions().contains_key(name);
        clauses::settle(statement, text, &is_scalar)
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
