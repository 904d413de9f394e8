//! Files of few row groups for all cores. A row group is read by one partition, and what is above it, up to the next
//! exchange of rows, is done by that partition alone (DataFusion 55.2): with three row groups on two cores one of them has
//! twice as much to do as the other, with one row group all but one have nothing. Where joins or groups are above such a
//! scan, this rule deals its batches out in turn.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::physical_plan::parquet::metadata::CachedParquetMetaData;
use datafusion::datasource::source::{DataSource, DataSourceExec};
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, Partitioning, ReplaceChildrenOptions};
use parquet::file::metadata::RowGroupMetaData;

use super::row_order::keeps_order;
use crate::memory::FairPool;

/// So many times the rows of an even share must the largest partition have.
const CLEARLY_MORE: f64 = 1.25;
/// Rows of a scan below which it does not matter.
const ROWS_MIN: u64 = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct EvenReaders {
    footers: Arc<FileMetadataCache>,
    memory: Arc<FairPool>,
}

impl EvenReaders {
    pub(super) fn new(footers: Arc<FileMetadataCache>, memory: Arc<FairPool>) -> Self {
        EvenReaders { footers, memory }
    }

    fn evened(&self, plan: Arc<dyn ExecutionPlan>, is_worked_on: bool) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
            let scan = scan.data_source().downcast_ref::<FileScanConfig>();
            let readers = scan.filter(|scan| is_worked_on && self.is_uneven(scan)).map(|scan| scan.file_groups.len());
            return match readers {
                Some(readers) => Ok(Arc::new(RepartitionExec::try_new(plan, Partitioning::RoundRobinBatch(readers))?)),
                None => Ok(plan),
            };
        }
        // An exchange makes partitions even by itself; what is below it has little to do for each row.
        let is_worked_on = match () {
            () if plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() => false,
            () => is_worked_on || plan.is::<HashJoinExec>() || plan.is::<AggregateExec>(),
        };
        let before: Vec<_> = plan.children().into_iter().cloned().collect();
        let after = before.iter().cloned().map(|child| self.evened(child, is_worked_on)).collect::<Result<Vec<_>>>()?;
        if before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)) {
            return Ok(plan);
        }
        // The same rows in as many partitions, in no order as before.
        plan.replace_children(after, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
    }

    /// Whether one partition has clearly more rows than its share, and the order of rows and partitions means nothing.
    fn is_uneven(&self, scan: &FileScanConfig) -> bool {
        let is_ordered = scan.eq_properties().output_ordering().is_some();
        if is_ordered || keeps_order(scan) || scan.output_partitioning.is_some() || scan.limit.is_some() {
            return false;
        }
        // Where there are several pieces to a partition, whoever is done takes the next.
        let pieces: Option<Vec<&PartitionedFile>> =
            (scan.file_groups.iter()).map(|group| group.files().first().filter(|_| group.len() == 1)).collect();
        let rows: Option<Vec<u64>> =
            pieces.and_then(|pieces| pieces.into_iter().map(|piece| self.rows(piece)).collect());
        let Some(rows) = rows else { return false };
        let (total, largest) = (rows.iter().sum::<u64>(), rows.iter().max().copied().unwrap_or(0));
        total >= ROWS_MIN && largest as f64 * rows.len() as f64 > CLEARLY_MORE * total as f64
    }

    /// Rows of the row groups that begin in a piece of a file; `None` when its footer is not at hand.
    fn rows(&self, piece: &PartitionedFile) -> Option<u64> {
        let footer = self.footers.get(&piece.object_meta.location)?;
        let is_current = footer.is_valid_for(&piece.object_meta);
        let footer = footer.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>().filter(|_| is_current)?;
        let range = piece.range.clone().unwrap_or(FileRange { start: 0, end: i64::MAX });
        let groups = footer.parquet_metadata().row_groups().iter();
        let begins = |group: &&RowGroupMetaData| {
            let first = group.columns().first();
            first.is_some_and(|first| {
                range.contains(first.dictionary_page_offset().unwrap_or_else(|| first.data_page_offset()))
            })
        };
        Some(groups.filter(begins).map(|group| group.num_rows().unsigned_abs()).sum())
    }
}

