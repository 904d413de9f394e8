//! CSV files in which a text such as `NA` stands for NULL. The query engine's CSV reader knows only the empty text (its
//! `null_regex` is used for finding the columns' types and then forgotten), so such a table is read as text and a view
//! over it takes the nulls out and makes the types. Everything in the plan is then what every engine knows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::functions::expr_fn::{nullif, regexp_like};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast, col, lit, when};

use super::format::Nulls;

/// The same columns as text.
pub(super) fn as_text(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> =
        schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8View, true)).collect();
    Arc::new(Schema::new(fields))
}

/// A view over `table`, whose columns of `schema` are read as text, that has the columns' types and NULLs. Partition
/// columns, which are not in `schema`, pass through.
pub(super) fn view(table: Arc<dyn TableProvider>, schema: &SchemaRef, nulls: &Nulls) -> Result<Arc<dyn TableProvider>> {
    let columns: Vec<Expr> = (table.schema().fields().iter())
        .map(|field| match schema.field_with_name(field.name()) {
            Ok(typed) => Ok(typed_column(typed, nulls)?.alias(field.name())),
            Err(_) => Ok(quoted(field.name())),
        })
        .collect::<Result<_>>()?;
    let plan = LogicalPlanBuilder::scan("csv", provider_as_source(table), None)?.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn typed_column(field: &Field, nulls: &Nulls) -> Result<Expr> {
    let text = quoted(field.name());
    let present = match nulls {
        Nulls::Text(null) => nullif(text, lit(null.as_str())),
        Nulls::Pattern(pattern) => {
            let is_null = regexp_like(text.clone(), lit(pattern.as_str()), None);
            when(is_null, lit(datafusion::common::ScalarValue::Utf8View(None))).otherwise(text)?
        }
    };
    Ok(match field.data_type() {
        DataType::Utf8View => present,
        kind => cast(present, kind.clone()),
    })
}

/// A column by its exact name, whatever its letters.
pub(super) fn quoted(name: &str) -> Expr {
    col(datafusion::common::Column::new_unqualified(name))
}
