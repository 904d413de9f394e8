//! Constant arguments: expressions without columns, computed when the call is read.

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;
use datafusion::sql::sqlparser::ast::Expr;
use engine::{Error, Result};

use crate::transform::planning;

/// The value of an expression that must not read any column.
pub(crate) fn value(expr: &Expr) -> Result<ScalarValue> {
    let text = expr.to_string();
    let constant = || Error::invalid(format!("`{text}` must be a constant"));
    let none = Schema::empty();
    let planned = planning::plan(&text, &none).map_err(|_| constant())?;
    let one_row = RecordBatch::try_new_with_options(
        std::sync::Arc::new(none.clone()),
        Vec::new(),
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )
    .map_err(|_| constant())?;
    match planning::physical(planned, &text, &none)?.evaluate(&one_row).map_err(|_| constant())? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0).map_err(|_| constant()),
    }
}

/// A whole number.
pub(crate) fn integer(value: &ScalarValue) -> Option<i64> {
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(n) if value.data_type().is_integer() => n,
        _ => None,
    }
}

/// A number.
pub(crate) fn number(value: &ScalarValue) -> Option<f64> {
    match value.cast_to(&DataType::Float64).ok()? {
        ScalarValue::Float64(x) if value.data_type().is_numeric() => x,
        _ => None,
    }
}

/// An array of numbers without NULL.
pub(crate) fn numbers(value: &ScalarValue) -> Option<Vec<f64>> {
    let elements = match value {
        ScalarValue::List(list) if list.len() == 1 && list.is_valid(0) => list.value(0),
        ScalarValue::LargeList(list) if list.len() == 1 && list.is_valid(0) => list.value(0),
        ScalarValue::FixedSizeList(list) if list.len() == 1 && list.is_valid(0) => list.value(0),
        _ => return None,
    };
    if !elements.data_type().is_numeric() && !elements.is_empty() {
        return None;
    }
    let elements = cast(&elements, &DataType::Float64).ok()?;
    (elements.null_count() == 0).then(|| elements.as_primitive::<Float64Type>().values().to_vec())
}
