//! `object_store`'s own integration suite over our stores on each server. A check that a server cannot pass is listed with
//! the reason, and must indeed fail: an exception that is none any more is removed.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use storage::object_store::prefix::PrefixStore;
use storage::object_store::{DynObjectStore, ObjectStore};
use storage::{Location, StoreSettings, Stores};

use super::integration;
use crate::servers::{Kind, said};

/// How long one check may take on a machine that does much else.
const CHECK_WITHIN: Duration = Duration::from_secs(120);

type Check = for<'a> fn(&'a DynObjectStore) -> BoxFuture<'a, ()>;

const CHECKS: &[(&str, Check)] = &[
    ("put_get_delete_list", |store| integration::put_get_delete_list(store).boxed()),
    ("get_opts", |store| integration::get_opts(store).boxed()),
    ("put_opts", |store| integration::put_opts(store, false).boxed()),
    ("put_opts_update", |store| integration::put_opts(store, true).boxed()),
    ("stream_get", |store| integration::stream_get(store).boxed()),
    ("list_uses_directories_correctly", |store| integration::list_uses_directories_correctly(store).boxed()),
    ("list_with_delimiter", |store| integration::list_with_delimiter(store).boxed()),
    ("list_with_offset_exclusivity", |store| integration::list_with_offset_exclusivity(store).boxed()),
    ("get_nonexistent_object", |store| {
        integration::get_nonexistent_object(store, None).map(|got| assert!(got.is_err())).boxed()
    }),
    ("rename_and_copy", |store| integration::rename_and_copy(store).boxed()),
    ("copy_if_not_exists", |store| integration::copy_if_not_exists(store).boxed()),
    ("copy_rename_nonexistent_object", |store| integration::copy_rename_nonexistent_object(store).boxed()),
    ("multipart_race_condition", |store| integration::multipart_race_condition(store, true).boxed()),
    ("multipart_out_of_order", |store| integration::multipart_out_of_order(store).boxed()),
];

/// What a kind of store does not pass, and why.
type Exceptions<'a> = &'a [(&'a str, &'a str)];

/// A kind of store, as the suite meets it.
struct Subject<'a> {
    /// It replaces an object only if it is still what it was: of the two checks about that one applies.
    updates: bool,
    /// A file is in its directory under a hidden name while it is written. The check that asks for nothing to be seen runs
    /// over what readers see.
    stages: bool,
    exceptions: Exceptions<'a>,
}

/// Runs every check, each in a directory of its own, and compares what failed with what must fail.
fn run(name: &str, stores: Stores, root: &str, subject: &Subject<'_>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut wrong = Vec::new();
    let unfit = if subject.updates { "put_opts" } else { "put_opts_update" };
    for (check_name, check) in CHECKS.iter().filter(|(name, _)| *name != unfit) {
        let location = Location::parse(&format!("{root}{check_name}/")).unwrap();
        let as_reader = subject.stages && *check_name == "stream_get";
        let (store, path) = if as_reader { stores.reader(&location) } else { stores.open(&location) }.unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store, path));
        // A task of its own: its panic is its result.
        let work = async move { tokio::time::timeout(CHECK_WITHIN, check(store.as_ref())).await };
        let failed = match runtime.block_on(runtime.spawn(work)) {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(format!("did not end within {CHECK_WITHIN:?}")),
            Err(panic) => Some(message(panic.into_panic().as_ref())),
        };
        let exception = subject.exceptions.iter().find(|(known, _)| known == check_name);
        match (failed, exception) {
            (None, None) => {}
            (Some(_), Some((_, reason))) => said(&format!("{name}: {check_name} fails as it must: {reason}")),
            (None, Some(_)) => wrong.push(format!("{check_name} is listed as an exception and passes")),
            (Some(why), None) => wrong.push(format!("{check_name}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_string()
}

const COPY: &str = "S3 has no copy that fails where an object is, and our commits do not need one";
const SINCE: &str = "the server does not heed If-Unmodified-Since";
const TURNED: &str =
    "object_store 0.13.2 takes the two modes of a copy on Google's store for each other; nothing of ours copies there";

fn on(kind: Kind, subject: &Subject<'_>) {
    let Some(server) = kind.server() else { return };
    let environment = server.environment().into_iter().map(|(name, value)| (name.to_string(), value));
    run(&format!("{kind:?}"), Stores::with(StoreSettings::new(environment)), &server.fresh(), subject);
}

#[test]
fn disk() {
    let directory = tempfile::tempdir().unwrap();
    let subject = Subject { updates: false, stages: true, exceptions: &[] };
    run("disk", Stores::new(), &format!("{}/", directory.path().display()), &subject);
}

#[test]
fn memory() {
    run("memory", Stores::new(), "memory://suite/", &Subject { updates: true, stages: false, exceptions: &[] });
}

#[test]
fn moto() {
    let exceptions = &[("copy_if_not_exists", COPY), ("copy_rename_nonexistent_object", COPY)];
    on(Kind::Moto, &Subject { updates: true, stages: false, exceptions });
}

#[test]
fn rclone_s3() {
    let exceptions = &[
        ("put_get_delete_list", "the server refuses the last 100 bytes of an object that has less"),
        ("get_opts", SINCE),
        ("put_opts", "the server takes conditions and does not heed them"),
        ("copy_if_not_exists", COPY),
        ("copy_rename_nonexistent_object", COPY),
    ];
    on(Kind::RcloneS3, &Subject { updates: false, stages: false, exceptions });
}

#[test]
fn google_cloud_storage() {
    let exceptions = &[("get_opts", SINCE), ("rename_and_copy", TURNED), ("copy_if_not_exists", TURNED)];
    on(Kind::Gcs, &Subject { updates: true, stages: false, exceptions });
}

#[test]
fn azurite() {
    let race = "the first of two uploads that ends takes the blocks of the other with it, and the one that is left without \
                takes the object, which has its size, for its own (see Steady::complete)";
    on(Kind::Azurite, &Subject { updates: true, stages: false, exceptions: &[("multipart_race_condition", race)] });
}

#[test]
fn hdfs() {
    let missing = "the client does not say of a copy that failed that its source is missing";
    let exceptions = &[("copy_rename_nonexistent_object", missing)];
    on(Kind::Hdfs, &Subject { updates: false, stages: true, exceptions });
}
