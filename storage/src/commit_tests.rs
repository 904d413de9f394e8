//! The commit protocol as its users see it: what is listed before, during and after.

use std::collections::HashSet;

use bytes::Bytes;

use super::*;
use crate::committed::relative;
use crate::glob::expand;
use crate::testing::{commit, contents, on_both, on_each, raw_names, write};

on_each!(
    modes,
    foreign_files_are_shown_until_a_manifest_says_otherwise,
    one_file,
    refusals,
    a_damaged_table_is_not_read,
    ten_appends_at_once_lose_nothing,
    of_ten_that_want_to_be_the_only_one_one_wins,
    readers_see_old_or_new,
);

mod with_directories {
    use super::{abort_leaves_nothing, leftovers_of_the_dead_not_of_the_living};

    super::on_both!(abort_leaves_nothing, leftovers_of_the_dead_not_of_the_living);
}

/// As when something on the way keeps listings: the manifest cannot be put, for it is there, and is not to be seen.
#[tokio::test]
async fn a_manifest_that_no_listing_shows_is_not_looked_for_for_ever() {
    let (stores, directory) = (Stores::new(), tempfile::tempdir().unwrap());
    let table = Location::parse(&format!("{}/t/", directory.path().display())).unwrap();
    let commit = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
    let file = write(&commit, &stores, "", "a").await;
    let manifest = directory.path().join("t/_gristmill/manifest-0000000000.json");
    std::os::unix::fs::symlink(directory.path().join("nowhere"), manifest).unwrap();
    let error = commit.publish(vec![file]).await.unwrap_err().to_string();
    assert!(error.contains("no listing shows it"), "{error}");
}

mod without_renames {
    use std::time::Duration;

    use super::*;

    const SILENCE: Duration = Duration::from_millis(600);

    fn bucket() -> (Stores, Location) {
        (Stores::of_plain_objects(Duration::from_millis(300)), Location::parse("memory://m/base/t/").unwrap())
    }

    /// As after a kill or while a laptop sleeps: no sign of life comes any more, and what was written is there.
    fn fall_silent(commit: &mut Commit) {
        commit.lease.take().unwrap().give_up();
    }

