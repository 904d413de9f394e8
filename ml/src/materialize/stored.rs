//! Shards as files that every worker of a gang can read: Arrow IPC, written whole, counted and hashed block by block.
//!
//! ```text
//! <warehouse>/_shards/<id>/train-3-0.arrow      blocks of shard 3, up to 32 MiB a file
//! ```
//!
//! What the files hold is told by a [`StoredSet`], which the writer hands to the readers: where each block lies, how many
//! rows it has and its hash. A block that is not, byte for byte, the one that was written is refused with its file's path.
//! A reader keeps blocks in memory as far as its limit goes and reads the others each time they are asked for.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::buffer::Buffer;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};
use storage::{Location, Stores, Workspace};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64;

use super::row_key::arrow_error;
use super::spill::BlockFormat;
use crate::shards::{Block, FeatureLayout, ShardSet};

/// A file is closed when it has so many bytes: it is in memory until it is put.
const FILE_BYTES: usize = 32 << 20;

/// What the files of one part hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredSet {
    layout: FeatureLayout,
    block_rows: usize,
    /// The directory, as text.
    place: String,
    shards: Vec<StoredShard>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredShard {
    rows: usize,
    /// Names in the directory.
    files: Vec<String>,
    blocks: Vec<StoredBlock>,
}

/// Where a block lies: a record batch of an IPC file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredBlock {
    /// Which of the shard's files.
    file: usize,
    rows: usize,
    offset: u64,
    /// Bytes of the batch's description and of its numbers, which follow.
    description: u32,
    numbers: u64,
    hash: u64,
}

/// Writes the shards of one part, on `threads` threads.
///
/// # Errors
/// The store's; cancellation.
pub fn store(
    set: &dyn ShardSet,
    part: &str,
    space: &Workspace,
    runtime: &tokio::runtime::Handle,
    threads: usize,
    cancel: &CancellationToken,
) -> Result<StoredSet> {
    let next = AtomicUsize::new(0);
    let put = |name: &str, bytes: Vec<u8>| -> Result<()> { Ok(runtime.block_on(space.put(name, bytes.into()))?) };
    let work = || -> Result<Vec<(usize, StoredShard)>> {
        let mut written = Vec::new();
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= set.shards() {
                return Ok(written);
            }
            written.push((shard, store_shard(set, shard, part, &put, cancel)?));
        }
    };
    let mut shards = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, set.shards().max(1))).map(|_| scope.spawn(work)).collect();
        let mut shards = Vec::new();
        for thread in threads {
            shards.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, Error>(shards)
    })?;
    shards.sort_unstable_by_key(|(shard, _)| *shard);
    Ok(StoredSet {
        layout: set.layout().clone(),
        block_rows: set.block_rows(),
        place: space.location().to_string(),
        shards: shards.into_iter().map(|(_, shard)| shard).collect(),
    })
}

fn store_shard(
    set: &dyn ShardSet,
    shard: usize,
    part: &str,
    put: &dyn Fn(&str, Vec<u8>) -> Result<()>,
    cancel: &CancellationToken,
) -> Result<StoredShard> {
    let format = BlockFormat::without_keys(set.layout());
    let mut stored = StoredShard { rows: set.rows(shard), files: Vec::new(), blocks: Vec::new() };
    let mut file: Option<FileWriter<Vec<u8>>> = None;
    let mut rows = Vec::new();
    let blocks = set.blocks(shard);
    for index in 0..blocks {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let block = set.block(shard, index)?;
        rows.push(block.rows);
        let writer = match &mut file {
            Some(writer) => writer,
            None => file.insert(FileWriter::try_new(Vec::new(), &format.schema).map_err(arrow_error)?),
        };
        writer.write(&format.to_batch(Block::clone(&block), &[])?).map_err(arrow_error)?;
        if (writer.get_ref().len() >= FILE_BYTES || index + 1 == blocks)
            && let Some(writer) = file.take()
        {
            let bytes = writer.into_inner().map_err(arrow_error)?;
            let name = format!("{part}-{shard}-{}.arrow", stored.files.len());
            stored.blocks.extend(blocks_of(&bytes, stored.files.len(), &rows)?);
            put(&name, bytes)?;
            stored.files.push(name);
            rows.clear();
        }
    }
    Ok(stored)
}

