//! The cluster as its users meet it: the same answers and errors as one process, jobs that outlive their submitter, and
//! outputs that survive the death of whoever writes them. Every process here is a real one.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::cluster_process::{ClusterProcess, Role, free_port, shared, signal};

const FLIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/nycflights13/flights.parquet");
const WEATHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/nycflights13/weather.csv");
/// No step here takes longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

fn gristmill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gristmill")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs SQL here and on the shared cluster; gives both outputs.
fn on_both(sql: &str) -> [Output; 2] {
    let address = shared().address().to_string();
    [gristmill(&["-c", sql, "--format", "csv"]), gristmill(&["-c", sql, "--format", "csv", "--cluster", &address])]
}

#[test]
fn answers_are_those_of_one_process() {
    for sql in [
        format!("SELECT carrier, count(*), min(dep_delay), max(arr_delay) FROM '{FLIGHTS}' GROUP BY 1 ORDER BY 1"),
        format!("SELECT DISTINCT origin, dest FROM '{FLIGHTS}' ORDER BY 1, 2"),
        format!("SELECT flight, arr_delay FROM '{FLIGHTS}' WHERE arr_delay > 900 ORDER BY arr_delay DESC, flight"),
        // Joins of every kind, and some that one process runs in a way in which several may not.
        format!(
            "SELECT count(*), count(w.temp) FROM '{FLIGHTS}' f LEFT JOIN '{WEATHER}' w \
             ON f.origin = w.origin AND f.month = w.month AND f.day = w.day AND f.hour = w.hour"
        ),
        format!(
            "SELECT count(*) FROM '{WEATHER}' w FULL JOIN (SELECT * FROM '{FLIGHTS}' WHERE month = 1) f \
             ON f.origin = w.origin AND f.month = w.month AND f.day = w.day AND f.hour = w.hour"
        ),
        format!(
            "SELECT count(*) FROM '{WEATHER}' w WHERE NOT EXISTS (SELECT 1 FROM '{FLIGHTS}' f WHERE f.origin = w.origin \
             AND f.month = w.month AND f.day = w.day AND f.hour = w.hour)"
        ),
        format!(
            "SELECT a.carrier, b.n FROM (SELECT carrier, count(*) AS n FROM '{FLIGHTS}' GROUP BY 1) a \
             LEFT JOIN (SELECT carrier, count(*) AS n FROM '{FLIGHTS}' WHERE month = 1 GROUP BY 1) b \
             ON a.n > 100 * b.n ORDER BY 1, 2"
        ),
        format!(
            "SELECT carrier FROM (SELECT DISTINCT carrier FROM '{FLIGHTS}') WHERE carrier NOT IN \
             (SELECT carrier FROM '{FLIGHTS}' WHERE arr_delay > 500) ORDER BY 1"
        ),
        // Unions and windows.
        format!(
            "SELECT month, n FROM (SELECT month, count(*) AS n FROM '{FLIGHTS}' GROUP BY 1 UNION ALL SELECT 0, count(*) \
             FROM '{FLIGHTS}' UNION ALL SELECT 13, 0) ORDER BY 1"
        ),
        format!(
            "SELECT day, n, sum(n) OVER (ORDER BY day) FROM (SELECT day, count(*) AS n FROM '{FLIGHTS}' GROUP BY 1) \
             ORDER BY 1"
        ),
        format!("SELECT (SELECT count(*) FROM '{FLIGHTS}') = (SELECT count(*) FROM '{FLIGHTS}' WHERE month > 0)"),
        format!("SELECT count(*) FROM '{FLIGHTS}' WHERE month = 14"),
        "SELECT 1 + 1, 'here'".to_string(),
    ] {
        let [here, there] = on_both(&sql);
        assert!(here.status.success(), "{sql}\n{}", text(&here.stderr));
        assert!(there.status.success(), "{sql}\n{}", text(&there.stderr));
        assert_eq!(text(&here.stdout), text(&there.stdout), "{sql}");
    }
}

