//! What a file cannot show, because test data are not here or because an earlier statement is meant to do something else:
//! all that builds upon it.

use std::collections::BTreeMap;

/// Tables, views, prepared statements and written places that are not what they should be, each with the reason.
#[derive(Default)]
pub(super) struct Missing {
    names: BTreeMap<String, String>,
    places: BTreeMap<String, String>,
}

impl Missing {
    /// What the statement defines is not what the file believes.
    pub(super) fn spoiled_by(&mut self, sql: &str, reason: &str) {
        self.needed_by(sql, Some(reason.to_string()));
    }

    /// Why the statement cannot be run; `named` is a reason that its own text gives. Remembers what it defines.
    pub(super) fn needed_by(&mut self, sql: &str, named: Option<String>) -> Option<String> {
        let words = words(sql);
        let of_name = || words.iter().find_map(|word| self.names.get(word).cloned());
        let of_place =
            || self.places.iter().find(|(place, _)| sql.contains(place.as_str())).map(|(_, data)| data.clone());
        let needed = named.or_else(of_name).or_else(of_place);
        if let Some(name) = defined(&words) {
            match &needed {
                // Dropping it ends the matter; so does making it of something that is here.
                Some(_) if words[0] == "drop" => self.names.remove(name),
                // What was written into it is lost, and so are all answers that ask for it.
                Some(data) => self.names.insert(name.clone(), data.clone()),
                None => self.names.remove(name),
            };
        }
        if let (Some(data), Some(place)) = (&needed, written(sql)) {
            self.places.insert(place.to_string(), data.clone());
        }
        needed
    }
}

fn words(sql: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    sql.split(|c| !is_part(c)).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// The name that CREATE TABLE, CREATE VIEW, INSERT INTO, PREPARE or DROP is about.
fn defined(words: &[String]) -> Option<&String> {
    const LEADING: [&str; 14] = [
        "create",
        "or",
        "replace",
        "unbounded",
        "external",
        "temporary",
        "table",
        "view",
        "if",
        "not",
        "exists",
        "insert",
        "into",
        "drop",
    ];
    match words.first().map(String::as_str) {
        Some("create" | "insert" | "drop") => words.iter().find(|word| !LEADING.contains(&word.as_str())),
        Some("prepare") => words.get(1),
        Some("select") => words.iter().position(|word| word == "into").and_then(|at| words.get(at + 1)),
        _ => None,
    }
}

/// The place that COPY writes to.
fn written(sql: &str) -> Option<&str> {
    let is_copy = sql.trim_start().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("copy"));
    let (_, rest) = sql.split_once("'test_files/scratch/").filter(|_| is_copy)?;
    rest.split('\'').next()
}

#[test]
fn what_builds_upon_missing_data_needs_them() {
    let mut missing = Missing::default();
    for (sql, named, needed) in [
        ("CREATE TABLE a AS VALUES (1)", false, false),
        ("CREATE EXTERNAL TABLE T STORED AS CSV LOCATION '../x.csv'", true, true),
        ("SELECT * FROM a", false, false),
        ("SELECT * FROM a JOIN t", false, true),
        ("CREATE OR REPLACE VIEW v AS SELECT * FROM t", false, true),
        ("SELECT * FROM v", false, true),
        ("COPY v TO 'test_files/scratch/f/y.csv'", false, true),
        ("SELECT * FROM 'test_files/scratch/f/y.csv'", false, true),
        ("DROP TABLE t", false, true),
        ("CREATE TABLE t AS VALUES (1)", false, false),
        ("SELECT * FROM t", false, false),
    ] {
        let named = named.then(|| "../x.csv".to_string());
        assert_eq!(missing.needed_by(sql, named).is_some(), needed, "{sql}");
    }
}
