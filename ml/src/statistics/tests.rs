//! The aggregates through SQL, over the same rows in many partitionings.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::aggregates;

fn context(target_partitions: usize) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(target_partitions));
    aggregates().into_iter().for_each(|function| context.register_udaf(function.as_ref().clone()));
    context
}

async fn answer(context: &SessionContext, sql: &str) -> String {
    let batches = match context.sql(sql).await {
        Ok(frame) => frame.collect().await,
        Err(error) => Err(error),
    };
    match batches {
        Ok(batches) => pretty_format_batches(&batches).unwrap().to_string().lines().nth(3).unwrap_or("").to_owned(),
        Err(error) => error.strip_backtrace(),
    }
}

#[tokio::test]
async fn answers() {
    let context = context(2);
    let cases = [
        (
            "SELECT gm_moments(x) FROM (VALUES (1), (2), (NULL), (6)) t(x)",
            "| {count: 3, mean: 3.0, stddev_pop: 2.160246899469287, min: 1.0, max: 6.0, max_abs: 6.0, null_count: 1, not_finite_count: 0} |",
        ),
        (
            "SELECT gm_moments(x) FROM (VALUES (true), (false)) t(x)",
            "| {count: 2, mean: 0.5, stddev_pop: 0.5, min: 0.0, max: 1.0, max_abs: 1.0, null_count: 0, not_finite_count: 0} |",
        ),
        (
            "SELECT gm_moments(x) FROM (VALUES (-1.5::DECIMAL(5,2)), (0.5)) t(x)",
            "| {count: 2, mean: -0.5, stddev_pop: 1.0, min: -1.5, max: 0.5, max_abs: 1.5, null_count: 0, not_finite_count: 0} |",
        ),
        (
            "SELECT gm_moments(x) FROM (VALUES ('NaN'::DOUBLE), (2.0)) t(x)",
            "| {count: 2, mean: NaN, stddev_pop: NaN, min: 2.0, max: 2.0, max_abs: 2.0, null_count: 0, not_finite_count: 1} |",
        ),
        (
            "SELECT gm_moments(x) FROM (SELECT 1.0 AS x WHERE false)",
            "| {count: 0, mean: , stddev_pop: , min: , max: , max_abs: , null_count: 0, not_finite_count: 0} |",
        ),
        ("SELECT get_field(gm_moments(x), 'mean') FROM (VALUES (1), (2)) t(x)", "| 1.5"),
        ("SELECT gm_quantiles(x, [0.0, 0.5, 0.9]) FROM (VALUES (4), (1), (NULL)) t(x)", "| [1.0, 2.5, 3.7]"),
        ("SELECT gm_quantiles(x, 0.25) FROM (VALUES (4.0), (1.0)) t(x)", "| [1.75]"),
        ("SELECT gm_quantiles(x, [0.5]) IS NULL FROM (SELECT 1.0 AS x WHERE false)", "| true"),
        (
            "SELECT gm_top_categories(x, 2) FROM (VALUES ('b'), ('c'), ('a'), ('c'), (NULL), ('b'), ('a')) t(x)",
            "| [{value: a, count: 2}, {value: b, count: 2}] |",
        ),
        (
            "SELECT gm_top_categories(x, NULL) FROM (VALUES (7), (12), (7)) t(x)",
            "| [{value: 7, count: 2}, {value: 12, count: 1}] |",
        ),
        ("SELECT gm_top_categories(x, 3) FROM (SELECT 'a' AS x WHERE false)", "| []"),
        ("SELECT gm_moments('a')", "gm_moments takes numbers, got a column of type Utf8"),
        ("SELECT gm_quantiles(x, [0.5, 1.5]) FROM (VALUES (1)) t(x)", "1.5 among the probabilities, expected 0 to 1"),
        ("SELECT gm_quantiles(x, [x]) FROM (VALUES (1)) t(x)", "the array of probabilities must be a constant"),
        ("SELECT gm_top_categories(x, -1) FROM (VALUES (1)) t(x)", "-1 categories, expected a number from 0 on"),
    ];
    for (sql, expected) in cases {
        let got = answer(&context, sql).await;
        assert!(got.contains(expected), "{sql}\n     got {got}\nexpected {expected}");
    }
}

/// Rows that a plain sum would add up differently in every order.
fn rows() -> Vec<RecordBatch> {
    let n = 20_000u64;
    let x: Float64Array = (0..n)
        .map(|i| (i % 31 != 0).then(|| ((i * 7919) % 10_007) as f64 * 10f64.powi((i % 23) as i32 - 9) / 3.0))
        .collect();
    let k: Int32Array = (0..n).map(|i| Some((i % 3) as i32)).collect();
    let s: StringArray = (0..n).map(|i| (i % 17 != 0).then(|| format!("v{}", (i * i) % 97))).collect();
    let columns: [(&str, ArrayRef); 3] = [("x", Arc::new(x)), ("k", Arc::new(k)), ("s", Arc::new(s))];
    let whole = RecordBatch::try_from_iter(columns).unwrap();
    (0..20).map(|i| whole.slice(i * 1000, 1000)).collect()
}

#[tokio::test]
async fn any_partitioning_gives_the_same_answer() {
    let sql = "SELECT gm_moments(x), gm_quantiles(x, [0.01, 0.5, 0.77]), gm_top_categories(s, 5) FROM t";
    let grouped = format!("{sql} GROUP BY k ORDER BY k");
    let mut answers = Vec::new();
    for partitions in [1, 2, 3, 7] {
        let mut batches = rows();
        batches.rotate_left(partitions);
        let parts: Vec<Vec<RecordBatch>> =
            (0..partitions).map(|p| batches.iter().skip(p).step_by(partitions).cloned().collect()).collect();
        let context = context(partitions);
        let table = MemTable::try_new(rows()[0].schema(), parts).unwrap();
        context.register_table("t", Arc::new(table)).unwrap();
        let mut answer: Vec<ArrayRef> = Vec::new();
        for sql in [sql, &grouped] {
            let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
            let batch = datafusion::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
            assert!(batch.columns().iter().all(|column| column.null_count() == 0));
            answer.extend(batch.columns().iter().cloned());
        }
        answers.push(answer);
    }
    for answer in &answers[1..] {
        assert_eq!(answer, &answers[0]);
    }
}
