//! Training rows that this process never holds: the query runs where plans are executed, and its rows go to files that all
//! workers see, by shard, each row with its key. What is asked of all rows are queries over these files.
//!
//! ```text
//! query --keys, shards--> <place>/__gristmill_shard=3/part-....arrow --> statistics, counts, samples   (queries)
//!                                                                    --> the workers' own shards       (`own_shards.rs`)
//! ```
//!
//! Rows of which there are copies are found in the files. If there are any, the rows are written a second time, each with
//! its number among its copies in its key: a copy is in another shard than the first. Most tables have none, and are
//! written once.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, lit, when};
use datafusion::prelude::ident;
use engine::extension::JobContext;
use engine::{Error, Result, Session};
use storage::{Location, WrittenFile};

use super::key_functions::{row_copy, row_key, row_part, row_shard};
use super::row_key::{RowKey, RowKeys, arrow_error, canonical, from_array};
use super::split::{Part, Split};
use super::spread_file::SpreadFile;
use super::training_rows::{KEY_COLUMN, TrainingRows};
use crate::statistics::Rows;

/// The number of a row among its copies, from 1.
const NUMBER_COLUMN: &str = "__gristmill_row_number";
/// The column that names directories.
const SHARD_COLUMN: &str = "__gristmill_shard";
/// About the size of a file: whoever reads one has it in memory as a whole.
const FILE_BYTES: u64 = 16 << 20;
/// Files of less than this together are asked by this process: a cluster takes longer to begin than they take to be read.
const SMALL_BYTES: u64 = 256 << 10;

/// See the module.
pub struct SpreadRows {
    session: Session,
    schema: SchemaRef,
    files: Vec<Vec<SpreadFile>>,
    rows: u64,
    null_labels: u64,
    bytes: u64,
}

/// How many rows each part has in each shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartCounts {
    /// Rows that train.
    pub train: Vec<usize>,
    /// Rows held out.
    pub eval: Vec<usize>,
    /// Rows held out a second time.
    pub test: Vec<usize>,
}

impl SpreadRows {
    /// Runs a query and writes its rows by shard to `place`. Rows whose `label` is NULL are counted alone.
    ///
    /// # Errors
    /// Whatever the query meets; a column type without canonical bytes; a store that cannot be written to; cancellation.
    pub async fn write(
        session: &Session,
        query: DataFrame,
        label: &str,
        seed: u64,
        shards: usize,
        place: &Location,
        job: &JobContext,
    ) -> Result<Self> {
        let schema = Arc::new(query.schema().as_arrow().clone());
        // Said here, with the column's name, and not by a task.
        RowKeys::new(&schema, seed)?;
        let own = || schema.fields().iter().map(|field| ident(field.name()));
        let keyed = query.select(own().chain([row_key(seed, own()).alias(KEY_COLUMN)]).collect::<Vec<_>>())?;
        let shard = when(ident(label).is_null(), lit(ScalarValue::Int32(None)))
            .otherwise(row_shard(ident(KEY_COLUMN), shards))?
            .alias(SHARD_COLUMN);
        let columns: Vec<Expr> = own().chain([ident(KEY_COLUMN), shard]).collect();
        let place = place.as_directory();
        let first = place.join("rows").as_directory();
        let written = session.spread(keyed.select(columns)?, &first, SHARD_COLUMN, FILE_BYTES, job).await?;
        let rows = SpreadRows::of(session, &schema, shards, &written)?;
        if !rows.have_copies().await? {
            return Ok(rows);
        }
        let second = place.join("copies").as_directory();
        let numbered = rows.with_copies(shards)?;
        let written = session.spread(numbered, &second, SHARD_COLUMN, FILE_BYTES, job).await?;
        let null_labels = rows.null_labels;
        Ok(SpreadRows { null_labels, ..SpreadRows::of(session, &schema, shards, &written)? })
    }

    fn of(session: &Session, schema: &SchemaRef, shards: usize, written: &[WrittenFile]) -> Result<Self> {
        let mut rows = SpreadRows {
            session: session.clone(),
            schema: Arc::clone(schema),
            files: vec![Vec::new(); shards],
            rows: 0,
            null_labels: 0,
            bytes: 0,
        };
        for file in written {
            match shard_of(file, shards)? {
                None => rows.null_labels += file.rows,
                Some(shard) => {
                    rows.rows += file.rows;
                    rows.bytes += file.bytes;
                    rows.files[shard].push(SpreadFile::of(file)?);
                }
            }
        }
        Ok(rows)
    }

    /// Whether some rows have the key of another: half of the key is asked for, so that a few rows may be looked at in vain.
    async fn have_copies(&self) -> Result<bool> {
        if self.rows == 0 {
            return Ok(false);
        }
        let parts = self.table()?.select(vec![row_part(ident(KEY_COLUMN)).alias("part")])?;
        let counted = parts.aggregate(vec![ident("part")], vec![count(lit(1i64)).alias("copies")])?;
        let copied =
            counted.filter(ident("copies").gt(lit(1i64)))?.aggregate(Vec::new(), vec![sum(ident("copies"))])?;
        Ok(self.ask(copied).await?.iter().any(|batch| batch.column(0).null_count() < batch.num_rows()))
    }

