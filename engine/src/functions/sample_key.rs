//! `gm_sample_key(seed, columns...)`: a number that depends on what a row holds, and on nothing else, so that a sample is the
//! same for any number of partitions, files and processes. Uniform over all 64 bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(SampleKey { signature: Signature::variadic_any(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SampleKey {
    signature: Signature,
}

impl ScalarUDFImpl for SampleKey {
    fn name(&self) -> &str {
        "gm_sample_key"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [DataType::UInt64, ..] => Ok(DataType::UInt64),
            _ => plan_err!("gm_sample_key: argument 1 is a seed"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|value| value.to_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let Some((seeds, columns)) = arrays.split_first() else { return exec_err!("gm_sample_key: no seed") };
        let seeds = seeds.as_primitive::<UInt64Type>();
        let seed = if seeds.is_empty() { 0 } else { seeds.value(0) };
        if columns.is_empty() {
            let keys = UInt64Array::from_value(xxh3_64_with_seed(&[], seed), rows);
            return Ok(ColumnarValue::Array(Arc::new(keys)));
        }
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let encoded = RowConverter::new(fields)?.convert_columns(columns)?;
        let keys = encoded.iter().map(|row| xxh3_64_with_seed(row.as_ref(), seed));
        Ok(ColumnarValue::Array(Arc::new(UInt64Array::from_iter_values(keys))))
    }
}
