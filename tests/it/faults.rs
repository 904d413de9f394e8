//! The process dies, is told to stop, or runs out of disk while it writes: a table reads as before or as after, a model is
//! there or is not, and whoever comes next finds no traces. (The storage crate's own tests kill it at every named step of
//! a commit; here whole jobs are killed at any moment.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::model_files::{ModelFiles, of_model};
use crate::program::{PROGRAM, Place, Running, before_exec, january};

/// Fractions of a run at which it is killed: scattered, and the same at every run of the tests (SplitMix64).
pub(crate) fn moments(seed: u64, count: usize) -> impl Iterator<Item = f64> {
    let mut state = seed;
    (0..count).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    })
}

/// How long an undisturbed run takes, from its start.
fn time_of(place: &Place, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    place.ok(arguments);
    begun.elapsed()
}

/// Starts a run and kills it after a fraction of `whole`, which becomes less when the run was faster.
fn kill_at(place: &Place, arguments: &[&str], whole: &mut Duration, moment: f64) {
    let run = place.start(arguments);
    sleep(whole.mul_f64(moment));
    run.signal(libc::SIGKILL);
    if run.end().code == 0 {
        *whole = whole.mul_f64(moment);
    }
}

/// What an interrupted writer may leave and the next one must remove, below `directory`.
fn traces(place: &Place, directory: &str) -> Vec<String> {
    let mut names = place.names(directory);
    names.retain(|name| ["staging-", "plan-", ".lock", ".tmp", "_runs"].iter().any(|trace| name.contains(trace)));
    names
}

/// Generation `number` of a table, as COPY writes it to `target`: so many rows that writing takes a while.
fn copy(target: &str, mode: &str, number: usize) -> String {
    let partitioned = if target.ends_with('/') { "PARTITIONED BY (part)" } else { "" };
    format!(
        "COPY (SELECT value AS id, value % 7 AS part, {number} AS generation FROM generate_series(1, {rows})) \
         TO '{target}' STORED AS PARQUET {partitioned} MODE {mode}",
        rows = 200_000 + number
    )
}

/// The table's rows and generations.
fn read(place: &Place, target: &str) -> Vec<(usize, usize)> {
    let sql = format!("SELECT generation, count(*) FROM '{target}' GROUP BY 1 ORDER BY 1");
    let number = |text: &str| text.parse().unwrap();
    place.rows(&sql).lines().map(|line| line.split_once(',').unwrap()).map(|(g, n)| (number(g), number(n))).collect()
}

#[test]
fn a_killed_copy_leaves_the_table_as_before_or_as_after() {
    for (seed, target, mode) in [
        (1, "out/", "OVERWRITE"),
        (2, "out/", "APPEND"),
        (3, "out/", "OVERWRITE PARTITIONS"),
        (4, "out.parquet", "OVERWRITE"),
    ] {
        let place = Place::new();
        let mut whole = time_of(&place, &["-q", "-c", &copy(target, mode, 1)]);
        let mut before = read(&place, target);
        let mut killed_before_the_end = 0;
        for (index, moment) in moments(seed, 8).enumerate() {
            let number = index + 2;
            kill_at(&place, &["-q", "-c", &copy(target, mode, number)], &mut whole, moment);
            let seen = read(&place, target);
            let mut after = if mode == "APPEND" { before.clone() } else { vec![] };
            after.push((number, 200_000 + number));
            assert!(seen == before || seen == after, "{target} {mode} killed at {moment}: {before:?} became {seen:?}");
            killed_before_the_end += usize::from(seen == before);
            before = seen;
        }
        assert!(killed_before_the_end > 0, "{target} {mode}: every COPY was faster than its killer");
        place.ok(&["-q", "-c", &copy(target, "OVERWRITE", 99)]);
        assert_eq!(read(&place, target), [(99, 200_099)]);
        assert_eq!(traces(&place, ""), [""; 0], "{target} {mode}");
        let data = place.names("").iter().filter(|name| name.ends_with(".parquet")).count();
        let named = place.rows(&format!("SELECT count(DISTINCT part) FROM '{target}'"));
        assert_eq!(data.to_string(), if target.ends_with('/') { named.trim() } else { "1" }, "{:?}", place.names(""));
        assert_eq!(place.temporary(), [""; 0]);
    }
}

