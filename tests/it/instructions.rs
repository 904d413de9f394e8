//! Instructions of a training step and of four queries, counted by callgrind and held against the recorded counts: what
//! makes a hot path longer is seen on any machine, however busy. They are counts of the program as the tests build it.
//!
//! What is counted is the difference between doing a thing once and doing it more often, so that start, planning of the
//! first statement and reading of settings drop out. One thread does all the work; matrix products are our own kernel's.
//! `GRISTMILL_ACCEPT_COUNTS=1` records what is counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::program::{Place, REPOSITORY, finish, january};

/// Counts may differ by so much: hashes are seeded by chance, and threads that wait look about.
const TOLERANCE: f64 = 0.03;
/// How often a thing is done more.
const MORE: u64 = 2;

/// A thing, and the script that does it so often.
type Case = (&'static str, fn(u64) -> String);

const CASES: [Case; 5] = [
    ("training epoch", |times| {
        format!(
            "CREATE OR REPLACE MODEL counted OPTIONS (model_type = 'dnn_classifier', input_label_cols = ['late'], \
             hidden_units = [64, 64], batch_size = 256, max_iterations = {times}, num_workers = 1, seed = 1, \
             data_split_method = 'NO_SPLIT') \
             AS SELECT late, carrier, origin, hour, distance, dep_delay FROM '{}'",
            january().display()
        )
    }),
    ("aggregate", |times| {
        repeated(times, "SELECT dest, hour, count(*), avg(arr_delay), max(distance) FROM flights GROUP BY 1, 2")
    }),
    ("join", |times| {
        repeated(
            times,
            "SELECT a.carrier, count(*), sum(b.distance) FROM flights a JOIN flights b \
             ON a.flight = b.flight AND a.day = b.day AND a.origin = b.origin WHERE a.dep_delay > b.arr_delay GROUP BY 1",
        )
    }),
    ("sort", |times| {
        repeated(
            times,
            "SELECT carrier, max(place) FROM (SELECT carrier, flight, arr_delay, \
             row_number() OVER (PARTITION BY carrier ORDER BY arr_delay DESC, flight) AS place FROM flights) GROUP BY 1",
        )
    }),
    ("first of groups", |times| {
        repeated(
            times,
            "SELECT * FROM (SELECT carrier, flight, arr_delay, \
             row_number() OVER (PARTITION BY carrier ORDER BY arr_delay DESC, flight) AS place FROM flights) WHERE place <= 3",
        )
    }),
];

fn repeated(times: u64, query: &str) -> String {
    let mut script = format!("CREATE VIEW flights AS SELECT * FROM '{}';\n", january().display());
    (0..times).for_each(|_| script += &format!("{query};\n"));
    script
}

/// What counts depend on besides the code.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Surroundings {
    rustc: String,
    valgrind: String,
    processor: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    surroundings: Surroundings,
    instructions: BTreeMap<String, u64>,
}

#[test]
fn a_training_step_and_four_queries_take_no_more_than_they_did() {
    let surroundings = match surroundings() {
        Ok(surroundings) => surroundings,
        Err(reason) => return println!("skipped, this needs valgrind: {reason}"),
    };
    let file = Path::new(REPOSITORY).join("tests/golden/instructions.json");
    let accepts = std::env::var_os("GRISTMILL_ACCEPT_COUNTS").is_some();
    let recorded = fs::read(&file).map(|bytes| serde_json::from_slice::<Recorded>(&bytes).unwrap());
    if !accepts {
        let recorded = &recorded.as_ref().unwrap_or_else(|error| panic!("{}: {error}", file.display())).surroundings;
        if *recorded != surroundings {
            return println!("skipped, the counts are of {recorded:?}, this is {surroundings:?}");
        }
    }
    let place = Place::new();
    let program = stripped(&place);
    let counted: BTreeMap<String, u64> =
        CASES.iter().map(|(name, script)| ((*name).to_string(), count(&place, &program, *script))).collect();
    println!("{counted:#?}");
    if accepts {
        let text = serde_json::to_string_pretty(&Recorded { surroundings, instructions: counted }).unwrap();
        return fs::write(&file, text + "\n").unwrap();
    }
    let recorded = recorded.unwrap().instructions;
    let longer = other(&counted, &recorded);
    assert!(longer.is_empty(), "{longer:#?}\nwhere that is meant: GRISTMILL_ACCEPT_COUNTS=1 records the new counts");
}

/// What differs by more than it may; a thing that nobody has recorded does.
fn other(counted: &BTreeMap<String, u64>, recorded: &BTreeMap<String, u64>) -> Vec<String> {
    (counted.iter())
        .filter_map(|(name, now)| {
            let before = recorded.get(name).copied().unwrap_or(0);
            let ratio = *now as f64 / before as f64;
            ((ratio - 1.0).abs() > TOLERANCE).then(|| format!("{name}: {now}, recorded {before} ({ratio:.3})"))
        })
        .collect()
}

#[test]
fn what_takes_more_is_named() {
    let counts =
        |numbers: [u64; 2]| BTreeMap::from([("join".to_string(), numbers[0]), ("sort".to_string(), numbers[1])]);
    let recorded = counts([1000, 2000]);
    assert!(other(&counts([1029, 1945]), &recorded).is_empty());
    assert_eq!(other(&counts([1031, 2000]), &recorded), ["join: 1031, recorded 1000 (1.031)"]);
    assert_eq!(other(&counts([1000, 1930]), &recorded), ["sort: 1930, recorded 2000 (0.965)"]);
    assert_eq!(other(&recorded, &BTreeMap::new()).len(), 2);
}

fn surroundings() -> Result<Surroundings, String> {
    Ok(Surroundings {
        rustc: version("rustc", "-V")?,
        valgrind: version("valgrind", "--version")?,
        processor: processor().to_string(),
    })
}

/// What the matrix kernel and the hash functions look for.
#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") { "x86_64 with AVX2" } else { "x86_64" }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    std::env::consts::ARCH
}

fn version(program: &str, flag: &str) -> Result<String, String> {
    let output = Command::new(program).arg(flag).output().map_err(|error| format!("{program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// The program without its symbols, which valgrind would read for longer than it counts.
fn stripped(place: &Place) -> PathBuf {
    let program = place.path("gristmill");
    let done = Command::new("strip").arg("-o").arg(&program).arg(crate::program::PROGRAM).status().unwrap();
    assert!(done.success(), "strip belongs to what links programs");
    program
}

/// Instructions of doing a thing once more.
fn count(place: &Place, program: &Path, script: fn(u64) -> String) -> u64 {
    let [once, more] = [1, 1 + MORE].map(|times| {
        place.write("counted.sql", script(times));
        let arguments = ["run", "-q", "counted.sql", "-j", "1", "--kernel", "native"];
        let mut command = place.command_of("valgrind", ["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        let ended = finish(command.arg(program).args(arguments));
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        let collected = ended.stderr.lines().find_map(|line| line.split_once("Collected : "));
        collected.expect("callgrind says what it has collected").1.trim().parse::<u64>().unwrap()
    });
    (more - once) / MORE
}
