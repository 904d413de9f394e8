//! Staged rows of one part become S shards of encoded rows, sorted by key inside each shard.
//!
//! Threads encode batches side by side. What the memory pool grants stays in memory; beyond that each thread sorts what
//! it holds and writes it as a run, and the runs are merged shard by shard at the end. Both ways give the same blocks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use engine::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::piece::Piece;
use super::row_key::RowKey;
use super::spill::{BlockFormat, IpcBatches, IpcFile, SpillDirectory};
use super::split::{Part, Split};
use super::staging::{Staged, part_of};
use crate::shards::{Bags, Block, FeatureLayout, MemoryShards, ShardSet};

/// How shards are to be built.
pub struct BuildPlan<'a> {
    /// What an encoded row is made of.
    pub layout: &'a FeatureLayout,
    /// S, a power of two.
    pub shards: usize,
    /// Threads.
    pub workers: usize,
    /// Grants memory; what it refuses is spilled.
    pub pool: Arc<dyn MemoryPool>,
    /// Where runs and shards are spilled.
    pub directory: PathBuf,
    /// Asked between batches.
    pub cancel: CancellationToken,
    /// Told how many rows are encoded so far.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Encodes rows of the training query: features, labels and weights.
    pub encode: &'a (dyn Fn(&RecordBatch) -> Result<Block> + Sync),
}

/// Builds the shards of one part.
///
/// # Errors
/// Whatever encoding finds wrong in the rows; a full disk; cancellation.
pub fn build(staged: &Staged, split: &Split, part: Part, plan: &BuildPlan<'_>) -> Result<Arc<dyn ShardSet>> {
    build_from(staged.items(), split, part, plan)
}

/// As [`build`], of rows in pieces.
pub(super) fn build_from(
    pieces: &[Piece],
    split: &Split,
    part: Part,
    plan: &BuildPlan<'_>,
) -> Result<Arc<dyn ShardSet>> {
    assert!(plan.shards.is_power_of_two(), "S is checked to be a power of two, got {}", plan.shards);
    let format = BlockFormat::new(plan.layout);
    let directory = Arc::new(SpillDirectory::new(&plan.directory, "shards")?);
    let shared =
        Shared { plan, format: &format, directory: &directory, next: AtomicUsize::new(0), done: AtomicU64::new(0) };
    let mut encoded = encode_all(&shared, pieces, split, part)?;
    if encoded.iter().all(|worker| worker.runs.is_empty()) {
        return in_memory(encoded, plan, &format);
    }
    for worker in &mut encoded {
        worker.spill(&shared)?;
    }
    let runs: Vec<Run> = encoded.into_iter().flat_map(|worker| worker.runs).collect();
    let files = each_shard(plan, |shard| merge(shard, &runs, &shared))?;
    Ok(Arc::new(FileShards {
        layout: plan.layout.clone(),
        block_rows: block_rows(plan.layout),
        format,
        files,
        _directory: directory,
    }))
}

/// Rows of a block: a power of two for blocks of about 1 MiB, a function of the layout alone.
pub(super) fn block_rows(layout: &FeatureLayout) -> usize {
    // A row's share of the bag is taken for 32 places.
    let bag = if layout.bag > 0 { 32 } else { 0 };
    let row_bytes = 4 * (layout.dense + layout.groups.len() + bag + 2);
    ((1 << 20) / row_bytes).next_power_of_two().clamp(64, 4096)
}

struct Shared<'a> {
    plan: &'a BuildPlan<'a>,
    format: &'a BlockFormat,
    directory: &'a Arc<SpillDirectory>,
    next: AtomicUsize,
    done: AtomicU64,
}

/// Encoded rows of a batch.
struct Encoded {
    block: Block,
    keys: Vec<RowKey>,
}

/// A sorted run: for each shard, the batches of its rows.
struct Run {
    path: PathBuf,
    shards: Vec<std::ops::Range<usize>>,
}

/// What one thread has encoded.
struct Worker {
    held: Vec<Encoded>,
    runs: Vec<Run>,
    reservation: MemoryReservation,
}

