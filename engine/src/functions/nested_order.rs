//! The order of lists and structs: the first value that differs decides, NULL is greater than any value, and a list is greater
//! than its beginning, as ORDER BY, min and max have it. The query engine's `<` takes a NULL inside for less than any value.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::make_comparator;
use datafusion::arrow::array::{Array, Int8Array};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// The function: -1, 0 or 1 as the first of two values of one type is less than, equal to or greater than the second; NULL
/// when either is.
pub(crate) fn function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::from(NestedOrder { signature }))
    });
    Arc::clone(&FUNCTION)
}

/// Whether values of a type hold others.
pub(crate) fn is_nested(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(_, _)
            | DataType::Struct(_)
            | DataType::Map(_, _)
    )
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NestedOrder {
    signature: Signature,
}

impl ScalarUDFImpl for NestedOrder {
    fn name(&self) -> &'static str {
        "nested_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("nested_order takes two values".to_string()));
        };
        let order = ordered(left.as_ref(), right.as_ref())?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&order, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(order)))
    }
}

fn ordered(left: &dyn Array, right: &dyn Array) -> Result<Int8Array> {
    let compare = make_comparator(left, right, SortOptions { descending: false, nulls_first: false })?;
    let rows = (0..left.len()).map(|row| {
        if left.is_null(row) || right.is_null(row) {
            return None;
        }
        Some(match compare(row, row) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        })
    });
    Ok(rows.collect())
}
