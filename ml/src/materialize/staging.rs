//! The training query's rows, held for the passes that follow: statistics for transforms, encoding, evaluation. Rows
//! stay in memory while the session's pool grants it, then go to Arrow IPC files in the session's temporary directory.

use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use engine::{Error, Result};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::copies::tell_apart;
use super::piece::Piece;
use super::row_key::{RowKey, RowKeys, arrow_error, from_array, to_array};
use super::spill::SpillDirectory;
use super::spilled::{self, Stretch};
use super::split::{Part, Split};
use super::training_rows::{KEY_COLUMN, TrainingRows};
use crate::statistics::Rows;

/// The part of the memory limit up to which rows stay in memory: fitting, encoding and the shards want the rest.
const HELD_PART: usize = 4;

/// Staged rows.
#[derive(Debug)]
pub struct Staged {
    schema: SchemaRef,
    items: Arc<Vec<Piece>>,
    rows: u64,
    null_labels: u64,
    partitions: usize,
    // Kept for what they give back when dropped.
    _reservations: Vec<MemoryReservation>,
    _directory: Arc<SpillDirectory>,
}

/// Reads the partitions of a query and holds its rows, with their keys under `seed`. Rows in which one of `labels` is NULL are counted and
/// left out.
///
/// # Errors
/// Whatever the query meets; a column type without canonical bytes; a full disk; cancellation.
pub async fn stage(
    schema: SchemaRef,
    streams: Vec<SendableRecordBatchStream>,
    labels: &[String],
    seed: u64,
    pool: &Arc<dyn MemoryPool>,
    directory: &Path,
    cancel: &CancellationToken,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<Staged> {
    let keys = Arc::new(RowKeys::new(&schema, seed)?);
    let labels = labels.iter().map(|label| schema.index_of(label).map_err(arrow_error)).collect::<Result<Vec<_>>>()?;
    let directory = Arc::new(SpillDirectory::new(directory, "staged")?);
    let partitions = streams.len().max(1);
    let done = Arc::new(AtomicU64::new(0));
    let held_max = match pool.memory_limit() {
        MemoryLimit::Finite(limit) => limit / HELD_PART / partitions,
        _ => usize::MAX,
    };
    let mut tasks = tokio::task::JoinSet::new();
    for (number, stream) in streams.into_iter().enumerate() {
        let consumer = MemoryConsumer::new(format!("training rows {number}")).with_can_spill(true);
        let collector = Collector {
            labels: labels.clone(),
            keys: Arc::clone(&keys),
            held: Vec::new(),
            spilled: Vec::new(),
            rows: 0,
            null_labels: 0,
            held_max,
            reservation: consumer.register(pool),
            directory: Arc::clone(&directory),
            progress: Arc::clone(&progress),
            done: Arc::clone(&done),
        };
        tasks.spawn(collect(collector, stream, cancel.clone()));
    }
    let mut staged = Staged {
        schema,
        items: Arc::new(Vec::new()),
        rows: 0,
        null_labels: 0,
        partitions,
        _reservations: Vec::new(),
        _directory: directory,
    };
    let mut collectors = Vec::new();
    // Dropping the set on an error stops the other partitions.
    while let Some(finished) = tasks.join_next().await {
        let collector = finished.map_err(joined)??;
        staged.rows += collector.rows;
        staged.null_labels += collector.null_labels;
        collectors.push(collector);
    }
    let buckets = spilled::buckets(held_max);
    // Rows that did not all fit go to disk to the last one: what comes after has the memory, and all copies of a row are in
    // one place.
    if collectors.iter().any(|collector| !collector.spilled.is_empty()) {
        for collector in &mut collectors {
            collector.spill().await?;
        }
    }
    let mut items = Vec::new();
    let mut of_bucket: Vec<Vec<Stretch>> = (0..buckets).map(|_| Vec::new()).collect();
    for mut collector in collectors {
        staged._reservations.push(collector.keep(pool));
        items.extend(std::mem::take(&mut collector.held).into_iter().map(Piece::Memory));
        for stretches in std::mem::take(&mut collector.spilled) {
            of_bucket.iter_mut().zip(stretches).for_each(|(bucket, stretch)| bucket.push(stretch));
        }
    }
    items.extend(of_bucket.into_iter().filter(|bucket| !bucket.is_empty()).map(Piece::Bucket));
    let told_apart = move || tell_apart(&mut items).map(|()| items);
    staged.items = Arc::new(tokio::task::spawn_blocking(told_apart).await.map_err(joined)??);
    Ok(staged)
}

fn joined(error: tokio::task::JoinError) -> Error {
    Error::Query(DataFusionError::ExecutionJoin(Box::new(error)))
}

struct Collector {
    labels: Vec<usize>,
    keys: Arc<RowKeys>,
    held: Vec<RecordBatch>,
    /// What each bucket has of each file.
    spilled: Vec<Vec<Stretch>>,
    rows: u64,
    null_labels: u64,
    /// Bytes that may be held.
    held_max: usize,
    reservation: MemoryReservation,
    directory: Arc<SpillDirectory>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
    done: Arc<AtomicU64>,
}

async fn collect(
    mut collector: Collector,
    mut stream: SendableRecordBatchStream,
    cancel: CancellationToken,
) -> Result<Collector> {
    loop {
        let next = tokio::select! {
            () = cancel.cancelled() => return Err(Error::Cancelled),
            next = stream.next() => next,
        };
        let Some(batch) = next else { break };
        collector.take(batch?).await?;
    }
    Ok(collector)
}

impl Collector {
    async fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = self.with_labels(batch)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.rows += batch.num_rows() as u64;
        let done = self.done.fetch_add(batch.num_rows() as u64, Ordering::Relaxed) + batch.num_rows() as u64;
        (self.progress)(done);
        let keys = self.keys.of(&batch)?;
        let batch = with_keys(&batch, &keys)?;
        let bytes = batch.get_array_memory_size();
        let refused = self.reservation.size() + bytes > self.held_max || self.reservation.try_grow(bytes).is_err();
        self.held.push(batch);
        if refused { self.spill().await } else { Ok(()) }
    }

    /// The memory of rows that stay there: they can no longer be spilled.
    fn keep(&self, pool: &Arc<dyn MemoryPool>) -> MemoryReservation {
        let kept = MemoryConsumer::new("training rows").register(pool);
        // What was granted once is not asked for again, it only changes its name.
        kept.grow(self.reservation.free());
        kept
    }

    /// Leaves out the rows without a label.
    fn with_labels(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut batch = batch;
        for label in &self.labels {
            let nulls = batch.column(*label).logical_null_count();
            if nulls > 0 {
                self.null_labels += nulls as u64;
                let mask = is_not_null(batch.column(*label)).map_err(arrow_error)?;
                batch = filter_record_batch(&batch, &mask).map_err(arrow_error)?;
            }
        }
        Ok(batch)
    }

    async fn spill(&mut self) -> Result<()> {
        let batches = std::mem::take(&mut self.held);
        if batches.is_empty() {
            return Ok(());
        }
        let (directory, buckets) = (Arc::clone(&self.directory), spilled::buckets(self.held_max));
        let written = tokio::task::spawn_blocking(move || spilled::write(&directory, &batches, buckets));
        self.spilled.push(written.await.map_err(joined)??);
        self.reservation.free();
        Ok(())
    }
}

