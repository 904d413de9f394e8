//! Where mistakes are pointed at: the item of the list that they are in.

use super::*;

/// (TRANSFORM, what the text begins with at the place, part of the message)
const PLACES: &[(&str, &str, &str)] = &[
    ("y, xx + 1 AS z", "xx + 1", "the training query has no column `xx`"),
    ("y,\n  abss(x) AS z, x", "abss(x)", "there is no function `abss`; did you mean `abs`?"),
    ("f(x, (1, 2)) AS a, y", "f(x", "there is no function `f`"),
    ("[x, 1][1] AS a, y, x + 'é' AS é, s || CAST(x AS BLOB) AS c", "x + 'é'", "`x + 'é'`: Cannot coerce"),
    ("y, s LIKE 5 AS a", "s LIKE 5", "There isn't a common type"),
    ("y, s ~ '(' AS a", "s ~ '('", "regex parse error: unclosed group"),
    ("y, date_part('dow', x) AS a", "date_part", "failed to match any signature"),
    ("y, CAST('abc' AS INT) AS a", "CAST('abc'", "Cannot cast string 'abc'"),
    ("y, ML.STANDARD_SCALER(x) AS a", "ML.STANDARD", "OVER () is missing"),
    ("y, x, x", "x", "two features are named `x`"),
    ("x, ML.IMPUTER(y, 'mean') OVER () AS y", "ML.IMPUTER", "cannot be the label `y`"),
    ("x, now() AS t, y", "now()", "gives another value at each call"),
    ("x, sum(x) AS t, y", "sum(x)", "is an aggregate"),
    ("x, (SELECT 1) AS t, y", "(SELECT 1)", "not on a query"),
    ("x, INTERVAL 3 fortnights AS t, y", "fortnights", "there is no unit of time `fortnights`"),
];

#[tokio::test]
async fn mistakes_point_at_their_item() {
    let (frame, _) = rows(&values("x, y, s", "(1.5, 2.0, 'a')")).await;
    let mut wrong = Vec::new();
    for (list, place, expected) in PLACES {
        let error = TransformSpec::parse(list, &schema_of(&frame), &["y".to_owned()]).unwrap_err();
        let at = error.offset().map(|offset| &list[offset..]);
        if !at.is_some_and(|at| at.starts_with(place)) || !message(&error).contains(expected) {
            wrong.push(format!("{list}: {} at {at:?}", message(&error)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
