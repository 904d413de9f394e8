//! `length`, `char_length` and `character_length`: characters of a text, and elements of a list. The query engine's own
//! counts the characters of a list's text, `[1, 2, 3]`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::functions::unicode::character_length;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Length {
    of_text: Arc<ScalarUDF>,
    signature: Signature,
}

impl Default for Length {
    fn default() -> Self {
        Length { of_text: character_length(), signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &str {
        self.of_text.name()
    }

    fn aliases(&self) -> &[String] {
        self.of_text.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [given] = types else {
            return datafusion::common::plan_err!("length takes one value, got {}", types.len());
        };
        Ok(vec![match given {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => given.clone(),
            DataType::Dictionary(_, value) if value.is_string() => given.clone(),
            given if is_list(given) => given.clone(),
            _ => DataType::Utf8,
        }])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if is_list(&types[0]) { Ok(DataType::Int64) } else { self.of_text.return_type(types) }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if !is_list(&args.args[0].data_type()) {
            return self.of_text.invoke_with_args(args);
        }
        let lists = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(elements(&lists)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.of_text.documentation()
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) | DataType::Map(_, _)
    )
}

fn elements(lists: &ArrayRef) -> ArrayRef {
    let count = |row: usize| match lists.data_type() {
        DataType::List(_) => i64::from(lists.as_list::<i32>().value_length(row)),
        DataType::LargeList(_) => lists.as_list::<i64>().value_length(row),
        DataType::Map(_, _) => i64::from(lists.as_map().value_length(row)),
        _ => i64::from(lists.as_fixed_size_list().value_length()),
    };
    let counts = (0..lists.len()).map(|row| lists.is_valid(row).then(|| count(row)));
    Arc::new(counts.collect::<Int64Array>())
}
