//! Training by the executors of a cluster, with real processes: the model is byte for byte the one of one process, for any
//! number of executors, whatever dies, stops, joins or leaves meanwhile.
//!
//! `GRISTMILL_TRAINING=full` runs every model through every fault, at moments drawn anew; without it each fault is met once.

use std::time::{Duration, Instant};

use crate::cluster_process::{ClusterProcess, Role, free_port, signal};
use crate::model_files::{ModelFiles, of_model};
use crate::program::{Place, Running, january};

/// No step here takes longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(180);

/// Models that train in their own ways; each takes some seconds on executors.
const MODELS: [(&str, &str); 3] = [
    (
        "classifier",
        "model_type = 'dnn_classifier', input_label_cols = ['late'], hidden_units = [32, 16], dropout = 0.1, \
         batch_size = 128, max_iterations = 40, early_stop = FALSE",
    ),
    (
        "regressor",
        "model_type = 'dnn_regressor', input_label_cols = ['arr_delay'], hidden_units = [24], optimizer = 'ADAMW', \
         clip_norm = 1.0, batch_size = 128, max_iterations = 40, early_stop = FALSE",
    ),
    ("logistic", "model_type = 'logistic_reg', input_label_cols = ['dest'], l2_reg = 1.0, max_iterations = 60"),
];

fn is_full() -> bool {
    std::env::var("GRISTMILL_TRAINING").is_ok_and(|value| value == "full")
}

fn create(model: (&str, &str), more: &str, from: &str) -> String {
    let (name, options) = model;
    format!(
        "CREATE MODEL {name} OPTIONS ({options}, data_split_method = 'RANDOM', seed = 11{more}) \
         AS SELECT late, arr_delay, carrier, origin, dest, hour, distance, dep_delay, temp FROM '{from}';\n"
    )
}

/// A model trained in this machine's one process.
fn expected(model: (&str, &str)) -> ModelFiles {
    let place = Place::new();
    place.write("job.sql", create(model, "", january().to_str().unwrap()));
    place.ok(&["run", "-q", "job.sql", "--kernel", "native", "-j", "2"]);
    of_model(&place, model.0, 1)
}

fn same(place: &Place, model: &str, expected: &ModelFiles, how: &str) {
    let got = of_model(place, model, 1);
    let different: Vec<&String> = expected.keys().filter(|file| got.get(*file) != expected.get(*file)).collect();
    assert!(different.is_empty(), "{model}, {how}: other bytes in {different:?}");
    let left: Vec<String> = place.names("warehouse").into_iter().filter(|name| name.starts_with('_')).collect();
    assert_eq!(left, [""; 0], "{model}, {how}: something is left");
}

/// A job that trains one model on a cluster, under way.
fn start(place: &Place, model: (&str, &str), address: &str) -> Running {
    let settings = "SET ml.checkpoint_seconds = 0.3;\n";
    place.write("job.sql", format!("{settings}{}", create(model, "", january().to_str().unwrap())));
    place.start(&["run", "job.sql", "--kernel", "native", "--cluster", address])
}

