//! Plans with our rules beside plans without them: what differs, and that the answers do not.

use arrow::util::pretty::pretty_format_batches;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};

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

struct Beside {
    ours: SessionContext,
    plain: SessionContext,
    _files: tempfile::TempDir,
}

impl Beside {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let builder = || {
            let config = SessionConfig::new().with_target_partitions(2).with_batch_size(64);
            SessionStateBuilder::new().with_config(config).with_default_features()
        };
        let memory = Arc::new(FairPool::new(None));
        let ours = builder().with_optimizer_rules(logical()).with_physical_optimizer_rules(physical(&memory));
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
        assert_eq!(answers[0], answers[1], "{query}");
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
