//! A store behind a network, as steady as the rest of the program needs it. What `object_store` repeats (408, 429, 5xx,
//! resets, timeouts; with backoff and jitter) is its own work. Here is what it leaves: a body that ends too early goes on
//! by range, an upload that is given up is aborted, the lost answer to the last step of an upload is looked for in the
//! store, and errors say what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};

use crate::answer::{Answer, explained};
use crate::backend::Facts;
use crate::error::Error;
use crate::location::Location;

/// How often a body is continued without a byte of progress.
const RESUMES: u32 = 5;
/// `object_store` says this, and has no kind of error for it.
const SENT_WHOLE: &str = "Received non-partial response when range requested";

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Steady {
    inner: Arc<dyn ObjectStore>,
    base: Location,
    facts: Facts,
}

impl Steady {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, base: Location, facts: Facts) -> Self {
        Self { inner, base, facts }
    }

    fn err(&self, path: &Path, error: object_store::Error) -> object_store::Error {
        explained(error, &self.base.at_path(path.as_ref()), &self.facts)
    }

    /// The rest of an object, of which `expected` says what it was.
    async fn rest(
        &self,
        path: &Path,
        from: u64,
        end: u64,
        expected: &ObjectMeta,
    ) -> Result<BoxStream<'static, Result<Bytes>>> {
        let options =
            GetOptions::new().with_range(Some(GetRange::Bounded(from..end))).with_if_match(expected.e_tag.clone());
        let result = self.get_part(path, options).await?;
        let same = result.meta.e_tag == expected.e_tag && result.meta.last_modified == expected.last_modified;
        if !same || result.range.start != from {
            let at = self.base.at_path(path.as_ref());
            return Err(Error::conflict(at, "was replaced while it was read: read it again").into_store_error());
        }
        Ok(result.into_stream())
    }

    /// As the store answers. Some answer a range with the whole object and 200 instead of
    /// 206, which the library takes for an error whose text alone tells it from others: then the object is asked for
    /// without a range, and what was wanted is cut out of the body as it comes.
    async fn get_part(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(path, options.clone()).await;
        let (store, range) = match (&result, &options.range) {
            (Err(object_store::Error::Generic { store, source }), Some(range))
                if source.to_string().contains(SENT_WHOLE) =>
            {
                (*store, range.clone())
            }
            _ => return result,
        };
        let whole = self.inner.get_opts(path, options.with_range(None::<GetRange>)).await?;
        let (meta, attributes) = (whole.meta.clone(), whole.attributes.clone());
        let range = range.as_range(meta.size).map_err(|e| object_store::Error::Generic { store, source: e.into() })?;
        let payload = GetResultPayload::Stream(cut_out(whole.into_stream(), range.clone()));
        Ok(GetResult { payload, meta, range, attributes })
    }

    /// An answer to HEAD has no body, so a refusal does not say why: a GET of one byte is refused for the same reason, and
    /// says it.
    async fn reason(&self, path: &Path, error: object_store::Error) -> object_store::Error {
        let is_unsaid = Answer::of(&error).is_some_and(|answer| {
            answer.code.is_empty()
                && matches!(answer.status, 400..=499)
                && !matches!(answer.status, 404 | 408 | 412 | 429)
        });
        if !is_unsaid {
            return error;
        }
        let one = GetOptions::new().with_range(Some(GetRange::Bounded(0..1)));
        self.inner.get_opts(path, one).await.err().unwrap_or(error)
    }

    /// A part of an object that can only be read as a whole.
    async fn cut(&self, path: &Path, options: GetOptions, range: &GetRange) -> Result<GetResult> {
        let whole = self.inner.get_opts(path, options.with_range(None::<GetRange>)).await?;
        let (mut meta, attributes) = (whole.meta.clone(), whole.attributes.clone());
        let bytes = whole.bytes().await?;
        meta.size = bytes.len() as u64;
        let range =
            range.as_range(meta.size).map_err(|e| object_store::Error::Generic { store: "HTTP", source: e.into() })?;
        let part = bytes.slice(range.start as usize..range.end as usize);
        let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(part) }).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    /// The stream of a body that has all of its bytes, or ends with an error that says how many are missing.
    fn whole(
        &self,
        meta: ObjectMeta,
        range: std::ops::Range<u64>,
        stream: BoxStream<'static, Result<Bytes>>,
    ) -> BoxStream<'static, Result<Bytes>> {
        let body = Body { store: self.clone(), meta, at: range.start, end: range.end, stream, stalls: 0 };
        futures::stream::try_unfold(body, |mut body| async move { Ok(body.next().await?.map(|bytes| (bytes, body))) })
            .boxed()
    }
}

