//! The scalar functions in ordinary SQL.

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::*;

/// (expression, its value)
const SCALARS: &[(&str, &str)] = &[
    ("ML.BUCKETIZE(2.5, [1, 2, 3])", "bin_3"),
    ("ml.bucketize(0, [1, 2, 3])", "bin_1"),
    ("ml_bucketize(3, [1, 2, 3])", "bin_4"),
    ("ML.BUCKETIZE(2.5, [1, 2, 3], TRUE)", "bin_2"),
    ("ML.BUCKETIZE(2.5, [1, 2.5, 3], FALSE, 'bucket_ranges')", "[2.5, 3)"),
    ("ML.BUCKETIZE(0, [1, 2], 'bucket_ranges')", "(-inf, 1)"),
    ("ML.BUCKETIZE(9, [1, 2], 'bucket_ranges')", "[2, +inf)"),
    ("ML.BUCKETIZE(9, [1, 2], 'bucket_ranges_json')", r#"{"start": "2", "end": "+Infinity"}"#),
    ("ML.BUCKETIZE(CAST(NULL AS DOUBLE), [1, 2])", ""),
    ("ML.HASH_BUCKETIZE('UA', 10) = ML.HASH_BUCKETIZE('UA', 10)", "true"),
    ("ML.HASH_BUCKETIZE('UA', 10) BETWEEN 0 AND 9", "true"),
    ("ML.HASH_BUCKETIZE('', 0)", "3244421341483603138"),
    ("ML.FEATURE_CROSS(STRUCT('a' AS x, 1 AS y, 'c' AS z), 3)", "{x_y: a_1, x_z: a_c, y_z: 1_c, x_y_z: a_1_c}"),
    ("ML.POLYNOMIAL_EXPAND(STRUCT(2 AS x, 5 AS y))", "{x: 2.0, y: 5.0, x_x: 4.0, x_y: 10.0, y_y: 25.0}"),
    ("ML.NORMALIZER([3, 4])", "[0.6, 0.8]"),
    ("ML.NORMALIZER([1, -3], 1)", "[0.25, -0.75]"),
    ("ML.NGRAMS(['a', 'b', 'c'], [1, 2])", "[a, a b, b, b c, c]"),
    ("ML.NGRAMS(['a', 'b', 'c'], [2, 2], '#')", "[a#b, b#c]"),
    ("ML.NGRAMS(['a'], [2])", "[]"),
];

#[tokio::test]
async fn scalar_functions_work_in_ordinary_sql() {
    let context = context(2);
    for (expression, expected) in SCALARS {
        let query = format!("SELECT {expression} AS v");
        let batches = context.sql(&query).await.unwrap_or_else(|e| panic!("{e}")).collect().await;
        let batches = batches.unwrap_or_else(|e| panic!("{expression}: {e}"));
        let format = FormatOptions::default();
        let text = ArrayFormatter::try_new(batches[0].column(0), &format).unwrap().value(0).to_string();
        assert_eq!(&text, expected, "{expression}");
    }
}

#[tokio::test]
async fn scalar_functions_work_over_columns() {
    let query =
        "SELECT ML.BUCKETIZE(x, [2, 4]) AS b, count(*) AS n FROM generate_series(1, 5) AS g(x) GROUP BY 1 ORDER BY 1";
    let batches = context(2).sql(query).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    let rows: Vec<&str> = shown.lines().filter(|line| line.contains("bin_")).collect();
    assert_eq!(rows, ["| bin_1 | 1 |", "| bin_2 | 2 |", "| bin_3 | 2 |"]);
}

/// (expression over a column x, part of the message)
const WRONG: &[(&str, &str)] = &[
    ("ML.BUCKETIZE(x, [1, 2], 7)", "output_format is a string, got 7"),
    ("ML.BUCKETIZE('a', [1, 2])", "the first argument is a number, got type Utf8"),
    ("ML.BUCKETIZE(x, [x])", "every argument after the first must be a constant"),
    ("ML.BUCKETIZE(x, [2, 1])", "the split points must be finite and ascending"),
    ("ML.HASH_BUCKETIZE('a', -1)", "the number of buckets is a whole number from 0 on, got -1"),
    ("ML.FEATURE_CROSS(x)", "the first argument is a STRUCT, got type Int64"),
    ("ML.NORMALIZER(x)", "the first argument is an array of numbers"),
    ("ML.NORMALIZER([x], 0.5)", "p is a number from 1 on, got 0.5"),
    ("ML.NGRAMS(['a'], [3, 1])", "the range is a length or two, low before high"),
    ("ML.BUCKETISE(x, [1])", "Invalid function"),
];

#[tokio::test]
async fn wrong_calls_say_what_is_wrong() {
    let context = context(2);
    let mut wrong = Vec::new();
    for (expression, expected) in WRONG {
        let query = format!("SELECT {expression} AS v FROM generate_series(1, 3) AS g(x)");
        let error = match context.sql(&query).await {
            Ok(frame) => frame.collect().await.err().map(|e| e.to_string()),
            Err(error) => Some(error.to_string()),
        };
        match error {
            Some(error) if error.contains(expected) => {}
            other => wrong.push(format!("{expression}: {other:?}, expected {expected}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