/// Whoever reads a table while others replace it over and over gets one of its contents, and no error.
#[test]
fn a_reader_of_a_table_that_is_replaced_meanwhile_gets_one_of_its_contents() {
    let place = Place::new();
    place.ok(&["-q", "-c", &copy("out/", "OVERWRITE", 1)]);
    let number = std::sync::atomic::AtomicUsize::new(1);
    let is_written = || number.load(std::sync::atomic::Ordering::Relaxed) < 12;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while is_written() {
                let next = number.load(std::sync::atomic::Ordering::Relaxed) + 1;
                place.ok(&["-q", "-c", &copy("out/", "OVERWRITE", next)]);
                number.store(next, std::sync::atomic::Ordering::Relaxed);
            }
        });
        while is_written() {
            let [(generation, rows)] = read(&place, "out/")[..] else { panic!("several contents at once") };
            assert_eq!(rows, 200_000 + generation);
        }
    });
}

/// A network on the flights of January; `epochs` of them, with a checkpoint every 20 steps.
fn create_model(epochs: usize) -> String {
    format!(
        "SET ml.kernel = 'native';
         SET ml.checkpoint_steps = 20;
         CREATE OR REPLACE MODEL late OPTIONS (model_type = 'dnn_classifier', input_label_cols = ['late'], \
           hidden_units = [32, 16], optimizer = 'ADAM', dropout = 0.1, batch_size = 128, max_iterations = {epochs}, \
           early_stop = FALSE, data_split_method = 'RANDOM', seed = 3) \
         AS SELECT late, carrier, origin, dest, hour, distance, dep_delay, temp FROM '{}'",
        january().display()
    )
}

#[test]
fn a_killed_training_leaves_no_model_and_the_next_one_has_the_same_bytes() {
    let undisturbed = Place::new();
    undisturbed.write("job.sql", create_model(4));
    let mut whole = time_of(&undisturbed, &["-q", "-f", "job.sql"]);
    let expected = of_model(&undisturbed, "late", 1);
    let place = Place::new();
    place.write("job.sql", create_model(4));
    let mut version = 0;
    for moment in moments(5, 10) {
        kill_at(&place, &["-q", "-f", "job.sql"], &mut whole, moment);
        let versions = place.rows("SELECT version FROM INFORMATION_SCHEMA.MODELS ORDER BY version");
        let now = versions.lines().last().map_or(0, |last| last.parse::<u64>().unwrap());
        assert!(now == version || now == version + 1, "killed at {moment}: {version} became {versions}");
        if now > version {
            assert_eq!(of_model(&place, "late", now), expected, "killed at {moment}");
        }
        version = now;
    }
    place.ok(&["-q", "-f", "job.sql"]);
    assert_eq!(of_model(&place, "late", version + 1), expected);
    assert_eq!(traces(&place, ""), [""; 0]);
    assert_eq!(place.temporary(), [""; 0]);
}

#[test]
fn a_killed_training_goes_on_from_its_checkpoint() {
    let undisturbed = Place::new();
    undisturbed.write("job.sql", create_model(4));
    undisturbed.ok(&["-q", "-f", "job.sql"]);
    let place = Place::new();
    place.write("job.sql", create_model(4));
    let mut run = place.start(&["run", "job.sql"]);
    run.until_said("epoch 2/4");
    run.signal(libc::SIGKILL);
    let killed = run.end();
    assert_eq!(killed.code, 137, "it was faster than its killer: {}", killed.stderr);
    let resumed = place.ok(&["run", "job.sql"]).stderr;
    assert!(!resumed.contains("epoch 1/4") && resumed.contains("epoch 4/4"), "{resumed}");
    assert_eq!(of_model(&place, "late", 1), of_model(&undisturbed, "late", 1));
    assert_eq!(traces(&place, ""), [""; 0]);
}

