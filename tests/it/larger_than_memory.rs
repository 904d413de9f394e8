//! Data many times larger than the memory limit, through the real program: the answers and the model bytes are those of a
//! run without a limit, the process stays near its limit, and nothing stays behind on disk.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::model_files::of_model;
use crate::program::{Ended, Place};

/// The limit of these tests.
const LIMIT: &str = "48m";
const LIMIT_BYTES: f64 = 48.0 * MIB;
const MIB: f64 = (1 << 20) as f64;
/// What the process may take beside its limit: the program itself (70 MiB of an unoptimised build), its threads, the
/// kernel's matrix buffers, and what decoding and encoding hold for a moment. A small limit shows all of it.
const BASE_BYTES: f64 = 260.0 * MIB;

/// Seven times the limit.
const ROWS: u64 = 3_000_000;

/// Columns of the data, with which a row takes about 110 bytes in memory.
const COLUMNS: &str = "value AS id, (value * 2654435761) % 1000000007 AS k, (value * 40503) % 65536 AS g,
    CAST((value * 48271) % 2147483647 AS DOUBLE) / 2147483647 AS x1,
    CAST((value * 69621) % 2147483647 AS DOUBLE) / 1000000 AS x2,
    sin(CAST(value AS DOUBLE)) AS x3, CAST((value * 7919) % 1000 AS INT) AS x4,
    'user_' || CAST((value * 2654435761) % 1000000007 AS VARCHAR) AS s,
    'c' || CAST((value * 31) % 17 AS VARCHAR) AS c,
    (value * 48271) % 2147483647 < 900000000 AS y";

/// The data, written once, under the limit: so its row groups are such that readers keep the limit too.
static DATA: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = format!("SELECT {COLUMNS} FROM generate_series(1, {ROWS})");
    let name = format!("larger_than_memory-{:x}", Sha256::digest(format!("{LIMIT} {script}")));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name[..30]);
    if !directory.join("_SUCCESS").exists() {
        let copy = format!("COPY ({script}) TO '{}/' STORED AS PARQUET MODE OVERWRITE", directory.display());
        Place::new().ok(&["-q", "-j", "2", "-m", LIMIT, "-c", &copy]);
    }
    directory
});

/// A script on the data, `$t`.
fn on_data(script: &str) -> String {
    script.replace("$t", &format!("'{}/'", DATA.display()))
}

fn run(place: &Place, limit: &[&str], script: &str) -> Ended {
    place.write("job.sql", script);
    let ended = place.run(&[&["run", "job.sql", "--format", "csv", "-j", "2", "--kernel", "native"], limit].concat());
    assert_eq!(place.temporary(), [""; 0], "{}", ended.stderr);
    ended
}

fn run_well(place: &Place, limit: &[&str], script: &str) -> Ended {
    let ended = run(place, limit, script);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended
}

/// As [`run_well`], under the limit, which the process must keep.
fn run_limited(place: &Place, script: &str) -> Ended {
    let ended = run_well(place, &["-m", LIMIT], script);
    let peak = peak_bytes(&ended.stderr).expect("the report tells the peak");
    eprintln!("peak memory {:.0} MiB: {script}", peak / MIB);
    assert!(peak <= 1.3 * LIMIT_BYTES + BASE_BYTES, "peak memory {:.0} MiB: {}", peak / MIB, ended.stderr);
    ended
}

/// `CPU 6.2 s, peak memory 412.0 MB` of the report.
fn peak_bytes(report: &str) -> Option<f64> {
    let (number, unit) = report.split("peak memory ").nth(1)?.lines().next()?.split_once(' ')?;
    let unit = match unit.trim() {
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * unit)
}

/// Runs a query with and without the limit and compares what it printed.
fn same_answer(query: &str) {
    let script = on_data(query);
    let (unlimited, limited) = (Place::new(), Place::new());
    let expected = run_well(&unlimited, &[], &script);
    let got = run_limited(&limited, &script);
    assert!(!expected.stdout.trim().is_empty());
    assert_eq!(got.stdout, expected.stdout);
}

