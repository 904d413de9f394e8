#![allow(clippy::unwrap_used)]

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::analyzer::Analyzer;
use datafusion::prelude::SessionContext;

use super::Subqueries;

/// A session with two tables: the query engine's own, or with our analysis.
async fn context(ours: bool) -> SessionContext {
    let mut builder = SessionStateBuilder::new().with_default_features();
    if ours {
        let mut rules = Analyzer::new().rules;
        rules.push(std::sync::Arc::new(Subqueries::new(false)));
        builder = builder.with_analyzer_rules(rules);
    }
    let context = SessionContext::new_with_state(builder.build());
    for table in
        ["CREATE TABLE a (k INT, x INT) AS VALUES (1, 2)", "CREATE TABLE b (k INT, y INT, z INT) AS VALUES (1, 2, 3)"]
    {
        context.sql(table).await.unwrap().collect().await.unwrap();
    }
    context
}

async fn optimized(context: &SessionContext, query: &str) -> String {
    let plan = context.sql(query).await.unwrap().into_optimized_plan().unwrap();
    plan.display_indent().to_string()
}

#[tokio::test]
async fn plain_subqueries_keep_their_plans() {
    let (theirs, ours) = (context(false).await, context(true).await);
    for query in [
        "SELECT k FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.y <> a.x)",
        "SELECT k FROM a WHERE NOT EXISTS (SELECT * FROM b WHERE b.k = a.k)",
        "SELECT k FROM a WHERE k IN (SELECT k FROM b WHERE y > 1 GROUP BY k HAVING sum(z) > 3)",
        "SELECT k FROM a WHERE k NOT IN (SELECT k FROM b)",
        "SELECT k FROM a WHERE x < (SELECT 0.2 * avg(y) FROM b WHERE b.k = a.k)",
        "SELECT a.k FROM a, b WHERE a.k = b.k AND y = (SELECT min(c.y) FROM b c, a d WHERE a.k = c.k AND c.z = d.x)",
        "SELECT k FROM a WHERE x > (SELECT max(y) FROM b)",
    ] {
        assert_eq!(optimized(&ours, query).await, optimized(&theirs, query).await, "{query}");
    }
}

#[tokio::test]
async fn rows_that_tell_their_outer_values_need_no_domain() {
    let context = context(true).await;
    for query in [
        "SELECT k, (SELECT count(*) FROM b WHERE b.k = a.k AND b.y < 5) FROM a",
        "SELECT k, EXISTS (SELECT 1 FROM b WHERE b.k = a.k) FROM a",
        "SELECT k, (SELECT y FROM b WHERE b.k = a.k ORDER BY z LIMIT 1) FROM a",
        "SELECT k, x IN (SELECT y FROM b WHERE b.k = a.k) FROM a",
    ] {
        let plan = optimized(&context, query).await;
        assert_eq!(plan.matches("TableScan: a").count(), 1, "{plan}");
    }
}
