//! Plans with our rules beside plans without them: what differs, and that the answers do not.

use arrow::util::pretty::pretty_format_batches;
use datafusion::common::JoinType;
use datafusion::common::config::{CsvOptions, ParquetOptions, TableParquetOptions};
use datafusion::common::parsers::CompressionTypeVariant;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::common::collect as collect_stream;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::memory::InMemory;

use super::*;

/// Files: 200 parts, 60 of which sell, on 3,000 lines of 700 orders, and all of them on many sales.
const TABLES: [(&str, &str); 5] = [
    ("parts", "SELECT value AS part, value % 17 AS size, nullif(value % 5, 4) AS shelf FROM generate_series(1, 200)"),
    ("orders", "SELECT value AS number, value % 41 AS customer FROM generate_series(1, 700)"),
    ("lines", "SELECT value % 711 AS number, value % 60 AS part, value % 7 AS amount FROM generate_series(1, 3000)"),
    ("customers", "SELECT value AS customer, nullif(value % 9, 3) AS region FROM generate_series(0, 44)"),
    (
        "sales",
        "SELECT 1 + value % 700 AS number, 1 + value % 197 AS part, value % 13 AS amount, value AS sale \
         FROM generate_series(1, 150000)",
    ),
];

/// Footers of files that nobody has looked at.
pub(super) fn no_footers() -> Arc<FileMetadataCache> {
    RuntimeEnv::default().cache_manager.get_file_metadata_cache()
}

struct Beside {
    ours: SessionContext,
    plain: SessionContext,
    _files: tempfile::TempDir,
}

impl Beside {
    async fn new() -> Self {
        Self::with_memory(None).await
    }

    async fn with_memory(limit: Option<usize>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let builder = || {
            let config = SessionConfig::new().with_target_partitions(2).with_batch_size(64);
            SessionStateBuilder::new().with_config(config).with_default_features()
        };
        let memory = Arc::new(FairPool::new(limit));
        let ours = builder().with_optimizer_rules(logical()).with_physical_optimizer_rules(physical(
            &memory,
            &no_footers(),
            false,
        ));
        let (ours, plain) = (ours.build().into(), builder().build().into());
        let beside = Beside { ours, plain, _files: files };
        for (name, query) in TABLES {
            let path = beside._files.path().join(name).with_extension("parquet").display().to_string();
            let rows = beside.plain.sql(query).await.unwrap();
            rows.write_parquet(&path, DataFrameWriteOptions::new().with_single_file_output(true), None).await.unwrap();
            for context in [&beside.ours, &beside.plain] {
                let make = format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{path}'");
                context.sql(&make).await.unwrap();
            }
        }
        beside
    }

    /// Asserts that both give the same rows, and that there are some.
    async fn assert_same_rows(&self, query: &str) {
        let mut answers = Vec::new();
        for context in [&self.ours, &self.plain] {
            let rows = context.sql(query).await.unwrap().collect().await.unwrap();
            let text = pretty_format_batches(&rows).unwrap().to_string();
            let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
            lines.sort();
            answers.push(lines);
        }
        let differing = answers[0].iter().zip(&answers[1]).find(|(ours, plain)| ours != plain);
        assert_eq!(differing, None, "{query}");
        assert_eq!(answers[0].len(), answers[1].len(), "{query}");
        assert!(answers[0].len() > 4, "{query}");
    }
}

