//! Artifacts as the registry of models sees them.

use super::*;
use crate::lease::Lease;
use crate::testing::{on_both, raw_names};

on_both!(
    versions_go_up,
    a_flipped_byte_is_refused,
    one_of_two_gets_the_version,
    ten_publishers_get_ten_versions,
    removal_never_gives_a_number_again,
    leftovers_of_a_dead_publisher_go,
    names_are_checked,
);

fn files(text: &str) -> Vec<(String, Bytes)> {
    vec![("weights".into(), Bytes::from(text.to_string())), ("model.json".into(), Bytes::from("{}"))]
}

async fn versions_go_up(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores.clone(), root.clone());
    assert!(models.latest("m").await.unwrap().is_none());
    assert_eq!(models.list().await.unwrap(), Vec::<String>::new());
    assert!(models.open("m", None).await.unwrap_err().to_string().ends_with("models/m/: there is no m"));
    for (version, text) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(models.next_version("m").await.unwrap(), version);
        assert_eq!(models.publish("m", files(text)).await.unwrap().version, version);
    }
    models.publish("other", vec![]).await.unwrap();
    assert_eq!(models.list().await.unwrap(), ["m", "other"]);
    assert_eq!(models.versions("m").await.unwrap(), [1, 2, 3]);
    let second = models.open("m", Some(2)).await.unwrap();
    assert_eq!(models.read(&second, "weights").await.unwrap(), "two");
    assert_eq!((second.bytes(), second.files().len()), (5, 2));
    models.verify(&second).await.unwrap();
    let error = models.read(&second, "history").await.unwrap_err().to_string();
    assert!(error.contains("m@2 has no such file (it has model.json, weights)"), "{error}");
    let error = models.open("m", Some(9)).await.unwrap_err().to_string();
    assert!(error.contains("there is no version 9 of m (there is 1, 2, 3)"), "{error}");
    let names = raw_names(&stores, &root.join("models/m/")).await;
    assert_eq!(names.len(), 9, "three files each and nothing else: {names:?}");
    models.set_alias("m", "champion", 2).await.unwrap();
    models.set_alias("m", "champion", 3).await.unwrap();
    assert_eq!(models.aliases("m").await.unwrap(), BTreeMap::from([("champion".to_string(), 3)]));
    assert!(models.set_alias("m", "champion", 8).await.is_err());
    assert!(models.set_alias("m", "3", 3).await.unwrap_err().to_string().contains("looks like a version"));
    let say = |what: &str, text: Option<&str>| [(what.to_string(), text.map(str::to_string))];
    models.say("m", &say("description", Some("first"))).await.unwrap();
    models.say("m", &say("owner", Some("anna"))).await.unwrap();
    models.say("m", &say("description", None)).await.unwrap();
    assert_eq!(models.about("m").await.unwrap().into_iter().collect::<Vec<_>>(), [("owner".into(), "anna".into())]);
    assert!(models.say("none", &say("owner", None)).await.is_err());
    assert!(models.remove_alias("m", "champion").await.unwrap());
    assert!(!models.remove_alias("m", "champion").await.unwrap());
}

async fn a_flipped_byte_is_refused(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores.clone(), root);
    let published = models.publish("m", files("the weights of a network")).await.unwrap();
    for (target, expected) in [
        (published.file_location("weights"), "weights: is damaged: 24 bytes with SHA-256"),
        (published.location.join("manifest.json"), "manifest.json: is damaged"),
    ] {
        let whole = stores.get(&target).await.unwrap();
        let mut flipped = whole.to_vec();
        let at = flipped.len() / 2;
        flipped[at] ^= 0x10;
        stores.put_atomic(&target, flipped.into()).await.unwrap();
        let read = async { models.verify(&models.open("m", None).await?).await };
        let error = read.await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        stores.put_atomic(&target, whole).await.unwrap();
    }
    models.verify(&models.open("m", None).await.unwrap()).await.unwrap();
    stores.delete_prefix(&published.file_location("weights")).await.unwrap();
    let error = models.verify(&published).await.unwrap_err().to_string();
    assert!(error.ends_with("weights: is missing: m@1 is damaged"), "{error}");
}