    /// The rows as they are to be written the second time.
    fn with_copies(&self, shards: usize) -> Result<DataFrame> {
        let number = row_number().partition_by(vec![ident(KEY_COLUMN)]).build()?;
        let own = || self.schema.fields().iter().map(|field| ident(field.name()));
        let numbered: Vec<Expr> = own().chain([ident(KEY_COLUMN), number.alias(NUMBER_COLUMN)]).collect();
        let keyed: Vec<Expr> =
            own().chain([row_copy(ident(KEY_COLUMN), ident(NUMBER_COLUMN)).alias(KEY_COLUMN)]).collect();
        let shard = row_shard(ident(KEY_COLUMN), shards).alias(SHARD_COLUMN);
        let columns: Vec<Expr> = own().chain([ident(KEY_COLUMN), shard]).collect();
        Ok(self.table()?.select(numbered)?.select(keyed)?.select(columns)?)
    }

    /// The files of each shard.
    pub fn files(&self) -> &[Vec<SpreadFile>] {
        &self.files
    }

    /// All rows, each with its key.
    fn table(&self) -> Result<DataFrame> {
        let key = Field::new(KEY_COLUMN, DataType::FixedSizeBinary(16), false);
        let own = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let columns = Arc::new(Schema::new(own.chain([key]).collect::<Vec<_>>()));
        let places = self.files.iter().flatten().map(SpreadFile::location).collect::<Result<Vec<_>>>()?;
        self.session.read_spread(&places, columns)
    }

    /// Rows of the files, to be asked where that is quickest.
    fn asked(&self, rows: DataFrame) -> Rows {
        if self.bytes < SMALL_BYTES { Rows::from(&rows) } else { Rows::of(&self.session, rows) }
    }

    async fn ask(&self, question: DataFrame) -> Result<Vec<RecordBatch>> {
        self.asked(question.clone()).answer(question).await
    }

    /// How many rows each shard has of each part.
    ///
    /// # Errors
    /// A query that fails; rows of no part.
    pub async fn counts(&self, split: &Split) -> Result<PartCounts> {
        let shards = self.files.len();
        let of_part = |part: Part| -> Result<Expr> {
            let counted = match split.condition(part, KEY_COLUMN) {
                None => lit(1i64),
                Some(condition) => when(condition, lit(1i64)).otherwise(lit(0i64))?,
            };
            Ok(sum(counted))
        };
        let parts = [Part::Train, Part::Eval, Part::Test].map(of_part).into_iter().collect::<Result<Vec<_>>>()?;
        let names = ["train", "eval", "test"];
        let parts = parts.into_iter().zip(names).map(|(counted, name)| counted.alias(name)).collect();
        let by = vec![row_shard(ident(KEY_COLUMN), shards).alias(SHARD_COLUMN)];
        let mut counts = PartCounts { train: vec![0; shards], eval: vec![0; shards], test: vec![0; shards] };
        for batch in self.ask(self.table()?.aggregate(by, parts)?).await? {
            let of_shard = batch.column(0).as_primitive::<Int32Type>().values();
            for (lists, column) in [&mut counts.train, &mut counts.eval, &mut counts.test].into_iter().zip(1..) {
                let numbers = batch.column(column).as_primitive::<Int64Type>().values();
                of_shard.iter().zip(numbers).for_each(|(shard, rows)| lists[*shard as usize] += *rows as usize);
            }
        }
        let found: usize = [&counts.train, &counts.eval, &counts.test].into_iter().flatten().sum();
        if found as u64 == self.rows {
            return Ok(counts);
        }
        Err(Error::invalid(format!("{found} rows were found in the files of {} training rows", self.rows)))
    }

    /// At most `count` rows of all parts, ascending by key.
    ///
    /// # Errors
    /// A query that fails.
    pub async fn sample(&self, count: usize) -> Result<RecordBatch> {
        let smallest = self.table()?.sort(vec![ident(KEY_COLUMN).sort(true, false)])?.limit(0, Some(count))?;
        let own = |batch: &RecordBatch| {
            let columns = batch.columns()[..self.schema.fields().len()].to_vec();
            RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(arrow_error)
        };
        let rows = self.ask(smallest).await?.iter().map(own).collect::<Result<Vec<_>>>()?;
        canonical(&concat_batches(&self.schema, &rows).map_err(arrow_error)?)
    }
}

/// The shard of a file, by its directory; `None` when its rows have no label.
fn shard_of(file: &WrittenFile, shards: usize) -> Result<Option<usize>> {
    let value = file.relative.strip_prefix(SHARD_COLUMN).and_then(|rest| rest.strip_prefix('='));
    match value.map(str::parse::<usize>) {
        Some(Ok(shard)) if shard < shards => Ok(Some(shard)),
        Some(Err(_)) => Ok(None),
        _ => Err(Error::invalid(format!("{}: was written for no shard", file.path))),
    }
}

#[async_trait]
impl TrainingRows for SpreadRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn null_labels(&self) -> u64 {
        self.null_labels
    }

    async fn part(&self, split: &Split, part: Part) -> Result<Rows> {
        let mut rows = self.table()?;
        if let Some(condition) = split.condition(part, KEY_COLUMN) {
            rows = rows.filter(condition)?;
        }
        Ok(self.asked(rows))
    }

    async fn smallest_keys(&self, count: usize) -> Result<Vec<RowKey>> {
        let keys = self.table()?.select(vec![ident(KEY_COLUMN)])?;
        let smallest = keys.sort(vec![ident(KEY_COLUMN).sort(true, false)])?.limit(0, Some(count))?;
        let mut keys: Vec<RowKey> =
            self.ask(smallest).await?.iter().flat_map(|batch| from_array(batch.column(0))).collect();
        keys.sort_unstable();
        Ok(keys)
    }
}
