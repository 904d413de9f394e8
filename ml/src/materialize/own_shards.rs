//! What a worker reads of training rows that lie in files: the shards that it holds, encoded and sorted by itself, as one
//! process would. They are made once, kept in memory as far as the worker's limit goes and on its own disk beyond it, so that
//! an epoch does not read the files again.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, UnboundedMemoryPool};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use storage::Stores;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::build::{BuildPlan, block_rows, build_from};
use super::piece::Piece;
use super::split::{Part, Split};
use super::spread_file::{SharedFile, SpreadFile};
use crate::shards::{Block, FeatureLayout, ShardSet};

/// Where the rows are, and which of them do what; the same for all workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerRows {
    /// The files of each shard.
    pub files: Vec<Vec<SpreadFile>>,
    /// Who trains and who is held out.
    pub split: Split,
}

/// The shape of shards, for who holds none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    part: Part,
    rows: Vec<usize>,
    layout: FeatureLayout,
}

impl Outline {
    /// Of one part of the rows, with so many of them in each shard.
    pub fn new(part: Part, rows: Vec<usize>, layout: FeatureLayout) -> Self {
        Outline { part, rows, layout }
    }
}

impl ShardSet for Outline {
    fn layout(&self) -> &FeatureLayout {
        &self.layout
    }
    fn shards(&self) -> usize {
        self.rows.len()
    }
    fn rows(&self, shard: usize) -> usize {
        self.rows[shard]
    }
    fn block_rows(&self) -> usize {
        block_rows(&self.layout)
    }
    fn block(&self, shard: usize, _index: usize) -> Result<Arc<Block>> {
        Err(Error::invalid(format!("the rows of shard {shard} are the workers', not this process's")))
    }
}

/// What a worker makes shards with.
pub struct Workshop<'a> {
    /// The stores of this process.
    pub stores: &'a Stores,
    /// Waits for them.
    pub runtime: &'a Handle,
    /// Threads.
    pub threads: usize,
    /// Where shards go that are ready.
    pub made: Arc<MadeShards>,
    /// A directory on this machine's disk.
    pub scratch: &'a Path,
    /// Asked between batches.
    pub cancel: CancellationToken,
    /// Told how many rows of how many are encoded.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Encodes rows of the training query.
    pub encode: &'a (dyn Fn(&RecordBatch) -> Result<Block> + Sync),
}

/// The shards that a process has made for a run, of all parts. They outlive the generation of a gang: a worker that goes on
/// with more or other shards makes those that it does not have.
pub struct MadeShards {
    /// Grants memory to them.
    pool: Arc<dyn MemoryPool>,
    made: RwLock<Vec<Made>>,
}

/// Shards that were made together; the others of the set are empty.
#[derive(Clone)]
struct Made {
    part: Part,
    shards: Range<usize>,
    set: Arc<dyn ShardSet>,
}

impl MadeShards {
    /// None yet; so many bytes of them may be in memory.
    pub fn new(memory: Option<u64>) -> Self {
        let pool: Arc<dyn MemoryPool> = match memory {
            Some(bytes) => Arc::new(GreedyMemoryPool::new(usize::try_from(bytes).unwrap_or(usize::MAX))),
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        MadeShards { pool, made: RwLock::default() }
    }

    fn of(&self, part: Part, shard: usize) -> Option<Arc<dyn ShardSet>> {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        let set = made.iter().find(|made| made.part == part && made.shards.contains(&shard));
        set.map(|made| Arc::clone(&made.set))
    }

    /// Forgets those of which none is wanted any more; gives the ranges that are still to be made.
    fn missing(&self, part: Part, wanted: &Range<usize>) -> Vec<Range<usize>> {
        let mut made = self.made.write().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |made: &Made| made.shards.start < wanted.end && wanted.start < made.shards.end;
        made.retain(|made| made.part != part || is_wanted(made));
        let is_there = |shard: usize| made.iter().any(|made| made.part == part && made.shards.contains(&shard));
        let mut missing: Vec<Range<usize>> = Vec::new();
        for shard in wanted.clone().filter(|shard| !is_there(*shard)) {
            match missing.last_mut().filter(|range| range.end == shard) {
                Some(range) => range.end += 1,
                None => missing.push(shard..shard + 1),
            }
        }
        missing
    }

    fn add(&self, made: Made) {
        self.made.write().unwrap_or_else(PoisonError::into_inner).push(made);
    }

    fn are_in_memory(&self, part: Part) -> bool {
        let made = self.made.read().unwrap_or_else(PoisonError::into_inner);
        made.iter().filter(|made| made.part == part).all(|made| made.set.in_memory())
    }
}

/// See the module.
pub struct OwnShards<'a> {
    rows: &'a WorkerRows,
    outline: Outline,
    workshop: &'a Workshop<'a>,
}

impl<'a> OwnShards<'a> {
    /// None is made before it is known which are to be held.
    pub fn new(rows: &'a WorkerRows, outline: Outline, workshop: &'a Workshop<'a>) -> Self {
        OwnShards { rows, outline, workshop }
    }

