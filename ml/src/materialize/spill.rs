//! Arrow IPC files of staged rows and of encoded blocks, in a directory that goes with its owner.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::types::{Float32Type, UInt32Type};
use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, PrimitiveArray, RecordBatch, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use engine::{Error, Result};

use super::row_key::{RowKey, arrow_error, from_array, to_array};
use crate::shards::{Bags, Block, FeatureLayout};

/// A directory that is removed when dropped.
#[derive(Debug)]
pub(super) struct SpillDirectory {
    path: PathBuf,
    made: AtomicU64,
}

impl SpillDirectory {
    /// A place for a new directory below `parent`; it is made with its first file.
    pub(super) fn new(parent: &Path, purpose: &str) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{purpose}-{}-{number}", std::process::id()));
        Ok(SpillDirectory { path, made: AtomicU64::new(0) })
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that no other file has.
    pub(super) fn next_file(&self) -> Result<PathBuf> {
        fs::create_dir_all(&self.path).map_err(|error| unwritable(&self.path, &error))?;
        Ok(self.path.join(format!("{:06}.arrow", self.made.fetch_add(1, Ordering::Relaxed))))
    }
}

impl Drop for SpillDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove spilled rows");
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::invalid(format!("cannot spill training rows to {}: {error}", path.display()))
        .with_hint("engine.temp_dir names another place, -m raises the memory limit")
}

/// An IPC file that is being written.
pub(super) struct IpcFile {
    path: PathBuf,
    writer: FileWriter<BufWriter<File>>,
}

impl IpcFile {
    pub(super) fn create(path: &Path, schema: &Schema) -> Result<Self> {
        let file = File::create(path).map_err(|error| unwritable(path, &error))?;
        let writer = FileWriter::try_new_buffered(file, schema).map_err(|error| failed(path, error))?;
        Ok(IpcFile { path: path.to_path_buf(), writer })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| failed(&self.path, error))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.writer.finish().map_err(|error| failed(&self.path, error))
    }
}

fn failed(path: &Path, error: arrow::error::ArrowError) -> Error {
    match error {
        arrow::error::ArrowError::IoError(_, source) => unwritable(path, &source),
        other => Error::invalid(format!("cannot spill training rows to {}: {other}", path.display())),
    }
}

/// How encoded rows are laid out in a file: dense [D'] and indices [G] as lists of fixed size, label, weight, key, and, where
/// there is a bag, its places.
#[derive(Debug, Clone)]
pub(super) struct BlockFormat {
    dense: usize,
    groups: usize,
    has_bag: bool,
    pub(super) schema: SchemaRef,
}

impl BlockFormat {
    pub(super) fn new(layout: &FeatureLayout) -> Self {
        let list = |item: DataType, width: usize| DataType::FixedSizeList(list_item(item), width as i32);
        let has_bag = layout.bag > 0;
        let places = has_bag.then(|| Field::new("places", DataType::List(list_item(DataType::UInt32)), false));
        let fields = [
            Field::new("dense", list(DataType::Float32, layout.dense), false),
            Field::new("indices", list(DataType::UInt32, layout.groups.len()), false),
            Field::new("label", DataType::Float32, false),
            Field::new("weight", DataType::Float32, false),
            Field::new("key", DataType::FixedSizeBinary(16), false),
        ];
        let schema = Arc::new(Schema::new(fields.into_iter().chain(places).collect::<Vec<_>>()));
        BlockFormat { dense: layout.dense, groups: layout.groups.len(), has_bag, schema }
    }

    /// Bytes of one row in memory, with its key, without its places.
    pub(super) fn row_bytes(&self) -> usize {
        4 * (self.dense + self.groups + 2)
            + size_of::<RowKey>()
            + if self.has_bag { size_of::<(u32, u32)>() } else { 0 }
    }

    pub(super) fn to_batch(&self, block: Block, keys: &[RowKey]) -> Result<RecordBatch> {
        let rows = block.rows;
        let mut columns: Vec<ArrayRef> = vec![
            list::<Float32Type>(block.dense, self.dense, rows)?,
            list::<UInt32Type>(block.indices, self.groups, rows)?,
            Arc::new(Float32Array::from(block.labels)),
            Arc::new(Float32Array::from(block.weights)),
            to_array(keys)?,
        ];
        if self.has_bag {
            // The rows lie one behind the other, as they were pushed.
            let lengths = block.bags.rows.iter().map(|(begin, end)| (end - begin) as usize);
            let places = Arc::new(UInt32Array::from(block.bags.places.clone()));
            let offsets = OffsetBuffer::from_lengths(lengths);
            let lists = ListArray::try_new(list_item(DataType::UInt32), offsets, places, None).map_err(arrow_error)?;
            columns.push(Arc::new(lists));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(arrow_error)
    }

    pub(super) fn to_block(&self, batch: &RecordBatch) -> Block {
        let list_values = |column: usize| Arc::clone(batch.column(column).as_fixed_size_list().values());
        let mut bags = Bags::default();
        if self.has_bag {
            let lists = batch.column(5).as_list::<i32>();
            let places = lists.values().as_primitive::<UInt32Type>().values();
            lists.value_offsets().windows(2).for_each(|at| bags.push(places[at[0] as usize..at[1] as usize].to_vec()));
        }
        Block {
            bags,
            rows: batch.num_rows(),
            dense: list_values(0).as_primitive::<Float32Type>().values().to_vec(),
            indices: list_values(1).as_primitive::<UInt32Type>().values().to_vec(),
            labels: batch.column(2).as_primitive::<Float32Type>().values().to_vec(),
            weights: batch.column(3).as_primitive::<Float32Type>().values().to_vec(),
        }
    }

    pub(super) fn keys(batch: &RecordBatch) -> Vec<RowKey> {
        from_array(batch.column(4))
    }
}

fn list_item(item: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", item, false))
}

fn list<T: ArrowPrimitiveType>(values: Vec<T::Native>, width: usize, rows: usize) -> Result<ArrayRef> {
    let values = PrimitiveArray::<T>::from_iter_values(values);
    let list =
        FixedSizeListArray::try_new_with_length(list_item(T::DATA_TYPE), width as i32, Arc::new(values), None, rows)
            .map_err(arrow_error)?;
    Ok(Arc::new(list))
}

/// Reads batches of an IPC file by number.
pub(super) struct IpcBatches {
    path: PathBuf,
    reader: FileReader<BufReader<File>>,
}

impl IpcBatches {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unreadable =
            |reason: String| Error::invalid(format!("cannot read spilled rows {}: {reason}", path.display()));
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let reader = FileReader::try_new_buffered(file, None).map_err(|error| unreadable(error.to_string()))?;
        Ok(IpcBatches { path: path.to_path_buf(), reader })
    }

    pub(super) fn batch(&mut self, index: usize) -> Result<RecordBatch> {
        let unreadable =
            |reason: String| Error::invalid(format!("cannot read spilled rows {}: {reason}", self.path.display()));
        self.reader.set_index(index).map_err(|error| unreadable(error.to_string()))?;
        match self.reader.next() {
            Some(Ok(batch)) => Ok(batch),
            Some(Err(error)) => Err(unreadable(error.to_string())),
            None => Err(unreadable(format!("no batch {index}"))),
        }
    }
}
