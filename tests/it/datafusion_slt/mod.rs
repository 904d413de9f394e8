//! The SQL tests of DataFusion, run through our sessions and our script layer: what works there must work here, with the
//! same answers. `tests/slt/datafusion.md` is the table of what does; a file that does worse than it says fails this test,
//! and so does one that does better while the table is not written anew.
//!
//! On the cluster a part of the files is run unless `SLT_EVERYTHING=1` asks for all. `SLT_COMPLETE=1` runs them all and
//! writes the table. `SLT_FILES=joins,array/` runs only files whose names contain one of these, `SLT_ENGINE=local` only on
//! that runner. A checkout of DataFusion named by `GRISTMILL_DATAFUSION_CHECKOUT` brings the test data that its
//! packages lack: then more records run than the table tells of, so they must pass but the table is not compared.

mod engine;
mod exceptions;
mod missing;
mod place;
mod run;
mod setup;
mod table;
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub(crate) use engine::Engine;
use exceptions::Exceptions;
pub(crate) use place::{Place, scratch_directory};
pub(crate) use run::Records;
use run::{At, Outcome};
pub(crate) use text::Kind;

use crate::upstream::package;

/// Files of functions that Spark has and DataFusion's core has not.
const SPARK: &str = "spark/";

/// Files that take longest: they begin first, so that the end of the run is not spent waiting for one of them.
const LONGEST: [&str; 6] = [
    "push_down_filter_regression.slt",
    "aggregate.slt",
    "joins.slt",
    "aggregate_skip_partial.slt",
    "imdb.slt",
    "window.slt",
];

/// Runs all files on every runner.
const EVERYTHING: &str = "SLT_EVERYTHING";

/// Files that a run on the cluster takes unless everything is wanted: one of so many, by name, and these.
const CLUSTER_STEP: usize = 4;
const CLUSTER_ALWAYS: [&str; 5] = ["aggregate.slt", "copy.slt", "joins.slt", "subquery.slt", "union.slt"];

#[test]
fn files_of_datafusion_give_its_answers() {
    let files = files();
    let mut columns = Vec::new();
    let mut wrong = Vec::new();
    for engine in Engine::all() {
        let exceptions = Exceptions::read(engine.name());
        let run = wanted(&files, &engine);
        let outcomes = run_all(&engine, &exceptions, run.clone());
        wrong.extend(complaints(&engine, &exceptions, &outcomes, run.len() == tests(&files).count()));
        columns.push(table::Column { runner: engine.name(), ran: run, outcomes: run::by_file(outcomes) });
    }
    let is_comparable = std::env::var_os("SLT_FILES").is_none() && std::env::var_os(place::CHECKOUT).is_none();
    if is_comparable {
        wrong.extend(table::compare(&files, &columns, completes()));
    }
    assert!(wrong.is_empty(), "{} complaints\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Whether the table is written anew.
fn completes() -> bool {
    std::env::var_os("SLT_COMPLETE").is_some()
}

/// Files that are run, and not only included by others.
fn tests(files: &[String]) -> impl Iterator<Item = &String> {
    files.iter().filter(|file| file.ends_with(".slt"))
}

/// The files to run on this runner.
fn wanted(files: &[String], engine: &Engine) -> Vec<String> {
    if std::env::var("SLT_ENGINE").is_ok_and(|wanted| wanted != engine.name()) {
        return Vec::new();
    }
    if let Ok(wanted) = std::env::var("SLT_FILES") {
        return tests(files).filter(|file| wanted.split(',').any(|part| file.contains(part))).cloned().collect();
    }
    let everything = completes() || std::env::var_os(EVERYTHING).is_some() || *engine == Engine::Local;
    let is_taken = |(number, file): &(usize, &String)| {
        everything || number % CLUSTER_STEP == 0 || CLUSTER_ALWAYS.contains(&file.as_str())
    };
    tests(files).enumerate().filter(is_taken).map(|(_, file)| file.clone()).collect()
}

/// All files of the package, those that are only included among them, by name.
fn files() -> Vec<String> {
    fn visit(directory: &Path, root: &Path, files: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                visit(&path, root, files);
            } else if name.ends_with(".slt") || name.ends_with(".slt.part") {
                files.push(name);
            }
        }
    }
    let root = package("datafusion-sqllogictest").join("test_files");
    let mut files = Vec::new();
    visit(&root, &root, &mut files);
    files.sort();
    files
}

/// Runs the files, several at a time; `SLT_TIMES=1` tells how long each takes.
#[allow(clippy::print_stderr, reason = "times are told to whoever asked for them")]
fn run_all(engine: &Engine, exceptions: &Exceptions, mut files: Vec<String>) -> Vec<(At, Outcome)> {
    let place = Arc::new(Place::new());
    // Taken from the end.
    files.sort_by_key(|file| LONGEST.contains(&file.as_str()));
    let queue = Mutex::new(files);
    let outcomes = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // Planning recurses with the depth of a query.
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .thread_stack_size(32 << 20)
                    .enable_all()
                    .build()
                    .unwrap();
                loop {
                    let Some(file) = queue.lock().unwrap().pop() else { return };
                    let begun = std::time::Instant::now();
                    let found = match refusal(&file, exceptions) {
                        Some(reason) => vec![((file.clone(), 0), Outcome::Skipped(reason))],
                        None => runtime.block_on(run::run_file(engine, &place, exceptions, &file)),
                    };
                    if std::env::var_os("SLT_TIMES").is_some() {
                        eprintln!("{:>8.2} s {file}", begun.elapsed().as_secs_f64());
                    }
                    outcomes.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort();
    outcomes
}

/// Why a file is not run at all.
fn refusal(file: &str, exceptions: &Exceptions) -> Option<String> {
    if file.starts_with(SPARK) {
        return Some("functions and dialect of Spark (`datafusion-spark`), which Gristmill does not have".to_string());
    }
    let impossible = setup::IMPOSSIBLE.iter().find(|(name, _)| *name == file).map(|(_, reason)| reason.to_string());
    impossible.or_else(|| exceptions.file(file).map(|exception| exception.reason.clone()))
}

/// What is not as it should be: records that fail and are not listed, listed ones that do not fail or do not exist.
fn complaints(engine: &Engine, exceptions: &Exceptions, outcomes: &[(At, Outcome)], is_whole: bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for ((file, line), outcome) in outcomes {
        match outcome {
            Outcome::Failed(message) => complaints.push(format!("{}: {file}:{line}\n{message}", engine.name())),
            Outcome::Mended => complaints.push(format!(
                "{}: {file}:{line} gives DataFusion's answer: take it out of datafusion_exceptions.tsv",
                engine.name()
            )),
            _ => {}
        }
    }
    let known: BTreeMap<(&str, u32), ()> =
        outcomes.iter().map(|((file, line), _)| ((file.as_str(), *line), ())).collect();
    for (file, line) in exceptions.records().filter(|_| is_whole) {
        if !known.contains_key(&(file, line)) {
            complaints.push(format!("{}: datafusion_exceptions.tsv: there is no record {file}:{line}", engine.name()));
        }
    }
    complaints
}
