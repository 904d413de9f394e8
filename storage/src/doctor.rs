//! What works between this machine and a store, step by step: its address, the credentials and where they come from, the
//! clocks, listing, reading, writing under a condition. Each step says what to do when it fails.

use std::time::Instant;

use chrono::Utc;
use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use uuid::Uuid;

use crate::backend::Condition;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::manifest::META;
use crate::store::Stores;

/// Clocks may differ by this much; AWS takes 15 minutes.
const SKEW_SECONDS_MAX: i64 = 5 * 60;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Ok,
    /// It works, but something about it should be known.
    Note,
    /// It does not work.
    Failed,
    /// There was nothing to try it on.
    Skipped,
}

/// A step, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which step.
    pub what: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub detail: String,
}

/// Examines the store behind `location`. Writes one small hidden object there and removes it again.
///
/// # Errors
/// A store that cannot even be opened; everything later is a finding.
pub async fn examine(stores: &Stores, location: &Location) -> Result<Vec<Finding>> {
    let mut findings = Findings(Vec::new());
    match stores.facts(location)? {
        None => findings.add("store", Verdict::Ok, "files of this machine, or its memory"),
        Some(facts) => {
            findings.add("endpoint", Verdict::Ok, &facts.endpoint);
            if let Some((region, from)) = &facts.region {
                let verdict = if from.starts_with("guessed") { Verdict::Note } else { Verdict::Ok };
                findings.add("region", verdict, &format!("{region} ({from})"));
            }
            findings.add("credentials", Verdict::Ok, &facts.credentials);
        }
    }
    let sample = listing(stores, location, &mut findings).await;
    reading(stores, location, sample, &mut findings).await;
    writing(stores, location, &mut findings).await;
    Ok(findings.0)
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, what: &'static str, verdict: Verdict, detail: &str) {
        self.0.push(Finding { what, verdict, detail: detail.to_string() });
    }

    fn failed(&mut self, what: &'static str, at: &Location, error: object_store::Error) {
        self.add(what, Verdict::Failed, &Error::at(at, error).to_string());
    }
}

async fn listing(stores: &Stores, location: &Location, findings: &mut Findings) -> Option<object_store::ObjectMeta> {
    let begun = Instant::now();
    let listed = match stores.open(location) {
        Ok((store, path)) => store.list_with_delimiter(Some(&path)).await,
        Err(_) => return None,
    };
    match listed {
        Ok(listed) => {
            let (files, directories) = (listed.objects.len(), listed.common_prefixes.len());
            let detail = format!(
                "{files} files and {directories} directories at {location} ({} ms)",
                begun.elapsed().as_millis()
            );
            findings.add("list", Verdict::Ok, &detail);
            first_file(stores, location).await
        }
        Err(error) if location.scheme().is_web() => {
            let detail = Error::at(location, error).to_string();
            findings.add("list", Verdict::Note, &detail);
            None
        }
        Err(error) => {
            findings.failed("list", location, error);
            None
        }
    }
}

/// A file at or below the place to try reading on; the first ones will do.
async fn first_file(stores: &Stores, location: &Location) -> Option<object_store::ObjectMeta> {
    let (store, path) = stores.open(location).ok()?;
    let mut below = store.list(Some(&path)).take(1000);
    while let Some(Ok(meta)) = below.next().await {
        if meta.size > 0 {
            return Some(meta);
        }
    }
    None
}

async fn reading(
    stores: &Stores,
    location: &Location,
    sample: Option<object_store::ObjectMeta>,
    findings: &mut Findings,
) {
    let Ok((store, path)) = stores.open(location) else { return };
    let sample = match sample {
        Some(meta) => meta,
        None if path.is_root() => {
            findings.add("read", Verdict::Skipped, "there is no file at this place to read");
            return;
        }
        None => match store.head(&path).await {
            Ok(meta) => meta,
            Err(object_store::Error::NotFound { .. }) => {
                findings.add("read", Verdict::Skipped, "there is no file at this place to read");
                return;
            }
            Err(error) => return findings.failed("read", location, error),
        },
    };
    let at = location.at_path(sample.location.as_ref());
    let (begun, end) = (Instant::now(), sample.size.min(64 << 10));
    match store.get_range(&sample.location, 0..end.max(1)).await {
        Ok(bytes) => {
            let detail = format!("{} bytes of {at} ({} ms)", bytes.len(), begun.elapsed().as_millis());
            findings.add("read", Verdict::Ok, &detail);
        }
        Err(error) => findings.failed("read", &at, error),
    }
}

