//! A store whose ranges count against the memory limit for as long as a reader holds them. A Parquet reader takes the
//! column chunks of a whole row group at once: a quarter of a small limit, which sorts and aggregates must know of so that
//! they spill in time. The bytes are read already when they are counted, so they are never refused.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::memory::{FairPool, Outside};

/// See the module.
#[derive(Debug)]
pub(super) struct Accounted {
    inner: Arc<dyn ObjectStore>,
    memory: Arc<FairPool>,
}

impl Accounted {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, memory: Arc<FairPool>) -> Self {
        Accounted { inner, memory }
    }

    fn counted(&self, bytes: Bytes) -> Bytes {
        let counted = self.memory.outside(bytes.len());
        Bytes::from_owner(Held { bytes, _counted: counted })
    }
}

/// Bytes and their count.
struct Held {
    bytes: Bytes,
    _counted: Outside,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for Accounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Accounted {
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let pieces = self.inner.get_ranges(location, ranges).await?;
        Ok(pieces.into_iter().map(|piece| self.counted(piece)).collect())
    }

    // Everything else goes through: it is small, or streams.

    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryPool;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn ranges_count_while_they_are_held() {
        let memory = Arc::new(FairPool::new(Some(1000)));
        let store = Accounted::new(Arc::new(InMemory::new()), Arc::clone(&memory));
        let path = Path::from("a");
        store.put_opts(&path, PutPayload::from(vec![7u8; 3000]), PutOptions::default()).await.unwrap();
        let pieces = store.get_ranges(&path, &[0..2000, 2500..2600]).await.unwrap();
        assert_eq!((pieces[0].len(), pieces[1][99], memory.reserved()), (2000, 7, 2100));
        let tail = pieces[0].slice(1990..);
        drop(pieces);
        assert_eq!(memory.reserved(), 2000, "a slice holds its whole piece");
        drop(tail);
        assert_eq!(memory.reserved(), 0);
    }
}