/// The blocks of a whole IPC file, from its own table.
fn blocks_of(bytes: &[u8], file: usize, rows: &[usize]) -> Result<Vec<StoredBlock>> {
    let (front, tail) = bytes.split_last_chunk::<10>().expect("an IPC file has a tail");
    let length = read_footer_length(*tail).map_err(arrow_error)?;
    let footer = arrow::ipc::root_as_footer(&front[front.len() - length..])
        .map_err(|error| Error::invalid(format!("an IPC file without a footer: {error}")))?;
    let batches = footer.recordBatches().map_or_else(Vec::new, |batches| batches.iter().collect());
    assert_eq!(batches.len(), rows.len(), "every block is a batch");
    let block = |(batch, rows): (&arrow::ipc::Block, &usize)| {
        let (offset, description) = (batch.offset() as u64, batch.metaDataLength() as u32);
        let numbers = batch.bodyLength() as u64;
        let range = offset as usize..(offset + u64::from(description) + numbers) as usize;
        StoredBlock { file, rows: *rows, offset, description, numbers, hash: xxh3_64(&bytes[range]) }
    };
    Ok(batches.into_iter().zip(rows).map(block).collect())
}

impl StoredSet {
    /// Opens it for reading. `room` is how many bytes of blocks may be kept, of all sets that share it; the others are read
    /// each time. `runtime` waits for the store.
    ///
    /// # Errors
    /// A place that is none.
    pub fn open(
        self,
        stores: &Stores,
        room: &Arc<AtomicU64>,
        threads: usize,
        runtime: &tokio::runtime::Handle,
    ) -> Result<StoredShards> {
        let place = Location::parse(&self.place)?.as_directory();
        let kept = self.shards.iter().map(|shard| shard.blocks.iter().map(|_| OnceLock::new()).collect()).collect();
        Ok(StoredShards {
            format: BlockFormat::without_keys(&self.layout),
            stores: stores.clone(),
            place,
            runtime: runtime.clone(),
            threads,
            room: Arc::clone(room),
            kept,
            all_held: AtomicBool::new(false),
            set: self,
        })
    }
}

/// Shards in files, read by one worker.
pub struct StoredShards {
    set: StoredSet,
    format: BlockFormat,
    stores: Stores,
    place: Location,
    runtime: tokio::runtime::Handle,
    threads: usize,
    /// Bytes that may still be kept.
    room: Arc<AtomicU64>,
    kept: Vec<Vec<OnceLock<Arc<Block>>>>,
    /// Whether all blocks that were asked to be held are.
    all_held: AtomicBool,
}

impl StoredShards {
    fn read(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        let stored = &self.set.shards[shard];
        let at = &stored.blocks[index];
        let file = self.place.join(&stored.files[at.file]);
        let range = at.offset..at.offset + u64::from(at.description) + at.numbers;
        let bytes = self.runtime.block_on(self.stores.get_range(&file, range))?;
        self.decode(at, &bytes).map_err(|reason| {
            Error::from(storage::Error::Damaged {
                location: file.to_string(),
                reason: format!("block {index} of shard {shard} is damaged: {reason}"),
            })
        })
    }

    fn decode(&self, at: &StoredBlock, bytes: &Bytes) -> Result<Arc<Block>, String> {
        let got = xxh3_64(bytes);
        if got != at.hash {
            return Err(format!("its hash is {got:016x}, {:016x} was written", at.hash));
        }
        let decoder = FileDecoder::new(Arc::clone(&self.format.schema), MetadataVersion::V5);
        let batch = arrow::ipc::Block::new(0, at.description as i32, at.numbers as i64);
        let batch =
            decoder.read_record_batch(&batch, &Buffer::from(bytes.clone())).map_err(|error| error.to_string())?;
        let batch = batch.ok_or("it is no record batch")?;
        let block = self.format.to_block(&batch);
        if block.rows != at.rows {
            return Err(format!("it has {} rows, expected {}", block.rows, at.rows));
        }
        block.check(&self.set.layout).map_err(|error| error.to_string())?;
        Ok(Arc::new(block))
    }

    /// Whether a block of so many rows may be kept; takes its bytes.
    fn has_room(&self, rows: usize) -> bool {
        let bytes = (rows * self.format.row_bytes()) as u64;
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes)).is_ok()
    }
}

