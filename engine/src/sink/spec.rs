//! What every task of a sink needs to know, and what it gives back.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::config::TableOptions;
use serde::{Deserialize, Serialize};
use storage::{Commit, Location, WrittenFile};
use tokio_util::task::TaskTracker;

use super::encoding::{Encoding, FileOptions, WrittenEncoding};
use super::write::FileRow;
use crate::error::{Error, Result};

/// Columns of an existing table that must have a value in every row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NotNull {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
}

impl NotNull {
    fn check(&self, batch: &RecordBatch) -> Result<()> {
        let column_of =
            |name: &&String| batch.column_by_name(name).is_some_and(|values| values.logical_null_count() > 0);
        match self.columns.iter().find(column_of) {
            None => Ok(()),
            Some(column) => Err(Error::invalid(format!(
                "column `{column}` of table `{}` is NOT NULL, and a row to be inserted has NULL there",
                self.table
            ))),
        }
    }
}

/// A sink's specification.
#[derive(Debug, Clone)]
pub(crate) struct SinkSpec {
    /// Where files are written.
    pub(super) directory: Location,
    /// In the directories of their partitions at once, and not side by side until they are published.
    in_place: bool,
    /// The commit's name, part of every file's.
    commit: String,
    pub(super) single_file: bool,
    pub(super) partition_by: Vec<String>,
    pub(super) encoding: Encoding,
    written: WrittenEncoding,
    pub(super) target_file_size: u64,
    not_null: Option<NotNull>,
    /// Whether files are hashed as they are written.
    pub(super) sealed: bool,
    /// Counts the tasks that may still be writing.
    pub(super) tasks: TaskTracker,
}

impl SinkSpec {
    pub(crate) fn new(commit: &Commit, options: FileOptions, partition_by: Vec<String>) -> Self {
        SinkSpec {
            directory: commit.directory().as_directory(),
            in_place: commit.is_in_place(),
            commit: commit.id().to_string(),
            single_file: commit.is_single_file(),
            partition_by,
            encoding: options.encoding,
            written: options.written,
            target_file_size: options.target_file_size,
            not_null: None,
            sealed: false,
            tasks: TaskTracker::new(),
        }
    }

    /// For a table whose readers go by a log: files are written where they stay. `id` is part of every file's name.
    pub(crate) fn in_place(table: &Location, id: &str, options: FileOptions, partition_by: Vec<String>) -> Self {
        SinkSpec {
            directory: table.as_directory(),
            in_place: true,
            commit: id.to_string(),
            single_file: false,
            partition_by,
            encoding: options.encoding,
            written: options.written,
            target_file_size: options.target_file_size,
            not_null: None,
            sealed: false,
            tasks: TaskTracker::new(),
        }
    }

    /// The same sink, which refuses rows that a table's columns do not take.
    pub(crate) fn with_not_null(self, not_null: Option<NotNull>) -> Self {
        SinkSpec { not_null, ..self }
    }

    /// The same sink, which hashes each file as it is written, so that readers who are told the hash know it again.
    pub(crate) fn sealed(self) -> Self {
        SinkSpec { sealed: true, ..self }
    }

    pub(super) fn is_local(&self) -> bool {
        self.directory.local_path().is_some()
    }

    /// Whether the rows may be written.
    pub(super) fn check(&self, batch: &RecordBatch) -> Result<()> {
        self.not_null.iter().try_for_each(|not_null| not_null.check(batch))
    }

    /// A new name for a file of a task; the same shape as [`Commit::staging_path`] gives.
    ///
    /// Files of all partitions are staged side by side: their directories are made when they are published. Where there
    /// are no directories and no renames, they get their final names at once.
    pub(super) fn file_location(&self, task: usize, partition: &str, unique: &str) -> Location {
        let name = format!("part-{task:05}-{}-{unique}.{}", self.commit, self.encoding.ending());
        match self.in_place && !partition.is_empty() {
            true => self.directory.join(partition).join(&name),
            false => self.directory.join(&name),
        }
    }

