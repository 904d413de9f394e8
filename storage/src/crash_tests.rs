//! Processes that die at every step, write at the same time, or run out of disk.
//!
//! Each test runs this test binary again with one ignored test, [`child`], which does what its environment says. The
//! parent looks at what is left, as a reader and as the next writer.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;

use crate::testing::{commit, contents, raw_names, write};
use crate::{ArtifactStore, Commit, CommitMode, Error, Location, Stores, fault};

const DIRECTORY: &str = "GRISTMILL_TEST_DIRECTORY";
const JOB: &str = "GRISTMILL_TEST_JOB";

fn location(path: &Path) -> Location {
    Location::parse(&format!("{}/", path.display())).unwrap()
}

fn command(directory: &Path, job: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash_tests::child", "--ignored", "--nocapture", "--test-threads", "1"]);
    command.env(DIRECTORY, directory).env(JOB, job).stdin(Stdio::null());
    command
}

fn run(directory: &Path, job: &str, environment: &[(&str, &str)]) -> Output {
    command(directory, job).envs(environment.iter().copied()).output().unwrap()
}

/// What the child process does; not a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the other tests of this module"]
#[allow(clippy::disallowed_methods, reason = "the parent test steers its child")]
async fn child() {
    let (Ok(directory), Ok(job)) = (std::env::var(DIRECTORY), std::env::var(JOB)) else { return };
    let (stores, root) = (Stores::new(), Location::parse(&format!("{directory}/")).unwrap());
    let table = root.join("t/");
    let (job, argument) = job.split_once(':').unwrap_or((&job, ""));
    let new = [("m=1", "new1"), ("m=2", "new2"), ("m=3", "new3")];
    let done = match job {
        "append" => commit(&stores, &table, CommitMode::Append, &new).await.map(|_| ()),
        "overwrite" => commit(&stores, &table, CommitMode::Overwrite, &new).await.map(|_| ()),
        "partitions" => commit(&stores, &table, CommitMode::OverwritePartitions, &new).await.map(|_| ()),
        "file" => commit(&stores, &root.join("x.csv"), CommitMode::Overwrite, &[("", "new")]).await.map(|_| ()),
        "rollback" => crate::roll_back(&stores, &table, 1, 3).await.map(|_| ()),
        "artifact" => ArtifactStore::new(stores, root).publish("m", model("new")).await.map(|_| ()),
        "exclusive" => ArtifactStore::new(stores, root).publish_exclusive("m", 1, model(argument)).await.map(|_| ()),
        "only" => commit(&stores, &table, CommitMode::ErrorIfExists, &[("", argument)]).await.map(|_| ()),
        "many" => {
            for i in 0..5 {
                let text = format!("{argument}-{i}");
                commit(&stores, &table, CommitMode::Append, &[("m=1", &text), ("m=2", &text)]).await.unwrap();
                println!("committed {text}");
            }
            Ok(())
        }
        other => panic!("no job {other}"),
    };
    match done {
        Ok(()) => println!("done"),
        Err(e) => println!("{}: {e}", format!("{e:?}").split([' ', '{']).next().unwrap_or_default()),
    }
}

fn model(text: &str) -> Vec<(String, Bytes)> {
    vec![("model.json".into(), Bytes::from("{}")), ("weights".into(), Bytes::from(text.repeat(100)))]
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Kills the job at every fault point, the first, second, ... time it is reached, and calls `check` on what is left.
/// Returns the points that were reached.
async fn killed_everywhere(
    job: &str,
    prepare: impl AsyncFn(&Stores, &Location),
    check: impl AsyncFn(&Stores, &Location, &str),
) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    for point in fault::POINTS {
        for hit in 1.. {
            let directory = tempfile::tempdir().unwrap();
            let (stores, root) = (Stores::new(), location(directory.path()));
            prepare(&stores, &root).await;
            let at = format!("{point}:{hit}");
            let output = run(directory.path(), job, &[("GRISTMILL_CRASH_AT", &at)]);
            check(&stores, &root, &at).await;
            if output.status.success() {
                assert!(printed(&output).contains("done"), "{at}: {}", printed(&output));
                break;
            }
            assert!(hit < 100, "{point} is reached again and again");
            reached.insert(*point);
        }
    }
    reached
}