/// Rows with their keys as the last column.
pub(super) fn with_keys(batch: &RecordBatch, keys: &[RowKey]) -> Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(KEY_COLUMN, DataType::FixedSizeBinary(16), false)));
    let mut columns = batch.columns().to_vec();
    columns.push(to_array(keys)?);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)
}

/// The inverse of [`with_keys`].
pub(super) fn without_keys(batch: &RecordBatch) -> Result<RecordBatch> {
    batch.project(&(0..batch.num_columns() - 1).collect::<Vec<_>>()).map_err(arrow_error)
}

/// Cuts the keys off a staged batch and keeps the rows of one part.
pub(super) fn part_of(batch: &RecordBatch, split: &Split, part: Part) -> Result<(RecordBatch, Vec<RowKey>)> {
    let keys = from_array(batch.column(batch.num_columns() - 1));
    let rows = without_keys(batch)?;
    if *split == Split::None && part == Part::Train {
        return Ok((rows, keys));
    }
    let mask = split.mask(&rows, &keys, part)?;
    let kept = keys.into_iter().zip(mask.iter()).filter(|(_, keep)| *keep == Some(true)).map(|(key, _)| key).collect();
    Ok((filter_record_batch(&rows, &mask).map_err(arrow_error)?, kept))
}

impl Staged {
    /// The training query's columns, with the label's beside them.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn items(&self) -> &[Piece] {
        &self.items
    }

    /// The rows of one part as a table, for the aggregate queries that fit transforms.
    pub fn table(&self, split: &Split, part: Part) -> Result<Arc<dyn TableProvider>> {
        let partitions = (0..self.partitions)
            .map(|first| {
                Arc::new(StagedPartition {
                    schema: Arc::clone(&self.schema),
                    items: Arc::clone(&self.items),
                    first,
                    step: self.partitions,
                    split: split.clone(),
                    part,
                    _directory: Arc::clone(&self._directory),
                }) as Arc<dyn PartitionStream>
            })
            .collect();
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(&self.schema), partitions)?))
    }
}

/// Staged rows, and the query engine that is asked about them.
pub struct HeldRows {
    staged: Staged,
    context: SessionContext,
}

impl HeldRows {
    /// Rows that are asked in `context`.
    pub fn new(staged: Staged, context: &SessionContext) -> Self {
        HeldRows { staged, context: context.clone() }
    }

    /// The rows themselves.
    pub fn staged(&self) -> &Staged {
        &self.staged
    }
}