    fn pieces(&self, shards: Range<usize>) -> Vec<Piece> {
        let shared = |file: &SpreadFile| SharedFile {
            file: file.clone(),
            stores: self.workshop.stores.clone(),
            runtime: self.workshop.runtime.clone(),
        };
        self.rows.files[shards].iter().flatten().map(|file| Piece::Shared(shared(file))).collect()
    }

    fn make(&self, shards: Range<usize>) -> Result<Made> {
        let (outline, workshop) = (&self.outline, self.workshop);
        let pieces = self.pieces(shards.clone());
        let all = shards.clone().map(|shard| outline.rows(shard) as u64).sum();
        let plan = BuildPlan {
            layout: &outline.layout,
            shards: outline.shards(),
            workers: workshop.threads,
            pool: Arc::clone(&workshop.made.pool),
            directory: workshop.scratch.to_path_buf(),
            cancel: workshop.cancel.clone(),
            progress: &|done| (workshop.progress)(done, all),
            encode: workshop.encode,
        };
        let set = build_from(&pieces, &self.rows.split, outline.part, &plan)?;
        for shard in shards.clone() {
            let (found, expected) = (set.rows(shard), outline.rows(shard));
            if found != expected {
                return Err(Error::invalid(format!("shard {shard} has {found} rows, {expected} were counted")));
            }
        }
        Ok(Made { part: outline.part, shards, set })
    }
}