async fn one_of_two_gets_the_version(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores.clone(), root.clone());
    let mut running = tokio::task::JoinSet::new();
    for i in 0..8 {
        let models = models.clone();
        running.spawn(async move { models.publish_exclusive("m", 1, files(&i.to_string())).await });
    }
    let results = running.join_all().await;
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1);
    for error in results.iter().filter_map(|r| r.as_ref().err()) {
        assert!(matches!(error, Error::Conflict { .. }), "{error}");
        assert!(
            error.to_string().contains("version 1 of m was not created: another process has published m"),
            "{error}"
        );
    }
    models.verify(&models.open("m", None).await.unwrap()).await.unwrap();
    assert_eq!(raw_names(&stores, &root).await.len(), 3, "the losers leave nothing");
}

async fn ten_publishers_get_ten_versions(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores, root);
    let mut running = tokio::task::JoinSet::new();
    for i in 0..10 {
        let models = models.clone();
        running.spawn(async move {
            let published = models.publish("m", files(&i.to_string())).await.unwrap();
            (published.version, models.read(&published, "weights").await.unwrap() == i.to_string())
        });
    }
    let mut got = running.join_all().await;
    got.sort();
    assert_eq!(got, (1..=10).map(|version| (version, true)).collect::<Vec<_>>());
}

async fn removal_never_gives_a_number_again(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores.clone(), root.clone());
    for text in ["1", "2"] {
        models.publish("m", files(text)).await.unwrap();
    }
    models.set_alias("m", "best", 2).await.unwrap();
    models.remove("m", Some(2)).await.unwrap();
    assert_eq!(models.versions("m").await.unwrap(), [1]);
    assert_eq!(models.aliases("m").await.unwrap().len(), 0);
    assert!(models.remove("m", Some(2)).await.is_err());
    assert_eq!(models.publish("m", files("3")).await.unwrap().version, 3);
    models.remove("m", None).await.unwrap();
    assert_eq!(raw_names(&stores, &root).await, Vec::<String>::new());
    assert!(models.open("m", None).await.is_err());
    assert_eq!(models.publish("m", files("1")).await.unwrap().version, 1, "a new model begins again");
}

async fn leftovers_of_a_dead_publisher_go(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores.clone(), root.clone());
    models.publish("m", files("1")).await.unwrap();
    let own = root.join("models/m/2/0123456789abcdef/weights");
    stores.put_atomic(&own, Bytes::from("half")).await.unwrap();
    let lease = Lease::take(&stores, &models.home("m").unwrap().child(PUBLISHING), "fedcba9876543210").await.unwrap();
    let living = root.join("models/m/2/fedcba9876543210/weights");
    stores.put_atomic(&living, Bytes::from("half")).await.unwrap();
    assert_eq!(models.versions("m").await.unwrap(), [1], "without a manifest it is no version");
    assert_eq!(models.publish("m", files("2")).await.unwrap().version, 2, "its number was still free");
    assert!(stores.get(&own).await.is_err(), "the dead publisher's file is removed");
    assert!(stores.get(&living).await.is_ok(), "that of one at work is not");
    drop(lease);
    models.publish("m", files("3")).await.unwrap();
    assert!(stores.get(&living).await.is_err());
    assert_eq!(models.versions("m").await.unwrap(), [1, 2, 3]);
}

async fn names_are_checked(stores: Stores, root: Location) {
    let models = ArtifactStore::new(stores, root);
    for name in ["", "_m", ".m", "a/b", "a b", "a*"] {
        let error = models.publish(name, vec![]).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    let twice = vec![("a".to_string(), Bytes::new()), ("a".to_string(), Bytes::new())];
    assert!(models.publish("m", twice).await.unwrap_err().to_string().contains("is listed twice"));
    models.publish("späte-flüge_2.1", vec![("w/x.bin".into(), Bytes::new())]).await.unwrap();
}