#[async_trait]
impl TrainingRows for HeldRows {
    fn schema(&self) -> &SchemaRef {
        &self.staged.schema
    }
    fn rows(&self) -> u64 {
        self.staged.rows
    }
    fn null_labels(&self) -> u64 {
        self.staged.null_labels
    }
    async fn part(&self, split: &Split, part: Part) -> Result<Rows> {
        Ok(Rows::from(&self.context.read_table(self.staged.table(split, part)?)?))
    }
    async fn smallest_keys(&self, count: usize) -> Result<Vec<RowKey>> {
        let items = Arc::clone(&self.staged.items);
        tokio::task::spawn_blocking(move || smallest(&items, count)).await.map_err(joined)?
    }
}

fn smallest(items: &[Piece], count: usize) -> Result<Vec<RowKey>> {
    // The largest of them is on top.
    let mut smallest = BinaryHeap::with_capacity(count);
    for item in items {
        for keys in item.keys()? {
            for key in keys? {
                if smallest.len() < count {
                    smallest.push(key);
                } else if let Some(mut largest) = smallest.peek_mut()
                    && key < *largest
                {
                    *largest = key;
                }
            }
        }
    }
    Ok(smallest.into_sorted_vec())
}

#[derive(Debug)]
struct StagedPartition {
    schema: SchemaRef,
    items: Arc<Vec<Piece>>,
    first: usize,
    step: usize,
    split: Split,
    part: Part,
    _directory: Arc<SpillDirectory>,
}

impl PartitionStream for StagedPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (items, split, part, schema) =
            (Arc::clone(&self.items), self.split.clone(), self.part, Arc::clone(&self.schema));
        let rows = (self.first..items.len()).step_by(self.step).flat_map(move |index| {
            let batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match items[index].batches() {
                Ok(batches) => batches,
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
            let (split, schema) = (split.clone(), Arc::clone(&schema));
            batches.map(move |batch| {
                let (rows, _) = part_of(&batch.map_err(external)?, &split, part).map_err(external)?;
                Ok(RecordBatch::try_new(Arc::clone(&schema), rows.columns().to_vec())?)
            })
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(rows)))
    }
}

fn external(error: Error) -> DataFusionError {
    match error {
        Error::Query(error) => error,
        other => DataFusionError::External(Box::new(other)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::array::Int64Array;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    use super::*;

    /// Stages batches without a limit.
    pub(in crate::materialize) async fn staged(context: &SessionContext, batches: Vec<RecordBatch>) -> Staged {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        staged_in(context, batches, &pool, &[]).await.unwrap()
    }

    /// As [`staged`], ready to be asked.
    pub(in crate::materialize) async fn held(context: &SessionContext, batches: Vec<RecordBatch>) -> HeldRows {
        HeldRows::new(staged(context, batches).await, context)
    }

    pub(in crate::materialize) async fn staged_in(
        context: &SessionContext,
        batches: Vec<RecordBatch>,
        pool: &Arc<dyn MemoryPool>,
        labels: &[String],
    ) -> Result<Staged> {
        let query = context.read_batches(batches)?;
        let schema = Arc::new(query.schema().as_arrow().clone());
        let streams = query.execute_stream_partitioned().await?;
        let cancel = CancellationToken::new();
        stage(schema, streams, labels, 7, pool, &std::env::temp_dir(), &cancel, Arc::new(|_| ())).await
    }

    fn numbers(from: i64, to: i64) -> RecordBatch {
        let values = Int64Array::from_iter((from..to).map(|i| (i % 3 != 0).then_some(i)));
        RecordBatch::try_from_iter_with_nullable([("n", Arc::new(values) as _, true)]).unwrap()
    }

    #[tokio::test]
    async fn rows_without_a_label_are_left_out_and_counted() {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let staged = staged_in(&SessionContext::new(), vec![numbers(0, 300)], &pool, &["n".to_string()]).await.unwrap();
        assert_eq!((staged.rows, staged.null_labels), (200, 100));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_spilled_and_reads_the_same() {
        let context = SessionContext::new();
        let batches: Vec<RecordBatch> = (0..50).map(|i| numbers(i * 1000, (i + 1) * 1000)).collect();
        let sum = async |staged: &Staged| {
            context.register_table("t", staged.table(&Split::None, Part::Train).unwrap()).unwrap();
            let rows = context.sql("SELECT sum(n), count(*) FROM t").await.unwrap().collect().await.unwrap();
            context.deregister_table("t").unwrap();
            format!("{rows:?}")
        };
        let in_memory = staged(&context, batches.clone()).await;
        let small: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100_000));
        let spilled = staged_in(&context, batches, &small, &[]).await.unwrap();
        assert!(spilled.items().iter().any(|item| matches!(item, Piece::Bucket(_))));
        assert_eq!(sum(&in_memory).await, sum(&spilled).await);
        let directory = spilled._directory.path().to_path_buf();
        assert!(directory.exists());
        drop(spilled);
        assert!(!directory.exists(), "spilled rows outlive their owner");
        assert_eq!(small.reserved(), 0);
    }
}