#[test]
fn a_resumed_training_shows_its_earlier_epochs_while_it_runs() {
    let place = Place::new();
    place.write("job.sql", create_model(1_000_000));
    let mut run = place.start(&["run", "job.sql"]);
    run.until_said("epoch 4/");
    run.signal(libc::SIGKILL);
    assert_eq!(run.end().code, 137);
    let mut resumed = place.start(&["run", "job.sql"]);
    let curve = "SELECT status, min(iteration), max(iteration) = count(*) FROM ML.TRAINING_INFO(MODEL late) GROUP BY 1";
    let seen = loop {
        assert!(!resumed.has_ended(), "{}", resumed.said());
        // While there is no run to be seen there is no such model.
        let asked = place.run(&["-q", "--format", "csv", "--no-header", "-c", curve]);
        match asked.stdout.as_str() {
            "" => sleep(Duration::from_millis(20)),
            seen => break seen.to_string(),
        }
    };
    resumed.signal(libc::SIGINT);
    let ended = resumed.end();
    assert_eq!(ended.code, 130);
    assert!(!ended.stderr.contains("epoch 1/"), "{}", ended.stderr);
    assert_eq!(seen, "running,1,true\n");
}

/// Work that would go on for hours, with what shows that it is under way.
fn endless() -> [(&'static str, String, fn(&Place, &Running) -> bool); 4] {
    let rows = "generate_series(1, 1000000000000)";
    [
        ("SELECT", format!("SELECT max(sqrt(value)) FROM {rows}"), |_, _| true),
        ("-o", format!("SELECT value FROM {rows}"), |place, _| {
            place.names("").iter().any(|name| name.contains("scored"))
        }),
        (
            "COPY",
            format!("COPY (SELECT value, value % 3 AS part FROM {rows}) TO 'out/' PARTITIONED BY (part) STORED AS CSV"),
            |place, _| place.names("out").iter().any(|name| name.ends_with(".tmp")),
        ),
        ("CREATE MODEL", create_model(1_000_000), |_, run| run.said().contains("epoch 2/")),
    ]
}

#[test]
fn a_signal_stops_the_job_and_leaves_nothing() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 4), (libc::SIGHUP, 4)] {
        for (what, sql, is_under_way) in endless() {
            let place = Place::new();
            place.write("job.sql", &sql);
            let mut arguments = vec!["run", "job.sql"];
            if what == "-o" {
                arguments.extend(["-o", "scored.csv"]);
            }
            let before = place.contents();
            let mut run = place.start(&arguments);
            while !is_under_way(&place, &run) && !run.has_ended() {
                sleep(Duration::from_millis(5));
            }
            sleep(Duration::from_millis(200));
            run.signal(signal);
            let ended = run.end();
            assert_eq!(ended.code, code, "{what}: {}{}", ended.stdout, ended.stderr);
            assert_eq!(place.contents(), before, "{what}, signal {signal}");
        }
    }
}

/// `nohup` starts a program with hang-ups ignored, a shell script its background jobs with interrupts ignored.
#[test]
fn a_signal_that_the_caller_ignores_is_ignored() {
    let ignored: [(i32, fn() -> std::io::Result<()>); 2] =
        [(libc::SIGHUP, || ignore(libc::SIGHUP)), (libc::SIGINT, || ignore(libc::SIGINT))];
    for (signal, ignore_it) in ignored {
        let place = Place::new();
        place.write("job.sql", create_model(6));
        let mut command = place.command(["run", "job.sql"]);
        before_exec(&mut command, ignore_it);
        let mut run = Running::start(&place, command);
        run.until_said("epoch 1/6");
        assert!(!run.has_ended(), "{}", run.said());
        run.signal(signal);
        let ended = run.end();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.stderr.contains("epoch 6/6"), "{}", ended.stderr);
    }
}

#[test]
fn nohup_outlives_the_terminal() {
    let place = Place::new();
    place.write("job.sql", create_model(6));
    let mut run = Running::start(&place, place.command_of("nohup", [PROGRAM, "run", "job.sql"]));
    run.until_said("epoch 1/6");
    run.signal(libc::SIGHUP);
    let ended = run.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
}

fn ignore(signal: i32) -> std::io::Result<()> {
    // SAFETY: ignoring a signal refers to no memory.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
    Ok(())
}