impl PhysicalOptimizerRule for EvenReaders {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        // Batches that wait for who takes them are memory, too.
        if self.memory.limit().is_some() { Ok(plan) } else { self.evened(plan, false) }
    }

    fn name(&self) -> &'static str {
        "even_readers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::execution::runtime_env::RuntimeEnv;
    use datafusion::physical_plan::collect;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::rules::physical;

    /// A session with our rules, or with the query engine's alone, and a table of 200,000 rows in row groups of a size.
    async fn session(path: &std::path::Path, group_rows: usize, ours: bool, memory: Option<usize>) -> SessionContext {
        let runtime = Arc::new(RuntimeEnv::default());
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let config = SessionConfig::new()
            .with_target_partitions(2)
            .set_u64("datafusion.optimizer.repartition_file_min_size", 0)
            .set_u64("datafusion.execution.parquet.max_row_group_size", group_rows as u64);
        let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        let rules = physical(&Arc::new(FairPool::new(memory)), &footers, false);
        let builder = if ours { builder.with_physical_optimizer_rules(rules) } else { builder };
        let context: SessionContext = builder.build().into();
        let (place, rows) =
            (path.display(), "SELECT value * 7919 % 200003 AS id, value % 1000 AS key FROM range(200000)");
        let copy = format!("COPY ({rows}) TO '{place}' STORED AS PARQUET");
        context.sql(&copy).await.unwrap().collect().await.unwrap();
        let table = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{place}'");
        context.sql(&table).await.unwrap();
        context
    }

    /// How many scans of a plan have their batches dealt out.
    fn dealt(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let exchange = plan.downcast_ref::<RepartitionExec>();
        let is_dealt = exchange.is_some_and(|exchange| {
            matches!(exchange.partitioning(), Partitioning::RoundRobinBatch(2))
                && exchange.input().is::<DataSourceExec>()
        });
        usize::from(is_dealt) + plan.children().into_iter().map(dealt).sum::<usize>()
    }

    #[tokio::test]
    async fn batches_of_few_row_groups_are_dealt_out_below_joins_and_groups() {
        let directory = tempfile::tempdir().unwrap();
        let (groups, join) = (
            "SELECT key, count(*), sum(id) FROM t GROUP BY key",
            "SELECT a.key, b.id FROM t a JOIN t b ON a.id = b.id",
        );
        for (name, group_rows, memory, query, expected) in [
            ("one", 200_000, None, groups, 1),
            // Two and a part: one partition has twice as many as the other.
            ("three", 80_000, None, groups, 1),
            ("even", 100_000, None, groups, 0),
            ("many", 8_192, None, groups, 0),
            ("limited", 200_000, Some(1 << 30), groups, 0),
            // An exchange, and nothing but rows.
            ("joined", 200_000, None, join, 0),
            ("looked_up", 200_000, None, "SELECT t.id FROM t JOIN (VALUES (1), (7)) v ON t.key = v.column1", 1),
            ("rows", 200_000, None, "SELECT key, id FROM t", 0),
            ("first", 200_000, None, "SELECT key, id FROM t LIMIT 5", 0),
        ] {
            let path = directory.path().join(name).with_extension("parquet");
            let ours = session(&path, group_rows, true, memory).await;
            let plain = session(&path, group_rows, false, memory).await;
            let mut answers = Vec::new();
            for context in [&ours, &plain] {
                let plan = context.sql(query).await.unwrap().create_physical_plan().await.unwrap();
                assert_eq!(dealt(&plan), if std::ptr::eq(context, &ours) { expected } else { 0 }, "{name}");
                let rows = collect(plan, context.task_ctx()).await.unwrap();
                let mut lines: Vec<String> =
                    pretty_format_batches(&rows).unwrap().to_string().lines().map(str::to_string).collect();
                lines.sort();
                answers.push(lines);
            }
            assert!(answers[0] == answers[1], "{name}");
        }
    }
}