#[test]
fn errors_are_those_of_one_process() {
    for sql in [
        format!("SELECT 1 / (month - month) FROM '{FLIGHTS}'"),
        format!("SELECT carier FROM '{FLIGHTS}'"),
        format!(
            "SELECT CAST(origin || carrier || 'x' AS INT) FROM '{FLIGHTS}' WHERE flight = 1545 AND day = 1 AND month = 1"
        ),
        "SELECT * FROM 'nosuch.parquet'".to_string(),
    ] {
        let [here, there] = on_both(&sql);
        assert_eq!(there.status.code(), Some(1), "{sql}");
        assert_eq!(text(&here.stderr), text(&there.stderr), "{sql}");
    }
}

#[test]
fn a_cluster_that_is_not_there() {
    let port = free_port();
    let address = format!("gristmill://127.0.0.1:{port}");
    let output = gristmill(&["-c", "SELECT 1", "--cluster", &address]);
    assert_eq!(output.status.code(), Some(5));
    let told = text(&output.stderr);
    assert!(told.starts_with(&format!("error: the scheduler at {address} cannot be reached")), "{told}");
    let output = gristmill(&["-c", "SELECT 1", "--cluster", "http://x:1"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(gristmill(&["jobs"]).status.code(), Some(2));
}

#[test]
fn copy_writes_with_every_executor() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("flights");
    let sql = format!("COPY (SELECT * FROM '{FLIGHTS}') TO '{}/' STORED AS PARQUET", target.display());
    let address = shared().address().to_string();
    let output = gristmill(&["-c", &sql, "--cluster", &address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(parquet_files(&target), 2, "one file for each partition");
    assert_eq!(count(&target), "336776");
    // There is something now, and the default mode refuses to touch it.
    let output = gristmill(&["-c", &sql, "--cluster", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("exists already"), "{}", text(&output.stderr));
}

fn parquet_files(directory: &Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".parquet")).count()
}

fn count(table: &Path) -> String {
    let sql = format!("SELECT count(*) FROM '{}/'", table.display());
    let output = gristmill(&["-c", &sql, "--format", "csv", "--no-header"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_string()
}

/// An executor is killed while it writes: the other one takes over, and the table is whole.
#[test]
fn a_killed_executor_costs_time_and_nothing_else() {
    let cluster = ClusterProcess::start(2, 1);
    let target = cluster.directory().join("table");
    let first = format!("COPY (SELECT * FROM '{FLIGHTS}' LIMIT 1000) TO '{}/' STORED AS PARQUET", target.display());
    assert!(gristmill(&["-c", &first]).status.success());
    let sql = format!(
        "COPY (SELECT a.*, md5(CAST(a.flight AS STRING) || a.dest) AS code FROM '{FLIGHTS}' a ORDER BY code, a.time_hour) \
         TO '{}/' STORED AS PARQUET MODE OVERWRITE",
        target.display()
    );
    let address = cluster.address().to_string();
    let mut writing =
        Command::new(env!("CARGO_BIN_EXE_gristmill")).args(["-c", &sql, "--cluster", &address]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    signal(cluster.processes("executor")[0], libc::SIGKILL);
    let begun = Instant::now();
    let status = loop {
        let seen = count(&target);
        assert!(["1000", "336776"].contains(&seen.as_str()), "a reader saw {seen} rows");
        match writing.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(begun.elapsed() < PATIENCE, "the COPY does not end"),
        }
    };
    assert!(status.success(), "the COPY fails although an executor is left");
    assert_eq!(count(&target), "336776");
    assert!(
        !target
            .join("_gristmill")
            .read_dir()
            .unwrap()
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().starts_with("staging-") }),
        "staged files are left"
    );
}

fn job(id: &str, address: &str) -> serde_json::Value {
    let output = gristmill(&["status", id, "--format", "json", "--cluster", address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let facts: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let pairs = facts.into_iter().map(|fact| (fact["fact"].as_str().unwrap().to_string(), fact["value"].clone()));
    serde_json::Value::Object(pairs.collect())
}

fn wait_for_state(id: &str, address: &str, wanted: &str) {
    let begun = Instant::now();
    loop {
        let facts = job(id, address);
        if facts["state"] == wanted {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "job {id} does not become {wanted}: {facts}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn script(directory: &Path, name: &str, sql: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, sql).unwrap();
    path.display().to_string()
}

#[test]
fn submitted_jobs() {
    let address = shared().address().to_string();
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("day");
    let sql = format!(
        "DECLARE day BIGINT;\nSELECT count(*) AS n FROM '{FLIGHTS}' WHERE day = $day;\n\
         COPY (SELECT * FROM '{FLIGHTS}' WHERE day = $day) TO '{}/' STORED AS PARQUET MODE OVERWRITE;",
        target.display()
    );
    let file = script(directory.path(), "day.sql", &sql);
    let submit = |more: &[&str]| gristmill(&[&["submit", &file, "--cluster", &address], more].concat());

    let output = submit(&["-p", "day=4", "--wait"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("11059"), "{}", text(&output.stdout));
    assert_eq!(count(&target), "11059");

    // Found before there is a job.
    let output = submit(&["-p", "dya=4"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `day`?"), "{}", text(&output.stderr));
    // Found by the job, which ends as `run` would.
    let output = submit(&["--wait"]);
    assert_eq!(output.status.code(), Some(gristmill(&["run", &file]).status.code().unwrap()));
    assert!(text(&output.stderr).contains("`day`"), "{}", text(&output.stderr));

    let output = submit(&["-p", "day=5"]);
    let id = text(&output.stdout).trim().to_string();
    wait_for_state(&id, &address, "succeeded");
    let log = gristmill(&["logs", &id, "--cluster", &address]);
    assert!(text(&log.stdout).contains("10858"), "{}", text(&log.stdout));
    assert!(text(&log.stderr).contains("done COPY TO"), "{}", text(&log.stderr));
    let list = gristmill(&["jobs", "--format", "csv", "--cluster", &address]);
    assert!(text(&list.stdout).contains(&id), "{}", text(&list.stdout));
    assert_eq!(gristmill(&["status", "nosuch", "--cluster", &address]).status.code(), Some(1));
}

#[test]
fn jobs_of_one_user_run_in_the_order_of_submission() {
    let address = shared().address().to_string();
    let directory = tempfile::tempdir().unwrap();
    let sql = format!("SELECT count(*) FROM '{FLIGHTS}' WHERE month = 2;");
    let file = script(directory.path(), "count.sql", &sql);
    let ids: Vec<String> = (0..12)
        .map(|_| text(&gristmill(&["submit", &file, "--cluster", &address]).stdout).trim().to_string())
        .collect();
    for id in &ids {
        wait_for_state(id, &address, "succeeded");
    }
    let client = engine::cluster::ClusterClient::new(shared().address().clone());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let jobs: Vec<engine::cluster::api::JobInfo> = runtime.block_on(async {
        let (http, url) = client.http("jobs");
        client.answer(http.get(url)).await.unwrap()
    });
    let started: Vec<u64> = (ids.iter())
        .map(|id| jobs.iter().find(|job| job.id == *id).and_then(|job| job.started_ms).expect("it has run"))
        .collect();
    assert!(started.is_sorted(), "{started:?}");
}

/// CPU time of a process in ticks.
fn ticks(process: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_killed_job_stops_computing() {
    let cluster = ClusterProcess::start(2, 1);
    let address = cluster.address().to_string();
    let sql = format!("SELECT sum(a.distance + b.distance) FROM '{FLIGHTS}' a, '{FLIGHTS}' b;");
    let file = script(cluster.directory(), "endless.sql", &sql);
    let id = text(&gristmill(&["submit", &file, "--cluster", &address]).stdout).trim().to_string();
    let executors = cluster.processes("executor");
    let used = || executors.iter().map(|process| ticks(*process)).sum::<u64>();
    let (begun, before) = (Instant::now(), used());
    while used() < before + 50 {
        assert!(begun.elapsed() < PATIENCE, "the executors do not begin to compute");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(gristmill(&["kill", &id, "--cluster", &address]).status.success());
    wait_for_state(&id, &address, "cancelled");
    std::thread::sleep(Duration::from_secs(2));
    let after = used();
    std::thread::sleep(Duration::from_secs(1));
    let more = used() - after;
    assert!(more < 20, "the executors still compute: {more} ticks of 100 in a second");
}

/// The scheduler is killed in the middle of a job, started again, and the job goes on where it was.
#[test]
fn a_job_survives_the_scheduler() {
    let directory = tempfile::tempdir().unwrap();
    let (state, out) = (directory.path().join("state"), directory.path().join("out"));
    let bind = format!("127.0.0.1:{}", free_port());
    let address = format!("gristmill://{bind}");
    let start = || Role::start(&["scheduler", "--bind", &bind, "--state-dir", &state.display().to_string()]);
    let scheduler = start();
    let _executor = Role::start(&["executor", "--scheduler", &address, "--cores", "2"]);
    wait_for_executors(&address);

    let statement = |number: usize| {
        format!(
            "COPY (SELECT * FROM flights WHERE month = {number}) TO '{}/{number}/' STORED AS PARQUET;\n",
            out.display()
        )
    };
    let mut sql = format!("CREATE VIEW flights AS SELECT * FROM '{FLIGHTS}';\n");
    sql.extend((1..=3).map(statement));
    sql += &format!(
        "COPY (SELECT a.* FROM flights a, (SELECT * FROM flights LIMIT 400) b WHERE a.distance * b.distance < 0) \
         TO '{}/slow/' STORED AS PARQUET;\n",
        out.display()
    );
    sql.extend((4..=5).map(statement));
    let file = script(directory.path(), "months.sql", &sql);
    let id = text(&gristmill(&["submit", &file, "--cluster", &address]).stdout).trim().to_string();
    let begun = Instant::now();
    while job(&id, &address)["statements"] != "4/7" {
        assert!(begun.elapsed() < PATIENCE, "{}", job(&id, &address));
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(scheduler.process(), libc::SIGKILL);
    drop(scheduler);

    let _scheduler = start();
    wait_for_executors(&address);
    let facts = job(&id, &address);
    assert_eq!((&facts["state"], &facts["statements"]), (&"lost".into(), &"4/7".into()), "{facts}");
    let output = gristmill(&["submit", "--resume", &id, "--wait", "--cluster", &address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(job(&id, &address)["statements"], "7/7");
    for month in 1..=5 {
        let sql = format!("SELECT count(*) FROM '{FLIGHTS}' WHERE month = {month}");
        let expected = gristmill(&["-c", &sql, "--format", "csv", "--no-header"]);
        assert_eq!(count(&out.join(month.to_string())), text(&expected.stdout).trim(), "month {month}");
    }
    assert_eq!(count(&out.join("slow")), "0");
    let output = gristmill(&["submit", "--resume", &id, "--cluster", &address]);
    assert!(text(&output.stderr).contains("there is nothing to resume"), "{}", text(&output.stderr));
}

fn wait_for_executors(address: &str) {
    let begun = Instant::now();
    loop {
        let output = gristmill(&["cluster", "executors", "--format", "jsonl", "--cluster", address]);
        if output.status.success() && !output.stdout.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no executor at {address}: {}", text(&output.stderr));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A query that does not fit ends with an error that says so, and the executor goes on.
#[test]
fn an_executor_outlives_a_query_beyond_its_memory() {
    let cluster = ClusterProcess::start_with(1, 1, &["--memory", "4m"]);
    let address = cluster.address().to_string();
    let executor = cluster.processes("executor");
    let sql = format!(
        "SELECT max(array_length(a)) FROM (SELECT array_agg(tailnum || dest || time_hour) AS a FROM '{FLIGHTS}' GROUP BY month)"
    );
    let output = gristmill(&["-c", &sql, "--cluster", &address]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for noun in ["HashAggregate", "Failed to allocate additional", "remain available"] {
        assert!(told.contains(noun), "{told}");
    }
    let output =
        gristmill(&["-c", &format!("SELECT count(*) FROM '{FLIGHTS}'"), "--format", "csv", "--cluster", &address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(cluster.processes("executor"), executor, "the executor was started again");
}
