//! The answers of `tests/slt/sql` do not depend on how they are computed: each file runs whole under other partitions and
//! threads, and every query gives the same rows, in whatever order. (On the cluster `slt.rs` runs them.) What the files
//! expect is not looked at here, so this holds for new records without more work. A record whose rows depend on such
//! settings by its nature says `skipif settings`, with the reason above it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use engine::Options;
use sqllogictest::{AsyncDB, Condition, DBOutput, DefaultColumnType, Record};

use crate::slt::{FILES, Place, Subject};

/// On records whose rows depend on settings.
const LABEL: &str = "settings";

/// What a record gave: its rows in an order of their own, or that it failed.
type Outcome = Result<Vec<Vec<String>>, String>;

/// The outcomes of a file's records, by line.
type Outcomes = BTreeMap<u32, Outcome>;

/// The usual way, which all others are compared with.
fn usual() -> &'static BTreeMap<&'static str, Outcomes> {
    static USUAL: OnceLock<BTreeMap<&'static str, Outcomes>> = OnceLock::new();
    USUAL.get_or_init(|| all_files(Place::Local, &|options| options))
}

/// Fails with every record whose rows are others than in the usual way.
fn compare(place: Place, change: &dyn Fn(Options) -> Options) {
    let mut different = Vec::new();
    for (file, outcomes) in all_files(place, change) {
        for (line, outcome) in outcomes {
            // A record that is left out there has nothing to be compared with.
            let Some(expected) = usual()[file].get(&line) else { continue };
            if !is_same(&outcome, expected) {
                different.push(format!("{file}:{line}\n  {}\n  usually {}", told(&outcome), told(expected)));
            }
        }
    }
    assert!(different.is_empty(), "{} records have other rows\n{}", different.len(), different.join("\n"));
}

#[test]
fn rows_do_not_depend_on_one_partition() {
    compare(Place::Local, &|options| Options { target_partitions: Some(1), batch_size: 8192, ..options });
}

#[test]
fn rows_do_not_depend_on_many_partitions_and_one_thread() {
    compare(Place::Local, &|options| Options { target_partitions: Some(7), threads: 1, ..options });
}

/// Every file is read in pieces by several readers, in small batches.
#[test]
fn rows_do_not_depend_on_pieces_of_files_and_small_batches() {
    compare(Place::Local, &|mut options| {
        options.settings.insert("datafusion.optimizer.repartition_file_min_size".to_string(), "1".to_string());
        Options { target_partitions: Some(3), batch_size: 64, ..options }
    });
}

/// Runs every file of SQL on a session of its own.
fn all_files(place: Place, change: &dyn Fn(Options) -> Options) -> BTreeMap<&'static str, Outcomes> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let files = FILES.iter().filter(|file| file.starts_with("sql/"));
    files.map(|file| (*file, runtime.block_on(one_file(place, change, file)))).collect()
}

async fn one_file(place: Place, change: &dyn Fn(Options) -> Options, file: &str) -> Outcomes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt").join(file);
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let mut subject = Subject::with(place, directory, change).await.unwrap();
    let mut outcomes = Outcomes::new();
    for record in sqllogictest::parse_file::<DefaultColumnType>(&path).unwrap() {
        let (Record::Statement { loc, conditions, sql, .. } | Record::Query { loc, conditions, sql, .. }) = record
        else {
            continue;
        };
        if is_left_out(&conditions, place) {
            continue;
        }
        let outcome = subject.run(&sql).await;
        // A plan is not what this is about; it is made all the same.
        if !sql.trim_start().to_lowercase().starts_with("explain") {
            outcomes.insert(loc.line(), outcome.map(rows).map_err(|error| error.to_string()));
        }
    }
    outcomes
}

fn is_left_out(conditions: &[Condition], place: Place) -> bool {
    conditions.iter().any(|condition| match condition {
        Condition::SkipIf { label } => label == LABEL || label == place.name(),
        Condition::OnlyIf { label } => label != place.name(),
    })
}

fn rows(output: DBOutput<DefaultColumnType>) -> Vec<Vec<String>> {
    let DBOutput::Rows { mut rows, .. } = output else { return Vec::new() };
    rows.sort_by_cached_key(|row| row.iter().map(|cell| rounded(cell)).collect::<Vec<_>>());
    rows
}

/// Numbers with a fraction by some of their digits: sums of them differ in the last ones.
fn rounded(cell: &str) -> String {
    match cell.parse::<f64>() {
        Ok(number) if cell.contains(['.', 'e']) => format!("{number:.6e}"),
        _ => cell.to_string(),
    }
}

fn is_same(one: &Outcome, other: &Outcome) -> bool {
    let (Ok(one), Ok(other)) = (one, other) else { return one.is_err() == other.is_err() };
    let same_cell = |(one, other): (&String, &String)| one == other || is_near(one, other);
    let same_row =
        |(one, other): (&Vec<String>, &Vec<String>)| one.len() == other.len() && one.iter().zip(other).all(same_cell);
    one.len() == other.len() && one.iter().zip(other).all(same_row)
}

fn is_near(one: &str, other: &str) -> bool {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => (one - other).abs() <= 1e-9 * one.abs().max(other.abs()),
        _ => false,
    }
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Ok(rows) => format!("{} rows {:?}", rows.len(), rows.iter().take(10).collect::<Vec<_>>()),
        Err(message) => message.clone(),
    }
}
