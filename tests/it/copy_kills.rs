//! A table is overwritten again and again on a cluster, and each time a process dies at a random moment: an executor, the
//! driver or the scheduler. Readers that poll all the while see the old rows or the new ones, never a mixture.
//!
//! `COPY_KILLS=200` asks for more rounds. `GRISTMILL_TEST_PYTHON` names a Python with `pyarrow` and `duckdb`: then these
//! read too, through the manifest's list of files.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use engine::{Options, Session};

use crate::cluster_process::{Roles, signal};
use crate::faults::moments;

const FLIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/nycflights13/flights.parquet");
/// Rounds unless `COPY_KILLS` says otherwise: each victim once or more.
const ROUNDS: usize = 6;
const SEED: u64 = 0xc0b1;
/// No round takes longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Executor(usize),
    Driver,
    Scheduler,
}

#[test]
#[allow(clippy::print_stderr, reason = "the round and the readers are told to whoever asked for them")]
fn readers_see_the_old_rows_or_the_new_ones() {
    let rounds = std::env::var("COPY_KILLS").map_or(ROUNDS, |text| text.parse().unwrap());
    let mut cluster = Roles::start(2);
    let target = cluster.directory().join("table");
    let expected = rows_without_a_month();
    let address = cluster.address().to_string();
    let write = |month: usize| start(&copy(&target, month), &address);

    // In peace, to know how long it takes.
    let begun = Instant::now();
    assert!(wait(write(1)), "a COPY in peace fails");
    let whole = begun.elapsed();
    let mut current = 1;
    let mut chance = moments(SEED, 3 * rounds);
    let mut draw = |count: usize| (chance.next().unwrap() * count as f64) as usize;
    let victims = [Victim::Executor(0), Victim::Driver, Victim::Scheduler, Victim::Executor(1)];
    let (mut polls, mut committed) = (0, 0);
    for round in 0..rounds {
        // The first rounds take each in turn, so that few rounds have all.
        let victim = if round < victims.len() { victims[round] } else { victims[draw(victims.len())] };
        let month = 1 + (current + draw(11)) % 12;
        let moment = whole.mul_f64(draw(1200) as f64 / 1000.0);
        let allowed = [expected[current - 1], expected[month - 1]];
        let readers = Readers::start(&target);

        let driver = write(month);
        std::thread::sleep(moment);
        signal(
            match victim {
                Victim::Executor(number) => cluster.executor(number),
                Victim::Driver => i32::try_from(driver.id()).unwrap(),
                Victim::Scheduler => cluster.scheduler(),
            },
            libc::SIGKILL,
        );
        let succeeded = wait(driver);
        let seen = readers.stop();
        let told = format!("round {round}: {victim:?} killed after {moment:?} of {whole:?}");
        for (reader, rows) in &seen {
            assert!(allowed.contains(rows), "{told}: {reader} saw {rows} rows, not one of {allowed:?}");
        }
        let after = count(&target);
        assert!(allowed.contains(&after), "{told}: {after} rows afterwards, not one of {allowed:?}");
        if succeeded {
            assert_eq!(after, allowed[1], "{told}: the COPY says that it is done");
        } else {
            assert!(!matches!(victim, Victim::Executor(_)), "{told}: the COPY fails although an executor is left");
        }
        if after == allowed[1] {
            current = month;
            committed += 1;
        }
        polls += seen.len();
        match victim {
            Victim::Executor(number) => cluster.replace_executor(number),
            Victim::Scheduler => cluster.replace_scheduler(),
            Victim::Driver => {}
        }
        cluster.wait();
        if rounds > ROUNDS {
            eprintln!("{told}: {} looks, {} rows", seen.len(), after);
        }
    }
    // One more in peace takes the leftovers along, unless a task of a dead driver was still writing some.
    let mut left = Vec::new();
    for month in [11, 12, 11] {
        assert!(wait(write(month)), "a COPY in peace fails");
        left = leftovers(&target);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    assert!(left.is_empty(), "left behind: {left:?}");
    eprintln!("{rounds} rounds, {committed} new tables, {polls} looks{}", Python::absence());
    assert!(polls > 0);
}

/// All flights but those of one month: twelve tables that differ in their number of rows.
fn copy(target: &Path, month: usize) -> String {
    format!(
        "COPY (SELECT *, md5(CAST(flight AS STRING) || dest) AS code FROM '{FLIGHTS}' WHERE month <> {month}) \
         TO '{}/' STORED AS PARQUET MODE OVERWRITE",
        target.display()
    )
}

fn start(sql: &str, address: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["-q", "-c", sql, "--cluster", address])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for a process; whether it ended well.
fn wait(mut process: Child) -> bool {
    let begun = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.success();
        }
        assert!(begun.elapsed() < PATIENCE, "the COPY does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rows_without_a_month() -> Vec<i64> {
    let reader = Own::new();
    (1..=12).map(|month| reader.count(&format!("SELECT count(*) FROM '{FLIGHTS}' WHERE month <> {month}"))).collect()
}

fn count(target: &Path) -> i64 {
    Own::new().count(&format!("SELECT count(*) FROM '{}/'", target.display()))
}

fn leftovers(target: &Path) -> Vec<String> {
    let names = target.join("_gristmill").read_dir().unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("staging-")).collect()
}

