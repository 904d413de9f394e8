//! `tests/slt/datafusion.md`: what became of every file, on every runner. The test writes it and compares it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::exceptions::Kind;
use super::run::Outcome;
use crate::upstream::REPOSITORY;

const HEAD: &str = "\
# DataFusion's SQL tests on Gristmill

Written by the test `datafusion_slt` (`SLT_COMPLETE=1` writes it anew); do not edit. The files are those of the package `datafusion-sqllogictest` in
the version of our `datafusion`, read where cargo keeps it. Every record is a script for a session as the program makes it. What a record must give is
what DataFusion's file says, with three reservations: an EXPLAIN must answer, but its text is not compared; where an error is expected, any error is right,
because ours are told in other words; on the cluster rows may come in any order where no ORDER BY tells one.

* *passed*: records with DataFusion's answer
* *differs*: records in which Gristmill is meant to be different; *fault*: records in which it is wrong and not mended yet
* *skipped*: records that cannot be run, because they need what DataFusion's packages do not contain

The reasons of *differs* and *fault* are kept in `datafusion_exceptions.tsv`, by line. Files named `.slt.part` are included by others, and counted where they
stand. *local* is a session in one process, *cluster* one whose plans run on two executors. A default run of the test takes every file locally and, so that it stays short,
one file of four and five chosen ones on the cluster; `SLT_EVERYTHING=1` takes all on both, and so did the run that wrote this table.
";

/// The outcomes of a file on one runner.
pub(super) type Outcomes = Vec<(u32, Outcome)>;

/// What one runner gave.
pub(super) struct Column {
    pub(super) runner: &'static str,
    /// The files that were run on it.
    pub(super) ran: Vec<String>,
    pub(super) outcomes: BTreeMap<String, Outcomes>,
}

impl Column {
    fn of(&self, file: &str) -> &[(u32, Outcome)] {
        self.outcomes.get(file).map_or(&[], Vec::as_slice)
    }

    /// Parts are run with the files that include them, and may be included by one that was not run.
    fn knows(&self, file: &str, is_whole: bool) -> bool {
        is_whole || self.ran.iter().any(|ran| ran == file)
    }
}

/// A row: the file, a cell for each runner, the reasons.
type Row = Vec<String>;

fn rows(files: &[String], columns: &[Column]) -> Vec<Row> {
    let row = |file: &String| {
        let cells = columns.iter().map(|column| summary(column.of(file)));
        let reasons: BTreeSet<String> =
            columns.iter().flat_map(|column| column.of(file)).filter_map(|(_, outcome)| reason(outcome)).collect();
        let reasons = reasons.into_iter().collect::<Vec<_>>().join("; ");
        [file.clone()].into_iter().chain(cells).chain([reasons]).collect()
    };
    files.iter().map(row).collect()
}

fn render(columns: &[Column], rows: &[Row]) -> String {
    let runners = columns.iter().map(|column| column.runner).collect::<Vec<_>>().join(" | ");
    let mut text = format!("{HEAD}\n| file | {runners} | why |\n|---|{}\n", "---|".repeat(columns.len() + 1));
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

fn read(text: &str) -> BTreeMap<String, Row> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = lines.map(|line| line.split(" | ").map(|cell| cell.trim().to_string()).collect::<Row>());
    rows.map(|row| (row[0].clone(), row)).collect()
}

/// Writes the table, or says where it is not true; only of files that were run something can be said.
pub(super) fn compare(files: &[String], columns: &[Column], write: bool) -> Vec<String> {
    let rows = rows(files, columns);
    if write {
        std::fs::write(path(), render(columns, &rows)).unwrap();
        return Vec::new();
    }
    let written = read(&std::fs::read_to_string(path()).unwrap_or_default());
    let is_whole: Vec<bool> = columns.iter().map(|column| column.ran.len() == super::tests(files).count()).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let Some(told) = written.get(&row[0]).filter(|told| told.len() == row.len()) else {
            wrong.push(format!("datafusion.md has no row for {}", row[0]));
            continue;
        };
        for (index, column) in
            columns.iter().enumerate().filter(|(index, column)| column.knows(&row[0], is_whole[*index]))
        {
            let (is, said) = (&row[index + 1], &told[index + 1]);
            if is != said {
                wrong.push(format!("datafusion.md: {} on {}: {said}; it is {is}", row[0], column.runner));
            }
        }
        if is_whole.iter().all(|whole| *whole) && row.last() != told.last() {
            wrong.push(format!("datafusion.md gives other reasons for {}", row[0]));
        }
    }
    if !wrong.is_empty() {
        wrong.push("SLT_COMPLETE=1 writes datafusion.md anew".to_string());
    }
    wrong
}

/// `120 passed, 3 skipped`.
fn summary(outcomes: &[(u32, Outcome)]) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Passed => "passed",
        Outcome::Excepted(Kind::Fault, _) => "fault",
        Outcome::Excepted(..) => "differs",
        Outcome::Skipped(_) => "skipped",
        Outcome::Failed(_) => "failed",
        Outcome::Mended => "mended",
    };
    let counts = ["passed", "differs", "fault", "skipped", "failed", "mended"].map(|name| {
        let count = outcomes.iter().filter(|(_, outcome)| word(outcome) == name).count();
        (count > 0).then(|| format!("{count} {name}"))
    });
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    if counts.is_empty() { "-".to_string() } else { counts.join(", ") }
}

fn reason(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Excepted(Kind::Fault, reason) => Some(format!("fault: {reason}")),
        Outcome::Excepted(_, reason) | Outcome::Skipped(reason) => Some(reason.clone()),
        Outcome::Passed | Outcome::Failed(_) | Outcome::Mended => None,
    }
}

/// Where the table is kept.
pub(super) fn path() -> PathBuf {
    Path::new(REPOSITORY).join("tests/slt/datafusion.md")
}
