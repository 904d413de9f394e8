//! Transforms from end to end: rows and a TRANSFORM clause go in, the model's inputs come out.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};

use super::*;

mod earlier;
mod golden;
mod places;
mod speed;
mod sql;
mod target;

use crate::shards::{Block, NO_CATEGORY};

/// A session with everything an extension registers for transforms.
fn context(partitions: usize) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
    crate::function::scalar_functions().iter().for_each(|f| context.register_udf(f.as_ref().clone()));
    context
}

async fn rows(query: &str) -> (DataFrame, RecordBatch) {
    let frame = context(2).sql(query).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.clone().collect().await.unwrap();
    (frame, concat_batches(&schema, &batches).unwrap())
}

fn schema_of(frame: &DataFrame) -> arrow::datatypes::Schema {
    frame.schema().as_arrow().clone()
}

/// `VALUES` as a query: `values("x, y", "(1, 2), (3, 4)")`.
fn values(columns: &str, values: &str) -> String {
    format!("SELECT * FROM (VALUES {values}) AS t({columns})")
}

async fn fitted(frame: &DataFrame, transform: &str, labels: &[&str]) -> engine::Result<FrozenTransform> {
    let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
    TransformSpec::parse(transform, &schema_of(frame), &labels)?.fit(frame, &FitOptions::default()).await
}

/// Rows as text: numbers, then `|` and the index in each group (`-` for none).
fn show(block: &Block, layout: &crate::shards::FeatureLayout) -> Vec<String> {
    block.check(layout).unwrap();
    let row = |i: usize| {
        let numbers = &block.dense[i * layout.dense..(i + 1) * layout.dense];
        let mut text: Vec<String> =
            numbers.iter().map(|x| format!("{}", (f64::from(*x) * 1e4).round() / 1e4 + 0.0)).collect();
        let bag = block.bags.of(i);
        text.extend((0..layout.bag as u32).map(|place| u8::from(bag.contains(&place)).to_string()));
        if !layout.groups.is_empty() {
            let groups = layout.groups.len();
            text.push("|".to_owned());
            text.extend(block.indices[i * groups..(i + 1) * groups].iter().map(|index| match *index {
                NO_CATEGORY => "-".to_owned(),
                index => index.to_string(),
            }));
        }
        text.join(" ")
    };
    (0..block.rows).map(row).collect()
}

fn message(error: &engine::Error) -> String {
    match error {
        engine::Error::Invalid { message, hint: Some(hint), .. } => format!("{message}; {hint}"),
        other => other.to_string(),
    }
}