    /// Waits until no task writes any more; they must have been told to stop.
    pub(crate) async fn all_stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A specification on its way to a task in another process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WrittenSpec {
    directory: String,
    in_place: bool,
    commit: String,
    single_file: bool,
    partition_by: Vec<String>,
    encoding: WrittenEncoding,
    target_file_size: u64,
    not_null: Option<NotNull>,
    sealed: bool,
}

impl SinkSpec {
    /// As plain data.
    pub(crate) fn written(&self) -> WrittenSpec {
        WrittenSpec {
            directory: self.directory.to_string(),
            in_place: self.in_place,
            commit: self.commit.clone(),
            single_file: self.single_file,
            partition_by: self.partition_by.clone(),
            encoding: self.written.clone(),
            target_file_size: self.target_file_size,
            not_null: self.not_null.clone(),
            sealed: self.sealed,
        }
    }

    /// The same specification in another process; `defaults` are the session's, which travelled beside it.
    ///
    /// # Errors
    /// A place or an option that this process does not understand.
    pub(crate) fn read(written: WrittenSpec, defaults: &TableOptions) -> Result<Self> {
        Ok(SinkSpec {
            directory: Location::parse(&written.directory)?,
            in_place: written.in_place,
            commit: written.commit,
            single_file: written.single_file,
            partition_by: written.partition_by,
            encoding: written.encoding.read(defaults)?,
            written: written.encoding,
            target_file_size: written.target_file_size,
            not_null: written.not_null,
            sealed: written.sealed,
            tasks: TaskTracker::new(),
        })
    }
}

/// The columns of what a task gives back.
pub(super) static FILES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("directory", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("sha256", DataType::Utf8, true),
    ]))
});

/// Finished files as rows.
pub(super) fn file_rows(files: &[FileRow]) -> datafusion::error::Result<RecordBatch> {
    let text = |of: fn(&FileRow) -> &str| Arc::new(StringArray::from_iter_values(files.iter().map(of))) as ArrayRef;
    let number = |of: fn(&FileRow) -> u64| Arc::new(UInt64Array::from_iter_values(files.iter().map(of))) as ArrayRef;
    let hashes: StringArray = files.iter().map(|file| file.sha256.as_deref()).collect();
    let columns = vec![
        text(|file| &file.path),
        text(|file| &file.relative),
        number(|file| file.rows),
        number(|file| file.bytes),
        Arc::new(hashes) as ArrayRef,
    ];
    Ok(RecordBatch::try_new(Arc::clone(&FILES), columns)?)
}

/// What the tasks wrote, sorted by path.
pub(crate) fn written_files(batches: &[RecordBatch]) -> Result<Vec<WrittenFile>> {
    let mut files = Vec::new();
    for batch in batches {
        let (paths, directories) = (texts(batch, 0)?, texts(batch, 1)?);
        let (rows, bytes, hashes) = (numbers(batch, 2)?, numbers(batch, 3)?, texts(batch, 4)?);
        for index in 0..batch.num_rows() {
            files.push(WrittenFile {
                path: Location::parse(paths.value(index))?,
                relative: directories.value(index).to_string(),
                rows: rows.value(index),
                bytes: bytes.value(index),
                sha256: hashes.is_valid(index).then(|| hashes.value(index).to_string()),
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What a commit should publish. Files without rows are left out, unless there are no others: then one of them keeps the
/// columns.
pub(crate) fn with_rows(mut files: Vec<WrittenFile>) -> Vec<WrittenFile> {
    if files.iter().any(|file| file.rows > 0) {
        files.retain(|file| file.rows > 0);
    } else {
        files.truncate(1);
    }
    files
}

fn texts(batch: &RecordBatch, column: usize) -> Result<&StringArray> {
    batch.column(column).as_any().downcast_ref().ok_or_else(foreign)
}

fn numbers(batch: &RecordBatch, column: usize) -> Result<&UInt64Array> {
    batch.column(column).as_any().downcast_ref().ok_or_else(foreign)
}

fn foreign() -> Error {
    Error::invalid("the sink's tasks gave back rows of another shape: another version is running them")
}
