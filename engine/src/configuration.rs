//! The query engine's configuration: its defaults, ours where they differ, then what the user said. A session that is
//! under way takes changes one by one, so that what others configured in its context stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::config::{ConfigNonZeroUsize, ConfigOptions, MaxRowGroupBytes};
use datafusion::config::{ConfigEntry, ConfigField};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{LogicalPlan, ResetVariable, SetVariable, Statement};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;

use crate::error::{Error, Result};
use crate::mistake::sentence;
use crate::options::Options;
use crate::runner::Runner;
use crate::source::FILES_AT_ONCE;

/// Keys of the query engine's surroundings: memory, caches, temporary files.
pub(crate) const RUNTIME: &str = "datafusion.runtime.";

/// What a session with these options begins with.
pub(crate) fn configuration(options: &Options, runner: &dyn Runner) -> Result<SessionConfig> {
    let partitions = options.target_partitions.or_else(|| runner.partitions()).unwrap_or(options.threads);
    let config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_batch_size(options.batch_size)
        .with_information_schema(true);
    let mut config = runner.configure(config);
    let inner = config.options_mut();
    inner.sql_parser.collect_spans = true;
    inner.sql_parser.parse_float_as_decimal = true;
    // The rule that pulls struct fields towards the leaves makes names ambiguous when a struct's fields are taken above a
    // projection that passes its input's columns through, as ML.PREDICT does (DataFusion 55.2).
    inner.optimizer.enable_leaf_expression_pushdown = false;
    // What the planner says before and after it optimizes about which columns can be NULL need not be the same (a CASE over
    // a join, a UNION: apache/datafusion#15386), and what is executed goes by the second alone.
    inner.execution.skip_physical_aggregate_schema_check = true;
    // An array with a place for each key between the least and the greatest is as large as a hash table for keys of this
    // density, and rows are found in it without hashing.
    inner.execution.perfect_hash_join_min_key_density = 0.1;
    inner.execution.meta_fetch_concurrency = ConfigNonZeroUsize::try_new(FILES_AT_ONCE)?;
    if let Some(limit) = options.memory_limit {
        fit_into(limit, partitions, options.batch_size, inner);
    }
    for (key, value) in options.settings.iter().filter(|(key, _)| key.starts_with("datafusion.")) {
        inner.set(key, value).map_err(|error| Error::Usage(format!("{key}: {}", error.strip_backtrace())))?;
    }
    Ok(config)
}

/// Sizes that follow from the memory limit: whatever a plan holds several of must be a small part of it.
fn fit_into(limit: usize, partitions: usize, batch_size: usize, config: &mut ConfigOptions) {
    let share = limit / (16 * partitions.max(1));
    // Sorting sets this much aside in each partition for the final merge; the default would fill a small limit.
    config.execution.sort_spill_reservation_bytes = share.clamp(64 << 10, 10 << 20);
    // A merge holds some batches of every run: the fewer rows a batch has, the more runs are merged at once.
    let rows = (limit / BYTES_PER_BATCH_ROW).clamp(256.min(batch_size), batch_size);
    if let Ok(rows) = ConfigNonZeroUsize::try_new(rows) {
        config.execution.batch_size = rows;
    }
    // Views of text share the buffers that they came from: a batch of some rows then counts, and holds, whole pages.
    config.execution.parquet.schema_force_view_types = false;
    config.sql_parser.map_string_types_to_utf8view = false;
    // Readers take whole row groups.
    let row_group = share.clamp(1 << 20, 128 << 20);
    config.execution.parquet.max_row_group_bytes = MaxRowGroupBytes::try_new(row_group).ok();
}

/// Bytes of the memory limit for each row of a batch: 8192 rows from 512 MiB on.
const BYTES_PER_BATCH_ROW: usize = 64 << 10;

/// Gives a session what one set of options says differently from another.
pub(crate) fn carry_over(
    context: &SessionContext,
    before: &Options,
    after: &Options,
    runner: &dyn Runner,
) -> Result<()> {
    let entries =
        |options: &Options| Ok::<Vec<ConfigEntry>, Error>(configuration(options, runner)?.options().entries());
    let before: BTreeMap<String, Option<String>> =
        entries(before)?.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let changed = entries(after)?.into_iter().filter(|entry| before.get(&entry.key) != Some(&entry.value));
    let state = context.state_ref();
    let mut state = state.write();
    let config = state.config_mut().options_mut();
    for ConfigEntry { key, value, .. } in changed {
        match value {
            Some(value) => config.set(&key, &value)?,
            None => config.reset(&key)?,
        }
    }
    update_functions(&mut state)
}

/// Tells the functions that hold a part of the configuration, such as now() the time zone, what it is.
pub(crate) fn update_functions(state: &mut SessionState) -> Result<()> {
    let config = Arc::clone(state.config().options());
    let outdated =
        state.scalar_functions().values().filter_map(|function| function.inner().with_updated_config(&config));
    let updated: Vec<_> = outdated.map(Arc::new).collect();
    for function in updated {
        state.register_udf(function)?;
    }
    Ok(())
}

/// Changes a key of [`RUNTIME`], or puts it back.
pub(crate) fn set_runtime(context: &SessionContext, key: &str, value: Option<&str>) -> Result<()> {
    let variable = key.to_string();
    let statement = match value {
        Some(value) => Statement::SetVariable(SetVariable { variable, value: value.to_string() }),
        None => Statement::ResetVariable(ResetVariable { variable }),
    };
    let done = context.execute_logical_plan(LogicalPlan::Statement(statement)).now_or_never();
    match done.expect("setting a variable waits for nothing") {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Usage(format!("{key}: {}", sentence(&error.strip_backtrace())))),
    }
}