impl ShardSet for OwnShards<'_> {
    fn layout(&self) -> &FeatureLayout {
        self.outline.layout()
    }
    fn shards(&self) -> usize {
        self.outline.shards()
    }
    fn rows(&self, shard: usize) -> usize {
        self.outline.rows(shard)
    }
    fn block_rows(&self) -> usize {
        self.outline.block_rows()
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        let set = self.workshop.made.of(self.outline.part, shard);
        set.ok_or_else(|| Error::invalid(format!("shard {shard} is another worker's")))?.block(shard, index)
    }
    fn in_memory(&self) -> bool {
        self.workshop.made.are_in_memory(self.outline.part)
    }
    fn hold(&self, shards: Range<usize>) -> Result<()> {
        for missing in self.workshop.made.missing(self.outline.part, &shards) {
            self.workshop.made.add(self.make(missing)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
    use arrow::datatypes::{Float64Type, Int64Type};
    use engine::extension::JobContext;
    use engine::{Options, Session};

    use super::*;
    use crate::materialize::staging::tests::held;
    use crate::materialize::{SplitMethod, SpreadRows, TrainingRows, build};

    const SHARDS: usize = 4;

    fn layout() -> FeatureLayout {
        FeatureLayout { dense: 1, groups: vec![5], names: Vec::new(), ..FeatureLayout::default() }
    }

    /// x -> dense, n modulo 5 -> one-hot group, n -> label.
    fn encode(batch: &RecordBatch) -> Result<Block> {
        let n = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>().values();
        let x = batch.column_by_name("x").unwrap().as_primitive::<Float64Type>();
        if let Some(at) = n.iter().position(|n| *n == 999_999) {
            return Err(Error::invalid(format!("row {at} is wrong")));
        }
        Ok(Block {
            rows: batch.num_rows(),
            dense: (0..x.len()).map(|row| if x.is_null(row) { -1.0 } else { x.value(row) as f32 }).collect(),
            indices: n.iter().map(|n| (n % 5) as u32).collect(),
            labels: n.iter().map(|n| *n as f32).collect(),
            weights: vec![1.0; batch.num_rows()],
            ..Block::default()
        })
    }

    /// Rows of which each is there `times` times; some have no `x`, and `held_out` says who is.
    fn rows(count: i64, times: i64) -> Vec<RecordBatch> {
        let of = |part: i64| {
            let numbers = || (0..count).filter(move |i| i % 7 == part).map(move |i| i / times);
            let x = Float64Array::from_iter(numbers().map(|n| (n % 11 != 0).then(|| (n as f64).sqrt())));
            let held_out = arrow::array::BooleanArray::from_iter(numbers().map(|n| Some(n % 3 == 0)));
            let columns = [
                ("n", Arc::new(Int64Array::from_iter_values(numbers())) as ArrayRef),
                ("x", Arc::new(x)),
                ("held_out", Arc::new(held_out)),
            ];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
        };
        (0..7).map(of).collect()
    }

    fn session(directory: &Path) -> Session {
        let options = Options { warehouse: directory.display().to_string(), threads: 3, ..Options::default() };
        Session::builder(Stores::new(), options).extension(crate::extension()).build().unwrap()
    }

    fn job() -> JobContext {
        JobContext {
            events: Arc::new(|_| {}),
            cancel: CancellationToken::new(),
            statement_text: String::new(),
            script_text: "".into(),
            parameters: Arc::default(),
        }
    }

    async fn spread(session: &Session, batches: Vec<RecordBatch>) -> SpreadRows {
        let query = session.context().read_batches(batches).unwrap();
        let place = session.warehouse().join("_shards/1/").as_directory();
        SpreadRows::write(session, query, "n", 7, SHARDS, &place, &job()).await.unwrap()
    }

    /// The blocks of some shards, as a worker of so much memory makes them.
    fn made(
        rows: &WorkerRows,
        outline: &Outline,
        made: &Arc<MadeShards>,
        shards: Range<usize>,
    ) -> Result<Vec<Vec<Block>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stores, scratch) = (Stores::new(), std::env::temp_dir());
        let workshop = Workshop {
            stores: &stores,
            runtime: runtime.handle(),
            threads: 2,
            made: Arc::clone(made),
            scratch: &scratch,
            cancel: CancellationToken::new(),
            progress: &|_, _| (),
            encode: &encode,
        };
        let own = OwnShards::new(rows, outline.clone(), &workshop);
        own.hold(shards.clone())?;
        let own = &own;
        let block = |shard, index| own.block(shard, index).map(|block| (*block).clone());
        let blocks = |shard| (0..own.blocks(shard)).map(move |index| block(shard, index));
        shards.map(|shard| blocks(shard).collect()).collect()
    }

    fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn workers_make_the_shards_that_one_process_makes() {
        let seq = SplitMethod::Sequential { column: "x".into(), eval: 0.2, test: 0.1 };
        for (count, times, method) in [
            (3_000, 1, SplitMethod::None),
            (20_000, 2, SplitMethod::Auto),
            (60_000, 3, SplitMethod::Auto),
            (60_000, 1, SplitMethod::Auto),
            (5_000, 1, SplitMethod::Random { eval: 0.2, test: 0.1 }),
            (5_000, 1, SplitMethod::Custom { column: "held_out".into() }),
            (5_000, 1, seq),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let session = session(directory.path());
            let here = held(session.context(), rows(count, times)).await;
            let split = Split::decide(&method, &here).await.unwrap();
            let afar = spread(&session, rows(count, times)).await;
            assert_eq!((afar.rows(), afar.null_labels()), (count as u64, 0));
            let split_afar = Split::decide(&method, &afar).await.unwrap();
            assert_eq!(afar.sample(64).await.unwrap(), here.staged().sample(64).unwrap(), "{method:?}");
            let counts = afar.counts(&split_afar).await.unwrap();
            let worker = WorkerRows { files: afar.files().to_vec(), split: split_afar.clone() };
            for (part, counts) in [(Part::Train, counts.train), (Part::Eval, counts.eval), (Part::Test, counts.test)] {
                let asked = afar.part(&split_afar, part).await.unwrap().count().await.unwrap();
                assert_eq!(asked, counts.iter().sum::<usize>(), "{method:?} {part:?}");
                let plan = BuildPlan {
                    layout: &layout(),
                    shards: SHARDS,
                    workers: 2,
                    pool: Arc::new(UnboundedMemoryPool::default()),
                    directory: std::env::temp_dir(),
                    cancel: CancellationToken::new(),
                    progress: &|_| (),
                    encode: &encode,
                };
                let expected = build(here.staged(), &split, part, &plan).unwrap();
                let outline = Outline::new(part, counts, layout());
                for memory in [None, Some(0), Some(100_000)] {
                    // As a worker that holds some, then others, then all.
                    let kept = Arc::new(MadeShards::new(memory));
                    for shards in [1..3, 2..4, 0..SHARDS] {
                        let got = blocking(|| made(&worker, &outline, &kept, shards.clone())).unwrap();
                        for (shard, blocks) in shards.zip(got) {
                            let whole: Vec<Block> = (0..expected.blocks(shard))
                                .map(|index| (*expected.block(shard, index).unwrap()).clone())
                                .collect();
                            assert_eq!(blocks, whole, "{method:?} {part:?} {memory:?} shard {shard}");
                        }
                    }
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flipped_byte_and_a_missing_file_are_refused_with_their_path() {
        let directory = tempfile::tempdir().unwrap();
        let session = session(directory.path());
        let rows = spread(&session, rows(2_000, 1)).await;
        let counts = rows.counts(&Split::None).await.unwrap();
        let worker = WorkerRows { files: rows.files().to_vec(), split: Split::None };
        let outline = Outline::new(Part::Train, counts.train.clone(), layout());
        let read = || {
            let kept = Arc::new(MadeShards::new(None));
            blocking(|| made(&worker, &outline, &kept, 0..SHARDS))
        };
        read().unwrap();
        let path = worker.files[2][0].location().unwrap().local_path().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let whole = std::fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("damaged"), "{error}");
        }
        std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains("bytes"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(read().unwrap_err().to_string().contains(&name));
        std::fs::write(&path, &whole).unwrap();
        read().unwrap();
        // What was counted is what must be found.
        let mut fewer = counts.train;
        fewer[1] -= 1;
        let outline = Outline::new(Part::Train, fewer, layout());
        let kept = Arc::new(MadeShards::new(None));
        let error = blocking(|| made(&worker, &outline, &kept, 0..SHARDS)).unwrap_err().to_string();
        assert!(error.contains("shard 1 has") && error.contains("were counted"), "{error}");
    }
}
