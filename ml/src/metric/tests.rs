//! The metrics against scikit-learn's on the same predictions (tests/golden/metrics.py), and their freedom of order.

use serde_json::Value;

use super::*;

fn golden(kind: &str) -> Vec<Value> {
    let text = include_str!("../../../tests/golden/metrics.json");
    let all: Value = serde_json::from_str(text).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn numbers(case: &Value, name: &str) -> Vec<f64> {
    case[name].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(case: &Value, name: &str, got: f64) {
    let expected = case[name].as_f64().unwrap_or_else(|| panic!("{name} of {}", case["name"]));
    assert!(
        (got - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{}: {name} {got}, expected {expected}",
        case["name"]
    );
}

#[test]
fn classifiers_as_scikit_learn() {
    for case in golden("classification") {
        let labels: Vec<usize> = numbers(&case, "labels").iter().map(|x| *x as usize).collect();
        let mut metrics = ClassificationMetrics::new(case["classes"].as_u64().unwrap() as usize);
        metrics.update(&labels, &numbers(&case, "probabilities")).unwrap();
        let threshold = case["threshold"].as_f64().unwrap();
        let report = metrics.finish(threshold).unwrap();
        close(&case, "precision", report.precision);
        close(&case, "recall", report.recall);
        close(&case, "accuracy", report.accuracy);
        close(&case, "f1_score", report.f1_score);
        close(&case, "log_loss", report.log_loss);
        close(&case, "roc_auc", report.roc_auc.unwrap());
        let confusion: Vec<f64> = metrics.confusion(threshold).iter().map(|n| *n as f64).collect();
        assert_eq!(confusion, numbers(&case, "confusion"), "{}", case["name"]);
        if let Some(expected) = case["roc_curve"].as_array() {
            let curve = metrics.roc_curve();
            let thresholds: Vec<f64> = curve.iter().map(|point| point.threshold).rev().collect();
            assert_eq!(metrics.roc_curve_at(&thresholds), curve, "at its own thresholds it is the same");
            assert_eq!(curve.len(), expected.len());
            for (point, expected) in curve.iter().zip(expected) {
                let got = [point.threshold, point.recall, point.false_positive_rate];
                for (a, b) in got.iter().zip(expected.as_array().unwrap()) {
                    assert!((a - b.as_f64().unwrap()).abs() < 1e-12, "{point:?}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn regressors_as_scikit_learn() {
    for case in golden("regression") {
        let mut metrics = RegressionMetrics::new();
        metrics.update(&numbers(&case, "labels"), &numbers(&case, "predictions")).unwrap();
        let report = metrics.finish().unwrap();
        close(&case, "mean_absolute_error", report.mean_absolute_error);
        close(&case, "mean_squared_error", report.mean_squared_error);
        close(&case, "median_absolute_error", report.median_absolute_error);
        close(&case, "r2_score", report.r2_score.unwrap_or(f64::NAN));
        close(&case, "explained_variance", report.explained_variance.unwrap_or(f64::NAN));
        match report.mean_squared_log_error {
            Some(value) => close(&case, "mean_squared_log_error", value),
            None => assert!(case["mean_squared_log_error"].is_null()),
        }
    }
}

#[test]
fn any_partitioning_gives_the_same_bytes() {
    let n = 3000usize;
    let draw = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1009) as f64;
    for classes in [2, 3] {
        let labels: Vec<usize> = (0..n).map(|i| (i * i) % classes).collect();
        let probabilities: Vec<f64> = (0..n)
            .flat_map(|i| {
                let scores: Vec<f64> = (0..classes).map(|c| 1.0 + draw(i, c)).collect();
                let sum: f64 = scores.iter().sum();
                scores.into_iter().map(move |s| s / sum).collect::<Vec<_>>()
            })
            .collect();
        let metrics = |rows: std::ops::Range<usize>| {
            let mut metrics = ClassificationMetrics::new(classes);
            metrics.update(&labels[rows.clone()], &probabilities[rows.start * classes..rows.end * classes]).unwrap();
            metrics
        };
        let whole = metrics(0..n);
        for cuts in [vec![0, n], vec![0, 1, n], vec![0, 10, 700, 701, 2999, n]] {
            let mut merged = ClassificationMetrics::new(classes);
            for pair in cuts.windows(2).rev() {
                let part = metrics(pair[0]..pair[1]).to_bytes();
                merged.merge(&ClassificationMetrics::read(&mut part.as_slice()).unwrap()).unwrap();
            }
            assert_eq!(merged.to_bytes(), whole.to_bytes());
        }
    }
    let y: Vec<f64> = (0..n).map(|i| draw(i, 1) / 7.0 - 20.0).collect();
    let p: Vec<f64> = (0..n).map(|i| draw(i, 2) / 3.0 - 9.0).collect();
    let metrics = |rows: std::ops::Range<usize>| {
        let mut metrics = RegressionMetrics::new();
        metrics.update(&y[rows.clone()], &p[rows]).unwrap();
        metrics
    };
    let mut merged = metrics(2000..n);
    merged.merge(&RegressionMetrics::read(&mut metrics(0..300).to_bytes().as_slice()).unwrap());
    merged.merge(&metrics(300..2000));
    assert_eq!(merged.to_bytes(), metrics(0..n).to_bytes());
    assert_eq!(merged.finish(), metrics(0..n).finish());
}

#[test]
fn wrong_rows_are_refused() {
    let mut metrics = ClassificationMetrics::new(3);
    let cases: [(&[usize], &[f64], &str); 3] = [
        (&[0], &[0.5, 0.5], "2 probabilities for 1 rows of 3 classes"),
        (&[3], &[0.5, 0.5, 0.0], "a label of class 3, expected one of 3 classes"),
        (&[0], &[f64::NAN, 0.5, 0.0], "a probability of NaN"),
    ];
    for (labels, probabilities, expected) in cases {
        let error = metrics.update(labels, probabilities).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(metrics.finish(0.5), None);
    assert!(metrics.merge(&ClassificationMetrics::new(2)).is_err());
    assert!(RegressionMetrics::new().update(&[1.0], &[]).is_err());
    assert_eq!(RegressionMetrics::new().finish(), None);
}

#[tokio::test]
async fn answers_in_sql() {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    let context = datafusion::prelude::SessionContext::new();
    aggregates().into_iter().for_each(|function| context.register_udaf(function.as_ref().clone()));
    let two = "(VALUES (0, 0.25), (1, 0.75), (1, 0.5), (0, 0.75), (NULL, 0.1), (1, NULL)) t(y, p)";
    let three = "(VALUES (0, [0.5, 0.25, 0.25]), (2, [0.25, 0.5, 0.25]), (1, [0.25, 0.5, 0.25])) t(y, p)";
    let cases = [
        (
            format!("SELECT gm_evaluate_classifier(y, p) FROM {two}"),
            "precision: 0.6666666666666666, recall: 1.0, accuracy: 0.75, f1_score: 0.8, log_loss: 0.6637",
        ),
        (
            format!("SELECT get_field(gm_evaluate_classifier(y, [1 - p, p]), 'roc_auc') FROM {two} WHERE p > 0"),
            "| 0.625",
        ),
        (format!("SELECT get_field(gm_evaluate_classifier(y, p, 0.7), 'recall') FROM {two}"), "| 0.5"),
        (format!("SELECT gm_evaluate_classifier(y, p) IS NULL FROM {two} WHERE y > 5"), "| true"),
        (format!("SELECT gm_confusion(y, p) FROM {two}"), "| [[1, 1], [0, 2]] "),
        (
            format!("SELECT gm_confusion(y, arrow_cast(p, 'List(Float32)')) FROM {three}"),
            "| [[1, 0, 0], [0, 1, 0], [0, 1, 0]] ",
        ),
        (
            format!("SELECT gm_roc_curve(y, p) FROM {two}"),
            "| [{threshold: 0.75, recall: 0.5, false_positive_rate: 0.5, true_positives: 1, false_positives: 1, true_negatives: 1, false_negatives: 1}, {threshold: 0.5, ",
        ),
        (
            format!("SELECT gm_roc_curve(y, p, [0.6, 0.0, 0.9]) FROM {two}"),
            "| [{threshold: 0.9, recall: 0.0, false_positive_rate: 0.0, true_positives: 0, false_positives: 0, true_negatives: 2, false_negatives: 2}, {threshold: 0.6, recall: 0.5, false_positive_rate: 0.5, true_positives: 1, false_positives: 1, true_negatives: 1, false_negatives: 1}, {threshold: 0.0, recall: 1.0, ",
        ),
        (
            "SELECT gm_evaluate_regressor(y, p) FROM (VALUES (1, 2.0), (3, 3.5), (-2, NULL)) t(y, p)".into(),
            "| {mean_absolute_error: 0.75, mean_squared_error: 0.625, mean_squared_log_error: 0.08913739869079913",
        ),
        ("SELECT gm_confusion(0, 1.5)".into(), "gm_confusion: a probability of 1.5, expected 0 to 1"),
        ("SELECT gm_confusion(4, [0.5, 0.5])".into(), "gm_confusion: a label of class 4, expected one of 2 classes"),
        ("SELECT gm_confusion(-1, 0.5)".into(), "a label of class -1, expected one from 0 on"),
        ("SELECT gm_confusion(1, 'a')".into(), "takes a probability or an array of them, got a column of type Utf8"),
        (
            "SELECT gm_roc_curve(1, 0.5, 0.5)".into(),
            "gm_roc_curve takes a label, probabilities and an array of thresholds, got 3 arguments",
        ),
        (
            "SELECT gm_confusion(y, p) FROM (VALUES (0, [0.5, 0.5]), (0, [0.5, 0.25, 0.25])) t(y, p)".into(),
            "gm_confusion: a row of 3 probabilities after one of 2",
        ),
    ];
    for (sql, expected) in cases {
        let batches = match context.sql(&sql).await {
            Ok(frame) => frame.collect().await,
            Err(error) => Err(error),
        };
        let got = batches.map_or_else(|e| e.strip_backtrace(), |b| pretty_format_batches(&b).unwrap().to_string());
        assert!(got.contains(expected), "{sql}\n     got {got}\nexpected {expected}");
    }
}