#[test]
fn a_sort_spills() {
    same_answer(
        "COPY (SELECT * FROM $t ORDER BY k, s, id) TO 'out.parquet' STORED AS PARQUET;
         SELECT count(*), sum(id), min(k), max(s) FROM 'out.parquet';
         SET engine.target_partitions = 1;
         SELECT id, k, s FROM 'out.parquet' LIMIT 20;",
    );
}

#[test]
fn groups_and_distinct_values_spill() {
    same_answer(
        "SELECT count(*), sum(n), sum(m), max(s) FROM (SELECT s, count(*) AS n, max(g) AS m FROM $t GROUP BY s);
         SELECT count(DISTINCT s) FROM $t;",
    );
}

#[test]
fn a_join_of_two_large_sides_spills() {
    same_answer(
        "SELECT count(*), max(a.s), max(b.c), sum(a.id - b.id) FROM $t a JOIN $t b ON a.k = b.k AND a.s = b.s;",
    );
}

#[test]
fn windows_spill() {
    same_answer(
        "SELECT count(*), sum(r), sum(d) FROM
           (SELECT row_number() OVER (PARTITION BY g ORDER BY x1, id) AS r,
                   id - lag(id) OVER (PARTITION BY c ORDER BY id) AS d FROM $t);",
    );
}

#[test]
fn many_partitions_are_written_one_file_at_a_time() {
    same_answer(
        "COPY (SELECT *, g % 300 AS p FROM $t) TO 'out/' STORED AS PARQUET PARTITIONED BY (p);
         SELECT count(*), sum(id), count(DISTINCT p) FROM 'out/';",
    );
}

#[test]
fn what_cannot_run_names_operator_and_amounts_and_leaves_nothing() {
    let place = Place::new();
    let ended = run(&place, &["-m", LIMIT], &on_data("CREATE TABLE copy AS SELECT * FROM $t;"));
    assert_eq!(ended.code, 1);
    for part in [
        "out of memory: table copy wanted ",
        " more beside the ",
        " of 48.0 MiB were available to it",
        "-m (engine.memory_limit)",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

/// Trains with and without the limit; the models' files are the same bytes.
fn same_models(statements: &str, models: &[&str]) {
    let script = on_data(statements);
    let (unlimited, limited) = (Place::new(), Place::new());
    run_well(&unlimited, &[], &script);
    run_limited(&limited, &script);
    for model in models {
        assert_eq!(of_model(&limited, model, 1), of_model(&unlimited, model, 1), "{model}");
    }
}

#[test]
fn a_network_with_fitted_transforms_trains_from_disk_to_the_same_bytes() {
    same_models(
        "CREATE MODEL m
         TRANSFORM (ML.QUANTILE_BUCKETIZE(x1, 20) OVER () AS b, ML.STANDARD_SCALER(x2) OVER () AS x2,
                    ML.ROBUST_SCALER(x3) OVER () AS x3, ML.MIN_MAX_SCALER(x4) OVER () AS x4,
                    ML.ONE_HOT_ENCODER(c) OVER () AS c, y)
         OPTIONS (model_type = 'dnn_classifier', input_label_cols = ['y'], hidden_units = [16], batch_size = 4096,
                  max_iterations = 1, num_shards = 16, seed = 7)
         AS SELECT * FROM $t;",
        &["m"],
    );
}

#[test]
fn linear_models_train_from_disk_to_the_same_bytes() {
    same_models(
        "CREATE MODEL a OPTIONS (model_type = 'logistic_reg', input_label_cols = ['y'], max_iterations = 2) AS
           SELECT x1, x2, x3, c, y FROM $t;
         CREATE MODEL b OPTIONS (model_type = 'linear_reg', input_label_cols = ['x2']) AS SELECT x1, x2, x3, c FROM $t;",
        &["a", "b"],
    );
}