impl ShardSet for StoredShards {
    fn layout(&self) -> &FeatureLayout {
        &self.set.layout
    }
    fn shards(&self) -> usize {
        self.set.shards.len()
    }
    fn rows(&self, shard: usize) -> usize {
        self.set.shards[shard].rows
    }
    fn block_rows(&self) -> usize {
        self.set.block_rows
    }
    fn block(&self, shard: usize, index: usize) -> Result<Arc<Block>> {
        match self.kept[shard][index].get() {
            Some(block) => Ok(Arc::clone(block)),
            None => self.read(shard, index),
        }
    }
    fn in_memory(&self) -> bool {
        self.all_held.load(Ordering::Relaxed)
    }
    /// Loads as many of the blocks as may be kept, the first ones: an epoch visits all of them in another order each time,
    /// so that none is better to keep than another.
    fn hold(&self, shards: Range<usize>) -> Result<()> {
        let blocks: Vec<(usize, usize)> =
            shards.flat_map(|shard| (0..self.blocks(shard)).map(move |index| (shard, index))).collect();
        let kept = blocks.iter().take_while(|(shard, index)| {
            self.kept[*shard][*index].get().is_some() || self.has_room(self.set.shards[*shard].blocks[*index].rows)
        });
        let kept = kept.count();
        let next = AtomicUsize::new(0);
        let load = || -> Result<()> {
            loop {
                let Some((shard, index)) = blocks[..kept].get(next.fetch_add(1, Ordering::Relaxed)).copied() else {
                    return Ok(());
                };
                if self.kept[shard][index].get().is_none() {
                    let block = self.read(shard, index)?;
                    // Somebody who was faster has put the same block.
                    let _ = self.kept[shard][index].set(block);
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads.clamp(1, kept.max(1))).map(|_| scope.spawn(load)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).fold(Ok(()), Result::and)
        })?;
        self.all_held.store(kept == blocks.len(), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shards::MemoryShards;

    fn shards() -> MemoryShards {
        let layout = FeatureLayout { dense: 3, groups: vec![5, 2], names: vec!["x".into(); 10] };
        let shard = |rows: usize| Block {
            rows,
            dense: (0..3 * rows).map(|i| (i as f32).sin()).collect(),
            indices: (0..2 * rows).map(|i| if i % 2 == 0 { (i % 5) as u32 } else { u32::MAX }).collect(),
            labels: (0..rows).map(|i| i as f32).collect(),
            weights: vec![0.5; rows],
        };
        MemoryShards::from_whole(layout, 64, [1000, 0, 63, 64].map(shard).to_vec()).unwrap()
    }

    fn same(a: &dyn ShardSet, b: &dyn ShardSet) {
        assert_eq!((a.shards(), a.block_rows(), a.layout()), (b.shards(), b.block_rows(), b.layout()));
        for shard in 0..a.shards() {
            assert_eq!(a.rows(shard), b.rows(shard));
            for index in 0..a.blocks(shard) {
                assert_eq!(a.block(shard, index).unwrap(), b.block(shard, index).unwrap(), "block {index} of {shard}");
            }
        }
    }

    /// Runs `check` with shards in a workspace, on a thread that may block.
    fn with_stored(check: impl FnOnce(&MemoryShards, StoredSet, &Stores, tokio::runtime::Handle, &std::path::Path)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let stores = Stores::new();
        let board = Location::parse(directory.path().join("_shards").to_str().unwrap()).unwrap();
        let space = runtime.block_on(Workspace::open(&stores, &board)).unwrap();
        let set = shards();
        let stored = store(&set, "train", &space, runtime.handle(), 2, &CancellationToken::new()).unwrap();
        let path = space.location().local_path().unwrap();
        check(&set, stored, &stores, runtime.handle().clone(), &path);
        runtime.block_on(space.remove()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).map_or(0, Iterator::count), 0, "files are left");
    }

    #[test]
    fn what_is_stored_comes_back_kept_or_not() {
        with_stored(|set, stored, stores, runtime, _| {
            let text = serde_json::to_string(&stored).unwrap();
            let stored: StoredSet = serde_json::from_str(&text).unwrap();
            let row = BlockFormat::without_keys(set.layout()).row_bytes() as u64;
            // All, none, ten blocks.
            for (memory, all) in [(u64::MAX, true), (0, false), (640 * row, false)] {
                let room = Arc::new(AtomicU64::new(memory));
                let open = stored.clone().open(stores, &room, 2, &runtime).unwrap();
                assert!(!open.in_memory());
                open.hold(0..4).unwrap();
                assert_eq!(open.in_memory(), all);
                let kept = open.kept.iter().flatten().filter(|block| block.get().is_some()).count();
                assert_eq!(kept, if all { 18 } else { (memory / row / 64) as usize });
                same(&open, set);
            }
        });
    }

    #[test]
    fn a_flipped_byte_and_a_short_file_are_refused_with_their_path() {
        with_stored(|_, stored, stores, runtime, path| {
            let file = path.join("train-0-0.arrow");
            let whole = std::fs::read(&file).unwrap();
            let room = Arc::new(AtomicU64::new(u64::MAX));
            let read = || stored.clone().open(stores, &room, 1, &runtime).unwrap().block(0, 3);
            let at = stored.shards[0].blocks[3].offset as usize;
            for offset in [at, at + 100, at + stored.shards[0].blocks[3].description as usize + 5] {
                let mut bytes = whole.clone();
                bytes[offset] ^= 4;
                std::fs::write(&file, bytes).unwrap();
                let error = read().unwrap_err().to_string();
                assert!(error.contains("train-0-0.arrow") && error.contains("damaged"), "{error}");
            }
            std::fs::write(&file, &whole[..at + 10]).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.contains("train-0-0.arrow") && error.contains("too short"), "{error}");
            std::fs::remove_file(&file).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.contains("train-0-0.arrow"), "{error}");
            std::fs::write(&file, &whole).unwrap();
            read().unwrap();
        });
    }
}