/// The tables below the semi joins of a plan, on their left sides.
fn below_semi_joins(plan: &LogicalPlan) -> Vec<String> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if let LogicalPlan::Join(join) = node
            && join.join_type == JoinType::LeftSemi
        {
            let mut tables = Vec::new();
            join.left.apply(|node| {
                if let LogicalPlan::TableScan(scan) = node {
                    tables.push(scan.table_name.to_string());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            found.push(tables.join(" "));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found
}

#[tokio::test]
async fn a_semi_join_moves_to_the_table_that_it_is_about() {
    let beside = Beside::new().await;
    let large = "(SELECT number FROM lines GROUP BY number HAVING sum(amount) > 15)";
    let cases = [
        // However many joins there are, on either side of them.
        (format!("FROM orders o JOIN lines l ON o.number = l.number WHERE o.number IN {large}"), "orders"),
        (format!("FROM lines l JOIN orders o ON o.number = l.number WHERE o.number IN {large}"), "orders"),
        (
            format!(
                "FROM customers c, orders o, lines l WHERE c.customer = o.customer AND o.number = l.number \
                 AND o.number IN {large}"
            ),
            "orders",
        ),
        // Filters of the side itself are no obstacle.
        (
            format!("FROM orders o JOIN lines l ON o.number = l.number WHERE o.number IN {large} AND o.customer > 9"),
            "orders",
        ),
        // Every row of the left side of a left join is in it.
        (
            format!(
                "FROM orders o LEFT JOIN (SELECT * FROM lines WHERE amount > 5) l ON o.number = l.number \
                 WHERE o.number IN {large}"
            ),
            "orders",
        ),
        // What the other side's filter leaves may be little.
        (
            format!("FROM orders o JOIN lines l ON o.number = l.number WHERE o.number IN {large} AND l.amount = 3"),
            "orders lines",
        ),
        // About both sides.
        (
            "FROM orders o JOIN lines l ON o.number = l.number WHERE EXISTS \
             (SELECT 1 FROM parts p WHERE p.part = l.part AND p.size < o.customer)"
                .to_string(),
            "orders lines",
        ),
        // About the left side of a right join: its rows that have no partner are not there alone.
        (
            format!("FROM orders o RIGHT JOIN lines l ON o.number = l.number WHERE o.number IN {large}"),
            // Rows without an order are no answer, so this is an inner join by then.
            "orders lines",
        ),
        // With a condition beside the key.
        (
            "FROM parts p JOIN lines l ON p.part = l.part WHERE EXISTS \
             (SELECT 1 FROM parts q WHERE q.size = p.size AND q.part > p.part AND q.shelf = 2)"
                .to_string(),
            "parts",
        ),
    ];
    for (from, tables) in cases {
        let query = format!("SELECT * {from}");
        let plan = beside.ours.sql(&query).await.unwrap().into_optimized_plan().unwrap();
        assert_eq!(below_semi_joins(&plan), [tables], "{query}\n{}", plan.display_indent());
        beside.assert_same_rows(&query).await;
    }
    // Who is not in it is sought above.
    let others = format!("SELECT * FROM orders o JOIN lines l ON o.number = l.number WHERE o.number NOT IN {large}");
    beside.assert_same_rows(&others).await;
}

#[tokio::test]
async fn readers_look_at_rows_below_groups_that_a_join_will_drop() {
    let beside = Beside::new().await;
    let cases = [
        // A correlated subquery's groups, of a few keys.
        (
            "SELECT sum(l.amount), l.part FROM lines l JOIN parts p ON p.part = l.part WHERE p.size = 3 AND l.amount > \
             (SELECT 0.5 * avg(i.amount) FROM lines i WHERE i.part = p.part) GROUP BY l.part",
            true,
        ),
        (
            "SELECT p.size, g.n FROM parts p JOIN (SELECT part, count(*) AS n FROM lines GROUP BY part) g \
             ON p.part = g.part WHERE p.size IN (3, 4)",
            true,
        ),
        // Of all keys.
        (
            "SELECT p.size, g.n FROM parts p JOIN (SELECT part, count(*) AS n FROM lines GROUP BY part) g ON p.part = g.part",
            false,
        ),
        // No groups, so nothing is saved but looking up.
        ("SELECT p.size, l.amount FROM parts p JOIN lines l ON p.part = l.part WHERE p.size IN (3, 4)", false),
        // Groups by something else: the join says nothing about their rows.
        (
            "SELECT p.size, g.m FROM parts p JOIN (SELECT amount, max(part) AS m FROM lines GROUP BY amount) g \
             ON p.part = g.m WHERE p.size < 15",
            false,
        ),
    ];
    for (query, looks) in cases {
        let plan = beside.ours.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        let mut found = false;
        plan.apply(|node| {
            let source = node.downcast_ref::<DataSourceExec>();
            let config = source.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
            let source = config.and_then(|config| config.file_source().downcast_ref::<ParquetSource>());
            found |= source.is_some_and(|source| source.table_parquet_options().global.pushdown_filters);
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        assert_eq!(found, looks, "{query}\n{}", displayable(plan.as_ref()).indent(true));
        beside.assert_same_rows(query).await;
    }
}

/// The tables of the lowest join that has the sales.
fn joined_first_with_sales(plan: &Arc<dyn ExecutionPlan>) -> String {
    let mut found = Vec::new();
    plan.apply(|node| {
        let mut tables = Vec::new();
        node.apply(|node| {
            if node.children().is_empty() {
                let told = displayable(node.as_ref()).one_line().to_string();
                tables.extend(TABLES.iter().filter(|(name, _)| told.contains(&format!("{name}.parquet"))).map(|t| t.0));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if node.name().contains("Join") && tables.contains(&"sales") {
            tables.sort_unstable();
            found = tables;
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found.join(" ")
}

#[tokio::test]
async fn joins_begin_with_the_tables_that_leave_least() {
    let beside = Beside::new().await;
    let count = "SELECT count(*), sum(s.amount), max(s.sale)";
    let cases = [
        // The filter is on the last table.
        (
            format!(
                "{count} FROM sales s JOIN orders o ON o.number = s.number JOIN parts p ON p.part = s.part WHERE p.size = 3"
            ),
            "parts sales",
        ),
        // As it should be.
        (
            format!(
                "{count} FROM parts p JOIN sales s ON p.part = s.part JOIN orders o ON o.number = s.number WHERE p.size = 3"
            ),
            "parts sales",
        ),
        // It reaches the sales by a table between; columns of all, under names that several have.
        (
            "SELECT * FROM sales s JOIN parts p ON p.part = s.part JOIN orders o ON o.number = s.number \
             JOIN customers c ON c.customer = o.customer WHERE c.region = 2 ORDER BY s.sale LIMIT 20"
                .to_string(),
            "customers orders sales",
        ),
        // With a condition between tables, and groups above.
        (
            format!(
                "SELECT o.customer, n.a FROM orders o JOIN ({count} AS a, o.number FROM sales s JOIN orders o \
                 ON o.number = s.number JOIN parts p ON p.part = s.part AND p.size < o.customer \
                 WHERE p.shelf = 3 GROUP BY o.number) n ON n.number = o.number"
            ),
            "parts sales",
        ),
        // What is computed between joins holds them together.
        (
            format!(
                "{count} FROM sales s JOIN orders o ON o.number = s.number JOIN parts p ON p.part + 1 = s.part + 1 \
                 WHERE p.shelf = 3"
            ),
            "orders sales",
        ),
        // A table twice.
        (
            format!(
                "{count} FROM sales s JOIN parts p ON p.part = s.part JOIN parts q ON q.size = p.size \
                 JOIN orders o ON o.number = s.number WHERE q.part = 7"
            ),
            "parts parts sales",
        ),
        // Left joins stay where they are, and what is below them is seen to by itself.
        (
            format!(
                "{count} FROM customers c LEFT JOIN (SELECT s.*, o.customer FROM sales s JOIN orders o ON o.number = s.number \
                 JOIN parts p ON p.part = s.part WHERE p.size = 3) s ON s.customer = c.customer"
            ),
            "parts sales",
        ),
    ];
    for (query, tables) in cases {
        let plan = beside.ours.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        let shown = displayable(plan.as_ref()).indent(true).to_string();
        assert_eq!(joined_first_with_sales(&plan), tables, "{query}\n{shown}");
        beside.assert_same_rows(&query).await;
    }
}

/// A context whose s3://lake/ lies in memory, beside files on the disk.

#[tokio::test]
async fn the_side_of_fewer_rows_is_hashed_whatever_bytes_are_estimated() {
    let beside = Beside::new().await;
    // Few parts of the sales are left before the question whether another sale is like them, and that is asked of all.
    let query = "SELECT s.sale, s.part FROM sales s JOIN orders o ON o.number = s.number JOIN parts p ON p.part = s.part \
                 WHERE p.size = 3 AND o.customer = 7 AND NOT EXISTS \
                 (SELECT 1 FROM sales t WHERE t.number = s.number AND t.amount < s.amount AND t.sale <> s.sale)";
    let plan = beside.ours.sql(query).await.unwrap().create_physical_plan().await.unwrap();
    let shown = displayable(plan.as_ref()).indent(true).to_string();
    assert!(shown.contains("join_type=LeftAnti") && !shown.contains("join_type=RightAnti"), "{shown}");
    beside.assert_same_rows(query).await;
}

#[tokio::test]
async fn groups_of_pieces_are_the_groups_of_all_rows() {
    let beside = Beside::new().await;
    let many = "(SELECT s.*, g.value AS copy FROM sales s CROSS JOIN generate_series(1, 8) g)";
    let cases = [
        // Many groups whose rows lie together, the same far apart, few groups, and rows that are all different.
        (format!("SELECT sale, count(*), sum(amount), avg(copy), min(part) FROM {many} GROUP BY sale"), true),
        (
            format!(
                "SELECT number, part % 11, count(DISTINCT amount), round(stddev(copy), 9) FROM {many} GROUP BY 1, 2"
            ),
            true,
        ),
        (format!("SELECT amount, sum(sale) FILTER (WHERE copy > 3), count(*) FROM {many} GROUP BY amount"), true),
        (format!("SELECT sale, copy, sum(amount) FROM {many} GROUP BY sale, copy HAVING sum(amount) > 11"), true),
        ("SELECT part, count(*) FROM sales WHERE sale < 0 GROUP BY part UNION ALL SELECT 1, 1".to_string(), true),
        // One group, groups of several kinds, and groups that end with their rows.
        (format!("SELECT count(*), sum(amount), min(sale), max(sale), 1 FROM {many}"), false),
        ("SELECT part, amount, count(*) FROM sales GROUP BY GROUPING SETS ((part), (amount), ())".to_string(), false),
        ("SELECT DISTINCT amount FROM sales ORDER BY amount LIMIT 5".to_string(), false),
    ];
    for (query, in_pieces) in cases {
        let plan = beside.ours.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        let shown = displayable(plan.as_ref()).indent(true).to_string();
        assert_eq!(shown.contains("PiecesExec"), in_pieces, "{query}\n{shown}");
        beside.assert_same_rows(&query).await;
    }
}

#[tokio::test]
async fn the_first_rows_of_groups_are_found_without_sorting_all() {
    let beside = Beside::new().await;
    let numbered = |function: &str, order: &str, condition: &str| {
        format!(
            "SELECT * FROM (SELECT sale, part, amount, {function} OVER (PARTITION BY part, number % 3 ORDER BY {order}) AS place \
             FROM sales) s WHERE {condition}"
        )
    };
    let cases = [
        (numbered("row_number()", "sale DESC", "place <= 2"), true),
        (numbered("row_number()", "sale * 1.5e0, amount", "3 > place"), true),
        (numbered("row_number()", "nullif(sale, 7) NULLS FIRST", "place = 1 AND part > 9"), true),
        (numbered("rank()", "amount DESC", "place < 2"), true),
        (numbered("rank()", "CAST(amount AS DECIMAL(9, 2)), sale", "place <= 4"), true),
        // Texts, zeros of two signs, other functions, other orders, too many rows, and other conditions.
        (
            "SELECT * FROM (SELECT sale, row_number() OVER (PARTITION BY part * -0.0e0 ORDER BY sale) AS place FROM sales) s \
             WHERE place <= 3"
                .to_string(),
            false,
        ),
        (numbered("row_number()", "CAST(sale AS VARCHAR)", "place <= 2"), false),
        (numbered("dense_rank()", "amount", "place <= 2"), false),
        (numbered("sum(amount)", "sale", "place <= 2"), false),
        (numbered("row_number()", "sale", "place <= 100"), false),
        (numbered("row_number()", "sale", "place <> 2 AND sale < 100"), false),
        (numbered("row_number()", "sale", "place <= 0 OR sale < 9"), false),
        (
            "SELECT * FROM (SELECT sale, row_number() OVER (PARTITION BY part ORDER BY sale) AS place, \
             sum(amount) OVER (PARTITION BY part) AS total FROM sales) s WHERE place <= 2"
                .to_string(),
            false,
        ),
        (
            "SELECT * FROM (SELECT sale, row_number() OVER (PARTITION BY part ORDER BY sale) AS place, \
             rank() OVER (PARTITION BY part ORDER BY sale) AS other FROM sales) s WHERE other <= 2"
                .to_string(),
            true,
        ),
    ];
    for (query, found) in cases {
        let plan = beside.ours.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        let shown = displayable(plan.as_ref()).indent(true).to_string();
        assert_eq!(shown.contains("TopOfGroupsExec"), found, "{query}\n{shown}");
        beside.assert_same_rows(&query).await;
    }
}

fn with_lake(lake: &Arc<InMemory>, memory: Option<usize>, in_tasks: bool) -> SessionContext {
    let memory = Arc::new(FairPool::new(memory));
    let config = SessionConfig::new().with_target_partitions(2);
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    let state = builder.with_physical_optimizer_rules(physical(&memory, &no_footers(), in_tasks)).build();
    let context = SessionContext::new_with_state(state);
    context.register_object_store(&"s3://lake".try_into().unwrap(), Arc::clone(lake) as _);
    context
}

/// Partitions of the scans of a plan.
fn readers(plan: &Arc<dyn ExecutionPlan>) -> Vec<usize> {
    let mut found = Vec::new();
    plan.apply(|node| {
        if node.is::<DataSourceExec>() {
            found.push(node.output_partitioning().partition_count());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    found
}

#[tokio::test]
async fn scans_of_other_machines_have_more_readers_than_there_are_cores() {
    let lake = Arc::new(InMemory::new());
    let disk = tempfile::tempdir().unwrap();
    let small = format!("{}/small/", disk.path().display());
    let context = with_lake(&lake, None, false);
    for file in 0..40 {
        let rows =
            format!("SELECT value AS v, value % 7 AS w FROM generate_series({}, {})", file * 100, file * 100 + 99);
        let rows = context.sql(&rows).await.unwrap();
        let options = || DataFrameWriteOptions::new().with_single_file_output(true);
        for path in [format!("s3://lake/small/{file}.parquet"), format!("{small}{file}.parquet")] {
            rows.clone().write_parquet(&path, options(), None).await.unwrap();
        }
        if file < 5 {
            let gzip = CsvOptions::default().with_compression(CompressionTypeVariant::GZIP);
            rows.write_csv(&format!("s3://lake/zipped/{file}.csv.gz"), options(), Some(gzip)).await.unwrap();
        }
    }
    // 64 MB in one file.
    let plain = TableParquetOptions {
        global: ParquetOptions {
            compression: Some("uncompressed".into()),
            dictionary_enabled: Some(false),
            max_row_group_size: 500_000,
            ..ParquetOptions::default()
        },
        ..TableParquetOptions::default()
    };
    let rows = context
        .sql("SELECT value * 7919 % 4000037 AS v, value % 7 AS w FROM generate_series(1, 4000000)")
        .await
        .unwrap();
    let options = DataFrameWriteOptions::new().with_single_file_output(true);
    rows.write_parquet("s3://lake/large/one.parquet", options, Some(plain)).await.unwrap();

    let folded = "SELECT count(*), sum(v), max(w) FROM t";
    let in_lake = |kind: &str, from: &str, more: &str| {
        format!("CREATE EXTERNAL TABLE t STORED AS {kind} LOCATION 's3://lake/{from}/' {more}")
    };
    let on_disk = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{small}'");
    let zipped = in_lake("CSV", "zipped", "OPTIONS (format.has_header true, format.compression gzip)");
    let ordered = in_lake("PARQUET", "small", "WITH ORDER (v)");
    let (many, large) = (in_lake("PARQUET", "small", ""), in_lake("PARQUET", "large", ""));
    for (table, query, memory, in_tasks, expected) in [
        (&many, folded, None, false, 40),
        (&many, "SELECT v FROM t WHERE w = 3 ORDER BY v", None, false, 40),
        (&many, "SELECT w, count(*) FROM t GROUP BY w", None, false, 40),
        // As many as there are; pieces of a large one.
        (&zipped, folded, None, false, 5),
        (&large, folded, None, false, 3),
        (&large, folded, Some(64 << 20), false, 2),
        // What would gain nothing, or lose something.
        (&many, "SELECT v FROM t LIMIT 3500", None, false, 2),
        (&many, folded, None, true, 2),
        (&ordered, "SELECT v FROM t ORDER BY v", None, false, 2),
        (&on_disk, folded, None, false, 2),
    ] {
        let (ours, plain) = (with_lake(&lake, memory, in_tasks), with_lake(&lake, None, true));
        for context in [&ours, &plain] {
            context.sql(table).await.unwrap();
        }
        let plan = ours.sql(query).await.unwrap().create_physical_plan().await.unwrap();
        assert_eq!(readers(&plan), [expected], "{table}: {query}\n{}", displayable(plan.as_ref()).indent(false));
        let mut answers = Vec::new();
        for context in [&ours, &plain] {
            let rows = context.sql(query).await.unwrap().collect().await.unwrap();
            let text = pretty_format_batches(&rows).unwrap().to_string();
            let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
            if !query.contains("ORDER BY") {
                lines.sort();
            }
            answers.push(lines);
        }
        assert!(answers[0] == answers[1] || query.contains("LIMIT"), "{table}: {query}");
    }
}

#[tokio::test]
async fn groups_that_are_asked_for_twice_are_made_once() {
    let beside = Beside::new().await;
    let lines = "WITH l AS (SELECT part, sum(amount) AS s FROM lines WHERE amount > 2 GROUP BY part)";
    let text = beside._files.path().join("text.csv");
    std::fs::write(&text, "a,b;c\n1,2;3\n1,5;6\n4,7;8\n").unwrap();
    for context in [&beside.ours, &beside.plain] {
        for (name, delimiter) in [("commas", ","), ("semicolons", ";")] {
            let (text, options) = (text.display(), format!("OPTIONS (format.delimiter '{delimiter}')"));
            let make =
                format!("CREATE EXTERNAL TABLE {name} (a TEXT, b TEXT) STORED AS CSV LOCATION '{text}' {options}");
            context.sql(&make).await.unwrap();
        }
    }
    for (query, shared) in [
        (format!("{lines} SELECT part, s FROM l WHERE s = (SELECT max(s) FROM l)"), 2),
        (format!("{lines} SELECT a.part, b.s FROM l a JOIN l b ON a.part = b.part WHERE a.s <= b.s"), 2),
        (format!("{lines} SELECT part, s FROM l UNION ALL SELECT part, s FROM l UNION ALL SELECT s, part FROM l"), 3),
        // Groups of groups: the larger is shared, and within it nothing is.
        (
            format!(
                "{lines}, g AS (SELECT s, count(*) AS c FROM l GROUP BY s) SELECT a.s, b.c FROM g a JOIN g b ON a.s = b.s"
            ),
            2,
        ),
        // Groups of one thing and of another.
        (format!("{lines} SELECT part, s FROM l UNION ALL SELECT part, sum(amount) FROM lines GROUP BY part"), 0),
        ("SELECT b, count(*) FROM commas GROUP BY b UNION ALL SELECT b, count(*) FROM semicolons GROUP BY b".into(), 0),
        // One value, and no groups.
        ("SELECT part FROM lines WHERE amount = (SELECT max(amount) FROM lines)".into(), 0),
    ] {
        let plan = beside.ours.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert_eq!(shown.matches("SharedExec").count(), shared, "{query}\n{shown}");
        beside.assert_same_rows(&query).await;
        let executed = beside.ours.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        collect(Arc::clone(&executed), beside.ours.task_ctx()).await.unwrap();
        if shared > 0 {
            assert_eq!(rows_read(&executed), 3000, "{query}");
        }
    }
}

#[tokio::test]
async fn what_varies_or_must_spill_is_made_for_each_reader() {
    let random = "WITH r AS (SELECT part, sum(amount * random()) AS s FROM lines GROUP BY part)";
    let sure = "WITH r AS (SELECT part, sum(amount) AS s FROM lines GROUP BY part)";
    for (with, memory, shared) in [(sure, None, 2), (random, None, 0), (sure, Some(1 << 30), 0)] {
        let beside = Beside::with_memory(memory).await;
        let query = format!("{with} SELECT a.part FROM r a JOIN r b ON a.part = b.part WHERE a.s <= b.s + 1000");
        let plan = beside.ours.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        assert_eq!(shown.matches("SharedExec").count(), shared, "{query}\n{shown}");
        beside.assert_same_rows(&query).await;
    }
}

#[tokio::test]
async fn a_mistake_in_shared_groups_is_told_to_all_readers_and_an_early_end_stops_none() {
    let beside = Beside::new().await;
    let groups = |sum: &str| format!("WITH r AS (SELECT part, {sum} AS s FROM lines GROUP BY part)");
    let both = "SELECT part, s FROM r UNION ALL SELECT part, s FROM r";
    let wrong = beside.ours.sql(&format!("{} {both}", groups("sum(part / (amount - 3))"))).await.unwrap();
    let error = wrong.collect().await.unwrap_err();
    assert!(error.to_string().contains("Divide by zero"), "{error}");
    // The first reader needs one row, and goes before there is any; the second needs all.
    let query = format!("{} (SELECT part FROM r LIMIT 1) UNION ALL (SELECT s FROM r)", groups("sum(amount)"));
    let rows = beside.ours.sql(&query).await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 61);
}

#[tokio::test]
async fn partitions_that_different_readers_begin_are_of_one_making() {
    let beside = Beside::new().await;
    let query = "WITH l AS (SELECT part, sum(amount) AS s FROM lines GROUP BY part) \
                 SELECT part, s FROM l UNION ALL SELECT part, s FROM l";
    let plan = beside.ours.sql(query).await.unwrap().create_physical_plan().await.unwrap();
    let mut readers = Vec::new();
    plan.apply(|node| {
        if node.name() == "SharedExec" {
            readers.push(Arc::clone(node));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    let [first, second] = readers.as_slice() else { panic!("{} readers", readers.len()) };
    let mut groups = 0;
    for (reader, partition) in [(first, 0), (second, 1), (first, 1), (second, 0)] {
        let rows = reader.execute(partition, beside.ours.task_ctx()).unwrap();
        groups += collect_stream(rows).await.unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>();
    }
    assert_eq!((groups, rows_read(&plan)), (2 * 60, 3000));
}

/// Rows that the scans of an executed plan gave.
fn rows_read(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let mut rows = 0;
    plan.apply(|node| {
        if node.is::<DataSourceExec>() {
            rows += node.metrics().and_then(|metrics| metrics.output_rows()).unwrap_or(0);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    rows
}
