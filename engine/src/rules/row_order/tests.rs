//! Which plans are changed, and that their rows are in order then.

use std::path::Path;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::rules::physical;

/// A session with our rules, and a file of 60,000 numbered rows that is read by several readers.
async fn session(directory: &Path, kept: bool) -> SessionContext {
    let runtime = Arc::new(RuntimeEnv::default());
    let footers = runtime.cache_manager.get_file_metadata_cache();
    let mut config = SessionConfig::new()
        .with_target_partitions(3)
        .with_batch_size(500)
        .set_u64("datafusion.optimizer.repartition_file_min_size", 0);
    config.options_mut().extensions.insert(RowOrder { kept });
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let rules = physical(&Arc::new(FairPool::new(None)), &footers, false);
    let context: SessionContext = builder.with_physical_optimizer_rules(rules).build().into();
    let place = directory.join("t.csv");
    if !place.exists() {
        let lines: String = (0..60_000).map(|n| format!("{n},{}\n", n % 7)).collect();
        std::fs::write(&place, format!("n,k\n{lines}")).unwrap();
    }
    let table = format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{}'", place.display());
    context.sql(&table).await.unwrap();
    context.sql("CREATE TABLE m AS SELECT value AS n FROM generate_series(0, 9999)").await.unwrap();
    context
}

async fn plan(context: &SessionContext, query: &str) -> Arc<dyn ExecutionPlan> {
    context.sql(query).await.unwrap().create_physical_plan().await.unwrap()
}

#[tokio::test]
async fn plans_that_ask_for_no_order_are_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let context = session(directory.path(), true).await;
    for query in [
        "SELECT k, count(*) FROM t GROUP BY k",
        "SELECT count(*), sum(n) FROM t WHERE k = 3",
        "SELECT n FROM t ORDER BY k DESC LIMIT 5",
        "SELECT a.n FROM t a JOIN t b ON a.n = b.n + 1",
        "SELECT k, row_number() OVER (PARTITION BY k ORDER BY n) FROM t",
        "SELECT DISTINCT k FROM t",
    ] {
        let plan = plan(&context, query).await;
        let text = displayable(plan.as_ref()).indent(true).to_string();
        assert!(!text.contains("OrderedGather") && !text.contains("Batchwise"), "{query}: {text}");
        let mut scans = vec![Arc::clone(&plan)];
        while let Some(node) = scans.pop() {
            assert!(file_scan(&node).is_none_or(|scan| !scan.preserve_order), "{query}");
            scans.extend(node.children().into_iter().cloned());
        }
    }
}

#[tokio::test]
async fn rows_are_in_order_where_somebody_asks() {
    let directory = tempfile::tempdir().unwrap();
    for (query, expected) in [
        ("SELECT n FROM t", (0..60_000).collect::<Vec<i64>>()),
        ("SELECT n + 1 FROM t WHERE k = 2", (0..60_000).filter(|n| n % 7 == 2).map(|n| n + 1).collect()),
        ("SELECT n FROM t LIMIT 3", vec![0, 1, 2]),
        ("SELECT n FROM t WHERE n > 50000 LIMIT 2 OFFSET 5", vec![50_006, 50_007]),
        ("SELECT row_number() OVER () - n FROM t WHERE n < 40000", vec![1; 40_000]),
        ("SELECT n FROM m UNION ALL SELECT n FROM t WHERE n < 20", (0..10_000).chain(0..20).collect()),
        ("SELECT n * 2 FROM m WHERE n % 2 = 1", (0..10_000).filter(|n| n % 2 == 1).map(|n| n * 2).collect()),
    ] {
        for _ in 0..5 {
            let context = session(directory.path(), true).await;
            let plan = plan(&context, query).await;
            let gathered = gathered_in_order(&plan, 3, false).unwrap().unwrap_or(plan);
            assert_eq!(gathered.output_partitioning().partition_count(), 1, "{query}");
            let batches = collect(gathered, context.task_ctx()).await.unwrap();
            let mut got: Vec<i64> = Vec::new();
            for batch in &batches {
                let numbers = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Int64).unwrap();
                got.extend(numbers.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap().values());
            }
            assert!(got == expected, "{query}");
        }
    }
}

#[tokio::test]
async fn who_runs_a_plan_may_not_care() {
    let directory = tempfile::tempdir().unwrap();
    let context = session(directory.path(), false).await;
    let free = plan(&context, "SELECT n FROM t WHERE k = 2").await;
    assert!(!displayable(free.as_ref()).indent(true).to_string().contains("Batchwise"));
    // A limit asks in any case.
    let first = plan(&context, "SELECT max(n) FROM (SELECT n FROM t LIMIT 10)").await;
    assert!(displayable(first.as_ref()).indent(true).to_string().contains("OrderedGather: fetch=10"));
}