fn encode_all(shared: &Shared<'_>, pieces: &[Piece], split: &Split, part: Part) -> Result<Vec<Worker>> {
    let failed = CancellationToken::new();
    let work = |number: usize| -> Result<Worker> {
        let consumer = MemoryConsumer::new(format!("encoded rows {number}")).with_can_spill(true);
        let reservation = consumer.register(&shared.plan.pool);
        let mut worker = Worker { held: Vec::new(), runs: Vec::new(), reservation };
        loop {
            let number = shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = pieces.get(number) else { return Ok(worker) };
            for batch in piece.batches()? {
                if shared.plan.cancel.is_cancelled() || failed.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let (rows, keys) = part_of(&batch?, split, part)?;
                worker.take(&rows, keys, shared)?;
            }
        }
    };
    let results: Vec<Result<Worker>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..shared.plan.workers.max(1))
            .map(|number| {
                let (work, failed) = (&work, &failed);
                scope.spawn(move || {
                    let result = work(number);
                    if result.is_err() {
                        failed.cancel();
                    }
                    result
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    first_cause(results)
}

/// All results, or the error that made the others stop.
pub(super) fn first_cause<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(results.len());
    let mut cause = None;
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) if cause.is_none() || matches!(cause, Some(Error::Cancelled)) => cause = Some(error),
            Err(_) => {}
        }
    }
    cause.map_or(Ok(values), Err)
}

impl Worker {
    fn take(&mut self, rows: &RecordBatch, keys: Vec<RowKey>, shared: &Shared<'_>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let block = (shared.plan.encode)(rows)?;
        block.check(shared.plan.layout)?;
        let done = shared.done.fetch_add(block.rows as u64, Ordering::Relaxed) + block.rows as u64;
        (shared.plan.progress)(done);
        // Twice: gathering the rows of a shard, in either way, holds the sorted copy beside the original; and their order.
        let bytes = block.rows * (2 * shared.format.row_bytes() + size_of::<RowAt>()) + 8 * block.bags.places.len();
        let refused = self.reservation.try_grow(bytes).is_err();
        self.held.push(Encoded { block, keys });
        if refused { self.spill(shared) } else { Ok(()) }
    }

    /// Writes what is held as a sorted run.
    fn spill(&mut self, shared: &Shared<'_>) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Ok(());
        }
        let path = shared.directory.next_file()?;
        let mut file = IpcFile::create(&path, &shared.format.schema)?;
        let rows_max = run_batch_rows(shared.format, shared.plan.pool.memory_limit());
        let mut written = 0;
        let mut shards = Vec::with_capacity(shared.plan.shards);
        for order in orders(&held, shared.plan.shards) {
            let first = written;
            for rows in order.chunks(rows_max) {
                let (block, keys) = gather(&held, rows, shared.plan.layout);
                file.write(&shared.format.to_batch(block, &keys)?)?;
                written += 1;
            }
            shards.push(first..written);
        }
        file.finish()?;
        self.runs.push(Run { path, shards });
        drop(held);
        self.reservation.free();
        Ok(())
    }
}

/// Rows of a batch in a run: the merge holds one batch of every run, so wide rows and small limits make short batches.
fn run_batch_rows(format: &BlockFormat, limit: MemoryLimit) -> usize {
    let bytes = match limit {
        MemoryLimit::Finite(limit) => (limit / 2048).clamp(16 << 10, 256 << 10),
        _ => 256 << 10,
    };
    (bytes / format.row_bytes()).clamp(16, 1024)
}

/// A row by the encoded batch and the row in it.
#[derive(Clone, Copy)]
struct RowAt {
    key: RowKey,
    batch: u32,
    row: u32,
}

