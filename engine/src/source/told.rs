//! Types of columns that are told rather than found in the rows: a model knows what its columns are, so a code of digits is
//! text and a whole number a measurement. Only formats whose rows are text are asked; the others say their types themselves.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast};

use super::format::Format;
use super::nulls::quoted;

/// Column -> type.
pub(crate) type Told = HashMap<String, DataType>;

/// The columns as they are to be read: with the types that are told where the format's reader can make them.
pub(super) fn columns(schema: SchemaRef, told: &Told, format: Format) -> SchemaRef {
    if told.is_empty() || format.describes_itself() {
        return schema;
    }
    let field = |field: &Arc<Field>| match told.get(field.name()) {
        Some(kind) if reads(format, field.data_type(), kind) => {
            Arc::new(field.as_ref().clone().with_data_type(kind.clone()).with_nullable(true))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new_with_metadata(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

/// The type of a column whose values are the names of directories.
pub(super) fn partition(name: &str, kind: DataType, told: &Told) -> DataType {
    told.get(name).filter(|kind| kind.is_numeric() || is_text(kind)).cloned().unwrap_or(kind)
}

/// A view that writes out as text what JSON has as numbers and truth values; the table itself when there is nothing to do.
pub(super) fn written_out(
    table: Arc<dyn TableProvider>,
    told: &Told,
    format: Format,
) -> Result<Arc<dyn TableProvider>> {
    let schema = table.schema();
    let is_other = |field: &Field| {
        let kind = field.data_type();
        told.get(field.name()).is_some_and(is_text) && (kind.is_integer() || *kind == DataType::Boolean)
    };
    if format.describes_itself() || !schema.fields().iter().any(|field| is_other(field)) {
        return Ok(table);
    }
    let column = |field: &Arc<Field>| -> Expr {
        let column = quoted(field.name());
        if is_other(field) { cast(column, DataType::Utf8).alias(field.name()) } else { column }
    };
    let columns: Vec<Expr> = schema.fields().iter().map(column).collect();
    let plan = LogicalPlanBuilder::scan("rows", provider_as_source(table), None)?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// Whether the reader makes this type of values that were taken for another.
fn reads(format: Format, found: &DataType, told: &DataType) -> bool {
    let of_cells = told.is_numeric() || told.is_temporal() || is_text(told) || *told == DataType::Boolean;
    // A cell of CSV is text; a value of JSON has a type.
    of_cells && (format.is_csv() || *found == DataType::Null || found.is_numeric() && told.is_numeric())
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
