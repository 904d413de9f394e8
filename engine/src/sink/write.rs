//! What one task of a sink does: takes its partition's rows, spreads them over files, and says which files it wrote.
//! A bounded number of files is open at a time and their buffers are accounted for: a partition column with a million
//! values gives many small files, not a process out of memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::Count;
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use storage::{Location, Stores};
use uuid::Uuid;

use super::partition::{Partitioner, null_directory, written_schema};
use super::room::Room;
use super::spec::SinkSpec;
use super::writer::FileWriter;

/// A finished file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileRow {
    /// Where it is staged.
    pub(super) path: String,
    /// Its partition directory, or empty.
    pub(super) relative: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) sha256: Option<String>,
}

struct OpenFile {
    writer: FileWriter,
    location: Location,
    rows: u64,
    /// The number of the last batch that touched it.
    touched: u64,
}

/// Rows whose directory has no open file while as many are open as may be.
#[derive(Default)]
struct Waiting {
    rows: BTreeMap<Arc<str>, Vec<RecordBatch>>,
    bytes: usize,
}

struct Task<'a> {
    spec: &'a SinkSpec,
    number: usize,
    room: Room,
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    reservation: MemoryReservation,
    open: HashMap<Arc<str>, OpenFile>,
    waiting: Waiting,
    done: Vec<FileRow>,
    clock: u64,
}

/// Writes all rows of `input`. Dropped half-way it leaves files in the staging directory, which the commit removes.
pub(super) async fn write(
    spec: &SinkSpec,
    stores: &Stores,
    (number, room): (usize, Room),
    mut input: SendableRecordBatchStream,
    context: &TaskContext,
    rows_written: &Count,
) -> Result<Vec<FileRow>> {
    let consumer = MemoryConsumer::new(format!("COPY[{number}]"));
    let mut partitioner = match spec.partition_by.as_slice() {
        [] => None,
        names => Some(Partitioner::new(&input.schema(), names)?),
    };
    let (store, _) = stores.open(&spec.directory).map_err(external)?;
    let mut task = Task {
        spec,
        number,
        room,
        store,
        schema: written_schema(&input.schema(), &spec.partition_by),
        reservation: consumer.register(context.memory_pool()),
        open: HashMap::new(),
        waiting: Waiting::default(),
        done: Vec::new(),
        clock: 0,
    };
    let all: Arc<str> = Arc::from("");
    while let Some(batch) = input.next().await {
        let batch = batch?;
        if batch.num_rows() == 0 {
            continue;
        }
        spec.check(&batch).map_err(|error| DataFusionError::External(Box::new(error)))?;
        task.clock += 1;
        match &mut partitioner {
            None => task.write(&all, &batch).await?,
            Some(partitioner) => {
                for (directory, part) in partitioner.split(&batch)? {
                    task.take(directory, part).await?;
                }
            }
        }
        task.account().await?;
        rows_written.add(batch.num_rows());
        // Encoding never waits: without this a task would keep its thread, and a cancelled one would go on.
        tokio::task::yield_now().await;
    }
    task.finish().await
}

impl Task<'_> {
    /// Writes rows of a directory, now or together with more of them: when directories take turns with each batch, a file
    /// for each turn would be far too many files.
    async fn take(&mut self, directory: Arc<str>, rows: RecordBatch) -> Result<()> {
        let crowded = self.room.open_max > 1 && self.open.len() >= self.room.open_max;
        // Rows of a directory keep their order: what comes later waits as well.
        let waits = self.waiting.rows.contains_key(&directory);
        if !waits && (!crowded || self.open.contains_key(&directory)) {
            return self.write(&directory, &rows).await;
        }
        self.waiting.bytes += rows.get_array_memory_size();
        self.waiting.rows.entry(directory).or_default().push(rows);
        if self.waiting.bytes > self.room.waiting_max { self.write_waiting().await } else { Ok(()) }
    }

    async fn write_waiting(&mut self) -> Result<()> {
        self.waiting.bytes = 0;
        for (directory, batches) in std::mem::take(&mut self.waiting.rows) {
            self.clock += 1;
            for batch in batches {
                self.write(&directory, &batch).await?;
            }
            self.account().await?;
        }
        Ok(())
    }

    async fn write(&mut self, directory: &Arc<str>, batch: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(directory) && self.open.len() >= self.room.open_max {
            let oldest =
                self.open.iter().min_by_key(|(_, file)| file.touched).map(|(directory, _)| Arc::clone(directory));
            self.close(&oldest.expect("there are open files")).await?;
        }
        let clock = self.clock;
        let file = self.file(directory)?;
        file.writer.write(batch).await?;
        file.rows += batch.num_rows() as u64;
        file.touched = clock;
        if file.writer.size() >= self.spec.target_file_size && !self.spec.single_file {
            self.close(directory).await?;
        }
        Ok(())
    }

    fn file(&mut self, directory: &Arc<str>) -> Result<&mut OpenFile> {
        if !self.open.contains_key(directory) {
            let location = self.spec.file_location(self.number, directory, &Uuid::new_v4().simple().to_string()[..8]);
            let out = BufWriter::with_capacity(Arc::clone(&self.store), location.path().clone(), self.room.part);
            let writer = FileWriter::open(&self.spec.encoding, &self.schema, out, self.room.part, self.spec.sealed)?;
            self.open.insert(Arc::clone(directory), OpenFile { writer, location, rows: 0, touched: self.clock });
        }
        Ok(self.open.get_mut(directory).expect("the file was opened above"))
    }

    async fn close(&mut self, directory: &Arc<str>) -> Result<()> {
        if let Some(file) = self.open.remove(directory) {
            let (bytes, sha256) = file.writer.finish(&self.schema).await?;
            let path = file.location.to_string();
            self.done.push(FileRow { path, relative: directory.to_string(), rows: file.rows, bytes, sha256 });
        }
        Ok(())
    }

    /// Keeps the pool informed; when it has no more to give, the largest buffers go to the store before their time. A
    /// little is kept in any case: rows that are written one batch at a time make bad files.
    async fn account(&mut self) -> Result<()> {
        let encoded: usize = self.open.values().map(|file| file.writer.encoded()).sum();
        if self.reservation.try_resize(self.held()).is_ok() && encoded <= 2 * self.room.at_ease {
            return Ok(());
        }
        let mut files: Vec<&mut OpenFile> = self.open.values_mut().collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.writer.encoded()));
        let mut left = encoded;
        let enough = self.room.at_ease / 2;
        if encoded > self.room.at_ease {
            for file in files {
                if left <= enough {
                    break;
                }
                left -= file.writer.encoded();
                file.writer.flush().await?;
            }
        }
        // What is left is small and cannot be given up.
        self.reservation.resize(self.held());
        Ok(())
    }

    fn held(&self) -> usize {
        self.open.values().map(|file| file.writer.memory()).sum::<usize>() + self.waiting.bytes
    }

    async fn finish(mut self) -> Result<Vec<FileRow>> {
        self.write_waiting().await?;
        if self.number == 0 && self.open.is_empty() && self.done.is_empty() {
            // Even a table without rows has columns, those of partitions included: the first task always writes a file.
            let directory: Arc<str> = null_directory(&self.spec.partition_by).into();
            self.file(&directory)?;
        }
        let mut directories: Vec<Arc<str>> = self.open.keys().cloned().collect();
        directories.sort();
        for directory in &directories {
            self.close(directory).await?;
        }
        Ok(self.done)
    }
}

fn external(error: storage::Error) -> DataFusionError {
    DataFusionError::External(Box::new(crate::Error::Storage(error)))
}