    #[tokio::test]
    async fn nothing_shows_before_the_commit_and_an_abort_removes_it() {
        let (stores, table) = bucket();
        for drop_it in [false, true] {
            let commit = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
            let file = write(&commit, &stores, "m=1", "a").await;
            assert!(file.path.to_string().starts_with("memory://m/base/t/m=1/part-00000-"), "{}", file.path);
            let error = expand(&stores, &table).await.unwrap_err().to_string();
            assert!(error.contains("no file") || error.contains("no visible files"), "{error}");
            if drop_it {
                drop(commit)
            } else {
                commit.abort().await.unwrap()
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(raw_names(&stores, &table).await, ["_gristmill/manifest-0000000000.json"]);
        }
        let done = super::commit(&stores, &table, CommitMode::ErrorIfExists, &[("m=1", "a")]).await.unwrap();
        assert_eq!(done.version, 1);
    }

    #[tokio::test]
    async fn what_a_silent_writer_left_goes_and_a_beating_one_stays() {
        let (stores, table) = bucket();
        super::commit(&stores, &table, CommitMode::Append, &[("", "a")]).await.unwrap();
        let mut dead = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
        let living = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
        write(&dead, &stores, "m=1", "dead").await;
        let file = write(&living, &stores, "", "living").await;
        let id = dead.id().to_string();
        fall_silent(&mut dead);
        super::commit(&stores, &table, CommitMode::Append, &[("", "b")]).await.unwrap();
        assert!(raw_names(&stores, &table).await.iter().any(|name| name.contains(&id)), "not silent for long enough");
        tokio::time::sleep(SILENCE).await;
        super::commit(&stores, &table, CommitMode::Append, &[("", "c")]).await.unwrap();
        assert!(!raw_names(&stores, &table).await.iter().any(|name| name.contains(&id)));
        living.publish(vec![file]).await.unwrap();
        assert_eq!(contents(&stores, &table).await.unwrap(), [":a", ":b", ":c", ":living"]);
    }

    #[tokio::test]
    async fn a_writer_that_comes_back_cannot_commit_what_was_removed() {
        let (stores, table) = bucket();
        super::commit(&stores, &table, CommitMode::Append, &[("", "a")]).await.unwrap();
        let mut asleep = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
        let file = write(&asleep, &stores, "", "asleep").await;
        fall_silent(&mut asleep);
        tokio::time::sleep(SILENCE).await;
        super::commit(&stores, &table, CommitMode::Append, &[("", "b")]).await.unwrap();
        // As if it had looked at its files just before they were removed.
        stores.put_atomic(&file.path, Bytes::from("asleep")).await.unwrap();
        let error = asleep.publish(vec![file]).await.unwrap_err();
        assert!(matches!(&error, Error::Conflict { reason, .. } if reason.contains("was taken for dead")), "{error}");
        assert_eq!(contents(&stores, &table).await.unwrap(), [":a", ":b"]);
    }

    #[tokio::test]
    async fn work_that_is_done_again_is_done_once() {
        let (stores, table) = bucket();
        let begin = async || Commit::begin_once(&stores, &table, CommitMode::Append, "job/1").await.unwrap();
        let Begun::New(mut killed) = begin().await else { panic!("nothing is done yet") };
        write(&killed, &stores, "", "half").await;
        fall_silent(&mut killed);
        let Begun::New(again) = begin().await else { panic!("nothing is done yet") };
        let file = write(&again, &stores, "", "whole").await;
        again.publish(vec![file]).await.unwrap();
        assert!(matches!(begin().await, Begun::Done(_)));
        assert_eq!(contents(&stores, &table).await.unwrap(), [":whole"]);
    }
}

async fn modes(stores: Stores, root: Location) {
    let table = root.join("t/");
    let done = commit(&stores, &table, CommitMode::ErrorIfExists, &[("m=1", "a"), ("m=2", "b")]).await.unwrap();
    assert_eq!((done.version, done.files, done.rows, done.bytes), (1, 2, 2, 2));
    assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:a", "m=2:b"]);
    commit(&stores, &table, CommitMode::Append, &[("m=2", "c")]).await.unwrap();
    assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:a", "m=2:b", "m=2:c"]);
    commit(&stores, &table, CommitMode::OverwritePartitions, &[("m=2", "d"), ("m=3", "e")]).await.unwrap();
    assert_eq!(contents(&stores, &table).await.unwrap(), ["m=1:a", "m=2:d", "m=3:e"]);
    assert_eq!(contents(&stores, &table.join("m=2/")).await.unwrap(), [":d"], "a partition is governed by its table");
    let error = commit(&stores, &table, CommitMode::ErrorIfExists, &[("", "x")]).await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert!(error.to_string().contains("exists already (3 files, the first is m=1/part-00000-"), "{error}");
    let done = commit(&stores, &table, CommitMode::Overwrite, &[("m=9", "z")]).await.unwrap();
    assert_eq!(done.version, 4);
    assert_eq!(contents(&stores, &table).await.unwrap(), ["m=9:z"]);
    let names = raw_names(&stores, &table).await;
    let expected = [
        "_SUCCESS",
        "_gristmill/manifest-0000000000.json",
        "_gristmill/manifest-0000000001.json",
        "_gristmill/manifest-0000000002.json",
        "_gristmill/manifest-0000000003.json",
        "_gristmill/manifest-0000000004.json",
        relative(table.path(), done.paths[0].path()),
    ];
    assert_eq!(names, expected, "replaced files, staging and leases are gone");
    if let Some(path) = table.local_path() {
        let directories = std::fs::read_dir(path).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(directories, 2, "_gristmill and m=9: empty partitions are removed");
    }
}

async fn abort_leaves_nothing(stores: Stores, root: Location) {
    let table = root.join("x/t/");
    for drop_it in [true, false] {
        let commit = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
        write(&commit, &stores, "m=1", "a").await;
        assert!(!raw_names(&stores, &root).await.is_empty());
        if drop_it {
            drop(commit)
        } else {
            commit.abort().await.unwrap()
        }
        assert_eq!(raw_names(&stores, &root).await, Vec::<String>::new());
        if let Some(path) = root.local_path() {
            assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "directories made for it are gone");
        }
    }
}

