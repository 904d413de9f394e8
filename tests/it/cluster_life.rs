//! A cluster stays up: what stands still, ends or is damaged is waited for, started again, or told of, and nothing else
//! ends with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::cluster_process::{Roles, free_port, signal, spawn};

/// No step here takes longer, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);

fn gristmill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gristmill")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn submit(directory: &Path, address: &str, sql: &str) -> String {
    let file = directory.join(format!("{}.sql", sql.len()));
    fs::write(&file, sql).unwrap();
    let output = gristmill(&["submit", &file.display().to_string(), "--cluster", address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_string()
}

fn fact(job: &str, address: &str, fact: &str) -> String {
    let output = gristmill(&["status", job, "--format", "json", "--cluster", address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let facts: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let found = facts.iter().find(|row| row["fact"] == fact).map(|row| row["value"].clone());
    found.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

/// Executors as the scheduler lists them: `id,address,cores,last_seen`.
fn listed(address: &str) -> Vec<String> {
    let output = gristmill(&["cluster", "executors", "--format", "csv", "--no-header", "--cluster", address]);
    text(&output.stdout).lines().map(str::to_string).collect()
}

fn is_alive(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// The scheduler stands still for longer than an executor may be silent: nobody is taken for lost, and nobody ends.
#[test]
fn a_frozen_scheduler_ends_nobody() {
    let cluster = Roles::start(2);
    let address = cluster.address().to_string();
    signal(cluster.scheduler(), libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(28));
    signal(cluster.scheduler(), libc::SIGCONT);
    std::thread::sleep(Duration::from_secs(3));
    assert!(is_alive(cluster.executor(0)) && is_alive(cluster.executor(1)));
    assert_eq!(listed(&address).len(), 2);
    let data = cluster.directory().join("t.csv");
    fs::write(&data, "k\n1\n2\n3\n").unwrap();
    let sql = format!("SELECT sum(k) AS s FROM '{}'", data.display());
    let output = gristmill(&["-c", &sql, "--format", "csv", "--cluster", &address]);
    assert_eq!(text(&output.stdout), "s\n6\n", "{}", text(&output.stderr));
}

/// Jobs and queries come before the first executor, and wait for it; one that is killed comes back under its name.
#[test]
fn executors_are_waited_for_and_come_back_under_their_names() {
    let mut cluster = Roles::start(0);
    let address = cluster.address().to_string();
    let data = cluster.directory().join("t.csv");
    fs::write(&data, "k\n1\n2\n3\n").unwrap();
    let sql = format!("SELECT sum(k) AS s FROM '{}';", data.display());
    let job = submit(cluster.directory(), &address, &sql);
    let query = {
        let (sql, address) = (sql.clone(), address.clone());
        std::thread::spawn(move || gristmill(&["-c", &sql, "--format", "csv", "--cluster", &address]))
    };
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fact(&job, &address, "state"), "queued");
    cluster.add_executor();
    let output = query.join().unwrap();
    assert_eq!(text(&output.stdout), "s\n6\n", "{}", text(&output.stderr));
    until("the job does not run", || fact(&job, &address, "state") == "succeeded");

    let before = listed(&address);
    let begun = Instant::now();
    cluster.restart_executor(0);
    until("the executor does not come back", || matches!(&listed(&address)[..], [one] if *one != before[0]));
    assert!(begun.elapsed() < Duration::from_secs(18), "it had to wait until the dead one was forgotten");
    assert!(is_alive(cluster.executor(0)));
    let output = gristmill(&["-c", &sql, "--format", "csv", "--cluster", &address]);
    assert_eq!(text(&output.stdout), "s\n6\n", "{}", text(&output.stderr));
}

/// A state directory has one scheduler; damage in it is told of, and ends nothing.
#[test]
fn a_damaged_history_is_listed() {
    let mut cluster = Roles::start(1);
    let (address, directory) = (cluster.address().to_string(), cluster.directory().to_path_buf());
    let state = directory.join("state");
    let bind = format!("127.0.0.1:{}", free_port());
    let second = gristmill(&["scheduler", "--bind", &bind, "--state-dir", &state.display().to_string()]);
    assert_eq!(second.status.code(), Some(2));
    let told = text(&second.stderr);
    assert!(told.contains(&format!("is that of the scheduler at {address} (process ")), "{told}");

    let jobs: Vec<String> = ["SELECT 1 AS a;", "SELECT 2 AS ab;", "SELECT 3 AS abc;"]
        .into_iter()
        .map(|sql| {
            let job = submit(&directory, &address, sql);
            until("the job does not end", || fact(&job, &address, "state") == "succeeded");
            job
        })
        .collect();
    let file = |job: &str, name: &str| state.join("jobs").join(job).join(name);
    let mut events = fs::read(file(&jobs[0], "events.jsonl")).unwrap();
    events.extend(b"\xff\xfe\n");
    fs::write(file(&jobs[0], "events.jsonl"), events).unwrap();
    fs::write(file(&jobs[1], "request.json"), r#"{"script": "SEL"#).unwrap();
    cluster.replace_scheduler();
    cluster.wait();
    for (job, state, error) in [(0, "damaged", "events.jsonl is damaged"), (1, "damaged", "request.json is damaged")] {
        assert_eq!(fact(&jobs[job], &address, "state"), state);
        assert!(fact(&jobs[job], &address, "error").contains(error));
        let output = gristmill(&["submit", "--resume", &jobs[job], "--cluster", &address]);
        assert!(text(&output.stderr).contains("cannot be resumed"), "{}", text(&output.stderr));
    }
    assert_eq!(fact(&jobs[2], &address, "state"), "succeeded");
}

/// `cluster start` hands its flags on, starts again what ends, says so, and ends without another word.
#[test]
fn cluster_start_keeps_its_roles_up() {
    let directory = tempfile::tempdir().unwrap();
    let (place, mine) = (directory.path(), directory.path().join("mine"));
    fs::create_dir(&mine).unwrap();
    let log = place.join("log");
    let bind = format!("127.0.0.1:{}", free_port());
    let address = format!("gristmill://{bind}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command
        .args(["cluster", "start", "--executors", "1", "--cores", "1", "--bind", &bind, "--state-dir", "state"])
        .args(["--work-dir", ".", "--warehouse", "lake", "--set", "engine.batch_size=4096"])
        .current_dir(place)
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap());
    let mut cluster = spawn(command);
    until("the cluster does not start", || fs::read_to_string(&log).unwrap().contains("--cluster gristmill://"));
    let roles = |role: &str| -> Vec<(i32, String)> {
        let own = cluster.id();
        let threads = fs::read_dir(format!("/proc/{own}/task")).into_iter().flatten().flatten();
        let children: Vec<String> =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
        let children = children.join(" ");
        let numbers = children.split_whitespace().filter_map(|number| number.parse().ok());
        let command = |process| fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let named = numbers.map(|process: i32| (process, command(process).replace('\0', " ")));
        named.filter(|(_, command)| command.contains(&format!(" {role} "))).collect()
    };
    for role in ["scheduler", "executor"] {
        let flags = "--warehouse lake --set engine.batch_size=4096";
        assert!(roles(role)[0].1.contains(flags), "{:?}", roles(role));
    }

    for role in ["executor", "scheduler"] {
        let [(process, _)] = roles(role)[..] else { panic!("one {role}") };
        signal(process, libc::SIGKILL);
        until("it is not started again", || matches!(&roles(role)[..], [(new, _)] if *new != process));
        let told = format!("{role}{} has ended (signal: 9 (SIGKILL)", if role == "executor" { "-1" } else { "" });
        until("nothing is said", || fs::read_to_string(&log).unwrap().contains(&told));
    }
    until("the executor does not come back", || listed(&address).len() == 1);

    // A job's relative places are where it was submitted; the warehouse is the one that the cluster was given.
    fs::write(mine.join("in.csv"), "x,label\n1,2\n2,4\n3,6\n4,8\n").unwrap();
    fs::write(
        mine.join("job.sql"),
        "CREATE MODEL m OPTIONS (model_type = 'linear_reg', data_split_method = 'NO_SPLIT') AS SELECT * FROM 'in.csv';\n\
         CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'in.csv';\n\
         COPY (SELECT sum(x) AS s FROM t) TO 'out/' STORED AS CSV;",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["submit", "job.sql", "--wait", "-q", "--cluster", &address])
        .current_dir(&mine)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(mine.join("out").is_dir() && !place.join("out").exists() && place.join("lake/models/m").is_dir());

    let before = fs::read_to_string(&log).unwrap();
    signal(i32::try_from(cluster.id()).unwrap(), libc::SIGTERM);
    cluster.wait().unwrap();
    let after = fs::read_to_string(&log).unwrap();
    assert!(!after[before.len()..].to_lowercase().contains("err"), "{}", &after[before.len()..]);
}