/// These bytes of a body; what comes after them is not fetched.
fn cut_out(body: BoxStream<'static, Result<Bytes>>, range: std::ops::Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let start = (body, range.start, range.end - range.start);
    futures::stream::try_unfold(start, |(mut body, mut skip, mut left)| async move {
        while left > 0 {
            let Some(mut bytes) = body.try_next().await? else { break };
            let passed = skip.min(bytes.len() as u64);
            skip -= passed;
            bytes = bytes.slice(passed as usize..);
            bytes.truncate(left.min(bytes.len() as u64) as usize);
            if !bytes.is_empty() {
                left -= bytes.len() as u64;
                return Ok(Some((bytes, (body, skip, left))));
            }
        }
        Ok::<_, object_store::Error>(None)
    })
    .boxed()
}

/// A body on its way.
struct Body {
    store: Steady,
    meta: ObjectMeta,
    at: u64,
    end: u64,
    stream: BoxStream<'static, Result<Bytes>>,
    stalls: u32,
}

impl Body {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let why = match self.stream.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.stalls = 0;
                    return Ok(Some(bytes));
                }
                None if self.at >= self.end => return Ok(None),
                None => None,
                Some(Err(error)) => Some(error),
            };
            self.go_on(why).await?;
        }
    }

    async fn go_on(&mut self, why: Option<object_store::Error>) -> Result<()> {
        let path = self.meta.location.clone();
        loop {
            if self.stalls >= RESUMES {
                let at = self.store.base.at_path(path.as_ref());
                let why = why.map_or(String::new(), |error| format!(" ({error})"));
                let reason = format!("the store breaks off at byte {} of {}, again and again{why}", self.at, self.end);
                return Err(Error::Refused { location: at.to_string(), reason }.into_store_error());
            }
            tracing::debug!("{path}: the body ends at byte {} of {}: going on from there", self.at, self.end);
            tokio::time::sleep(Duration::from_millis(50 << self.stalls)).await;
            self.stalls += 1;
            match self.store.rest(&path, self.at, self.end, &self.meta).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(object_store::Error::Precondition { .. }) => {
                    let at = self.store.base.at_path(path.as_ref());
                    return Err(Error::conflict(at, "was replaced while it was read: read it again").into_store_error());
                }
                Err(error @ object_store::Error::NotFound { .. }) => return Err(error),
                Err(error) if self.stalls >= RESUMES => return Err(self.store.err(&path, error)),
                Err(_) => {}
            }
        }
    }
}

fn is_missing<T>(result: &Result<T>) -> bool {
    matches!(result, Err(object_store::Error::NotFound { .. }))
}

