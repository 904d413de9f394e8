//! Staged rows on disk, by bucket: what one thread has held goes to a file of batches that each have rows of one bucket,
//! and their keys to a file beside it, since keys are read alone when copies are counted.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use engine::{Error, Result};

use super::copies::Numbering;
use super::row_key::{KEY_BYTES, RowKey, arrow_error, from_array};
use super::spill::{IpcBatches, IpcFile, SpillDirectory};
use super::staging::{with_keys, without_keys};

/// Rows that are written together, and keys that are read together.
const BATCH_ROWS: usize = 8192;
/// A bucket of what is written at once has about so many bytes.
const BUCKET_BYTES: usize = 256 << 10;
const BUCKETS_MAX: usize = 256;

/// Into how many buckets rows go of which a thread holds at most so many bytes.
pub(super) fn buckets(held_max: usize) -> usize {
    let most = (held_max / BUCKET_BYTES).clamp(1, BUCKETS_MAX);
    // A power of two, and not more than asked.
    1 << most.ilog2()
}

/// The rows of one bucket that one file has.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    rows: Arc<PathBuf>,
    batches: Range<usize>,
    keys: Arc<PathBuf>,
    /// Of all rows of the file.
    numbers: Range<u64>,
}

/// Writes batches, whose last columns are the keys; gives what each bucket has of them.
pub(super) fn write(directory: &SpillDirectory, held: &[RecordBatch], buckets: usize) -> Result<Vec<Stretch>> {
    let (rows_path, keys_path) = (directory.next_file()?, directory.next_file()?);
    let mut of_bucket: Vec<Vec<(usize, usize)>> = vec![Vec::new(); buckets];
    let keys: Vec<Vec<RowKey>> = held.iter().map(|batch| from_array(batch.column(batch.num_columns() - 1))).collect();
    for (batch, keys) in keys.iter().enumerate() {
        for (row, key) in keys.iter().enumerate() {
            of_bucket[key.bucket(buckets)].push((batch, row));
        }
    }
    let rows = held.iter().map(without_keys).collect::<Result<Vec<_>>>()?;
    let rows: Vec<&RecordBatch> = rows.iter().collect();
    let schema = rows.first().expect("a spill has a batch").schema();
    let mut file = IpcFile::create(&rows_path, &schema)?;
    let mut key_file = File::create(&keys_path).map_err(|error| failed(&keys_path, &error))?;
    let (rows_path, keys_path) = (Arc::new(rows_path), Arc::new(keys_path));
    let (mut batches, mut numbers) = (0, 0);
    let mut stretches = Vec::with_capacity(buckets);
    for places in of_bucket {
        let (first_batch, first) = (batches, numbers);
        for places in places.chunks(BATCH_ROWS) {
            file.write(&interleave_record_batch(&rows, places).map_err(arrow_error)?)?;
            let bytes: Vec<u8> = places.iter().flat_map(|(batch, row)| keys[*batch][*row].0.to_be_bytes()).collect();
            key_file.write_all(&bytes).map_err(|error| failed(&keys_path, &error))?;
            (batches, numbers) = (batches + 1, numbers + places.len() as u64);
        }
        stretches.push(Stretch {
            rows: Arc::clone(&rows_path),
            batches: first_batch..batches,
            keys: Arc::clone(&keys_path),
            numbers: first..numbers,
        });
    }
    file.finish()?;
    Ok(stretches)
}

impl Stretch {
    /// Its batches, with their keys.
    pub(super) fn batches(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send + use<>> {
        let mut rows = if self.batches.is_empty() { None } else { Some(IpcBatches::open(&self.rows)?) };
        let mut keys = KeyFile::open(&self.keys, self.numbers.clone(), false)?;
        Ok(self.batches.clone().map(move |number| {
            let rows = rows.as_mut().expect("a stretch with batches has a file").batch(number)?;
            with_keys(&rows, &keys.next(rows.num_rows())?)
        }))
    }

    /// Its keys.
    pub(super) fn keys(&self) -> Result<impl Iterator<Item = Result<Vec<RowKey>>> + Send + use<>> {
        let mut keys = KeyFile::open(&self.keys, self.numbers.clone(), false)?;
        Ok(std::iter::from_fn(move || match keys.next(BATCH_ROWS) {
            Ok(some) if some.is_empty() => None,
            some => Some(some),
        }))
    }

    /// Makes its keys those of copies, after those that were numbered before. To be done once.
    pub(super) fn number_copies(&self, numbering: &mut Numbering) -> Result<()> {
        let mut file = KeyFile::open(&self.keys, self.numbers.clone(), true)?;
        loop {
            let mut keys = file.next(BATCH_ROWS)?;
            if keys.is_empty() {
                return Ok(());
            }
            if numbering.number(&mut keys) {
                file.replace(&keys)?;
            }
        }
    }
}

/// A part of a file of keys that is read from its beginning to its end.
struct KeyFile {
    path: Arc<PathBuf>,
    file: File,
    left: Range<u64>,
}

impl KeyFile {
    fn open(path: &Arc<PathBuf>, keys: Range<u64>, write: bool) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(write).open(path.as_path());
        let mut file = file.map_err(|error| failed(path, &error))?;
        seek(&mut file, keys.start).map_err(|error| failed(path, &error))?;
        Ok(KeyFile { path: Arc::clone(path), file, left: keys })
    }

    /// The next keys, at most so many.
    fn next(&mut self, most: usize) -> Result<Vec<RowKey>> {
        let count = (self.left.end - self.left.start).min(most as u64) as usize;
        let mut bytes = vec![0; count * KEY_BYTES];
        self.file.read_exact(&mut bytes).map_err(|error| failed(&self.path, &error))?;
        self.left.start += count as u64;
        let (keys, _) = bytes.as_chunks::<KEY_BYTES>();
        Ok(keys.iter().map(|key| RowKey(u128::from_be_bytes(*key))).collect())
    }

    /// Puts others in the place of those that were read last.
    fn replace(&mut self, keys: &[RowKey]) -> Result<()> {
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.0.to_be_bytes()).collect();
        let first = self.left.start - keys.len() as u64;
        let written = seek(&mut self.file, first).and_then(|()| self.file.write_all(&bytes));
        written.map_err(|error| failed(&self.path, &error))
    }
}

fn seek(file: &mut File, key: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(key * KEY_BYTES as u64)).map(drop)
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(format!("cannot keep the keys of training rows in {}: {error}", path.display()))
        .with_hint("engine.temp_dir names another place, -m raises the memory limit")
}
