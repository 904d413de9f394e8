//! A piece of the training rows that one thread reads from beginning to end: batches whose last column is the rows' keys.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::FileReader;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use engine::{Error, Result};

use super::row_key::{RowKey, arrow_error, from_array};
use super::spread_file::SharedFile;

/// Rows that are worked on together: batches of a shard are short, since the rows of all shards came mixed.
const BATCH_ROWS: usize = 8192;

/// Batches, one after the other.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// See the module.
#[derive(Debug)]
pub(super) enum Piece {
    /// A batch.
    Memory(RecordBatch),
    /// An IPC file on this machine's disk.
    File(PathBuf),
    /// An IPC file that whoever wrote the rows has left for all workers.
    Shared(SharedFile),
}

impl Piece {
    /// Its batches.
    pub(super) fn batches(&self) -> Result<Batches> {
        match self {
            Piece::Memory(batch) => Ok(Box::new(std::iter::once(Ok(batch.clone())))),
            Piece::File(path) => Ok(Box::new(open(path)?.map(|batch| batch.map_err(arrow_error)))),
            Piece::Shared(file) => gathered(file.read()?),
        }
    }

    /// How many of its rows have this key.
    fn count_of(&self, key: RowKey) -> Result<usize> {
        let mut count = 0;
        for batch in self.batches()? {
            let batch = batch?;
            count += from_array(batch.column(batch.num_columns() - 1)).iter().filter(|found| **found == key).count();
        }
        Ok(count)
    }
}

fn open(path: &Path) -> Result<FileReader<BufReader<File>>> {
    let file = File::open(path).map_err(|error| Error::Query(DataFusionError::IoError(error)))?;
    FileReader::try_new_buffered(file, None).map_err(arrow_error)
}

/// The batches of a file, several put together.
fn gathered(bytes: Bytes) -> Result<Batches> {
    let mut batches = FileReader::try_new(Cursor::new(bytes), None).map_err(arrow_error)?;
    let schema = batches.schema();
    let next = move || -> Option<Result<RecordBatch>> {
        let (mut some, mut rows) = (Vec::new(), 0);
        while rows < BATCH_ROWS {
            match batches.next() {
                None => break,
                Some(Ok(batch)) => {
                    rows += batch.num_rows();
                    some.push(batch);
                }
                Some(Err(error)) => return Some(Err(arrow_error(error))),
            }
        }
        (rows > 0).then(|| concat_batches(&schema, &some).map_err(arrow_error))
    };
    Ok(Box::new(std::iter::from_fn(next)))
}

/// How many rows with `key` are taken of each piece, `wanted` in all; `None` wants all of them.
pub(super) fn spread_ties(pieces: &[Piece], key: RowKey, wanted: Option<usize>) -> Result<Arc<[usize]>> {
    let Some(mut wanted) = wanted else { return Ok(vec![usize::MAX; pieces.len()].into()) };
    let mut taken = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let some = if wanted == 0 { 0 } else { piece.count_of(key)?.min(wanted) };
        wanted -= some;
        taken.push(some);
    }
    Ok(taken.into())
}
