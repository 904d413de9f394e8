//! Counts what goes through a store: requests, bytes read, bytes written.
//!
//! A job report shows differences of two snapshots. A file that is handed out as an open file counts with the range that
//! was asked for; a stream counts what was taken from it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use crate::listings::Listings;

/// A snapshot of what went through a session's stores since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls: puts, gets, parts, deletes, listings, copies, renames.
    pub requests: u64,
    /// Bytes of objects read.
    pub bytes_read: u64,
    /// Bytes of objects written.
    pub bytes_written: u64,
}

impl Counters {
    /// What was added since an earlier snapshot.
    #[must_use]
    pub fn since(self, earlier: Counters) -> Counters {
        Counters {
            requests: self.requests.saturating_sub(earlier.requests),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
        }
    }
}

/// The counters that all stores of one session share.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    requests: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Meter {
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            requests: self.requests.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A store that counts.
#[derive(Debug)]
pub(crate) struct Instrumented {
    inner: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
    /// Requests are counted where they are made; a call here may be several, or be repeated.
    counted_below: bool,
    /// What is written is no longer as it was listed.
    listings: Option<Arc<Listings>>,
}

impl Instrumented {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        meter: Arc<Meter>,
        counted_below: bool,
        listings: Option<Arc<Listings>>,
    ) -> Self {
        Self { inner, meter, counted_below, listings }
    }

    fn changed(&self) {
        if let Some(listings) = &self.listings {
            listings.forget();
        }
    }

    fn request(&self) {
        if !self.counted_below {
            self.meter.request();
        }
    }
}

impl fmt::Display for Instrumented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Instrumented {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.request();
        let bytes = payload.content_length() as u64;
        let result = self.inner.put_opts(location, payload, opts).await;
        self.changed();
        let result = result?;
        self.meter.wrote(bytes);
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.request();
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(CountedUpload { inner, meter: Arc::clone(&self.meter), counted_below: self.counted_below }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request();
        let head = options.head;
        let mut result = self.inner.get_opts(location, options).await?;
        if head {
            return Ok(result);
        }
        match result.payload {
            GetResultPayload::Stream(stream) => {
                let meter = Arc::clone(&self.meter);
                let counted = stream.inspect(move |piece| {
                    if let Ok(piece) = piece {
                        meter.read(piece.len() as u64);
                    }
                });
                result.payload = GetResultPayload::Stream(counted.boxed());
            }
            GetResultPayload::File(..) => self.meter.read(result.range.end - result.range.start),
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.request();
        let pieces = self.inner.get_ranges(location, ranges).await?;
        self.meter.read(pieces.iter().map(|piece| piece.len() as u64).sum());
        Ok(pieces)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.changed();
        if self.counted_below {
            return self.inner.delete_stream(locations);
        }
        let meter = Arc::clone(&self.meter);
        self.inner.delete_stream(locations.inspect(move |_| meter.request()).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.request();
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.request();
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request();
        let copied = self.inner.copy_opts(from, to, options).await;
        self.changed();
        copied
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.request();
        let renamed = self.inner.rename_opts(from, to, options).await;
        self.changed();
        renamed
    }
}

#[derive(Debug)]
struct CountedUpload {
    inner: Box<dyn MultipartUpload>,
    meter: Arc<Meter>,
    counted_below: bool,
}

impl CountedUpload {
    fn request(&self) {
        if !self.counted_below {
            self.meter.request();
        }
    }
}

#[async_trait]
impl MultipartUpload for CountedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.request();
        let bytes = data.content_length() as u64;
        let meter = Arc::clone(&self.meter);
        let part = self.inner.put_part(data);
        Box::pin(async move {
            part.await?;
            meter.wrote(bytes);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.request();
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.request();
        self.inner.abort().await
    }
}