/// A disk of two megabytes at a place's `small/`, where the machine lets us have one.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Option<SmallDisk> {
        fs::create_dir(path).unwrap();
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(path).output();
        status.is_ok_and(|output| output.status.success()).then(|| SmallDisk { path: path.to_path_buf() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}

/// No file may grow beyond a megabyte: what a full disk looks like where nobody may mount one.
fn small_files() -> std::io::Result<()> {
    ignore(libc::SIGXFSZ)?;
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: the limit is read before the call returns.
    match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn a_full_disk_ends_the_job_with_one_message_and_leaves_nothing() {
    let rows =
        "SELECT value, value % 2 AS part, sha256(CAST(value AS STRING)) AS noise FROM generate_series(1, 200000)";
    let network = format!(
        "SET ml.checkpoint_steps = 1;
         CREATE MODEL wide OPTIONS (model_type = 'dnn_classifier', input_label_cols = ['late'], hidden_units = [1024, 600], \
           max_iterations = 2, optimizer = 'ADAM', batch_size = 1024, early_stop = FALSE) \
         AS SELECT late, hour, distance, dep_delay FROM '{}'",
        january().display()
    );
    for (what, sql, flags) in [
        ("COPY to a table", format!("COPY ({rows}) TO 'small/out/' STORED AS PARQUET PARTITIONED BY (part)"), &[][..]),
        ("COPY to a file", format!("COPY ({rows}) TO 'small/out.csv'"), &[]),
        ("a result", rows.to_string(), &["-o", "small/result.csv"]),
        ("a model", network.replace("steps = 1", "steps = 0"), &["--warehouse", "small/warehouse"]),
        ("a checkpoint", network, &["--warehouse", "small/warehouse"]),
    ] {
        let place = Place::new();
        let disk = SmallDisk::mount(&place.path("small"));
        place.write("job.sql", &sql);
        place.write("small/other", "not ours");
        let before = place.contents();
        let mut command = place.command([&["run", "-q", "job.sql"], flags].concat());
        if disk.is_none() {
            eprintln!("{what}: no disk could be mounted; the size of files is limited instead");
            before_exec(&mut command, small_files);
        }
        let ended = Running::start(&place, command).end();
        assert_eq!(ended.code, 1, "{what}: {}{}", ended.stdout, ended.stderr);
        let full = if disk.is_some() { "No space left on device" } else { "File too large" };
        for part in [full, "small/"] {
            assert!(ended.stderr.contains(part), "{what}: {part} is missing in {}", ended.stderr);
        }
        assert_eq!(
            ended.stderr.lines().filter(|line| line.starts_with("error:")).count(),
            1,
            "{what}: {}",
            ended.stderr
        );
        assert_eq!(place.contents(), before, "{what}: {}", ended.stderr);
    }
}

#[test]
fn of_two_processes_that_create_the_same_model_one_wins() {
    let place = Place::new();
    place.write("create.sql", create_model(3).replace("OR REPLACE ", ""));
    let runs = [0, 1].map(|_| place.start(&["run", "-q", "create.sql"]));
    let ended = runs.map(Running::end);
    let mut codes = ended.each_ref().map(|run| run.code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 1], "{ended:?}");
    let loser = ended.iter().find(|run| run.code == 1).unwrap();
    assert!(loser.stderr.starts_with("error: the model late exists already\n"), "{}", loser.stderr);
    assert_eq!(place.rows("SELECT version FROM INFORMATION_SCHEMA.MODELS"), "1\n");
    assert_eq!(traces(&place, ""), [""; 0]);
}

#[test]
fn of_two_processes_that_replace_the_same_model_both_get_a_version() {
    let place = Place::new();
    place.write("replace.sql", create_model(3));
    let runs = [0, 1].map(|_| place.start(&["run", "-q", "replace.sql"]));
    for ended in runs.map(Running::end) {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    let versions: [ModelFiles; 2] = [1, 2].map(|version| of_model(&place, "late", version));
    assert_eq!(versions[0], versions[1]);
    assert_eq!(traces(&place, ""), [""; 0]);
}