/// The rows of each shard, sorted by key.
fn orders(held: &[Encoded], shards: usize) -> Vec<Vec<RowAt>> {
    // Counted first: growing lists would leave as much behind as they hold.
    let mut counts = vec![0; shards];
    held.iter().flat_map(|encoded| &encoded.keys).for_each(|key| counts[key.shard(shards)] += 1);
    let mut orders: Vec<Vec<RowAt>> = counts.into_iter().map(Vec::with_capacity).collect();
    for (batch, encoded) in held.iter().enumerate() {
        for (row, key) in encoded.keys.iter().enumerate() {
            orders[key.shard(shards)].push(RowAt { key: *key, batch: batch as u32, row: row as u32 });
        }
    }
    for order in &mut orders {
        order.sort_unstable_by_key(|at| at.key);
    }
    orders
}

fn gather(held: &[Encoded], rows: &[RowAt], layout: &FeatureLayout) -> (Block, Vec<RowKey>) {
    let mut block = empty_block(rows.len(), layout);
    for at in rows {
        push_row(&mut block, &held[at.batch as usize].block, at.row as usize, layout);
    }
    (block, rows.iter().map(|at| at.key).collect())
}

fn empty_block(rows: usize, layout: &FeatureLayout) -> Block {
    Block {
        rows: 0,
        dense: Vec::with_capacity(rows * layout.dense),
        indices: Vec::with_capacity(rows * layout.groups.len()),
        bags: Bags::default(),
        labels: Vec::with_capacity(rows),
        weights: Vec::with_capacity(rows),
    }
}

fn push_row(block: &mut Block, from: &Block, row: usize, layout: &FeatureLayout) {
    let (dense, groups) = (layout.dense, layout.groups.len());
    block.dense.extend_from_slice(&from.dense[row * dense..(row + 1) * dense]);
    block.indices.extend_from_slice(&from.indices[row * groups..(row + 1) * groups]);
    if layout.bag > 0 {
        block.bags.push(from.bags.of(row).iter().copied());
    }
    block.labels.push(from.labels[row]);
    block.weights.push(from.weights[row]);
    block.rows += 1;
}

