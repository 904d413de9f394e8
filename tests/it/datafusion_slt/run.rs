//! Runs one file, record by record, and tells what became of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::Session;
use sqllogictest::{
    ExpectedError, MakeConnection, QueryExpect, Record, Runner, StatementExpect, strict_column_validator,
};

use super::engine::{Connection, Engine, Told, begins_with};
use super::exceptions::{Exceptions, Kind as ExceptionKind};
use super::missing::Missing;
use super::place::Place;
use super::setup;
use super::text::Kind;
use crate::upstream::package;

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The answer is DataFusion's; an EXPLAIN answered, whatever it said.
    Passed,
    Skipped(String),
    /// It is listed as an exception, and is one.
    Excepted(ExceptionKind, String),
    /// It is no listed exception; the whole message.
    Failed(String),
    /// It is listed as an exception, and is none.
    Mended,
}

/// A record's place: file below `test_files/`, line.
pub(super) type At = (String, u32);

/// The outcomes of a file's records, those of the parts that it includes among them.
pub(super) async fn run_file(
    engine: &Engine,
    place: &Arc<Place>,
    exceptions: &Exceptions,
    file: &str,
) -> Vec<(At, Outcome)> {
    let suite = package("datafusion-sqllogictest").join("test_files");
    let records = sqllogictest::parse_file::<Kind>(suite.join(file)).unwrap();
    let session = match engine.session(place, false).await {
        Ok(session) => session,
        Err(error) => return vec![((file.to_string(), 1), Outcome::Failed(error.to_string()))],
    };
    place.scratch(file);
    setup::prepare(file, &session, place).await;
    let mut runner = runner(&session, place);
    let mut missing = Missing::default();
    let mut outcomes = Vec::new();
    for record in records {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        let Some((at, sql)) = about(&record, &suite) else {
            // HASH-THRESHOLD and the like.
            if let Err(error) = runner.run_async(record).await {
                outcomes.push(((file.to_string(), error.location().line()), Outcome::Failed(error.to_string())));
            }
            continue;
        };
        let exception = exceptions.record(&at.0, at.1);
        if let Some(exception) = exception.filter(|exception| exception.kind == ExceptionKind::Skip) {
            missing.spoiled_by(&sql, &exception.reason);
            outcomes.push((at, Outcome::Skipped(exception.reason.clone())));
            continue;
        }
        if let Some(reason) = missing.needed_by(&sql, place.sql(&sql).1.map(|data| format!("needs `{data}`"))) {
            // What was made before its content was spoilt is there to be dropped.
            if begins_with(&sql, "drop") {
                let _ = runner.run_async(leniently(record)).await;
            }
            outcomes.push((at, Outcome::Skipped(reason)));
            continue;
        }
        runner.with_validator(if promises_no_order(engine, &sql) { has_rows } else { is_expected });
        let answered = runner.run_async(leniently(record)).await;
        let outcome = match (answered, exception) {
            (Ok(_), None) => Outcome::Passed,
            (Ok(_), Some(_)) => Outcome::Mended,
            (Err(_), Some(exception)) => {
                missing.spoiled_by(&sql, &format!("builds upon a difference: {}", exception.reason));
                Outcome::Excepted(exception.kind, exception.reason.clone())
            }
            (Err(error), None) => Outcome::Failed(error.to_string()),
        };
        outcomes.push((at, outcome));
    }
    outcomes
}

fn runner(session: &Session, place: &Arc<Place>) -> Runner<Connection, impl MakeConnection<Conn = Connection>> {
    let (session, place) = (session.clone(), Arc::clone(place));
    let mut runner = Runner::new(move || {
        let connection = Connection::new(session.clone(), Arc::clone(&place));
        async { Ok::<_, Told>(connection) }
    });
    runner.add_label("Datafusion");
    runner.with_column_validator(strict_column_validator);
    runner.with_normalizer(|value| value.trim_end().to_string());
    runner.with_validator(is_expected);
    runner
}

/// Runs records that must all be right, on a session of their own.
pub(crate) struct Records {
    session: Session,
    place: Arc<Place>,
}

impl Records {
    pub(crate) async fn new(engine: &Engine, place: &Arc<Place>) -> Self {
        Records { session: engine.session(place, true).await.unwrap(), place: Arc::clone(place) }
    }