/// (columns, rows, TRANSFORM, features of each row)
const FEATURES: &[(&str, &str, &str, &[&str])] = &[
    ("x", "(1.0), (2.0), (3.0)", "ML.STANDARD_SCALER(x) OVER ()", &["-1.2247", "0", "1.2247"]),
    ("x", "(1), (NULL), (3)", "ml.standard_scaler(x) over () AS z", &["-1", "0", "1"]),
    ("x", "(5), (5)", "ML.STANDARD_SCALER(x) OVER ()", &["0", "0"]),
    ("x", "(10), (15), (NULL), (20)", "ML.MIN_MAX_SCALER(x) OVER ()", &["0", "0.5", "0.5", "1"]),
    ("x", "(-4.0), (2.0), (NULL)", "ML.MAX_ABS_SCALER(x) OVER ()", &["-1", "0.5", "-0.25"]),
    ("x", "(1), (2), (3), (4), (100)", "ML.ROBUST_SCALER(x) OVER ()", &["-1", "-0.5", "0", "0.5", "48.5"]),
    (
        "x",
        "(1), (2), (3), (4), (5)",
        "ML.ROBUST_SCALER(x, [0, 100], FALSE) OVER ()",
        &["0.25", "0.5", "0.75", "1", "1.25"],
    ),
    ("x", "(1), (3)", "ML.ROBUST_SCALER(x, ARRAY[25, 75], TRUE, FALSE) OVER ()", &["-1", "1"]),
    ("x", "(1.0), (NULL), (4.0)", "ML.IMPUTER(x, 'mean') OVER ()", &["1", "2.5", "4"]),
    ("x", "(1.0), (NULL), (4.0), (7.0)", "ML.IMPUTER(x, 'median') OVER ()", &["1", "4", "4", "7"]),
    ("x", "(2), (NULL), (9), (9), (2)", "ML.IMPUTER(x, 'most_frequent') OVER ()", &["2", "2", "9", "9", "2"]),
    ("s", "('b'), (NULL), ('a'), ('b')", "ML.IMPUTER(s, 'most_frequent') OVER () AS s", &["| 1", "| 1", "| 0", "| 1"]),
    ("x", "(1), (NULL), (4)", "x", &["1", "2.5", "4"]),
    ("x", "(1), (2)", "x * 2 + 1 AS y, x", &["3 1", "5 2"]),
    ("b", "(TRUE), (FALSE), (NULL)", "b", &["| 1", "| 0", "| 2"]),
    ("s", "('b'), ('a'), ('b')", "s", &["| 1", "| 0", "| 1"]),
    // Explicit encoders keep BigQuery's defaults, of which the threshold is 5 rows.
    ("s", "('b'), ('a'), ('b'), (NULL)", "ML.ONE_HOT_ENCODER(s) OVER ()", &["| 1", "| 1", "| 1", "| 0"]),
    (
        "s",
        "('b'), ('a'), ('b'), (NULL), ('c')",
        "ML.ONE_HOT_ENCODER(s, 'none', 2, 0) OVER ()",
        &["| 1", "| 0", "| 1", "| 2", "| 3"],
    ),
    ("s", "('b'), ('a'), ('b')", "ML.ONE_HOT_ENCODER(s, 'most_frequent', 10, 0) OVER ()", &["| -", "| 0", "| -"]),
    ("i", "(10), (9), (10), (-1)", "ML.ONE_HOT_ENCODER(i, 'none', 10, 0) OVER ()", &["| 2", "| 1", "| 2", "| 0"]),
    ("i", "(10), (9), (NULL)", "ML.ONE_HOT_ENCODER(i, 'none', 1, 0) OVER ()", &["| 2", "| 0", "| 1"]),
    ("x", "(10.0), (9.0), (NULL)", "ML.IMPUTER(x, 'most_frequent') OVER ()", &["10", "9", "9"]),
    ("s", "('b'), ('a'), ('b'), (NULL)", "ML.LABEL_ENCODER(s, 10, 0) OVER ()", &["2", "1", "2", "0"]),
    (
        "a",
        "(['x', 'y']), (['y']), (NULL), (['y', 'z', 'y'])",
        "ML.MULTI_HOT_ENCODER(a, 10, 0) OVER ()",
        &["1 1 0", "0 1 0", "0 0 0", "0 1 1"],
    ),
    ("a", "(['x', 'y']), (['y']), (['z', 'y'])", "ML.MULTI_HOT_ENCODER(a, 1, 0) OVER ()", &["1 1", "1 0", "1 1"]),
    ("x", "(0.5), (1.0), (2.5), (NULL)", "ML.BUCKETIZE(x, [1, 2]) AS x", &["| 0", "| 1", "| 2", "| 3"]),
    ("x", "(1), (2), (3), (4)", "ML.QUANTILE_BUCKETIZE(x, 2) OVER () AS x", &["| 0", "| 0", "| 1", "| 1"]),
    ("x", "(3.0), (0.0)", "ML.POLYNOMIAL_EXPAND(STRUCT(x, x + 1 AS y)) AS p", &["3 4 9 12 16", "0 1 0 0 1"]),
    ("a, b", "('u', 1), ('v', 2), (NULL, 1)", "ML.FEATURE_CROSS(STRUCT(a, b)) AS c", &["| 0", "| 1", "| 2"]),
    ("a", "([3.0, 4.0]), ([0.0, 0.0])", "ML.NORMALIZER(a) AS a", &["0.6 0.8", "0 0"]),
    ("a", "([3.0, -5.0]), ([1.0, 1.0])", "ML.NORMALIZER(a, CAST('inf' AS DOUBLE)) AS a", &["0.6 -1", "1 1"]),
    ("a", "([1, 2]), (NULL), ([3, NULL])", "a", &["1 2", "2 2", "3 2"]),
    ("a", "([0, 10]), ([20, 10])", "ML.MIN_MAX_SCALER(a) OVER () AS a", &["0 0.5", "1 0.5"]),
    // Fitted on the results of fitted functions.
    (
        "x",
        "(1), (NULL), (3)",
        "ML.STANDARD_SCALER(ML.IMPUTER(x, 'mean') OVER ()) OVER () AS z",
        &["-1.2247", "0", "1.2247"],
    ),
    (
        "x",
        "(1), (2), (3), (4)",
        "ML.ONE_HOT_ENCODER(ML.QUANTILE_BUCKETIZE(x, 4) OVER (), 'none', 9, 0) OVER () AS q",
        &["| 0", "| 1", "| 2", "| 3"],
    ),
    (
        "x",
        "(1), (NULL), (3)",
        "ML.MAX_ABS_SCALER(ln(1 + ML.IMPUTER(x, 'mean') OVER ())) OVER () AS z, x",
        &["0.5 1", "0.7925 2", "1 3"],
    ),
    (
        "x, s",
        "(1, 'a'), (2, 'a'), (3, 'b'), (4, 'b')",
        "ML.FEATURE_CROSS(STRUCT(ML.QUANTILE_BUCKETIZE(x, 2) OVER () AS q, s)) AS c",
        &["| 0", "| 0", "| 1", "| 1"],
    ),
    ("x, y", "(1, 2), (3, 4)", "* EXCEPT (x)", &["2", "4"]),
    ("x", "(1.0), (NULL)", "COALESCE(x, 5) AS a, NVL(X, 7) AS b", &["1 1", "5 7"]),
    ("x", "(1.0), (NULL)", "ML.MAX_ABS_SCALER(IFNULL(x, 5)) OVER () AS a", &["0.2", "1"]),
    ("x, y", "(1, 2), (3, 4)", "*, x + y AS sum", &["1 2 3", "3 4 7"]),
    ("d", "(DATE '2024-02-29')", "date_part('year', d) AS year, date_part('dow', d) AS dow", &["2024 4"]),
    // Constants come as whatever SQL makes of them: a bound parameter is a CAST.
    (
        "x",
        "(1), (2), (3), (4)",
        "ML.QUANTILE_BUCKETIZE(x, CAST('2' AS BIGINT)) OVER () AS x",
        &["| 0", "| 0", "| 1", "| 1"],
    ),
];