/// Readers that look as often as they can.
struct Readers {
    stop: Arc<AtomicBool>,
    looking: Vec<JoinHandle<Vec<(&'static str, i64)>>>,
}

impl Readers {
    fn start(target: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut looking = Vec::new();
        let sql = format!("SELECT count(*) FROM '{}/'", target.display());
        let stopped = Arc::clone(&stop);
        looking.push(std::thread::spawn(move || {
            let reader = Own::new();
            look(&stopped, || vec![("gristmill", reader.count(&sql))])
        }));
        if let Some(mut python) = Python::start(target) {
            let stopped = Arc::clone(&stop);
            looking.push(std::thread::spawn(move || look(&stopped, || python.look())));
        }
        Readers { stop, looking }
    }

    /// What they have seen.
    fn stop(self) -> Vec<(&'static str, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn look(stop: &AtomicBool, mut look: impl FnMut() -> Vec<(&'static str, i64)>) -> Vec<(&'static str, i64)> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        seen.extend(look());
        std::thread::sleep(Duration::from_millis(5));
    }
    seen
}

/// A session of ours in this process.
struct Own {
    session: Session,
    runtime: tokio::runtime::Runtime,
    _warehouse: tempfile::TempDir,
}

impl Own {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let warehouse = directory.path().join("models").to_string_lossy().into_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let session = gristmill::session(Options { threads: 1, warehouse, ..Options::default() }).unwrap();
        Own { session, runtime, _warehouse: directory }
    }

    fn count(&self, sql: &str) -> i64 {
        let batches = self.runtime.block_on(async {
            let frame = self.session.sql(sql).await.unwrap();
            self.session.collect(frame).await.unwrap()
        });
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    }
}

/// DuckDB and pyarrow, which know nothing of commits and are told what the manifest says.
struct Python {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Answers each line with `<rows by pyarrow> <rows by DuckDB>`. Files of a table that has been overwritten in the meantime
/// may be gone: then there is a newer manifest.
const SCRIPT: &str = r#"
import glob, json, sys
import duckdb, pyarrow.parquet

table = sys.argv[1]
connection = duckdb.connect(config={"threads": 1})

def files():
    with open(max(glob.glob(table + "/_gristmill/manifest-*.json"))) as manifest:
        return [table + "/" + file["path"] for file in json.load(manifest)["content"]["files"]]

def by_pyarrow(paths):
    return sum(len(pyarrow.parquet.read_table(path, columns=["month"])) for path in paths)

def by_duckdb(paths):
    return connection.execute("SELECT count(month) FROM read_parquet(?)", [paths]).fetchone()[0]

def rows(count):
    for _ in range(100):
        try:
            return count(files())
        except (FileNotFoundError, json.JSONDecodeError, duckdb.IOException) as error:
            last = error
    raise last

for line in sys.stdin:
    print(rows(by_pyarrow), rows(by_duckdb), flush=True)
"#;

impl Python {
    fn path() -> Option<PathBuf> {
        std::env::var_os("GRISTMILL_TEST_PYTHON").map(PathBuf::from)
    }

    /// What is to be said of readers that are not there.
    fn absence() -> &'static str {
        if Self::path().is_some() { "" } else { " (without pyarrow and DuckDB: GRISTMILL_TEST_PYTHON names no Python)" }
    }

    fn start(target: &Path) -> Option<Self> {
        let mut command = Command::new(Self::path()?);
        command.arg("-c").arg(SCRIPT).arg(target).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Python { child, ask, answers })
    }

    fn look(&mut self) -> Vec<(&'static str, i64)> {
        self.ask.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let counts: Vec<i64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert_eq!(counts.len(), 2, "Python answers `{line}`");
        ["pyarrow", "DuckDB"].into_iter().zip(counts).collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