/// A name that no directory can have is planned, and the writer dies before it finds out: whoever comes next is not kept
/// from writing.
#[tokio::test]
async fn a_leftover_that_cannot_have_been_made_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, table) = (Stores::new(), location(directory.path()).join("t/"));
    commit(&stores, &table, CommitMode::Append, &[("m=1", "old")]).await.unwrap();
    let long = format!("m={}", "w".repeat(300));
    assert!(commit(&stores, &table, CommitMode::Append, &[(&long, "new")]).await.is_err());
    for mode in [CommitMode::Append, CommitMode::Overwrite] {
        commit(&stores, &table, mode, &[("m=2", "after")]).await.unwrap();
    }
    assert_eq!(contents(&stores, &table).await.unwrap(), ["m=2:after"]);
    assert_clean(&stores, &table, 1, "after").await;
}

/// Neither staged nor temporary files, neither locks nor data files that no manifest names.
async fn assert_clean(stores: &Stores, root: &Location, visible: usize, at: &str) {
    let names = raw_names(stores, root).await;
    let waste: Vec<&String> = names
        .iter()
        .filter(|name| name.contains("staging-") || name.ends_with(".lock") || name.ends_with(".tmp"))
        .collect();
    assert!(waste.is_empty(), "{at}: left behind: {waste:?}");
    let data = names.iter().filter(|name| name.ends_with(".csv")).count();
    assert_eq!(data, visible, "{at}: data files on disk and in the table: {names:?}");
}

async fn table_is_old_or_new(mode: &str, old: &[&str], new: &[&str]) -> BTreeSet<&'static str> {
    killed_everywhere(
        mode,
        async |stores, root| {
            commit(stores, &root.join("t/"), CommitMode::Append, &[("m=1", "old1"), ("m=4", "old4")]).await.unwrap();
        },
        async |stores, root, at| {
            let table = root.join("t/");
            let seen = contents(stores, &table).await.unwrap();
            assert!(seen == old || seen == new, "{at}: a mixture: {seen:?}");
            // A reader of the parent directory sees the same.
            assert_eq!(contents(stores, root).await.unwrap().len(), seen.len(), "{at}");
            commit(stores, &table, CommitMode::Append, &[("m=5", "after")]).await.unwrap();
            let after = contents(stores, &table).await.unwrap();
            let expected: Vec<String> = seen.iter().cloned().chain(["m=5:after".to_string()]).collect();
            assert_eq!(after, expected, "{at}");
            assert_clean(stores, root, after.len(), at).await;
        },
    )
    .await
}

#[tokio::test]
async fn killed_while_overwriting() {
    let new = ["m=1:new1", "m=2:new2", "m=3:new3"];
    let reached = table_is_old_or_new("overwrite", &["m=1:old1", "m=4:old4"], &new).await;
    let points: BTreeSet<&str> =
        fault::POINTS.iter().copied().filter(|point| !point.starts_with("artifact.")).collect();
    let missed: Vec<&&str> = points.difference(&reached).collect();
    assert_eq!(missed, [&"commit.baseline"], "the table has a manifest already");
}

#[tokio::test]
async fn killed_while_appending() {
    let new = ["m=1:new1", "m=1:old1", "m=2:new2", "m=3:new3", "m=4:old4"];
    table_is_old_or_new("append", &["m=1:old1", "m=4:old4"], &new).await;
}

#[tokio::test]
async fn killed_while_overwriting_partitions() {
    let new = ["m=1:new1", "m=2:new2", "m=3:new3", "m=4:old4"];
    table_is_old_or_new("partitions", &["m=1:old1", "m=4:old4"], &new).await;
}