/// Waits until training has begun in earnest, as another session sees it.
fn until_under_way(place: &Place, model: &str, has_ended: &mut dyn FnMut() -> bool) {
    let sql = format!("SELECT count(*) FROM ML.TRAINING_INFO(MODEL {model}) WHERE status = 'running'");
    let begun = Instant::now();
    loop {
        let seen = place.run(&["-q", "--format", "csv", "--no-header", "-c", &sql]);
        if seen.stdout.trim().parse::<usize>().is_ok_and(|iterations| iterations >= 3) {
            return;
        }
        assert!(!has_ended(), "{model} was ready too early");
        assert!(begun.elapsed() < PATIENCE, "training does not begin: {}{}", seen.stdout, seen.stderr);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn succeeded(run: Running) -> String {
    let ended = run.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.stderr
}

/// Where in a run to strike, as a pause after it is under way.
fn moment() -> Duration {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    Duration::from_millis(u64::from(nanos / 1000 % 600))
}

#[test]
fn any_number_of_executors_gives_the_bytes_of_one_process() {
    let place = Place::new();
    for part in 0..40 {
        let sql = format!(
            "COPY (SELECT * FROM '{}' WHERE flight % 40 = {part} ORDER BY dest) TO 'flights/{part}.parquet'",
            january().display()
        );
        place.ok(&["-q", "-c", &sql]);
    }
    let forty = place.path("flights/*.parquet").display().to_string();
    let one = january().display().to_string();
    let cluster = ClusterProcess::start(4, 1);
    let address = cluster.address().to_string();
    let wide = ClusterProcess::start(2, 2);
    let mut ways: Vec<(&str, String, Vec<&str>)> = vec![
        (&one, String::new(), vec![]),
        (&forty, ", num_workers = 3".into(), vec!["--set", "engine.target_partitions=8"]),
    ];
    if is_full() {
        for workers in [1, 2, 4] {
            ways.push((&one, format!(", num_workers = {workers}"), vec![]));
        }
        for partitions in ["engine.target_partitions=1", "engine.target_partitions=2"] {
            ways.push((&forty, String::new(), vec!["--set", partitions]));
        }
    }
    for model in MODELS {
        let expected = expected(model);
        for (from, more, flags) in &ways {
            let place = Place::new();
            place.write("job.sql", create(model, more, from));
            let arguments = ["run", "job.sql", "--kernel", "native", "--cluster", &address];
            let told = place.ok(&[&arguments, flags.as_slice()].concat()).stderr;
            if model.0 != "logistic" {
                let workers = if more.is_empty() { 4 } else { more[more.len() - 1..].parse().unwrap() };
                assert!(told.contains(&format!("workers {workers}, compute/reduce/input ")), "{told}");
            }
            same(&place, model.0, &expected, &format!("{from} {more} {flags:?}"));
        }
        // Executors with cores of their own to spare.
        let place = Place::new();
        place.write("job.sql", create(model, "", &one));
        let wide = wide.address().to_string();
        place.ok(&["run", "-q", "job.sql", "--kernel", "native", "--cluster", &wide]);
        same(&place, model.0, &expected, "two executors of two cores");
        for workers in if is_full() { vec![1, 2, 3, 4, 7] } else { vec![] } {
            let place = Place::new();
            place.write("job.sql", create(model, &format!(", num_workers = {workers}"), &one));
            place.ok(&["run", "-q", "job.sql", "--kernel", "native"]);
            same(&place, model.0, &expected, &format!("{workers} threads"));
        }
    }
}

/// What happens to executors while they train.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillOne,
    KillTwo,
    /// Stops one until the run is over: it is fenced off, and refused when it comes back.
    StopOne,
    /// SIGTERM: it leaves, and no step is lost.
    EndOne,
    Join,
}

/// Strikes a run on three executors; the model must not show it.
fn strike(fault: Fault, model: (&str, &str), expected: &ModelFiles) {
    let cluster = ClusterProcess::start(3, 1);
    let address = cluster.address().to_string();
    let place = Place::new();
    let mut run = start(&place, model, &address);
    until_under_way(&place, model.0, &mut || run.has_ended());
    std::thread::sleep(moment());
    let executors = cluster.processes("executor");
    let mut joined = None;
    match fault {
        Fault::KillOne => signal(executors[1], libc::SIGKILL),
        Fault::KillTwo => executors[..2].iter().for_each(|executor| signal(*executor, libc::SIGKILL)),
        Fault::StopOne => signal(executors[0], libc::SIGSTOP),
        Fault::EndOne => signal(executors[2], libc::SIGTERM),
        Fault::Join => joined = Some(Role::start(&["executor", "--scheduler", &address, "--cores", "1"])),
    }
    let told = succeeded(run);
    drop(joined);
    let lines: Vec<&str> = told.lines().filter(|line| line.contains("resumed from")).collect();
    match fault {
        Fault::KillOne | Fault::StopOne => {
            assert!(lines.iter().any(|line| line.contains(" lost") && line.ends_with("on 2 workers")), "{told}");
        }
        Fault::KillTwo => assert!(lines.iter().any(|line| line.ends_with("on 1 worker")), "{told}"),
        Fault::EndOne => assert!(lines.iter().any(|line| line.contains(" leaves; resumed from ")), "{told}"),
        Fault::Join => {}
    }
    same(&place, model.0, expected, &format!("{fault:?}"));
    if matches!(fault, Fault::StopOne) {
        woken(&place, model, executors[0], expected, &address);
    }
}

/// An executor that was stopped in the middle of a run goes on after its end: it may leave the checkpoint that it was
/// writing, which the next run removes, and changes nothing else.
fn woken(place: &Place, model: (&str, &str), executor: i32, expected: &ModelFiles, address: &str) {
    signal(executor, libc::SIGCONT);
    let begun = Instant::now();
    let executors = ["cluster", "executors", "--format", "jsonl", "--cluster", address];
    while place.run(&executors).stdout.lines().count() < 3 {
        assert!(begun.elapsed() < PATIENCE, "the executor does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(of_model(place, model.0, 1), *expected, "{}", model.0);
    let again = create(model, "", january().to_str().unwrap()).replace("CREATE MODEL", "CREATE OR REPLACE MODEL");
    place.write("again.sql", again);
    place.ok(&["run", "-q", "again.sql", "--kernel", "native", "--cluster", address]);
    let left: Vec<String> = place.names("warehouse").into_iter().filter(|name| name.starts_with('_')).collect();
    assert_eq!(left, [""; 0], "{}: something is left", model.0);
}

fn strike_all(fault: Fault) {
    for model in if is_full() { &MODELS[..] } else { &MODELS[..1] } {
        strike(fault, *model, &expected(*model));
    }
}

#[test]
fn a_killed_executor_does_not_show_in_the_model() {
    strike_all(Fault::KillOne);
}

#[test]
fn two_executors_killed_at_once_do_not_show_in_the_model() {
    strike_all(Fault::KillTwo);
}

#[test]
fn a_stopped_executor_is_done_without() {
    strike_all(Fault::StopOne);
}

#[test]
fn an_executor_that_is_told_to_end_leaves_without_a_lost_step() {
    strike_all(Fault::EndOne);
}

#[test]
fn an_executor_that_joins_does_not_show_in_the_model() {
    strike_all(Fault::Join);
}

/// The process that runs the script is killed; started again, it goes on where the executors were.
#[test]
fn a_killed_coordinator_goes_on_from_its_checkpoint() {
    let cluster = ClusterProcess::start(2, 1);
    let address = cluster.address().to_string();
    for model in if is_full() { &MODELS[..] } else { &MODELS[1..2] } {
        let place = Place::new();
        let mut run = start(&place, *model, &address);
        until_under_way(&place, model.0, &mut || run.has_ended());
        std::thread::sleep(Duration::from_millis(700));
        run.signal(libc::SIGKILL);
        run.end();
        let told = succeeded(start(&place, *model, &address));
        assert!(!told.contains("epoch 1/"), "it begins again: {told}");
        same(&place, model.0, &expected(*model), "coordinator killed");
    }
}

/// The scheduler, and with it the coordinator of a submitted job, is killed and started again; the job is resumed.
#[test]
fn a_submitted_training_survives_the_scheduler() {
    let place = Place::new();
    let bind = format!("127.0.0.1:{}", free_port());
    let address = format!("gristmill://{bind}");
    let state = place.path("state").display().to_string();
    let warehouse = place.path("warehouse").display().to_string();
    let start = || Role::start(&["scheduler", "--bind", &bind, "--state-dir", &state]);
    let scheduler = start();
    let _executors: Vec<Role> =
        (0..2).map(|_| Role::start(&["executor", "--scheduler", &address, "--cores", "1"])).collect();
    let wait_for_executors = || {
        let begun = Instant::now();
        while place.run(&["cluster", "executors", "--format", "jsonl", "--cluster", &address]).stdout.lines().count()
            < 2
        {
            assert!(begun.elapsed() < PATIENCE, "no executors at {address}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    wait_for_executors();
    let model = MODELS[0];
    let settings = "SET ml.checkpoint_seconds = 0.3;\n";
    place.write("job.sql", format!("{settings}{}", create(model, "", january().to_str().unwrap())));
    let submit = ["submit", "job.sql", "--kernel", "native", "--warehouse", &warehouse, "--cluster", &address];
    let id = place.ok(&submit).stdout.trim().to_string();
    until_under_way(&place, model.0, &mut || false);
    std::thread::sleep(Duration::from_millis(700));
    signal(scheduler.process(), libc::SIGKILL);
    drop(scheduler);
    let _scheduler = start();
    wait_for_executors();
    place.ok(&["submit", "--resume", &id, "--wait", "--cluster", &address]);
    same(&place, model.0, &expected(model), "scheduler killed");
}

/// Four ways to split, the first of them among rows of which each is there three times; statistics of all kinds, rows without
/// a label, weights of classes. The first query carries a text that nothing is made of, a KiB a row.
const SPLITS: &str = "
CREATE MODEL auto TRANSFORM (label, ML.STANDARD_SCALER(x) OVER () AS x, ML.ONE_HOT_ENCODER(c) OVER () AS c,
    ML.QUANTILE_BUCKETIZE(z, 6) OVER () AS z, ML.MAX_ABS_SCALER(ML.IMPUTER(y, 'median') OVER ()) OVER () AS y)
  OPTIONS (model_type = 'dnn_classifier', input_label_cols = ['label'], hidden_units = [4], batch_size = 512,
    max_iterations = 1, num_workers = 2, seed = 3) AS SELECT label, x, y, z, c, ballast FROM 'rows.parquet';
CREATE MODEL custom OPTIONS (model_type = 'logistic_reg', input_label_cols = ['label'], auto_class_weights = TRUE,
    data_split_method = 'CUSTOM', data_split_col = 'held', l2_reg = 1.0, max_iterations = 5, seed = 3)
  AS SELECT label, x, y, c, held FROM 'rows.parquet' WHERE i < 40000;
CREATE MODEL seq OPTIONS (model_type = 'dnn_regressor', input_label_cols = ['y'], hidden_units = [4], max_iterations = 1,
    data_split_method = 'SEQ', data_split_col = 'day', data_split_eval_fraction = 0.2, data_split_test_fraction = 0.1, seed = 3)
  AS SELECT x, y, c, day FROM 'rows.parquet' WHERE i < 40000;
CREATE MODEL unsplit OPTIONS (model_type = 'linear_reg', input_label_cols = ['y'], data_split_method = 'NO_SPLIT', seed = 3)
  AS SELECT x, y, z FROM 'rows.parquet' WHERE i < 40000;
";

/// Bytes of a row's text that nothing is made of.
const BALLAST: u64 = 1024;

fn write_rows(place: &Place, rows: u64) {
    let copies = BALLAST / 32;
    let sql = format!(
        "COPY (SELECT value AS i, CASE WHEN value / 3 % 97 = 5 THEN NULL ELSE value / 3 * 7919 % 13 > 5 END AS label, \
         CASE WHEN value / 3 % 11 = 0 THEN NULL ELSE sin(value / 3) END AS x, CAST(value / 3 * 31 % 1009 AS DOUBLE) AS y, \
         value / 3 % 100 AS z, chr(CAST(97 + value / 3 % 5 AS BIGINT)) AS c, value / 3 % 4 = 0 AS held, \
         DATE '2013-01-01' + CAST(value / 3 * 7 % 365 AS INT) AS day, \
         repeat(md5(CAST(value / 3 AS VARCHAR)), {copies}) AS ballast \
         FROM generate_series(0, {})) TO 'rows.parquet'",
        rows - 1
    );
    place.ok(&["-q", "-c", &sql]);
}

/// Megabytes behind some words of a report.
fn megabytes(report: &str, words: &str) -> f64 {
    let (_, rest) = report.split_once(words).unwrap_or_else(|| panic!("no {words} in {report}"));
    let mut words = rest.split_whitespace();
    let number: f64 = words.next().unwrap().parse().unwrap();
    match words.next().unwrap() {
        "GB" => 1000.0 * number,
        "MB" => number,
        "kB" | "KB" => number / 1000.0,
        other => panic!("{other} in {report}"),
    }
}

/// The rows are read, transformed and kept by executors alone: the process that runs the script neither reads their files
/// nor holds them.
#[test]
fn the_driver_sees_no_rows() {
    let cluster = crate::cluster_process::shared();
    let address = cluster.address().to_string();
    let run = |rows: u64, more: &[&str]| {
        let place = Place::new();
        write_rows(&place, rows);
        place.write("job.sql", SPLITS);
        let told = place.ok(&[&["run", "job.sql", "--kernel", "native"], more].concat()).stderr;
        (place, told)
    };
    // A process that was told a limit gives freed memory back at once: what it held shows, and not what it had touched.
    let on_cluster = ["--cluster", address.as_str(), "-m", "2g"];
    let (_, few) = run(600, &on_cluster);
    let rows = 75_000;
    let (there, many) = run(rows, &on_cluster);
    let (here, _) = run(rows, &["-j", "2"]);
    for model in ["auto", "custom", "seq", "unsplit"] {
        same(&there, model, &of_model(&here, model, 1), "splits");
    }
    let held = megabytes(&many, "peak memory") - megabytes(&few, "peak memory");
    let all = (rows * BALLAST) as f64 / 1e6;
    assert!(held < all / 2.0, "{held} MB more for {all} MB of rows\n{many}");
    // What the statement read from stores, here, is the last but one of its columns: the input, once, for its hash, and
    // what the workers give back. A look at the keys of all rows would be more than a megabyte.
    let line = many.lines().find(|line| line.contains("  CREATE MODEL auto ")).unwrap_or_else(|| panic!("{many}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let read = megabytes(&words[words.len() - 4..].join(" "), "");
    let input = std::fs::metadata(there.path("rows.parquet")).unwrap().len() as f64 / 1e6;
    assert!(read < input + 1.0, "{read} MB were read, and the input has {input}: {line}");
}

/// What only encoding finds, since no statistic sees the held-out rows, is found by a worker, and told as by one process.
#[test]
fn a_row_that_cannot_be_encoded_ends_the_run_with_the_message_of_one_process() {
    let address = crate::cluster_process::shared().address().to_string();
    let told = [&[][..], &["--cluster", &address]].map(|more: &[&str]| {
        let place = Place::new();
        let rows = "SELECT value AS i, value % 3 = 0 AS label, value % 5 = 0 AS held, \
                    CASE WHEN value = 250 THEN CAST('inf' AS DOUBLE) ELSE sin(value) END AS x FROM generate_series(1, 3000)";
        place.ok(&["-q", "-c", &format!("COPY ({rows}) TO 'rows.parquet'")]);
        let options = "model_type = 'logistic_reg', input_label_cols = ['label'], data_split_method = 'CUSTOM', \
                       data_split_col = 'held'";
        place.write("job.sql", format!("CREATE MODEL m OPTIONS ({options}) AS SELECT label, held, x FROM 'rows.parquet';"));
        let ended = place.run(&[&["run", "-q", "job.sql", "--kernel", "native"], more].concat());
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(place.names("warehouse").iter().all(|name| !name.starts_with("_shards/")), "something is left");
        ended.stderr
    });
    assert!(told[0].contains('x') && told[0].contains("inf"), "{}", told[0]);
    assert_eq!(told[0], told[1]);
}

#[test]
fn more_workers_than_there_are_is_told_with_both_numbers() {
    let cluster = crate::cluster_process::shared();
    let place = Place::new();
    let sql = format!(
        "SET ml.worker_wait_seconds = 1;\n{}",
        create(MODELS[0], ", num_workers = 5", january().to_str().unwrap())
    );
    place.write("job.sql", sql);
    let ended = place.run(&["run", "job.sql", "--cluster", &cluster.address().to_string()]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains('5') && ended.stderr.contains("2"), "{}", ended.stderr);
    assert_eq!(place.names("warehouse"), [""; 0]);
}