impl fmt::Display for Steady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Steady {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await.map_err(|e| self.err(location, e))
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, opts).await.map_err(|e| self.err(location, e))?;
        Ok(Box::new(Upload { store: self.clone(), path: location.clone(), inner: Some(upload), bytes: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (head, range) = (options.head, options.range.clone());
        let mut result = match (self.get_part(location, options.clone()).await, range) {
            // A web server that knows no ranges sends everything: the part is cut out here.
            (Err(object_store::Error::NotSupported { .. }), Some(range)) if self.base.scheme().is_web() => {
                return self.cut(location, options, &range).await.map_err(|e| self.err(location, e));
            }
            (Err(error), _) if head => return Err(self.err(location, self.reason(location, error).await)),
            (result, _) => result.map_err(|e| self.err(location, e))?,
        };
        if head {
            return Ok(result);
        }
        if let GetResultPayload::Stream(stream) = result.payload {
            result.payload = GetResultPayload::Stream(self.whole(result.meta.clone(), result.range.clone(), stream));
        }
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        self.inner.delete_stream(locations).map_err(move |e| store.err(&Path::default(), e)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, at) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listed = self.inner.list(prefix).map_err(move |e| store.err(&at, e));
        if !self.base.scheme().is_web() {
            return listed.boxed();
        }
        // A directory that is not there has nothing in it, as in a bucket.
        listed.filter(|item| futures::future::ready(!is_missing(item))).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, at, offset) = (self.clone(), prefix.cloned().unwrap_or_default(), offset.clone());
        let listed = self.inner.list_with_offset(prefix, &offset).map_err(move |e| store.err(&at, e));
        // A server that does not know where to start (Azurite, reached by its own endpoint, ignores `startFrom`) lists
        // everything. Who reads the log of a Delta table from a version on would take the first name for that version.
        listed.try_filter(move |item| futures::future::ready(item.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let at = prefix.cloned().unwrap_or_default();
        let listed = self.inner.list_with_delimiter(prefix).await.map_err(|e| self.err(&at, e));
        if self.base.scheme().is_web() && is_missing(&listed) {
            return Ok(ListResult { common_prefixes: vec![], objects: vec![] });
        }
        listed
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await.map_err(|e| self.err(to, e))
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await.map_err(|e| self.err(to, e))
    }
}

/// An upload that ends: complete, or aborted, also when it is dropped.
#[derive(Debug)]
struct Upload {
    store: Steady,
    path: Path,
    inner: Option<Box<dyn MultipartUpload>>,
    bytes: u64,
}

impl Upload {
    fn ended(&self) -> object_store::Error {
        let at = self.store.base.at_path(self.path.as_ref());
        Error::invalid(at, "the upload has ended already").into_store_error()
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.bytes += data.content_length() as u64;
        let Some(inner) = &mut self.inner else { return futures::future::ready(Err(self.ended())).boxed() };
        let part = inner.put_part(data);
        let (store, path) = (self.store.clone(), self.path.clone());
        part.map(move |done| done.map_err(|e| store.err(&path, e))).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut inner = self.inner.take().ok_or_else(|| self.ended())?;
        let error = match inner.complete().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // Done once, answered never, asked again: then the store knows of no such upload, and the object is there.
        if let Ok(there) = self.store.inner.head(&self.path).await
            && there.size == self.bytes
        {
            return Ok(PutResult { e_tag: there.e_tag, version: there.version });
        }
        let _ = inner.abort().await;
        Err(self.store.err(&self.path, error))
    }

    async fn abort(&mut self) -> Result<()> {
        let mut inner = self.inner.take().ok_or_else(|| self.ended())?;
        inner.abort().await.map_err(|e| self.store.err(&self.path, e))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut inner), Ok(runtime)) = (self.inner.take(), tokio::runtime::Handle::try_current()) else { return };
        let path = self.path.clone();
        runtime.spawn(async move {
            if let Err(error) = inner.abort().await {
                tracing::warn!("{path}: an upload was given up and its parts could not be removed: {error}");
            }
        });
    }
}

/// Puts an object where there is none; false when somebody else's is there. Its own writer is not taken for somebody
/// else: an answer that was lost, and a request that was repeated because of it, are told by the bytes that are there.
/// The bytes must be the writer's own, which is why each of our records carries an id.
pub(crate) async fn create(store: &Arc<dyn ObjectStore>, path: &Path, bytes: Bytes) -> Result<bool> {
    let mut attempt = 0;
    loop {
        let put = store.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await;
        let error = match put {
            Ok(_) => return Ok(true),
            // A store without a condition, on which only one writer at a time is let in (see `target.rs`).
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                return match store.head(path).await {
                    Ok(_) => Ok(false),
                    Err(object_store::Error::NotFound { .. }) => store.put(path, bytes.into()).await.map(|_| true),
                    Err(error) => Err(error),
                };
            }
            Err(error) => error,
        };
        let there = async { store.get_opts(path, GetOptions::default()).await?.bytes().await }.await;
        match there {
            Ok(there) if there == bytes => return Ok(true),
            Ok(_) => return Ok(false),
            // Refused although nothing is there: two at once, of which none has won.
            Err(object_store::Error::NotFound { .. }) if attempt < RESUMES && may_pass(&error) => {}
            Err(_) => return Err(error),
        }
        tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
        attempt += 1;
    }
}

fn may_pass(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Generic { .. })
}

#[cfg(test)]
#[path = "steady_tests.rs"]
mod tests;