/// Wherever going back is interrupted, it can be done again: what is kept stays until it is in its place.
#[tokio::test]
async fn killed_while_going_back() {
    let keeping = async |stores: &Stores, table: &Location, text: &str| {
        let commit = Commit::begin(stores, table, CommitMode::Overwrite).await.unwrap().keeping(3);
        let written = vec![write(&commit, stores, "m=1", text).await, write(&commit, stores, "m=2", text).await];
        commit.publish(written).await.unwrap();
    };
    killed_everywhere(
        "rollback",
        async |stores, root| {
            keeping(stores, &root.join("t/"), "old").await;
            keeping(stores, &root.join("t/"), "new").await;
        },
        async |stores, root, at| {
            let table = root.join("t/");
            let seen = contents(stores, &table).await.unwrap();
            let is_back = seen == ["m=1:old", "m=2:old"];
            assert!(is_back || seen == ["m=1:new", "m=2:new"], "{at}: a mixture: {seen:?}");
            if !is_back {
                crate::roll_back(stores, &table, 1, 3).await.unwrap();
            }
            assert_eq!(contents(stores, &table).await.unwrap(), ["m=1:old", "m=2:old"], "{at}");
            assert_eq!(contents(stores, root).await.unwrap().len(), 2, "{at}");
        },
    )
    .await;
}

/// A directory of foreign files has no manifest before the first commit: neither they nor the new ones are lost or mixed.
#[tokio::test]
async fn killed_in_the_first_commit() {
    let reached = killed_everywhere(
        "overwrite",
        async |stores, root| stores.put_atomic(&root.join("t/m=1/foreign.csv"), Bytes::from("old")).await.unwrap(),
        async |stores, root, at| {
            let table = root.join("t/");
            let seen = contents(stores, &table).await.unwrap();
            assert!(seen == ["m=1:old"] || seen == ["m=1:new1", "m=2:new2", "m=3:new3"], "{at}: a mixture: {seen:?}");
            commit(stores, &table, CommitMode::Append, &[("m=5", "after")]).await.unwrap();
            let after = contents(stores, &table).await.unwrap();
            assert_eq!(after.len(), seen.len() + 1, "{at}");
            assert_clean(stores, root, after.len(), at).await;
        },
    )
    .await;
    assert!(reached.contains("commit.baseline"));
}

#[tokio::test]
async fn killed_while_replacing_one_file() {
    killed_everywhere(
        "file",
        async |stores, root| stores.put_atomic(&root.join("x.csv"), Bytes::from("old")).await.unwrap(),
        async |stores, root, at| {
            let file = root.join("x.csv");
            let seen = contents(stores, &file).await.unwrap();
            assert!(seen == [":old"] || seen == [":new"], "{at}: {seen:?}");
            assert_eq!(contents(stores, root).await.unwrap(), seen, "{at}: nothing else is visible");
            commit(stores, &file, CommitMode::Overwrite, &[("", "after")]).await.unwrap();
            assert_eq!(raw_names(stores, root).await, ["x.csv"], "{at}");
        },
    )
    .await;
}

#[tokio::test]
async fn killed_while_publishing_an_artifact() {
    let reached = killed_everywhere(
        "artifact",
        async |stores, root| {
            ArtifactStore::new(stores.clone(), root.clone()).publish("m", model("old")).await.unwrap();
        },
        async |stores, root, at| {
            let models = ArtifactStore::new(stores.clone(), root.clone());
            let versions = models.versions("m").await.unwrap();
            assert!(versions == [1] || versions == [1, 2], "{at}: {versions:?}");
            let latest = models.open("m", None).await.unwrap();
            models.verify(&latest).await.unwrap();
            let expected = if versions.len() == 1 { "old" } else { "new" };
            assert_eq!(models.read(&latest, "weights").await.unwrap(), expected.repeat(100), "{at}");
            let next = models.publish("m", model("next")).await.unwrap();
            assert_eq!(next.version, latest.version + 1, "{at}: no number is lost");
            let names = raw_names(stores, root).await;
            assert_eq!(names.len() as u64, 3 * next.version, "{at}: left behind: {names:?}");
        },
    )
    .await;
    let points: BTreeSet<&str> = fault::POINTS.iter().copied().filter(|point| !point.starts_with("commit.")).collect();
    assert_eq!(reached, points);
}