async fn leftovers_of_the_dead_not_of_the_living(stores: Stores, root: Location) {
    let table = root.join("t/");
    commit(&stores, &table, CommitMode::Append, &[("", "a")]).await.unwrap();
    let mut dead = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
    let living = Commit::begin(&stores, &table, CommitMode::Append).await.unwrap();
    write(&dead, &stores, "", "dead").await;
    let file = write(&living, &stores, "", "living").await;
    // As after a kill: the lock is free, the files are there.
    dead.leave_to_next();
    let dead_id = dead.id().to_string();
    drop(dead);
    assert!(raw_names(&stores, &table).await.iter().any(|name| name.contains(&dead_id)));
    commit(&stores, &table, CommitMode::Append, &[("", "b")]).await.unwrap();
    assert!(!raw_names(&stores, &table).await.iter().any(|name| name.contains(&dead_id)));
    living.publish(vec![file]).await.unwrap();
    assert_eq!(contents(&stores, &table).await.unwrap(), [":a", ":b", ":living"]);
}

async fn foreign_files_are_shown_until_a_manifest_says_otherwise(stores: Stores, root: Location) {
    let table = root.join("t/");
    for (name, text) in
        [("old.csv", "o"), ("_hidden.csv", "h"), ("m=1/.x.csv", "h"), ("_d/x.csv", "h"), ("_m=1/p.csv", "p")]
    {
        stores.put_atomic(&table.join(name), Bytes::from(text)).await.unwrap();
    }
    assert_eq!(contents(&stores, &table).await.unwrap(), [":o", "_m=1:p"]);
    commit(&stores, &table, CommitMode::Append, &[("", "new")]).await.unwrap();
    assert_eq!(contents(&stores, &table).await.unwrap(), [":new", ":o", "_m=1:p"]);
    stores.put_atomic(&table.join("later.csv"), Bytes::from("later")).await.unwrap();
    assert_eq!(contents(&stores, &table).await.unwrap(), [":new", ":o", "_m=1:p"], "not committed");
    assert_eq!(contents(&stores, &root).await.unwrap(), ["t/_m=1:p", "t:new", "t:o"], "seen from above, too");
    commit(&stores, &table, CommitMode::Overwrite, &[]).await.unwrap();
    assert_eq!(contents(&stores, &table).await.unwrap(), Vec::<String>::new());
    assert_eq!(stores.get(&table.join("later.csv")).await.unwrap(), "later", "what was never in the table stays");
    assert!(matches!(stores.get(&table.join("old.csv")).await, Err(Error::NotFound { .. })));

    let noted = root.join("noted/");
    stores.put_atomic(&noted.join("notes.txt"), Bytes::from("mine")).await.unwrap();
    commit(&stores, &noted, CommitMode::Append, &[("", "new")]).await.unwrap();
    commit(&stores, &noted, CommitMode::Overwrite, &[("", "newer")]).await.unwrap();
    assert_eq!(contents(&stores, &noted).await.unwrap(), [":newer"]);
    assert_eq!(stores.get(&noted.join("notes.txt")).await.unwrap(), "mine", "what is no data stays");
}

