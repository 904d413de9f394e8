//! How many rows files of text have. They do not say, and upstream takes such a table for one of unknown size: it hashes
//! the left side of a join with it, however large that is. A row of text is about as long as its columns are many, so the
//! size of the files tells the rows to a factor of two or three, which is enough to choose between tables.
//!
//! And JSON is read in batches that stay in the cache: the reader makes a list of all tokens of a batch before it looks at
//! the first of them.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::physical_plan::{CsvSource, FileScanConfig, FileScanConfigBuilder, JsonSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

/// Bytes of a value and what parts it from the next: between 6 and 8 in tables of numbers, short texts and dates.
const VALUE_BYTES: usize = 8;
/// Bytes that JSON adds to a value and its name: two quotes, a colon, half of the values' quotes.
const JSON_BYTES: usize = 4;
/// How many times longer text is than its compressed form.
const COMPRESSED: usize = 4;
/// Text of a batch of JSON.
const BATCH_BYTES: usize = 512 << 10;
/// Rows of such a batch at least.
const BATCH_ROWS_MIN: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct TextRows;

impl PhysicalOptimizerRule for TextRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(scan) = text_scan(&node) else { return Ok(Transformed::no(node)) };
            let scan = DataSourceExec::from_data_source(adapted(scan, config.execution.batch_size.get()));
            Ok(Transformed::yes(scan as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "text_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The scan of files of text; `None` for everything else.
pub(super) fn text_scan(node: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    let scan = node.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    (scan.file_source().is::<CsvSource>() || scan.file_source().is::<JsonSource>()).then_some(scan)
}

/// The same scan with about so many rows as its files may have, unless they are known, and with batches of a size.
fn adapted(scan: &FileScanConfig, batch_rows: usize) -> FileScanConfig {
    let is_json = scan.file_source().is::<JsonSource>();
    let row = row_bytes(scan.file_schema(), is_json);
    let mut statistics = scan.statistics();
    // A scan with a limit ends before.
    if statistics.num_rows == Precision::Absent && scan.limit.is_none() {
        let bytes: u64 = scan.file_groups.iter().flat_map(|group| group.iter()).map(|file| file.effective_size()).sum();
        let longer = if scan.file_compression_type == FileCompressionType::UNCOMPRESSED { 1 } else { COMPRESSED };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_mul(longer);
        statistics.num_rows = Precision::Inexact(bytes.div_ceil(row));
    }
    let in_cache = (BATCH_BYTES / row).max(BATCH_ROWS_MIN).min(scan.batch_size.unwrap_or(batch_rows));
    let batch = if is_json { Some(in_cache) } else { scan.batch_size };
    FileScanConfigBuilder::from(scan.clone()).with_statistics(statistics).with_batch_size(batch).build()
}

/// About how long a row is. Names stand in every line of JSON.
fn row_bytes(columns: &Schema, is_json: bool) -> usize {
    let names = || columns.fields().iter().map(|field| field.name().len() + JSON_BYTES).sum::<usize>();
    (columns.fields().len() * VALUE_BYTES + if is_json { names() } else { 0 }).max(1)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::physical_plan::collect;
    use datafusion::physical_plan::joins::HashJoinExec;
    use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::memory::FairPool;
    use crate::rules::physical;
    use crate::rules::tests::no_footers;

    /// A session with our rules, or with the query engine's alone, and tables of so many rows.
    async fn session(directory: &std::path::Path, tables: &[(&str, &str, usize)], ours: bool) -> SessionContext {
        let config = SessionConfig::new().with_target_partitions(2);
        let builder = SessionStateBuilder::new().with_config(config).with_default_features();
        let rules = physical(&Arc::new(FairPool::new(None)), &no_footers(), false);
        let builder = if ours { builder.with_physical_optimizer_rules(rules) } else { builder };
        let context: SessionContext = builder.build().into();
        for (name, format, rows) in tables {
            let path = directory.join(name).with_extension(format).display().to_string();
            let query = format!(
                "COPY (SELECT value AS id, value % 97 AS amount, concat('text ', value) AS name \
                 FROM generate_series(1, {rows})) TO '{path}' STORED AS {format}"
            );
            context.sql(&query).await.unwrap().collect().await.unwrap();
            let table = format!("CREATE EXTERNAL TABLE {name} STORED AS {format} LOCATION '{path}'");
            context.sql(&table).await.unwrap();
        }
        context
    }

    /// The scan whose rows the join of a plan hashes.
    fn hashed(plan: &Arc<dyn ExecutionPlan>) -> String {
        if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            let mut scan = Arc::clone(join.left());
            while let Some(below) = scan.children().first().copied() {
                scan = Arc::clone(below);
            }
            let scan = scan.downcast_ref::<DataSourceExec>().unwrap().data_source();
            let scan = scan.downcast_ref::<FileScanConfig>().unwrap();
            return scan.file_groups[0].files()[0].object_meta.location.filename().unwrap().to_string();
        }
        plan.children().into_iter().map(hashed).collect()
    }

    #[tokio::test]
    async fn the_smaller_table_is_hashed_when_it_is_text() {
        let directory = tempfile::tempdir().unwrap();
        let tables = [
            ("few", "csv", 500),
            ("many", "csv", 40_000),
            ("few_json", "json", 500),
            ("many_json", "json", 40_000),
            ("some", "parquet", 9_000),
        ];
        let ours = session(directory.path(), &tables, true).await;
        let plain = session(directory.path(), &tables, false).await;
        for (left, right, smaller) in [
            ("some", "few", "few.csv"),
            ("few", "some", "few.csv"),
            ("some", "many", "some.parquet"),
            ("many", "some", "some.parquet"),
            ("some", "few_json", "few_json.json"),
            ("many_json", "some", "some.parquet"),
            ("many", "few_json", "few_json.json"),
            ("many_json", "few", "few.csv"),
        ] {
            let query = format!(
                "SELECT a.name, b.amount FROM {left} a LEFT JOIN (SELECT id, max(amount) AS amount FROM {right} \
                 GROUP BY id) b ON a.id = b.id ORDER BY a.name LIMIT 2000"
            );
            let mut answers = Vec::new();
            for context in [&ours, &plain] {
                let plan = context.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
                if std::ptr::eq(context, &ours) {
                    assert_eq!(hashed(&plan), smaller, "{query}");
                }
                let rows = collect(plan, context.task_ctx()).await.unwrap();
                answers.push(pretty_format_batches(&rows).unwrap().to_string());
            }
            assert!(answers[0] == answers[1] && answers[0].len() > 10_000, "{query}");
        }
    }

    #[tokio::test]
    async fn rows_of_text_are_estimated_to_a_factor_of_two() {
        let directory = tempfile::tempdir().unwrap();
        let context = session(directory.path(), &[("a", "csv", 20_000), ("b", "json", 20_000)], true).await;
        for table in ["a", "b"] {
            let plan = context.table(table).await.unwrap().create_physical_plan().await.unwrap();
            let told = StatisticsContext::default().compute(plan.as_ref(), &StatisticsArgs::default()).unwrap();
            let Precision::Inexact(rows) = told.num_rows else { panic!("{table}: {told:?}") };
            assert!((10_000..40_000).contains(&rows), "{table}: {rows}");
        }
    }

    #[tokio::test]
    async fn wide_json_comes_in_small_batches() {
        let directory = tempfile::tempdir().unwrap();
        let context = session(directory.path(), &[], true).await;
        let columns: Vec<String> = (10..42).map(|i| format!("value + {i} AS \"a column {i}\"")).collect();
        let path = directory.path().join("wide.json").display().to_string();
        let copy = format!("COPY (SELECT {} FROM range(5000)) TO '{path}'", columns.join(", "));
        context.sql(&copy).await.unwrap().collect().await.unwrap();
        context.sql(&format!("CREATE EXTERNAL TABLE wide STORED AS JSON LOCATION '{path}'")).await.unwrap();
        let plan = context.table("wide").await.unwrap().create_physical_plan().await.unwrap();
        let batches = collect(plan, context.task_ctx()).await.unwrap();
        let rows: Vec<usize> = batches.iter().map(|batch| batch.num_rows()).collect();
        assert_eq!(rows.iter().sum::<usize>(), 5000);
        // A value, its name of 11 letters, and what parts them.
        assert_eq!(rows.iter().max(), Some(&(BATCH_BYTES / (32 * (8 + 11 + 4)))));

        let many: Vec<_> = (0..50_000).map(|i| Field::new(format!("c{i}"), DataType::Int64, true)).collect();
        assert!(row_bytes(&Schema::new(many), true) > BATCH_BYTES / BATCH_ROWS_MIN);
        assert_eq!(row_bytes(&Schema::empty(), true), 1);
    }
}
