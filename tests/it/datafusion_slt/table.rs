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
what DataFusion's file says, with two reservations: an EXPLAIN must answer, but its text is not compared; where an error is expected, any error is right,
because ours are told in other words.

* *passed*: records with DataFusion's answer
* *differs*: records in which Gristmill is meant to be different; *fault*: records in which it is wrong and not mended yet
* *skipped*: records that cannot be run, because they need what DataFusion's packages do not contain

The reasons of *differs* and *fault* are kept in `datafusion_exceptions.tsv`, by line. Files named `.slt.part` are included by others, and counted where they
stand.
";

/// The outcomes of a file on one runner.
pub(super) type Outcomes = Vec<(u32, Outcome)>;

/// The table. `columns` are the runners, each with what it gave.
pub(super) fn render(files: &[String], columns: &[(&str, BTreeMap<String, Outcomes>)]) -> String {
    let mut text = format!("{HEAD}\n| file |");
    for (runner, _) in columns {
        write!(text, " {runner} |").unwrap();
    }
    text.push_str(" why |\n|---|");
    text.push_str(&"---|".repeat(columns.len() + 1));
    text.push('\n');
    for file in files {
        write!(text, "| {file} |").unwrap();
        let mut reasons = BTreeSet::new();
        for (_, outcomes) in columns {
            let outcomes = outcomes.get(file).map_or(&[] as &[_], Vec::as_slice);
            write!(text, " {} |", summary(outcomes)).unwrap();
            reasons.extend(outcomes.iter().filter_map(|(_, outcome)| reason(outcome)));
        }
        writeln!(text, " {} |", reasons.into_iter().collect::<Vec<_>>().join("; ")).unwrap();
    }
    text
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