async fn one_file(stores: Stores, root: Location) {
    let target = root.join("out/scored.csv");
    let begun = Commit::begin(&stores, &target, CommitMode::ErrorIfExists).await.unwrap();
    assert!(begun.is_single_file());
    let late = Commit::begin(&stores, &target, CommitMode::ErrorIfExists).await.unwrap();
    let late_file = write(&late, &stores, "", "late").await;
    let file = write(&begun, &stores, "", "first").await;
    begun.publish(vec![file]).await.unwrap();
    let error = late.publish(vec![late_file]).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
    assert_eq!(contents(&stores, &target).await.unwrap(), [":first"]);
    let error = Commit::begin(&stores, &target, CommitMode::ErrorIfExists).await.unwrap_err();
    assert!(error.to_string().ends_with("scored.csv: exists already (5 bytes); MODE OVERWRITE replaces it"), "{error}");
    assert!(Commit::begin(&stores, &target, CommitMode::Append).await.is_err());
    commit(&stores, &target, CommitMode::Overwrite, &[("", "second")]).await.unwrap();
    assert_eq!(raw_names(&stores, &root).await, ["out/scored.csv"]);
    assert_eq!(contents(&stores, &target).await.unwrap(), [":second"]);
    if let Some(path) = root.join("out").local_path() {
        assert_eq!(std::fs::read_dir(path).unwrap().count(), 1, "no _gristmill is left beside a single file");
    }
    let two = Commit::begin(&stores, &target, CommitMode::Overwrite).await.unwrap();
    let files = vec![write(&two, &stores, "", "a").await, write(&two, &stores, "", "b").await];
    assert!(two.publish(files).await.unwrap_err().to_string().contains("is one file, and 2 were written"));
}

async fn refusals(stores: Stores, root: Location) {
    let home = root.join("home/");
    stores.put_atomic(&home.join("letters/mother.doc"), Bytes::from("x")).await.unwrap();
    let error = Commit::begin(&stores, &home, CommitMode::Overwrite).await.unwrap_err();
    assert!(error.to_string().contains("holds letters/mother.doc, which is no data file"), "{error}");
    for (directory, name) in [("folder.csv", "notes.txt"), ("packed", "notes.txt.gz")] {
        let folder = root.join(directory).as_directory();
        stores.put_atomic(&folder.join(name), Bytes::from("x")).await.unwrap();
        let error = Commit::begin(&stores, &folder, CommitMode::Overwrite).await.unwrap_err();
        assert!(error.to_string().contains(&format!("holds {name}, which is no data file")), "{error}");
    }
    let error = Commit::begin(&stores, &home.join("letters/mother.doc/"), CommitMode::Append).await.unwrap_err();
    assert!(error.to_string().contains("is a file, and a table needs a directory"), "{error}");
    let error = Commit::begin(&stores, &home.join("*.csv"), CommitMode::Append).await.unwrap_err();
    assert!(error.to_string().contains("a place to write to has no *"), "{error}");
    commit(&stores, &root.join("t/"), CommitMode::Append, &[("", "a")]).await.unwrap();
    let error = Commit::begin(&stores, &root.join("t/extra.csv"), CommitMode::Overwrite).await.unwrap_err();
    assert!(error.to_string().contains("is in the directory of the table"), "{error}");
    let error = commit(&stores, &root.join("t/"), CommitMode::Append, &[("_x", "a")]).await.unwrap_err();
    assert!(error.to_string().contains("would be hidden"), "{error}");
    let begun = Commit::begin(&stores, &root.join("t/"), CommitMode::Append).await.unwrap();
    let mut file = write(&begun, &stores, "", "a").await;
    file.path = begun.staging_path(1, "", "csv");
    let error = begun.publish(vec![file]).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(contents(&stores, &root.join("t/")).await.unwrap(), [":a"]);
}

