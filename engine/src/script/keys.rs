//! PRIMARY KEY and UNIQUE of tables in memory. After each statement that changes such a table its keys are looked through,
//! and the rows from before come back when two are equal. The query engine believes a primary key and checks none, so no row
//! gets into such a table past this.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Constraint, Constraints, ResolvedTableReference, TableReference};
use datafusion::datasource::MemTable;

use crate::error::{Error, Result};

/// The keys of the session's tables.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<HashMap<ResolvedTableReference, Constraints>>);

impl Keys {
    /// A table has been made, or made anew, or dropped.
    pub(crate) fn set(&self, table: ResolvedTableReference, keys: Option<Constraints>) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match keys {
            Some(keys) => tables.insert(table, keys),
            None => tables.remove(&table),
        };
    }

    /// The keys of a table, when it has any.
    pub(crate) fn of(&self, table: &ResolvedTableReference) -> Option<Constraints> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }
}

/// The rows of a table before it is changed.
pub(super) struct Before(Vec<Vec<RecordBatch>>);

impl Before {
    pub(super) async fn of(table: &MemTable) -> Self {
        let mut partitions = Vec::with_capacity(table.batches.len());
        for partition in &table.batches {
            partitions.push(partition.read().await.clone());
        }
        Before(partitions)
    }

    pub(super) async fn restore(self, table: &MemTable) {
        for (partition, before) in table.batches.iter().zip(self.0) {
            *partition.write().await = before;
        }
    }
}

/// Looks through the rows of a table.
///
/// # Errors
/// A key that two rows share, or that is NULL in a primary key: its columns and the value.
pub(super) fn check(
    name: &TableReference,
    schema: &SchemaRef,
    keys: &Constraints,
    partitions: &[Vec<RecordBatch>],
) -> Result<()> {
    keys.iter().try_for_each(|key| match key {
        Constraint::PrimaryKey(columns) => Key { name, schema, kind: "PRIMARY KEY", columns }.check(partitions),
        Constraint::Unique(columns) => Key { name, schema, kind: "UNIQUE", columns }.check(partitions),
    })
}

/// As [`check`], of the rows that the table holds now.
pub(super) async fn check_table(name: &TableReference, table: &MemTable, keys: &Constraints) -> Result<()> {
    use datafusion::catalog::TableProvider;
    let Before(partitions) = Before::of(table).await;
    check(name, &table.schema(), keys, &partitions)
}

struct Key<'a> {
    name: &'a TableReference,
    schema: &'a SchemaRef,
    kind: &'static str,
    columns: &'a [usize],
}

impl Key<'_> {
    fn check(&self, partitions: &[Vec<RecordBatch>]) -> Result<()> {
        let types = self.columns.iter().map(|column| SortField::new(self.schema.field(*column).data_type().clone()));
        let converter = RowConverter::new(types.collect()).map_err(datafusion::error::DataFusionError::from)?;
        let mut seen = HashSet::new();
        for batch in partitions.iter().flatten() {
            let values: Vec<ArrayRef> = self.columns.iter().map(|column| batch.column(*column).clone()).collect();
            let rows = converter.convert_columns(&values).map_err(datafusion::error::DataFusionError::from)?;
            for (index, row) in rows.iter().enumerate() {
                if let Some(null) = values.iter().position(|value| value.is_null(index)) {
                    if self.kind == "UNIQUE" {
                        continue;
                    }
                    let column = self.schema.field(self.columns[null]).name();
                    return Err(Error::invalid(format!(
                        "table `{}`: column `{column}` is part of the PRIMARY KEY and cannot be NULL",
                        self.name
                    )));
                }
                if !seen.insert(row.as_ref().to_vec()) {
                    return Err(self.twice(&values, index));
                }
            }
        }
        Ok(())
    }

    fn twice(&self, values: &[ArrayRef], row: usize) -> Error {
        let options = FormatOptions::default();
        let text = |value: &ArrayRef| {
            let formatter = ArrayFormatter::try_new(value.as_ref(), &options);
            formatter.map_or_else(|_| "?".to_string(), |formatter| formatter.value(row).to_string())
        };
        let of = |column: &usize| format!("`{}`", self.schema.field(*column).name());
        let columns: Vec<String> = self.columns.iter().map(of).collect();
        let values: Vec<String> = values.iter().map(text).collect();
        Error::invalid(format!(
            "table `{}`: two rows would have the {} {} = {}",
            self.name,
            self.kind,
            columns.join(", "),
            values.join(", ")
        ))
    }
}
