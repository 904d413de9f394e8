//! Row keys in SQL, for plans that prepare training rows wherever they run: `gm_row_key(seed, columns...)`, and what
//! follows from a key, `gm_row_copy(key, number)`, `gm_row_shard(key, shards)`, `gm_row_unit(key)` and `gm_row_part(key)`.
//! Not meant for scripts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};

use super::row_key::{RowKeys, from_array, to_array};

/// All of them, to register with a session.
pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    [Of::Key, Of::Copy, Of::Shard, Of::Unit, Of::Part].map(function).to_vec()
}

/// The key of a row of these columns.
pub(super) fn row_key(seed: u64, columns: impl IntoIterator<Item = Expr>) -> Expr {
    function(Of::Key).call([lit(seed)].into_iter().chain(columns).collect())
}

/// The key of copy `number`, from 1, of a row with this key.
pub(super) fn row_copy(key: Expr, number: Expr) -> Expr {
    function(Of::Copy).call(vec![key, number])
}

/// Half of a key, as a number to compare it by.
pub(super) fn row_part(key: Expr) -> Expr {
    function(Of::Part).call(vec![key])
}

/// The shard that a key is in.
pub(super) fn row_shard(key: Expr, shards: usize) -> Expr {
    function(Of::Shard).call(vec![key, lit(shards as u64)])
}

/// A key as a number in [0, 1).
pub(super) fn row_unit(key: Expr) -> Expr {
    function(Of::Unit).call(vec![key])
}

fn function(of: Of) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(KeyFunction { of, signature: Signature::variadic_any(Volatility::Immutable) }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Of {
    Key,
    Copy,
    Shard,
    Unit,
    Part,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct KeyFunction {
    of: Of,
    signature: Signature,
}

impl KeyFunction {
    /// The whole number that an argument always is.
    fn constant(&self, args: &ScalarFunctionArgs, index: usize) -> Result<u64> {
        match args.args.get(index) {
            Some(ColumnarValue::Scalar(ScalarValue::UInt64(Some(number)))) => Ok(*number),
            _ => exec_err!("{}: argument {} is a whole number", self.name(), index + 1),
        }
    }

    fn key_of(&self, args: &ScalarFunctionArgs) -> Result<ArrayRef> {
        match args.args.first().map(|keys| keys.to_array(args.number_rows)).transpose()? {
            Some(keys) if *keys.data_type() == DataType::FixedSizeBinary(16) => Ok(keys),
            _ => exec_err!("{}: argument 1 is a row's key", self.name()),
        }
    }
}

impl ScalarUDFImpl for KeyFunction {
    fn name(&self) -> &str {
        match self.of {
            Of::Key => "gm_row_key",
            Of::Copy => "gm_row_copy",
            Of::Shard => "gm_row_shard",
            Of::Unit => "gm_row_unit",
            Of::Part => "gm_row_part",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match (self.of, arguments) {
            (Of::Key, [_, _, ..]) | (Of::Copy, [_, _]) => Ok(DataType::FixedSizeBinary(16)),
            (Of::Shard, [_, _]) => Ok(DataType::Int32),
            (Of::Part, [_]) => Ok(DataType::UInt64),
            (Of::Unit, [_]) => Ok(DataType::Float64),
            _ => plan_err!("{}: {} arguments", self.name(), arguments.len()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let array: ArrayRef = match self.of {
            Of::Key => {
                let seed = self.constant(&args, 0)?;
                let arrays = args.args[1..].iter().map(|value| value.to_array(args.number_rows));
                let arrays = arrays.collect::<Result<Vec<_>>>()?;
                let fields = arrays.iter().enumerate();
                let fields = fields.map(|(i, array)| Field::new(format!("c{i}"), array.data_type().clone(), true));
                let keys = RowKeys::new(&Schema::new(fields.collect::<Vec<_>>()), seed).map_err(external)?;
                to_array(&keys.of_columns(&arrays).map_err(external)?).map_err(external)?
            }
            Of::Copy => {
                let mut keys = from_array(self.key_of(&args)?.as_ref());
                let numbers = args.args[1].to_array(args.number_rows)?;
                let Some(numbers) = numbers.as_primitive_opt::<UInt64Type>() else {
                    return exec_err!("{}: argument 2 is a number among copies", self.name());
                };
                keys.iter_mut().zip(numbers.values()).for_each(|(key, number)| *key = key.of_copy(number - 1));
                to_array(&keys).map_err(external)?
            }
            Of::Part => {
                let keys = from_array(self.key_of(&args)?.as_ref());
                Arc::new(keys.iter().map(|key| Some(key.0 as u64)).collect::<UInt64Array>())
            }
            Of::Shard => {
                let shards = self.constant(&args, 1)? as usize;
                if !shards.is_power_of_two() {
                    return exec_err!("{}: {shards} shards, expected a power of two", self.name());
                }
                let keys = from_array(self.key_of(&args)?.as_ref());
                Arc::new(keys.iter().map(|key| Some(key.shard(shards) as i32)).collect::<Int32Array>())
            }
            Of::Unit => {
                let keys = from_array(self.key_of(&args)?.as_ref());
                Arc::new(keys.iter().map(|key| Some(key.unit())).collect::<Float64Array>())
            }
        };
        Ok(ColumnarValue::Array(array))
    }
}

fn external(error: engine::Error) -> DataFusionError {
    match error {
        engine::Error::Query(error) => error,
        other => DataFusionError::External(Box::new(other)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{Float64Type, Int32Type};
    use datafusion::prelude::{SessionContext, ident};

    use super::*;

    #[tokio::test]
    async fn a_plan_finds_the_keys_that_staging_finds() {
        let n = Int64Array::from_iter((0..500).map(|i| (i % 7 != 0).then_some(i)));
        let text = StringArray::from_iter_values((0..500).map(|i| format!("row {}", i % 50)));
        let batch = RecordBatch::try_from_iter([("n", Arc::new(n) as ArrayRef), ("t", Arc::new(text))]).unwrap();
        let expected = RowKeys::new(&batch.schema(), 9).unwrap().of(&batch).unwrap();
        let rows = SessionContext::new().read_batch(batch).unwrap();
        let keyed = rows.with_column("key", row_key(9, [ident("n"), ident("t")])).unwrap();
        let derived = [row_shard(ident("key"), 8).alias("shard"), row_unit(ident("key")).alias("unit")];
        let got = keyed.select([vec![ident("key")], derived.to_vec()].concat()).unwrap().collect().await.unwrap();
        assert_eq!(got.iter().flat_map(|batch| from_array(batch.column(0))).collect::<Vec<_>>(), expected);
        let shards: Vec<usize> = (got.iter())
            .flat_map(|batch| batch.column(1).as_primitive::<Int32Type>().values().to_vec())
            .map(|shard| shard as usize)
            .collect();
        assert_eq!(shards, expected.iter().map(|key| key.shard(8)).collect::<Vec<_>>());
        let units: Vec<f64> =
            got.iter().flat_map(|batch| batch.column(2).as_primitive::<Float64Type>().values().to_vec()).collect();
        assert_eq!(units, expected.iter().map(|key| key.unit()).collect::<Vec<_>>());
    }
}
