//! A piece of the training rows that one thread reads from beginning to end: batches whose last column is the rows' keys.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::FileReader;
use bytes::Bytes;
use engine::Result;

use super::copies::Numbering;
use super::row_key::{RowKey, arrow_error, from_array};
use super::spilled::Stretch;
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
    /// All rows of a bucket, on this machine's disk.
    Bucket(Vec<Stretch>),
    /// An IPC file that whoever wrote the rows has left for all workers.
    Shared(SharedFile),
}

impl Piece {
    /// Its batches.
    pub(super) fn batches(&self) -> Result<Batches> {
        match self {
            Piece::Memory(batch) => Ok(Box::new(std::iter::once(Ok(batch.clone())))),
            Piece::Bucket(stretches) => {
                Ok(Box::new(stretches.clone().into_iter().flat_map(|stretch| opened(stretch.batches()))))
            }
            Piece::Shared(file) => gathered(file.read()?),
        }
    }

    /// Its batch, when that is what it is.
    pub(super) fn in_memory(&self) -> Option<&RecordBatch> {
        match self {
            Piece::Memory(batch) => Some(batch),
            Piece::Bucket(_) | Piece::Shared(_) => None,
        }
    }

    /// Its keys.
    pub(super) fn keys(&self) -> Result<Box<dyn Iterator<Item = Result<Vec<RowKey>>> + Send>> {
        match self {
            Piece::Bucket(stretches) => {
                Ok(Box::new(stretches.clone().into_iter().flat_map(|stretch| opened(stretch.keys()))))
            }
            other => Ok(Box::new(other.batches()?.map(|batch| {
                let batch = batch?;
                Ok(from_array(batch.column(batch.num_columns() - 1)))
            }))),
        }
    }

    /// Gives the copies in a bucket on disk their keys. To be done once.
    pub(super) fn number_copies(&self) -> Result<()> {
        let Piece::Bucket(stretches) = self else { return Ok(()) };
        let mut numbering = Numbering::default();
        stretches.iter().try_for_each(|stretch| stretch.number_copies(&mut numbering))
    }
}

/// What a file gives, or why it gives nothing.
fn opened<T: Send + 'static>(
    items: Result<impl Iterator<Item = Result<T>> + Send + 'static>,
) -> Box<dyn Iterator<Item = Result<T>> + Send> {
    match items {
        Ok(items) => Box::new(items),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
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