#[tokio::test]
async fn ten_processes_append_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, root) = (Stores::new(), location(directory.path()));
    let children: Vec<_> = (0..10)
        .map(|i| command(directory.path(), &format!("many:p{i}")).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && printed(&output).contains("done"), "{}", printed(&output));
    }
    let mut expected: Vec<String> =
        (0..10).flat_map(|p| (0..5).flat_map(move |i| (1..3).map(move |m| format!("m={m}:p{p}-{i}")))).collect();
    expected.sort();
    assert_eq!(contents(&stores, &root.join("t/")).await.unwrap(), expected);
    assert_clean(&stores, &root, 100, "ten writers").await;
}

/// Some of ten writers are killed, at any moment: what they reported is there, in pairs, and their dirt goes without
/// hurting the living.
#[tokio::test]
async fn writers_killed_among_others() {
    let directory = tempfile::tempdir().unwrap();
    let (stores, root) = (Stores::new(), location(directory.path()));
    let mut children: Vec<_> = (0..10)
        .map(|i| command(directory.path(), &format!("many:p{i}")).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for (i, child) in children.iter_mut().enumerate().filter(|(i, _)| i % 2 == 0) {
        std::thread::sleep(Duration::from_millis(5 + 7 * i as u64));
        child.kill().unwrap();
    }
    let mut reported = vec![];
    for (i, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert!(i % 2 == 0 || printed(&output).contains("done"), "{}", printed(&output));
        reported.extend(printed(&output).lines().filter_map(|l| Some(l.split_once("committed ")?.1.to_string())));
    }
    commit(&stores, &root.join("t/"), CommitMode::Append, &[("m=9", "after")]).await.unwrap();
    let seen = contents(&stores, &root.join("t/")).await.unwrap();
    for text in &reported {
        assert!(seen.contains(&format!("m=1:{text}")), "{text} was reported and is lost");
    }
    for text in seen.iter().filter_map(|name| name.strip_prefix("m=1:")) {
        assert!(seen.contains(&format!("m=2:{text}")), "half of {text} is visible");
    }
    assert_clean(&stores, &root, seen.len(), "writers killed").await;
}

#[tokio::test]
async fn of_processes_that_want_the_same_thing_one_wins() {
    for (job, losers_say) in [("only", ["Conflict", "Exists"]), ("exclusive", ["Conflict", "Conflict"])] {
        let directory = tempfile::tempdir().unwrap();
        let children: Vec<_> = (0..6)
            .map(|i| command(directory.path(), &format!("{job}:p{i}")).stdout(Stdio::piped()).spawn().unwrap())
            .collect();
        let outputs: Vec<String> =
            children.into_iter().map(|child| printed(&child.wait_with_output().unwrap())).collect();
        let won = outputs.iter().filter(|output| output.contains("done")).count();
        let told = outputs.iter().filter(|output| losers_say.iter().any(|word| output.contains(word))).count();
        assert_eq!((won, told), (1, 5), "{job}: {outputs:?}");
    }
}

/// Runs a job on disks that are full after 0, 40, 80, ... bytes, until it fits. Each time it either says that it is done,
/// and is, or gives one error that names the path, and `untouched` finds everything as before.
async fn on_ever_larger_disks(
    job: &str,
    prepare: impl AsyncFn(&Stores, &Location),
    done: impl AsyncFn(&Stores, &Location),
    untouched: impl AsyncFn(&Stores, &Location, &[String]),
) {
    for bytes in (0..).step_by(40) {
        let directory = tempfile::tempdir().unwrap();
        let (stores, root) = (Stores::new(), location(directory.path()));
        prepare(&stores, &root).await;
        let before = raw_names(&stores, &root).await;
        let output = run(directory.path(), job, &[("GRISTMILL_DISK_BYTES", &bytes.to_string())]);
        if printed(&output).contains("done") {
            return done(&stores, &root).await;
        }
        // Staging is test code in the child: it panics, and the message is on stderr.
        let said = format!("{}{}", printed(&output), String::from_utf8_lossy(&output.stderr));
        for word in ["DiskFull", "No space left on device", &root.to_string()] {
            assert!(said.contains(word), "{job} {bytes}: {word} is missing in: {said}");
        }
        untouched(&stores, &root, &before).await;
        assert!(bytes < 20_000, "{job} never fits");
    }
}

#[tokio::test]
async fn the_disk_is_full_in_a_later_commit() {
    on_ever_larger_disks(
        "partitions",
        async |stores, root| {
            commit(stores, &root.join("t/"), CommitMode::Append, &[("m=1", "old")]).await.unwrap();
        },
        async |stores, root| {
            let seen = contents(stores, &root.join("t/")).await.unwrap();
            assert_eq!(seen, ["m=1:new1", "m=2:new2", "m=3:new3"]);
        },
        async |stores, root, before| {
            assert_eq!(contents(stores, &root.join("t/")).await.unwrap(), ["m=1:old"]);
            assert_eq!(raw_names(stores, root).await, before);
        },
    )
    .await;
}

#[tokio::test]
async fn the_disk_is_full_in_the_first_commit() {
    on_ever_larger_disks(
        "append",
        async |_, _| {},
        async |stores, root| {
            let seen = contents(stores, &root.join("t/")).await.unwrap();
            assert_eq!(seen, ["m=1:new1", "m=2:new2", "m=3:new3"]);
        },
        async |stores, root, _| {
            // Once the baseline is there it stays: it says that the table is empty.
            let names = raw_names(stores, root).await;
            assert!(names.is_empty() || names == ["t/_gristmill/manifest-0000000000.json"], "{names:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn the_disk_is_full_under_a_file_or_an_artifact() {
    on_ever_larger_disks(
        "file",
        async |stores, root| stores.put_atomic(&root.join("x.csv"), Bytes::from("old")).await.unwrap(),
        async |stores, root| assert_eq!(contents(stores, &root.join("x.csv")).await.unwrap(), [":new"]),
        async |stores, root, before| {
            assert_eq!(contents(stores, &root.join("x.csv")).await.unwrap(), [":old"]);
            assert_eq!(raw_names(stores, root).await, before);
        },
    )
    .await;
    on_ever_larger_disks(
        "artifact",
        async |_, _| {},
        async |stores, root| {
            let models = ArtifactStore::new(stores.clone(), root.clone());
            models.verify(&models.open("m", Some(1)).await.unwrap()).await.unwrap();
        },
        async |stores, root, before| assert_eq!(raw_names(stores, root).await, before),
    )
    .await;
}

/// A directory that may not be written, and a file that may not be read, for a user who is not root.
#[tokio::test]
async fn permissions_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let locked = directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).unwrap();
    let mut command = command(&locked, "append");
    // SAFETY: geteuid has no preconditions and touches no memory of ours.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65_534);
    }
    let Ok(output) = command.output() else { return };
    let said = printed(&output);
    let expected = format!("Denied: {}/t/", locked.display());
    assert!(said.contains(&expected) && said.contains("permission denied"), "{said}");
    assert_eq!(std::fs::read_dir(&locked).unwrap().count(), 0);
}

/// A commit whose publishing is dropped half-way, as on Ctrl-C, runs to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_publish_is_whole() {
    for polls in 0..6 {
        let directory = tempfile::tempdir().unwrap();
        let (stores, root) = (Stores::new(), location(directory.path()));
        let table = root.join("t/");
        let begun = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
        let files = vec![write(&begun, &stores, "", "a").await, write(&begun, &stores, "", "b").await];
        {
            let mut publishing = Box::pin(begun.publish(files));
            for _ in 0..polls {
                if futures::poll!(&mut publishing).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let mut seen = contents(&stores, &table).await;
        for _ in 0..200 {
            if polls == 0 || matches!(&seen, Ok(found) if found.len() == 2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            seen = contents(&stores, &table).await;
        }
        match seen {
            Ok(found) => assert_eq!(found, [":a", ":b"], "{polls}"),
            Err(e) => assert!(polls == 0 && matches!(e, Error::NotFound { .. }), "{polls}: {e}"),
        }
    }
}
