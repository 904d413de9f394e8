//! Models that are made, and not to be trusted: the warning that says so.

use crate::program::Place;

/// What is said while a model is made of a query.
fn said(options: &str, query: &str) -> String {
    let place = Place::new();
    let script = format!("CREATE MODEL m OPTIONS (input_label_cols = ['y'], {options}) AS {query}");
    place.ok(&["-c", &script]).stderr
}

#[test]
fn classes_that_are_told_apart_without_error_have_no_finite_weights() {
    let halves = "SELECT CASE WHEN i % 2 = 0 THEN -1 ELSE 1 END * (0.3 + abs(sin(i * 1.0))) AS x, i % 2 AS y \
                  FROM generate_series(1, 200) AS s(i)";
    let of_one_kind = "SELECT CASE WHEN i % 5 = 0 THEN 'all' ELSE 'some' END AS x, \
                       CASE WHEN i % 5 = 0 THEN 1 ELSE i % 2 END AS y FROM generate_series(1, 200) AS s(i)";
    let overlapping = "SELECT i % 2 + 2 * sin(i * i * 1.0) AS x, i % 2 AS y FROM generate_series(1, 200) AS s(i)";
    for (options, query, expected) in [
        ("model_type = 'logistic_reg', calculate_p_values = TRUE", halves, true),
        ("model_type = 'logistic_reg', l2_reg = 0", halves, true),
        ("model_type = 'logistic_reg', l2_reg = 0", of_one_kind, true),
        ("model_type = 'logistic_reg'", halves, false),
        ("model_type = 'logistic_reg', l2_reg = 0", overlapping, false),
    ] {
        let said = said(options, query);
        assert_eq!(said.contains("tell some classes of y apart without error"), expected, "{options}: {said}");
    }
}

#[test]
fn a_model_that_is_worse_than_none_says_so() {
    let rows = |label: &str| {
        format!("SELECT sin(i * i * 1.0) AS x, i % 3 = 0 AS held, {label} AS y FROM generate_series(1, 300) AS s(i)")
    };
    let split = "data_split_method = 'CUSTOM', data_split_col = 'held'";
    // What is held out is otherwise than what trains.
    let moved = rows("CASE WHEN i % 3 = 0 THEN 50.0 + sin(i * 1.0) ELSE sin(i * 1.0) END");
    let turned = rows("CASE WHEN i % 3 = 0 THEN CAST(i % 10 = 0 AS INT) ELSE CAST(i % 10 <> 0 AS INT) END");
    let explained = rows("sin(i * i * 1.0) * 3");
    for (kind, query, expected) in
        [("linear_reg", &moved, "worse than its mean"), ("logistic_reg", &turned, "worse than its most frequent class")]
    {
        let said = said(&format!("model_type = '{kind}', {split}"), query);
        assert!(said.contains(expected), "{kind}: {said}");
    }
    let said = said(&format!("model_type = 'linear_reg', {split}"), &explained);
    assert!(!said.contains("worse than"), "{said}");
}