/// Runs `work` for every shard on the plan's threads and gives the results in shard order.
fn each_shard<T: Send>(plan: &BuildPlan<'_>, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<T>>>> = Mutex::new((0..plan.shards).map(|_| None).collect());
    thread::scope(|scope| {
        for _ in 0..plan.workers.clamp(1, plan.shards) {
            scope.spawn(|| {
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= plan.shards {
                        return;
                    }
                    let result = if plan.cancel.is_cancelled() { Err(Error::Cancelled) } else { work(shard) };
                    results.lock().unwrap_or_else(PoisonError::into_inner)[shard] = Some(result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    first_cause(results.into_iter().map(|result| result.expect("every shard was worked on")).collect())
}

fn in_memory(encoded: Vec<Worker>, plan: &BuildPlan<'_>, format: &BlockFormat) -> Result<Arc<dyn ShardSet>> {
    let (held, reservations): (Vec<Vec<Encoded>>, Vec<MemoryReservation>) =
        encoded.into_iter().map(|worker| (worker.held, worker.reservation)).unzip();
    let held: Vec<Encoded> = held.into_iter().flatten().collect();
    let rows: usize = held.iter().map(|encoded| encoded.block.rows).sum();
    let places: usize = held.iter().map(|encoded| encoded.block.bags.places.len()).sum();
    let orders = orders(&held, plan.shards);
    let cut = block_rows(plan.layout);
    let shards = each_shard(plan, |shard| {
        Ok(orders[shard].chunks(cut).map(|rows| Arc::new(gather(&held, rows, plan.layout).0)).collect())
    })?;
    drop(held);
    let set = MemoryShards::new(plan.layout.clone(), cut, shards)?;
    for reservation in &reservations {
        reservation.free();
    }
    let reservation = MemoryConsumer::new("training shards").register(&plan.pool);
    // The rows exist and no more than half of what was granted for them: growing cannot be refused in earnest.
    reservation.grow(rows * format.row_bytes() + 4 * places);
    Ok(Arc::new(HeldShards { set, _reservation: reservation }))
}

/// Shards in memory, with the memory that the pool granted for them.
struct HeldShards {
    set: MemoryShards,
    _reservation: MemoryReservation,
}

impl ShardSet for HeldShards {
    fn layout(&self) -> &FeatureLayout {
        self.set.layout()
    }
    fn shards(&self) -> usize {
        self.set.shards()
    }
    fn rows(&self, shard: usize) -> usize {
        self.set.rows(shard)
    }
    fn block_rows(&self) -> usize {
        self.set.block_rows()
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        self.set.block(shard, index)
    }
    fn in_memory(&self) -> bool {
        true
    }
}

/// Reads one shard's rows of a run in order.
struct Cursor {
    file: IpcBatches,
    batches: std::ops::Range<usize>,
    block: Block,
    keys: Vec<RowKey>,
    row: usize,
}

impl Cursor {
    fn open(run: &Run, shard: usize, format: &BlockFormat) -> Result<Option<Cursor>> {
        let batches = run.shards[shard].clone();
        let file = IpcBatches::open(&run.path)?;
        let mut cursor = Cursor { file, batches, block: Block::default(), keys: Vec::new(), row: 0 };
        Ok(cursor.advance(format)?.then_some(cursor))
    }

    /// Reads the next batch; false at the end.
    fn advance(&mut self, format: &BlockFormat) -> Result<bool> {
        let Some(index) = self.batches.next() else { return Ok(false) };
        let batch = self.file.batch(index)?;
        self.keys = BlockFormat::keys(&batch);
        self.block = format.to_block(&batch);
        self.row = 0;
        Ok(true)
    }
}

/// One shard as a file of blocks.
struct ShardFile {
    rows: usize,
    batches: Option<Mutex<IpcBatches>>,
}

fn merge(shard: usize, runs: &[Run], shared: &Shared<'_>) -> Result<ShardFile> {
    let (format, layout) = (shared.format, shared.plan.layout);
    let mut cursors: Vec<Cursor> = Vec::new();
    for run in runs.iter().filter(|run| !run.shards[shard].is_empty()) {
        cursors.extend(Cursor::open(run, shard, format)?);
    }
    if cursors.is_empty() {
        return Ok(ShardFile { rows: 0, batches: None });
    }
    let path = shared.directory.next_file()?;
    let mut file = IpcFile::create(&path, &format.schema)?;
    let cut = block_rows(layout);
    let mut heap: BinaryHeap<Reverse<(RowKey, usize)>> =
        cursors.iter().enumerate().map(|(index, cursor)| Reverse((cursor.keys[0], index))).collect();
    let (mut block, mut keys, mut rows) = (empty_block(cut, layout), Vec::with_capacity(cut), 0);
    while let Some(Reverse((key, index))) = heap.pop() {
        let cursor = &mut cursors[index];
        push_row(&mut block, &cursor.block, cursor.row, layout);
        keys.push(key);
        rows += 1;
        cursor.row += 1;
        if cursor.row < cursor.keys.len() || cursor.advance(format)? {
            heap.push(Reverse((cursor.keys[cursor.row], index)));
        }
        if block.rows == cut || heap.is_empty() {
            if shared.plan.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let full = std::mem::replace(&mut block, empty_block(cut, layout));
            file.write(&format.to_batch(full, &keys)?)?;
            keys.clear();
        }
    }
    file.finish()?;
    Ok(ShardFile { rows, batches: Some(Mutex::new(IpcBatches::open(&path)?)) })
}

/// Shards on disk; every block is read when it is asked for.
struct FileShards {
    layout: FeatureLayout,
    block_rows: usize,
    format: BlockFormat,
    files: Vec<ShardFile>,
    _directory: Arc<SpillDirectory>,
}

impl ShardSet for FileShards {
    fn layout(&self) -> &FeatureLayout {
        &self.layout
    }
    fn shards(&self) -> usize {
        self.files.len()
    }
    fn rows(&self, shard: usize) -> usize {
        self.files[shard].rows
    }
    fn block_rows(&self) -> usize {
        self.block_rows
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        let file = self.files[shard].batches.as_ref().expect("a shard without rows has no blocks");
        let batch = file.lock().unwrap_or_else(PoisonError::into_inner).batch(index)?;
        Ok(Arc::new(self.format.to_block(&batch)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
    use arrow::datatypes::{Float64Type, Int64Type};
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::materialize::staging::tests::staged_in;

    fn layout() -> FeatureLayout {
        FeatureLayout { dense: 1, groups: vec![5], names: Vec::new(), ..FeatureLayout::default() }
    }

    /// x -> dense, n modulo 5 -> one-hot group, n -> label.
    fn encode(batch: &RecordBatch) -> Result<Block> {
        let n = batch.column(0).as_primitive::<Int64Type>().values();
        let x = batch.column(1).as_primitive::<Float64Type>().values();
        Ok(Block {
            rows: batch.num_rows(),
            dense: x.iter().map(|x| *x as f32).collect(),
            indices: n.iter().map(|n| (n % 5) as u32).collect(),
            labels: n.iter().map(|n| *n as f32).collect(),
            weights: vec![1.0; batch.num_rows()],
            ..Block::default()
        })
    }

    fn rows(numbers: impl Iterator<Item = i64> + Clone) -> RecordBatch {
        let x: ArrayRef = Arc::new(Float64Array::from_iter_values(numbers.clone().map(|n| (n as f64).sqrt())));
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(numbers)) as _), ("x", x)]).unwrap()
    }

    async fn shards(batches: Vec<RecordBatch>, memory: Option<usize>, workers: usize) -> Arc<dyn ShardSet> {
        let pool: Arc<dyn MemoryPool> = match memory {
            Some(bytes) => Arc::new(GreedyMemoryPool::new(bytes)),
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        let staged = staged_in(&SessionContext::new(), batches, &pool, &[]).await.unwrap();
        let plan = BuildPlan {
            layout: &layout(),
            shards: 4,
            workers,
            pool,
            directory: std::env::temp_dir(),
            cancel: CancellationToken::new(),
            progress: &|_| (),
            encode: &encode,
        };
        build(&staged, &Split::Fraction { eval: 0.25, test: 0.0 }, Part::Train, &plan).unwrap()
    }

    fn blocks(set: &dyn ShardSet) -> Vec<Vec<Block>> {
        (0..set.shards())
            .map(|shard| (0..set.blocks(shard)).map(|index| (*set.block(shard, index).unwrap()).clone()).collect())
            .collect()
    }

    #[tokio::test]
    async fn blocks_do_not_depend_on_batches_workers_or_memory() {
        let count = 60_000;
        let whole = shards(vec![rows(0..count)], None, 1).await;
        assert!(whole.in_memory());
        let expected = blocks(whole.as_ref());
        assert!(whole.total_rows().abs_diff(45_000) < 600, "{}", whole.total_rows());
        assert!(expected.iter().all(|shard| shard.len() > 1), "a shard of one block proves little");
        let cut: Vec<RecordBatch> = (0..40).map(|i| rows((i..count).step_by(40))).collect();
        for (memory, workers) in [(None, 2), (None, 7), (Some(400_000), 1), (Some(400_000), 3)] {
            let set = shards(cut.clone(), memory, workers).await;
            assert_eq!(set.in_memory(), memory.is_none());
            assert_eq!(blocks(set.as_ref()), expected, "{memory:?} {workers}");
        }
    }

    #[tokio::test]
    async fn an_error_in_a_row_ends_the_build_with_its_cause() {
        let context = SessionContext::new();
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let staged =
            staged_in(&context, (0..20).map(|i| rows(i * 100..(i + 1) * 100)).collect(), &pool, &[]).await.unwrap();
        let plan = BuildPlan {
            layout: &layout(),
            shards: 4,
            workers: 3,
            pool,
            directory: std::env::temp_dir(),
            cancel: CancellationToken::new(),
            progress: &|_| (),
            encode: &|batch| match batch.column(0).as_primitive::<Int64Type>().value(0) {
                700 => Err(Error::invalid("column `x` is infinite")),
                _ => encode(batch),
            },
        };
        let error = build(&staged, &Split::None, Part::Train, &plan).err().expect("row 700 is wrong");
        assert_eq!(error.to_string(), "column `x` is infinite");
    }
}