async fn a_damaged_table_is_not_read(stores: Stores, root: Location) {
    let table = root.join("t/");
    let done = commit(&stores, &table, CommitMode::Append, &[("", "abc")]).await.unwrap();
    stores.put_atomic(&done.paths[0], Bytes::from("ab")).await.unwrap();
    let error = expand(&stores, &table).await.unwrap_err();
    assert!(error.to_string().contains("has 2 bytes, its table's manifest says 3"), "{error}");
    stores.delete_prefix(&done.paths[0]).await.unwrap();
    let error = expand(&stores, &table).await.unwrap_err();
    assert!(
        matches!(&error, Error::Damaged { reason, .. } if reason.contains("is missing, although version 1")),
        "{error}"
    );
    let manifest = table.join("_gristmill/manifest-0000000001.json");
    let mut bytes = stores.get(&manifest).await.unwrap().to_vec();
    let at = bytes.windows(7).position(|w| w == b"version").unwrap() + 10;
    bytes[at] ^= 1;
    stores.put_atomic(&manifest, bytes.into()).await.unwrap();
    let error = expand(&stores, &table).await.unwrap_err();
    assert!(error.to_string().contains("manifest-0000000001.json: is damaged"), "{error}");
}

async fn ten_appends_at_once_lose_nothing(stores: Stores, root: Location) {
    let table = root.join("t/");
    let texts: Vec<String> = (0..10).map(|i| format!("row{i}")).collect();
    let mut running = tokio::task::JoinSet::new();
    for text in texts.clone() {
        let (stores, table) = (stores.clone(), table.clone());
        running.spawn(
            async move { commit(&stores, &table, CommitMode::Append, &[("m=1", &text)]).await.unwrap().version },
        );
    }
    let mut versions = running.join_all().await;
    versions.sort();
    assert_eq!(versions, (1..=10).collect::<Vec<u64>>());
    let expected: Vec<String> = texts.iter().map(|text| format!("m=1:{text}")).collect();
    assert_eq!(contents(&stores, &table).await.unwrap(), expected);
}

async fn of_ten_that_want_to_be_the_only_one_one_wins(stores: Stores, root: Location) {
    let table = root.join("t/");
    let mut begun = vec![];
    for _ in 0..10 {
        begun.push(Commit::begin(&stores, &table, CommitMode::ErrorIfExists).await.unwrap());
    }
    let mut running = tokio::task::JoinSet::new();
    for (i, commit) in begun.into_iter().enumerate() {
        let file = write(&commit, &stores, "", &i.to_string()).await;
        running.spawn(async move { commit.publish(vec![file]).await });
    }
    let results = running.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(results.iter().flat_map(|r| r.as_ref().err()).all(|e| matches!(e, Error::Conflict { .. })));
    assert_eq!(contents(&stores, &table).await.unwrap().len(), 1);
    assert_eq!(
        raw_names(&stores, &table).await.iter().filter(|n| n.ends_with(".csv")).count(),
        1,
        "losers leave nothing"
    );
}

async fn readers_see_old_or_new(stores: Stores, root: Location) {
    let table = root.join("t/");
    commit(&stores, &table, CommitMode::Append, &[("m=1", "0"), ("m=2", "0"), ("m=3", "0")]).await.unwrap();
    let writer = {
        let (stores, table) = (stores.clone(), table.clone());
        tokio::spawn(async move {
            for i in 1..30 {
                let text = i.to_string();
                let files = [("m=1", text.as_str()), ("m=2", &text), ("m=3", &text)];
                commit(&stores, &table, CommitMode::Overwrite, &files).await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while !writer.is_finished() {
        let found = expand(&stores, &table).await.unwrap();
        let commits: HashSet<String> =
            found.iter().map(|f| f.location.file_name().unwrap().split('-').nth(2).unwrap().to_string()).collect();
        assert_eq!((found.len(), commits.len()), (3, 1), "one commit's files, all of them: {found:?}");
        seen += 1;
    }
    writer.await.unwrap();
    assert!(seen > 0);
}
