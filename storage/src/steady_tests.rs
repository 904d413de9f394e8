//! A store that breaks off bodies, loses answers and forgets uploads, and what is made of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::memory::InMemory;

use super::*;
use crate::backend::Condition;

/// Each fault happens as often as its number says.
#[derive(Debug, Default)]
struct Faults {
    cut: AtomicUsize,
    lost_put: AtomicUsize,
    lost_complete: AtomicUsize,
    aborted: AtomicUsize,
    /// A range is answered with the whole object, which the library takes for an error.
    unranged: AtomicUsize,
}

fn happens(fault: &AtomicUsize) -> bool {
    fault.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "flaky", source: "the answer was lost".into() }
}

#[derive(Debug)]
struct Flaky {
    inner: InMemory,
    faults: Arc<Faults>,
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let put = self.inner.put_opts(location, payload, opts).await?;
        if happens(&self.faults.lost_put) { Err(lost()) } else { Ok(put) }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FlakyUpload { inner, faults: Arc::clone(&self.faults) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.range.is_some() && happens(&self.faults.unranged) {
            let source = "Received non-partial response when range requested".into();
            return Err(object_store::Error::Generic { store: "flaky", source });
        }
        let result = self.inner.get_opts(location, options).await?;
        if !happens(&self.faults.cut) {
            return Ok(result);
        }
        let (range, meta) = (result.range.clone(), result.meta.clone());
        let whole = result.bytes().await?;
        let half = whole.slice(..whole.len() / 2);
        let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(half) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    /// Ignores where to start.
    fn list_with_offset(&self, prefix: Option<&Path>, _: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FlakyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Arc<Faults>,
}

#[async_trait]
impl MultipartUpload for FlakyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        if happens(&self.faults.lost_complete) { Err(lost()) } else { Ok(done) }
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.aborted.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

fn flaky() -> (Arc<dyn ObjectStore>, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    let inner = Arc::new(Flaky { inner: InMemory::new(), faults: Arc::clone(&faults) });
    let facts =
        Facts { endpoint: "flaky".into(), credentials: "none".into(), region: None, condition: Condition::Native };
    (Arc::new(Steady::new(inner, Location::parse("s3://b/").unwrap(), facts)), faults)
}

#[tokio::test]
async fn a_body_goes_on_where_it_ended() {
    let (store, faults) = flaky();
    let (path, text) = (Path::from("x"), "0123456789".repeat(10));
    store.put(&path, text.clone().into()).await.unwrap();
    for cuts in [0, 1, 3] {
        faults.cut.store(cuts, Ordering::SeqCst);
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), text, "{cuts} cuts");
        faults.cut.store(cuts, Ordering::SeqCst);
        assert_eq!(store.get_range(&path, 20..50).await.unwrap(), text[20..50], "{cuts} cuts");
    }
}

#[tokio::test]
async fn a_range_that_is_answered_with_everything_is_cut_out() {
    let (store, faults) = flaky();
    let path = Path::from("x");
    store.put(&path, "0123456789".into()).await.unwrap();
    for (range, expected) in [
        (GetRange::Bounded(0..10), "0123456789"),
        (GetRange::Bounded(0..99), "0123456789"),
        (GetRange::Bounded(2..5), "234"),
        (GetRange::Offset(7), "789"),
        (GetRange::Suffix(3), "789"),
        (GetRange::Suffix(99), "0123456789"),
    ] {
        // The second time the body breaks off as well, and goes on by a range.
        for (cuts, unranged) in [(0, 1), (1, 1), (1, 2)] {
            faults.cut.store(cuts, Ordering::SeqCst);
            faults.unranged.store(unranged, Ordering::SeqCst);
            let result = store.get_opts(&path, GetOptions::new().with_range(Some(range.clone()))).await.unwrap();
            assert_eq!(result.meta.size, 10, "{range}");
            assert_eq!(result.range, range.as_range(10).unwrap(), "{range}");
            assert_eq!(result.bytes().await.unwrap(), expected, "{range}, {cuts} cuts");
        }
    }
    faults.cut.store(0, Ordering::SeqCst);
    faults.unranged.store(1, Ordering::SeqCst);
    assert!(store.get_range(&path, 10..12).await.is_err(), "nothing is there");
}

#[tokio::test]
async fn a_listing_starts_where_it_shall() {
    let (store, _) = flaky();
    for name in ["log/0.json", "log/1.json", "log/2.json"] {
        store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    let listed = store.list_with_offset(Some(&Path::from("log")), &Path::from("log/1"));
    let names: Vec<String> = listed.map_ok(|item| item.location.to_string()).try_collect().await.unwrap();
    assert_eq!(names, ["log/1.json", "log/2.json"]);
}

#[tokio::test]
async fn a_body_that_never_gets_on_is_an_error_that_names_it() {
    let (store, faults) = flaky();
    let path = Path::from("x");
    store.put(&path, "1".into()).await.unwrap();
    // Half of one byte is none: no progress.
    faults.cut.store(usize::MAX, Ordering::SeqCst);
    let error = store.get(&path).await.unwrap().bytes().await.unwrap_err();
    let error = Error::at(&Location::parse("s3://b/x").unwrap(), error).to_string();
    assert_eq!(error, "s3://b/x: the store breaks off at byte 0 of 1, again and again");
}

#[tokio::test]
async fn an_object_that_was_replaced_meanwhile_is_not_mixed_with_the_old_one() {
    let (store, faults) = flaky();
    let path = Path::from("x");
    store.put(&path, "old-old-old".into()).await.unwrap();
    faults.cut.store(1, Ordering::SeqCst);
    let body = store.get(&path).await.unwrap();
    store.put(&path, "new-new-new".into()).await.unwrap();
    let error = body.bytes().await.unwrap_err();
    assert!(error.to_string().contains("was replaced while it was read"), "{error}");
}

#[tokio::test]
async fn a_lost_answer_is_no_conflict() {
    let (store, faults) = flaky();
    faults.lost_put.store(1, Ordering::SeqCst);
    assert!(create(&store, &Path::from("m"), Bytes::from("ours")).await.unwrap());
    assert!(!create(&store, &Path::from("m"), Bytes::from("theirs")).await.unwrap());
    assert!(create(&store, &Path::from("m"), Bytes::from("ours")).await.unwrap(), "asked again");
}

#[tokio::test]
async fn uploads_end() {
    let (store, faults) = flaky();
    let path = Path::from("u");
    faults.lost_complete.store(1, Ordering::SeqCst);
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part("parts".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "parts");
    let mut upload = store.put_multipart(&Path::from("given up")).await.unwrap();
    upload.put_part("x".into()).await.unwrap();
    drop(upload);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(faults.aborted.load(Ordering::SeqCst), 1);
}