    /// Runs a record of a file. Tables over files have no keys here: nobody would check them.
    pub(crate) async fn run(&mut self, mut record: Record<Kind>) {
        if let Record::Statement { sql, .. } = &mut record
            && sql.starts_with("CREATE EXTERNAL TABLE")
        {
            let columns = sql.lines().filter(|line| !line.trim().starts_with("PRIMARY KEY"));
            *sql = columns.collect::<Vec<_>>().join("\n").replace(" PRIMARY KEY", "");
        }
        if let Err(error) = runner(&self.session, &self.place).run_async(record).await {
            panic!("{error}");
        }
    }

    /// Runs a statement.
    pub(crate) async fn script(&mut self, sql: &str) {
        use sqllogictest::AsyncDB;
        Connection::new(self.session.clone(), Arc::clone(&self.place)).run(sql).await.unwrap();
    }
}

/// Where a record with SQL stands, and the SQL.
fn about(record: &Record<Kind>, suite: &std::path::Path) -> Option<(At, String)> {
    let (Record::Statement { loc, sql, .. } | Record::Query { loc, sql, .. }) = record else { return None };
    let real = std::path::Path::new(loc.file());
    let real = real.canonicalize().unwrap_or_else(|_| real.to_path_buf());
    let file = real.strip_prefix(suite).unwrap_or(&real).to_string_lossy().into_owned();
    Some(((file, loc.line()), sql.clone()))
}

/// Errors are told in our words, so any is the expected one; plans are not compared, so any is.
fn leniently(record: Record<Kind>) -> Record<Kind> {
    match record {
        Record::Statement { loc, conditions, connection, sql, expected, retry } => {
            let expected = match expected {
                StatementExpect::Error(_) => StatementExpect::Error(ExpectedError::Empty),
                other => other,
            };
            Record::Statement { loc, conditions, connection, sql, expected, retry }
        }
        Record::Query { loc, conditions, connection, sql, expected, retry } => {
            let expected = match expected {
                QueryExpect::Error(_) => QueryExpect::Error(ExpectedError::Empty),
                QueryExpect::Results { .. } if begins_with(&sql, "explain") => {
                    let expected = StatementExpect::Ok;
                    return Record::Statement { loc, conditions, connection, sql, expected, retry };
                }
                other => other,
            };
            Record::Query { loc, conditions, connection, sql, expected, retry }
        }
        other => other,
    }
}

/// Rows as expected, white space at the ends of lines aside; `<slt:ignore>` stands for anything.
fn is_expected(normalize: sqllogictest::Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let expected: Vec<String> = expected.iter().map(normalize).collect();
    let actual: Vec<String> = actual.iter().map(|row| row.join(" ").trim_end().to_string()).collect();
    const ANYTHING: &str = "<slt:ignore>";
    if !expected.iter().any(|line| line.contains(ANYTHING)) {
        return actual == expected;
    }
    let (expected, actual) = (expected.join("\n"), actual.join("\n"));
    let mut rest = actual.as_str();
    for (index, fragment) in expected.split(ANYTHING).enumerate() {
        match rest.find(fragment) {
            Some(at) if index > 0 || at == 0 => rest = &rest[at + fragment.len()..],
            _ => return false,
        }
    }
    true
}

/// Whether rows may come in any order, and do: in one process they come as DataFusion's do.
fn promises_no_order(engine: &Engine, sql: &str) -> bool {
    *engine != Engine::Local && !sql.to_lowercase().contains("order by")
}

/// Rows as expected, in any order.
fn has_rows(normalize: sqllogictest::Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let expected_sorted = sorted(expected.iter().map(normalize).collect());
    let actual_sorted = sorted(actual.iter().map(|row| row.join(" ").trim_end().to_string()).collect());
    actual_sorted == expected_sorted || is_expected(normalize, actual, expected)
}

/// Counts of outcomes by file.
pub(super) fn by_file(outcomes: Vec<(At, Outcome)>) -> BTreeMap<String, Vec<(u32, Outcome)>> {
    let mut files: BTreeMap<String, Vec<(u32, Outcome)>> = BTreeMap::new();
    for ((file, line), outcome) in outcomes {
        files.entry(file).or_default().push((line, outcome));
    }
    files
}