async fn writing(stores: &Stores, location: &Location, findings: &mut Findings) {
    if location.scheme().is_web() {
        findings.add("write", Verdict::Skipped, "web servers are only read");
        return;
    }
    let Ok((store, _)) = stores.open(location) else { return };
    let probe = location.join(&format!("{META}/doctor-{}", Uuid::new_v4().simple()));
    let before = Utc::now();
    if let Err(error) = store.put_opts(probe.path(), "1".into(), PutMode::Overwrite.into()).await {
        return findings.failed("write", &probe, error);
    }
    findings.add("write", Verdict::Ok, &format!("a small file in {}", location.join(META)));
    clocks(store.as_ref(), &probe, before, findings).await;
    condition(stores, location, findings).await;
    let deleted = store.delete(probe.path()).await;
    if let Ok(directory) = Directory::open(stores, location) {
        directory.prune(META);
    }
    match deleted {
        Ok(()) => findings.add("delete", Verdict::Ok, "that file is gone again"),
        Err(error) => findings.failed("delete", &probe, error),
    }
}

/// The time at which the store says that the file was written, compared with ours.
async fn clocks(store: &dyn ObjectStore, probe: &Location, before: chrono::DateTime<Utc>, findings: &mut Findings) {
    let Ok(meta) = store.head(probe.path()).await else { return };
    let skew = (meta.last_modified - before).num_seconds();
    let detail = format!("the store's clock and ours differ by {} s", skew.abs());
    if skew.abs() > SKEW_SECONDS_MAX {
        let way = if skew > 0 { "behind" } else { "ahead" };
        findings.add("clocks", Verdict::Failed, &format!("{detail}: this machine's is {way}, set it right"));
    } else {
        findings.add("clocks", Verdict::Ok, &detail);
    }
}

async fn condition(stores: &Stores, location: &Location, findings: &mut Findings) {
    match stores.condition(location).await {
        Ok(Condition::None) => findings.add(
            "conditional write",
            Verdict::Failed,
            "the store puts an object also where one is: only MODE OVERWRITE by one writer at a time is safe, and models cannot \
             be published",
        ),
        Ok(_) => findings.add("conditional write", Verdict::Ok, "of two who write the same name at once, one wins"),
        Err(error) => findings.add("conditional write", Verdict::Failed, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{on_both, raw_names};

    on_both!(a_healthy_store);

    async fn a_healthy_store(stores: Stores, root: Location) {
        stores.put_atomic(&root.join("x"), bytes::Bytes::from("text")).await.unwrap();
        let findings = examine(&stores, &root).await.unwrap();
        let got: Vec<_> = findings.iter().map(|finding| (finding.what, finding.verdict)).collect();
        let ok = ["store", "list", "read", "write", "clocks", "conditional write", "delete"];
        assert_eq!(got, ok.map(|what| (what, Verdict::Ok)), "{findings:?}");
        assert_eq!(raw_names(&stores, &root).await, ["x"], "nothing is left");
    }

    #[tokio::test]
    async fn a_store_that_nobody_serves() {
        let mut settings = crate::StoreSettings::default();
        for (key, value) in [
            ("storage.s3.endpoint", "http://127.0.0.1:9"),
            ("storage.s3.allow_http", "true"),
            ("storage.s3.access_key_id", "AK"),
            ("storage.s3.secret_access_key", "hush"),
            ("storage.max_retries", "1"),
        ] {
            settings.set(key, value).unwrap();
        }
        let at = Location::parse("s3://lake/").unwrap();
        let findings = examine(&Stores::with(settings), &at).await.unwrap();
        let text = format!("{findings:?}");
        assert!(text.contains("http://127.0.0.1:9 cannot be asked: nobody listens there"), "{text}");
        assert!(
            text.contains("OPTIONS or configuration (storage.s3.access_key_id)") && !text.contains("hush"),
            "{text}"
        );
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Failed).count();
        assert_eq!(failed, 3, "list, read and write: {text}");
    }
}
