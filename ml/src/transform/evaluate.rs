//! Computes the columns of a frozen transform for a batch of rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use engine::{Error, Result};

use super::fitted::{Applier, Fitted};
use super::input::InputColumn;
use super::planning::{self, Reading};
use super::spec::{Step, Work};

/// A number for each column: raw columns first, then steps.
pub(crate) type ColumnId = usize;

/// The steps of a transform, planned.
#[derive(Debug)]
pub(crate) struct Evaluator {
    inputs: Vec<InputColumn>,
    steps: Vec<Planned>,
    columns: Schema,
    /// For each raw column, whether it is read as a number and no otherwise.
    numbers: Vec<bool>,
}

#[derive(Debug)]
enum Planned {
    Sql { sql: String, expr: Arc<dyn PhysicalExpr>, reads: Vec<ColumnId>, schema: SchemaRef },
    Fitted { input: ColumnId, applier: Box<Applier> },
}

impl Evaluator {
    /// Plans every step.
    ///
    /// # Errors
    /// An expression that this build does not understand.
    pub(crate) fn new(inputs: &[InputColumn], steps: &[Step<Fitted>], reading: Reading) -> Result<Self> {
        let mut columns = Schema::new(inputs.iter().map(InputColumn::field).collect::<Vec<_>>());
        let mut planned = Vec::new();
        for step in steps {
            let id = |name: &str| columns.index_of(name).map_err(|_| planning::unknown_column(name, &columns));
            let (step_planned, data_type) = match &step.work {
                Work::Sql { sql } => {
                    let (expr, schema) = planning::compiled(sql, &columns, reading)?;
                    let reads = schema.fields().iter().map(|field| id(field.name())).collect::<Result<Vec<_>>>()?;
                    let schema = Arc::new(schema);
                    let data_type = expr.data_type(&schema)?;
                    (Planned::Sql { sql: sql.clone(), expr, reads, schema }, data_type)
                }
                Work::Fit { input, function } => {
                    let input = id(input)?;
                    let data_type = function.output_type(columns.field(input).data_type());
                    (Planned::Fitted { input, applier: Box::new(Applier::new(function)) }, data_type)
                }
            };
            planned.push(step_planned);
            let mut fields: Vec<_> = columns.fields().to_vec();
            fields.push(Arc::new(Field::new(&step.name, data_type, true)));
            columns = Schema::new(fields);
        }
        let numbers = (0..inputs.len()).map(|id| is_number_alone(id, &planned)).collect();
        Ok(Evaluator { inputs: inputs.to_vec(), steps: planned, columns, numbers })
    }

    /// Whether nothing is asked of this raw column but a number.
    pub(crate) fn reads_as_number(&self, input: &str) -> bool {
        self.inputs.iter().zip(&self.numbers).any(|(known, number)| known.name == input && *number)
    }

    /// The number of a column.
    pub(crate) fn id(&self, column: &str) -> Result<ColumnId> {
        self.columns.index_of(column).map_err(|_| planning::unknown_column(column, &self.columns))
    }

    /// The fitted function that makes a column, if one does.
    pub(crate) fn function(&self, column: ColumnId) -> Option<&Applier> {
        match column.checked_sub(self.inputs.len()).map(|step| &self.steps[step]) {
            Some(Planned::Fitted { applier, .. }) => Some(applier),
            _ => None,
        }
    }

    /// The column of which `column` is a copy with `missing` for NULL, or `column` itself: who puts `missing` for NULL anyway
    /// needs no copy.
    pub(crate) fn unfilled(&self, column: ColumnId, missing: f64) -> ColumnId {
        let step = column.checked_sub(self.inputs.len()).map(|step| &self.steps[step]);
        match step {
            Some(Planned::Fitted { input, applier }) if applier.only_fills(missing) => *input,
            _ => column,
        }
    }

    /// For each column, whether `wanted` are made from it.
    pub(crate) fn needed(&self, wanted: impl Iterator<Item = ColumnId>) -> Vec<bool> {
        let mut needed = vec![false; self.inputs.len() + self.steps.len()];
        wanted.for_each(|id| needed[id] = true);
        for (i, step) in self.steps.iter().enumerate().rev() {
            if needed[self.inputs.len() + i] {
                match step {
                    Planned::Sql { reads, .. } => reads.iter().for_each(|id| needed[*id] = true),
                    Planned::Fitted { input, .. } => needed[*input] = true,
                }
            }
        }
        needed
    }

    /// The raw columns among `needed`.
    pub(crate) fn inputs<'a>(&'a self, needed: &'a [bool]) -> impl Iterator<Item = &'a InputColumn> {
        self.inputs.iter().zip(needed).filter(|(_, needed)| **needed).map(|(input, _)| input)
    }

    /// Computes the `needed` columns of `batch`.
    ///
    /// # Errors
    /// A raw column that is missing or of another type; an expression that fails.
    pub(crate) fn run(&self, batch: &RecordBatch, needed: &[bool]) -> Result<Vec<Option<ArrayRef>>> {
        let mut values: Vec<Option<ArrayRef>> = Vec::with_capacity(needed.len());
        for (id, (input, needed)) in self.inputs.iter().zip(needed).enumerate() {
            values.push(match (*needed, self.numbers[id]) {
                (true, true) => Some(input.read_number(batch)?),
                (true, false) => Some(input.read(batch)?),
                (false, _) => None,
            });
        }
        for (step, needed) in self.steps.iter().zip(&needed[self.inputs.len()..]) {
            let value = if *needed { Some(step.run(&values, batch.num_rows())?) } else { None };
            values.push(value);
        }
        Ok(values)
    }
}

/// Whether a raw column goes to functions alone that take any number, and at least to one.
fn is_number_alone(id: ColumnId, steps: &[Planned]) -> bool {
    let reads = |step: &Planned| match step {
        Planned::Sql { reads, .. } => reads.contains(&id).then_some(false),
        Planned::Fitted { input, applier } => (*input == id).then(|| applier.takes_any_number()),
    };
    let mut readers = steps.iter().filter_map(reads).peekable();
    readers.peek().is_some() && readers.all(|any| any)
}

impl Planned {
    fn run(&self, values: &[Option<ArrayRef>], rows: usize) -> Result<ArrayRef> {
        let value = |id: ColumnId| values[id].clone().expect("what a step reads was computed before it");
        match self {
            Planned::Fitted { input, applier } => applier.apply(&value(*input)),
            Planned::Sql { sql, expr, reads, schema } => {
                let arguments = reads.iter().map(|id| value(*id)).collect();
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let fails = |what: String| Error::invalid(format!("TRANSFORM: `{sql}`: {what}"));
                let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arguments, &options)
                    .map_err(|error| fails(error.to_string()))?;
                let result = expr.evaluate(&batch).map_err(|error| fails(planning::plain(&error)))?;
                match result {
                    ColumnarValue::Array(array) => Ok(array),
                    scalar => scalar.into_array(rows).map_err(|error| fails(planning::plain(&error))),
                }
            }
        }
    }
}