#[tokio::test]
async fn a_transform_gives_these_features() {
    let mut wrong = Vec::new();
    for (columns, data, transform, expected) in FEATURES {
        if let Err(what) = check_features(&values(columns, data), transform, expected).await {
            wrong.push(format!("{transform} of {data}: {what}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn check_features(query: &str, transform: &str, expected: &[&str]) -> Result<(), String> {
    let (frame, batch) = rows(query).await;
    let frozen = fitted(&frame, transform, &[]).await.map_err(|error| message(&error))?;
    let block = frozen.apply(&batch).map_err(|error| message(&error))?;
    let features = show(&block, frozen.layout());
    if features != expected {
        return Err(format!("{features:?}, expected {expected:?}"));
    }
    let layout = frozen.layout();
    // Read back from JSON it computes the same bits, row by row, too.
    let again = FrozenTransform::from_json(&frozen.to_json().unwrap()).map_err(|error| message(&error))?;
    let single: Vec<Block> = (0..batch.num_rows()).map(|i| again.apply(&batch.slice(i, 1)).unwrap()).collect();
    let checks = [
        ("a name for each input", layout.names.len() == layout.dims()),
        ("the same JSON", again.to_json().unwrap() == frozen.to_json().unwrap()),
        ("the same features", again.apply(&batch).unwrap() == block),
        ("the same numbers row by row", single.iter().flat_map(|b| b.dense.clone()).collect::<Vec<_>>() == block.dense),
        (
            "the same groups row by row",
            single.iter().flat_map(|b| b.indices.clone()).collect::<Vec<_>>() == block.indices,
        ),
        ("every row as SQL shows it", frozen.apply_to_batch(&batch).unwrap().num_rows() == batch.num_rows()),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(format!("not {what}")),
        None => Ok(()),
    }
}

/// (columns, rows, TRANSFORM, part of the message)
const ERRORS: &[(&str, &str, &str, &str)] = &[
    (
        "x",
        "(1)",
        "ML.STANDRD_SCALER(x) OVER ()",
        "unknown function ML.STANDRD_SCALER; did you mean ML.STANDARD_SCALER?",
    ),
    ("x", "(1)", "ML.STANDARD_SCALER(x)", "ML.STANDARD_SCALER: OVER () is missing"),
    ("x", "(1)", "ML.STANDARD_SCALER(x) OVER (ORDER BY x)", "its OVER () must be empty"),
    (
        "x",
        "(1)",
        "ML.STANDARD_SCALER(x, 2) OVER ()",
        "expected at most 1 arguments, got 2; write ML.STANDARD_SCALER(x) OVER ()",
    ),
    ("x", "(1)", "ML.STANDARD_SCALER() OVER ()", "ML.STANDARD_SCALER: it needs an argument"),
    ("x", "(1)", "ML.BUCKETIZE(x, [1]) OVER () AS x", "ML.BUCKETIZE is computed row by row: remove OVER ()"),
    ("x", "(1)", "ML.PREDICT(x) AS x", "ML.PREDICT gives a table"),
    ("price", "(1)", "ML.STANDARD_SCALER(prize) OVER ()", "no column `prize`; did you mean `price`?"),
    ("price", "(1)", "prize + 1 AS x", "no column `prize`; did you mean `price`?"),
    ("price", "(1)", "sqrtt(price) AS x", "there is no function `sqrtt`; did you mean `sqrt`?"),
    (
        "s",
        "('a')",
        "ML.STANDARD_SCALER(s) OVER ()",
        "ML.STANDARD_SCALER takes numbers or an array of numbers, but `s` has type Utf8",
    ),
    ("s", "('a')", "ML.QUANTILE_BUCKETIZE(s, 3) OVER ()", "ML.QUANTILE_BUCKETIZE takes numbers, but `s` has type Utf8"),
    ("s", "('a')", "ML.MULTI_HOT_ENCODER(s) OVER ()", "takes an array of plain values, but `s` has type Utf8"),
    ("s", "('a')", "ML.BUCKETIZE(s, [1]) AS x", "ML.BUCKETIZE: the first argument is a number, got type Utf8"),
    ("x", "(1)", "ML.BUCKETIZE(x, [2, 1]) AS x", "the split points must be finite and ascending"),
    ("x", "(1)", "ML.BUCKETIZE(x, [x]) AS x", "must be a constant"),
    ("x", "(1)", "ML.IMPUTER(x, 'men') OVER ()", "the strategy is 'mean', 'median' or 'most_frequent', got 'men'"),
    ("x", "(1)", "ML.IMPUTER(x) OVER ()", "the strategy is missing"),
    ("x", "(1)", "ML.QUANTILE_BUCKETIZE(x, x) OVER ()", "`x` must be a constant"),
    ("x", "(1)", "ML.QUANTILE_BUCKETIZE(x, 1) OVER ()", "the number of buckets is a constant from 2 to 10,000"),
    ("x", "(1)", "ML.ROBUST_SCALER(x, [75, 25]) OVER ()", "an array of two percentages, low before high"),
    (
        "x",
        "(1)",
        "ML.STANDARD_SCALER(ML.ONE_HOT_ENCODER(x) OVER ()) OVER ()",
        "the result of ML.ONE_HOT_ENCODER is a feature",
    ),
    ("x", "(1)", "ML.ONE_HOT_ENCODER(x) OVER () + 1 AS y", "put ML.ONE_HOT_ENCODER outermost"),
    ("x", "(1)", "avg(x) OVER () AS x", "avg(...) OVER is not understood here"),
    ("x", "(1)", "avg(x) AS x", "avg() is an aggregate"),
    ("x", "(1)", "x + random() AS x", "random() gives another value at each call"),
    ("x", "(1)", "(SELECT 1) AS x", "not on a query"),
    ("x", "(1)", "x, x + 1 AS x", "two features are named `x`"),
    ("x", "(1)", "x FROM t", "expected a list of expressions and nothing after it"),
    ("x", "(1)", "x AS", "TRANSFORM: "),
    ("x", "(1)", "* EXCEPT (x)", "the model has no features"),
    ("x", "(1)", "* EXCEPT (y)", "no column `y`"),
    ("x, s", "(1, 'a')", "ML.HASH_BUCKETIZE(s, 0) AS h", "the number of buckets is a constant from 1 to 1,000,000"),
    (
        "x",
        "(1.0), ('nan'::double), ('inf'::double)",
        "ML.STANDARD_SCALER(x) OVER ()",
        "feature column `x` holds 2 values that are NaN or infinite",
    ),
    ("x", "(0.0), (1.0)", "x, ln(x) AS l", "feature column `ln(x)` holds 1 value that is NaN or infinite"),
    ("a", "([1, 2]), ([3])", "a", "feature column `a` holds arrays of different lengths: from 1 to 2 elements"),
    ("a", "([[1], [2]])", "a", "column `a` of type List"),
];

#[tokio::test]
async fn a_wrong_transform_says_what_is_wrong() {
    let mut wrong = Vec::new();
    for (columns, data, transform, expected) in ERRORS {
        let (frame, _) = rows(&values(columns, data)).await;
        match fitted(&frame, transform, &[]).await {
            Ok(_) => wrong.push(format!("{transform}: no error, expected {expected}")),
            Err(error) if message(&error).contains(expected) => {}
            Err(error) => wrong.push(format!("{transform}: {}\n  expected {expected}", message(&error))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// (columns and rows in training, TRANSFORM, columns and rows of prediction, features or message)
const PREDICTIONS: &[(&str, &str, &str, Result<&str, &str>)] = &[
    (
        "SELECT 1.0 AS x UNION ALL SELECT 3.0",
        "ML.STANDARD_SCALER(x) OVER () AS x",
        "SELECT 5 AS x, 'z' AS other",
        Ok("3"),
    ),
    ("SELECT 1.0 AS x", "x", "SELECT 5.0 AS y", Err("feature column `x` is missing from the data")),
    ("SELECT 1.0 AS distance", "distance", "SELECT 5.0 AS Distanz", Err("feature column `distance` is missing")),
    ("SELECT 1.0 AS x", "x", "SELECT '5' AS x", Err("feature column `x` has type Utf8, expected Float64")),
    ("SELECT 1 AS x", "x", "SELECT 5.0 AS x", Ok("5")),
    ("SELECT 1 AS x", "x", "SELECT 5.5 AS x", Ok("5.5")),
    ("SELECT 1 AS x", "x", "SELECT NULL AS x", Ok("1")),
    ("SELECT 1.5 AS x", "x", "SELECT 9007199254740993 AS x", Err("do not fit the expected type Float64 without loss")),
    ("SELECT 'a' AS s", "s", "SELECT 1 AS s", Err("feature column `s` has type Int64, expected Utf8")),
    ("SELECT 'a' AS s", "s", "SELECT arrow_cast('a', 'Dictionary(Int32, Utf8)') AS s", Ok("| 0")),
    ("SELECT 'a' AS s", "s", "SELECT arrow_cast('a', 'LargeUtf8') AS s", Ok("| 0")),
    // What training did not show has no column, whether it showed NULL or not.
    ("SELECT 'a' AS s", "s", "SELECT 'b' AS s", Ok("| -")),
    ("SELECT 'a' AS s UNION ALL SELECT NULL", "s", "SELECT 'b' AS s", Ok("| -")),
    ("SELECT 'a' AS s UNION ALL SELECT NULL", "s", "SELECT NULL AS s", Ok("| 1")),
    ("SELECT 1.0 AS x", "x", "SELECT 'nan'::double AS x", Err("feature `x` holds NaN")),
    (
        "SELECT 1.0 AS x",
        "ML.MIN_MAX_SCALER(x) OVER () AS x",
        "SELECT 'inf'::double AS x",
        Err("feature `x` holds an infinite value"),
    ),
    ("SELECT 1.0 AS x UNION ALL SELECT 2.0", "ML.MIN_MAX_SCALER(x) OVER () AS x", "SELECT 5.0 AS x", Ok("1")),
    ("SELECT 1.0 AS x", "x", "SELECT 1e300 AS x", Err("feature `x` is 1e300 after its transform, which is too large")),
    ("SELECT [1.0, 2.0] AS a", "a", "SELECT [1.0] AS a", Err("feature `a` holds an array of 1 elements, expected 2")),
    ("SELECT [1.0, 2.0] AS a", "a", "SELECT [7, 8] AS a", Ok("7 8")),
    ("SELECT 4 AS x", "10 / x AS y", "SELECT 0 AS x", Err("TRANSFORM: `10 / x`: Divide by zero")),
];

#[tokio::test]
async fn prediction_data_fits_or_says_why_not() {
    let mut wrong = Vec::new();
    for (training, transform, prediction, expected) in PREDICTIONS {
        let (frame, _) = rows(training).await;
        let frozen = fitted(&frame, transform, &[]).await.unwrap_or_else(|e| panic!("{transform}: {}", message(&e)));
        let (_, batch) = rows(prediction).await;
        match (frozen.apply(&batch), expected) {
            (Ok(block), Ok(expected)) if show(&block, frozen.layout()) == [*expected] => {}
            (Err(error), Err(expected)) if message(&error).contains(expected) => {}
            (Ok(block), expected) => {
                wrong.push(format!("{prediction}: {:?}, expected {expected:?}", show(&block, frozen.layout())));
            }
            (Err(error), expected) => wrong.push(format!("{prediction}: {}, expected {expected:?}", message(&error))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const EVERYTHING: &str = "
    ML.STANDARD_SCALER(x) OVER () AS a, ML.MIN_MAX_SCALER(x) OVER () AS b, ML.ROBUST_SCALER(x) OVER () AS c,
    ML.IMPUTER(n, 'median') OVER () AS d, ML.IMPUTER(n, 'most_frequent') OVER () AS e, n + x AS f,
    ML.ONE_HOT_ENCODER(s, 'none', 7) OVER () AS g, ML.LABEL_ENCODER(s) OVER () AS h, s,
    ML.QUANTILE_BUCKETIZE(x, 10) OVER () AS i, ML.HASH_BUCKETIZE(s, 16) AS j,
    ML.STANDARD_SCALER(ln(1 + ML.MIN_MAX_SCALER(x) OVER ())) OVER () AS k, t, [x, x * x] AS l,
    ML.MULTI_HOT_ENCODER([s, 's1'], 5) OVER () AS m";

const EVERYTHING_ROWS: &str =
    "SELECT i, sin(i) * pow(10.0, i % 7) AS x, CASE WHEN i % 11 = 0 THEN NULL ELSE i % 37 END AS n,
    CASE WHEN i % 13 = 0 THEN NULL ELSE concat('s', CAST((i * i) % 17 AS VARCHAR)) END AS s,
    to_timestamp(1700000000 + i * 3571) AS t FROM generate_series(1, 5000) AS g(i)";

/// The same rows, dealt out to several partitions in another order.
async fn dealt(batch: &RecordBatch, partitions: usize) -> DataFrame {
    let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
    for first in (0..batch.num_rows()).step_by(97) {
        let part = (first * 31 / 97) % partitions;
        parts[part].insert(0, batch.slice(first, 97.min(batch.num_rows() - first)));
    }
    let table = MemTable::try_new(batch.schema(), parts).unwrap();
    context(partitions).read_table(Arc::new(table)).unwrap()
}

#[tokio::test]
async fn statistics_do_not_depend_on_partitions() {
    let (frame, batch) = rows(EVERYTHING_ROWS).await;
    let one = fitted(&frame, EVERYTHING, &[]).await.unwrap_or_else(|e| panic!("{}", message(&e)));
    for partitions in [1, 3, 8] {
        let many = fitted(&dealt(&batch, partitions).await, EVERYTHING, &[]).await.unwrap();
        assert_eq!(many.to_json().unwrap(), one.to_json().unwrap(), "{partitions} partitions");
    }
    let whole = one.apply(&batch).unwrap();
    let mut parts = Block::default();
    for first in (0..batch.num_rows()).step_by(1237) {
        let part = one.apply(&batch.slice(first, 1237.min(batch.num_rows() - first))).unwrap();
        parts.rows += part.rows;
        parts.dense.extend(part.dense);
        parts.indices.extend(part.indices);
        part.bags.borrowed(0..part.rows).iter().for_each(|places| parts.bags.push(places.iter().copied()));
        parts.labels.extend(part.labels);
        parts.weights.extend(part.weights);
    }
    assert_eq!(parts, whole);
}

#[tokio::test]
async fn without_a_transform_features_follow_from_types() {
    let query = "SELECT * FROM (VALUES
        (1.0, 10, 'a', TRUE,  TIMESTAMP '2024-01-01T06:30:00', DATE '2024-01-01', [1.0, 2.0], ['p'],      1),
        (3.0, 20, 'b', FALSE, TIMESTAMP '2024-03-02T18:30:00', DATE '2024-01-03', [3.0, 4.0], ['p', 'q'], 0)
        ) AS t(x, i, s, b, ts, d, arr, tags, y)";
    let (frame, batch) = rows(query).await;
    let labels = ["y".to_owned()];
    let spec = TransformSpec::automatic(&schema_of(&frame), &labels, AutomaticOptions::default()).unwrap();
    let frozen = spec.fit(&frame, &FitOptions::default()).await.unwrap();
    let names = "x i ts.epoch ts.year ts.month ts.day ts.day_of_week ts.hour ts.minute \
                 d.epoch d.year d.month d.day d.day_of_week arr[0] arr[1] tags=p tags=q s=a s=b b=false b=true";
    assert_eq!(frozen.layout().names.join(" "), names.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(
        show(&frozen.apply(&batch).unwrap(), frozen.layout()),
        [
            "-1 -1 -1 0 -1 -1 -1 -1 0 -1 0 0 -1 -1 -1.3416 -0.4472 1 0 | 0 1",
            "1 1 1 0 1 1 1 1 0 1 0 0 1 1 0.4472 1.3416 1 1 | 1 0"
        ]
    );
    let inputs: Vec<&str> = frozen.feature_inputs().map(|input| input.name.as_str()).collect();
    assert_eq!(inputs, ["x", "i", "s", "b", "ts", "d", "arr", "tags"]);
    let label = frozen.apply_labels(&batch).unwrap().remove(0);
    assert_eq!(label.data_type(), &arrow::datatypes::DataType::Int64);
    let info = frozen.feature_info();
    assert_eq!(info.iter().map(|row| row.input.as_str()).collect::<Vec<_>>(), inputs);
    assert_eq!((info[0].min, info[0].max, info[0].mean, info[0].median), (Some(1.0), Some(3.0), Some(2.0), Some(2.0)));
    assert_eq!((info[2].category_count, info[6].dimension), (Some(2), Some(2)));
}

#[tokio::test]
async fn category_encodings_without_a_transform() {
    let (frame, batch) = rows(&values("s", "('b'), ('a'), ('b')")).await;
    for (categories, expected) in [
        (CategoryEncoding::OneHot, ["| 1", "| 0", "| 1"]),
        (CategoryEncoding::Dummy, ["| -", "| 0", "| -"]),
        (CategoryEncoding::Label, ["2", "1", "2"]),
    ] {
        let options = AutomaticOptions { categories, ..AutomaticOptions::default() };
        let spec = TransformSpec::automatic(&schema_of(&frame), &[], options).unwrap();
        let frozen = spec.fit(&frame, &FitOptions::default()).await.unwrap();
        assert_eq!(show(&frozen.apply(&batch).unwrap(), frozen.layout()), expected, "{categories:?}");
    }
}

#[tokio::test]
async fn the_label_stays_in_the_list() {
    let (frame, batch) = rows(&values("delay, x", "(20, 1), (5, 2), (30, 3)")).await;
    let frozen = fitted(&frame, "delay > 15 AS late, x", &["late"]).await.unwrap();
    let inputs = |inputs: Vec<&InputColumn>| inputs.into_iter().map(|i| i.name.clone()).collect::<Vec<_>>().join(" ");
    assert_eq!(inputs(frozen.feature_inputs().collect()), "x");
    assert_eq!(inputs(frozen.label_inputs().collect()), "delay");
    let late = frozen.apply_labels(&batch).unwrap().remove(0);
    assert_eq!(late.as_ref(), &arrow::array::BooleanArray::from(vec![true, false, true]));
    let (_, new) = rows("SELECT 4 AS x").await;
    assert_eq!(show(&frozen.apply(&new).unwrap(), frozen.layout()), ["4"]);

    for (transform, expected) in [
        ("x", "TRANSFORM: the label `late` is not in the list"),
        (
            "ML.IMPUTER(delay, 'mean') OVER () AS late, x",
            "`ML.IMPUTER(delay)` cannot be the label `late`: rows without a label are left out",
        ),
        ("delay AS late, x > 1 AS late, x", "the label `late` is listed twice"),
    ] {
        let error = fitted(&frame, transform, &["late"]).await.unwrap_err();
        assert!(message(&error).contains(expected), "{}", message(&error));
    }
    let error =
        TransformSpec::automatic(&schema_of(&frame), &["dely".into()], AutomaticOptions::default()).unwrap_err();
    assert!(message(&error).contains("no label column `dely`; did you mean `delay`?"));
}

/// (rows of the label, task, classes or message)
const LABELS: &[(&str, LabelTask, Result<&str, &str>)] = &[
    ("('b'), ('a'), ('b')", LabelTask::Classification, Ok("a b")),
    ("(10), (9), (10)", LabelTask::Classification, Ok("9 10")),
    ("(TRUE), (FALSE), (NULL)", LabelTask::Classification, Ok("false true")),
    ("(1.5), (2.5)", LabelTask::Regression, Ok("")),
    ("(1.5), (2.5)", LabelTask::Classification, Err("classes are strings, integers or booleans")),
    ("('a'), ('b')", LabelTask::Regression, Err("label column `y` has type Utf8: a regressor predicts numbers")),
    ("('a'), ('a')", LabelTask::Classification, Err("label column `y` is 'a' in all 2 training rows")),
    ("(7), (7), (NULL)", LabelTask::Regression, Err("label column `y` is 7 in all 2 training rows")),
    ("(CAST(NULL AS BIGINT)), (NULL)", LabelTask::Regression, Err("label column `y` is NULL in all 2 training rows")),
    ("(1.0), ('nan'::double)", LabelTask::Regression, Err("label column `y` holds 1 value that is NaN or infinite")),
];

#[tokio::test]
async fn labels_are_classes_or_numbers() {
    for (data, task, expected) in LABELS {
        let (frame, batch) = rows(&values("y", data)).await;
        let spec = TransformSpec::automatic(
            &schema_of(&rows("SELECT 1 AS x, 2 AS y").await.0),
            &["y".into()],
            AutomaticOptions::default(),
        );
        let expr = spec.unwrap().label("y").unwrap().base;
        let data_type = batch.column(0).data_type().clone();
        match (LabelEncoding::fit(&frame, "y", expr, &data_type, *task).await, expected) {
            (Ok(label), Ok(classes)) => {
                let encoding = &label.encoding;
                assert_eq!(encoding.classes().unwrap_or_default().join(" "), *classes, "{data}");
                let known =
                    arrow::compute::filter_record_batch(&batch, &arrow::compute::is_not_null(batch.column(0)).unwrap());
                let known: ArrayRef = known.unwrap().column(0).clone();
                let codes = encoding.encode(&known).unwrap();
                if encoding.classes().is_some() {
                    let indices: Vec<u32> = codes.iter().map(|code| *code as u32).collect();
                    assert_eq!(&encoding.decode(&indices).unwrap(), &known, "{data}");
                }
                assert_eq!(label.nulls as usize, batch.num_rows() - known.len());
                assert_eq!(label.warning.is_some(), label.nulls > 0);
                let json = serde_json::to_string(encoding).unwrap();
                assert_eq!(&serde_json::from_str::<LabelEncoding>(&json).unwrap(), encoding);
            }
            (Err(error), Err(expected)) => {
                assert!(message(&error).contains(expected), "{data}: {}", message(&error));
            }
            (got, expected) => panic!("{data}: {got:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_label_of_too_many_classes_or_an_unknown_one() {
    let (frame, batch) = rows("SELECT i AS y FROM generate_series(1, 10000) AS g(i)").await;
    let y = planning::column("y");
    let data_type = batch.column(0).data_type().clone();
    let error = LabelEncoding::fit(&frame, "y", y.clone(), &data_type, LabelTask::Classification).await.unwrap_err();
    assert!(message(&error).contains("label column `y` has 10000 classes, at most 1000"), "{}", message(&error));

    let few = frame.filter(y.clone().lt(datafusion::logical_expr::lit(4))).unwrap();
    let label = LabelEncoding::fit(&few, "y", y, &data_type, LabelTask::Classification).await.unwrap();
    assert_eq!(label.encoding.class_counts().unwrap(), [1, 1, 1]);
    let error = label.encoding.encode(&batch.column(0).slice(2, 2)).unwrap_err();
    assert!(message(&error).contains("holds '4', which is none of the 3 classes"), "{}", message(&error));
}
