//! `DELETE` and `UPDATE` of a table in memory. Which rows they are about, and what these become, is a query like any other, so
//! every condition means what it means in WHERE; it carries the number of each row, and the table's rows are replaced when
//! the query is done. (The query engine gives a table those parts of a condition that are left above its scan, and loses what
//! has become a join, or nothing: apache/datafusion#19950 and its kin.)
//!
//! What always holds: a statement that fails has changed nothing; rows keep their order; a row is changed once.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, interleave};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result as QueryResult;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, WriteOp};
use futures::TryStreamExt;

use super::run::Job;
use crate::error::{Error, Result};
use crate::runner::Gather;

/// Runs the statement; gives the number of rows that it deleted or changed.
pub(super) async fn run(job: &Job<'_>, statement: &DmlStatement, table: &MemTable) -> Result<u64> {
    let rows = Rows::of(table).await;
    let updates = matches!(statement.op, WriteOp::Update);
    let plan = rows.asked(statement, updates)?;
    let execution = job.session.runner().run(job.session, plan, Gather::One).await?;
    let mut partitions = execution.partitions;
    let stream = partitions.pop().expect("a gathered execution has one stream");
    let collected = async { Ok(stream.try_collect::<Vec<_>>().await?) };
    let found = job.watch(execution.gauge.as_ref(), collected).await?;
    let numbers = numbers(&found)?;
    let replaced = if updates {
        rows.updated(&numbers, &found, &statement.table_name.to_string())?
    } else {
        rows.without(&numbers)?
    };
    let mut held = Vec::with_capacity(table.batches.len());
    for partition in &table.batches {
        held.push(partition.write().await);
    }
    *table.sort_order.lock() = Vec::new();
    held.iter_mut().zip(replaced).for_each(|(partition, batches)| **partition = batches);
    Ok(numbers.len() as u64)
}

/// The rows of a table as they were when the statement began.
struct Rows {
    schema: SchemaRef,
    partitions: Vec<Vec<RecordBatch>>,
}

/// Where in what was found the new values of a row are, by the row's number.
type Numbers = HashMap<u64, usize>;

impl Rows {
    async fn of(table: &MemTable) -> Self {
        let mut partitions = Vec::with_capacity(table.batches.len());
        for partition in &table.batches {
            partitions.push(partition.read().await.clone());
        }
        Rows { schema: datafusion::catalog::TableProvider::schema(table), partitions }
    }

    /// The query for the numbers of the rows, behind the new values of an UPDATE.
    fn asked(&self, statement: &DmlStatement, updates: bool) -> Result<LogicalPlan> {
        let source = provider_as_source(Arc::new(self.numbered()?));
        let mut scans = 0;
        let plan = statement.input.as_ref().clone().transform_up(|node| {
            if !matches!(node, LogicalPlan::TableScan(_)) {
                return Ok(Transformed::yes(if updates && matches!(node, LogicalPlan::Projection(_)) {
                    node
                } else {
                    node.recompute_schema()?
                }));
            }
            scans += 1;
            let scan = LogicalPlanBuilder::scan(statement.table_name.clone(), Arc::clone(&source), None)?;
            Ok(Transformed::yes(scan.build()?))
        })?;
        if scans != 1 {
            return Err(Error::invalid("UPDATE and DELETE of several tables at once are not supported"));
        }
        match plan.data {
            LogicalPlan::Projection(projection) if updates => {
                let number = number_of(&projection.input);
                let values = projection.expr.iter().cloned().chain([number]).collect::<Vec<_>>();
                Ok(LogicalPlanBuilder::new_from_arc(projection.input).project(values)?.build()?)
            }
            plan => {
                let number = number_of(&plan);
                Ok(LogicalPlanBuilder::from(plan).project([number])?.build()?)
            }
        }
    }

    /// The table with a column more: the number of the row.
    fn numbered(&self) -> QueryResult<MemTable> {
        let mut name = String::from("__row");
        while self.schema.field_with_name(&name).is_ok() {
            name.push('_');
        }
        let number = Arc::new(Field::new(name, DataType::UInt64, false));
        let fields = self.schema.fields().iter().cloned().chain([number]);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut next = 0;
        let mut partitions = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            let mut batches = Vec::with_capacity(partition.len());
            for batch in partition {
                let end = next + batch.num_rows() as u64;
                let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(next..end));
                let columns = batch.columns().iter().cloned().chain([numbers]).collect();
                batches.push(RecordBatch::try_new(Arc::clone(&schema), columns)?);
                next = end;
            }
            partitions.push(batches);
        }
        MemTable::try_new(schema, partitions)
    }

    fn without(&self, numbers: &Numbers) -> Result<Vec<Vec<RecordBatch>>> {
        self.each(|first, batch| {
            let stays = |row: u64| !numbers.contains_key(&row);
            let kept: BooleanArray = (first..first + batch.num_rows() as u64).map(|row| Some(stays(row))).collect();
            Ok(filter_record_batch(batch, &kept)?)
        })
    }

    /// The rows with the new values of those that were found.
    fn updated(&self, numbers: &Numbers, found: &[RecordBatch], table: &str) -> Result<Vec<Vec<RecordBatch>>> {
        let Some(first) = found.first() else { return Ok(self.partitions.clone()) };
        let found = concat_batches(&first.schema(), found).map_err(datafusion::error::DataFusionError::from)?;
        let mut values = Vec::with_capacity(self.schema.fields().len());
        for (field, value) in self.schema.fields().iter().zip(found.columns()) {
            let value = cast(value, field.data_type()).map_err(datafusion::error::DataFusionError::from)?;
            if !field.is_nullable() && value.null_count() > 0 {
                let name = field.name();
                return Err(Error::invalid(format!("column `{name}` of table `{table}` cannot be NULL")));
            }
            values.push(value);
        }
        self.each(|first, batch| {
            let rows = 0..batch.num_rows();
            let from: Vec<(usize, usize)> =
                rows.map(|row| numbers.get(&(first + row as u64)).map_or((0, row), |found| (1, *found))).collect();
            if from.iter().all(|(side, _)| *side == 0) {
                return Ok(batch.clone());
            }
            let mut columns = Vec::with_capacity(values.len());
            for (old, new) in batch.columns().iter().zip(&values) {
                columns.push(interleave(&[old.as_ref(), new.as_ref()], &from)?);
            }
            Ok(RecordBatch::try_new(batch.schema(), columns)?)
        })
    }

    /// Makes every batch anew, given the number of its first row.
    fn each(&self, make: impl Fn(u64, &RecordBatch) -> QueryResult<RecordBatch>) -> Result<Vec<Vec<RecordBatch>>> {
        let mut first = 0;
        let mut partitions = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            let mut batches = Vec::with_capacity(partition.len());
            for batch in partition {
                batches.push(make(first, batch)?);
                first += batch.num_rows() as u64;
            }
            partitions.push(batches);
        }
        Ok(partitions)
    }
}

/// The last column, which is the number of the row wherever the table was scanned.
fn number_of(plan: &LogicalPlan) -> Expr {
    let schema = plan.schema();
    Expr::Column(Column::from(schema.qualified_field(schema.fields().len() - 1)))
}

fn numbers(found: &[RecordBatch]) -> Result<Numbers> {
    let mut numbers = Numbers::new();
    let mut next = 0;
    for batch in found {
        let column = batch.column(batch.num_columns() - 1);
        let column = column.as_any().downcast_ref::<UInt64Array>().expect("rows are numbered in 64 bits");
        for number in column.values() {
            if numbers.insert(*number, next).is_some() {
                return Err(Error::invalid("the statement finds several new values for one row"));
            }
            next += 1;
        }
    }
    Ok(numbers)
}
