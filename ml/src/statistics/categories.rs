//! `gm_top_categories(x, k)`: the most frequent values of a column, as text, with their counts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Builder, ListArray, StringBuilder, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{binary_state, constant, states, unreadable_state};
use crate::tally::{read_varint, write_varint};

const NAME: &str = "gm_top_categories";

/// `gm_top_categories(x, k)` gives `ARRAY<STRUCT<value VARCHAR, count BIGINT>>`: the `k` most frequent values (all of
/// them when `k` is NULL), ties by value ascending. Values are compared and given as text; NULL is left out.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TopCategories {
    signature: Signature,
}

impl Default for TopCategories {
    fn default() -> Self {
        TopCategories { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![Field::new("value", DataType::Utf8, false), Field::new("count", DataType::Int64, false)])
});

static ELEMENT: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(Field::new_list_field(DataType::Struct(FIELDS.clone()), true)));

impl AggregateUDFImpl for TopCategories {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [x, _] = arguments else {
            return Err(DataFusionError::Plan(format!(
                "{NAME} takes a column and a number of categories, got {} arguments",
                arguments.len()
            )));
        };
        let x = match x {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => x.clone(),
            nested if nested.is_nested() => {
                return Err(DataFusionError::Plan(format!("{NAME} takes plain values, got a column of type {nested}")));
            }
            _ => DataType::Utf8,
        };
        Ok(vec![x, DataType::Int64])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(ELEMENT.clone()))
    }

    fn is_nullable(&self) -> bool {
        true
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        binary_state(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let k = match constant(&args, 1, NAME, "the number of categories")?.cast_to(&DataType::Int64)? {
            ScalarValue::Int64(Some(k)) if k < 0 => {
                return Err(DataFusionError::Plan(format!("{NAME}: {k} categories, expected a number from 0 on")));
            }
            ScalarValue::Int64(Some(k)) => k as usize,
            _ => usize::MAX,
        };
        Ok(Box::new(CategoriesAccumulator { k, ..Default::default() }))
    }
}

/// Hashes a string with xxh3: a good hash of few nanoseconds; the map is sorted before anyone sees it, so its order
/// does not matter.
#[derive(Default)]
struct TextHasher(u64);

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    fn write_u8(&mut self, byte: u8) {
        self.0 ^= u64::from(byte);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Default)]
struct CategoriesAccumulator {
    k: usize,
    counts: HashMap<Box<str>, u64, BuildHasherDefault<TextHasher>>,
    text_bytes: usize,
}

impl CategoriesAccumulator {
    fn add(&mut self, value: &str, count: u64) {
        match self.counts.get_mut(value) {
            Some(counted) => *counted += count,
            None => {
                self.text_bytes += value.len();
                self.counts.insert(value.into(), count);
            }
        }
    }
}

impl Accumulator for CategoriesAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let column = &values[0];
        match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().iter().flatten().for_each(|v| self.add(v, 1)),
            DataType::LargeUtf8 => column.as_string::<i64>().iter().flatten().for_each(|v| self.add(v, 1)),
            DataType::Utf8View => column.as_string_view().iter().flatten().for_each(|v| self.add(v, 1)),
            _ => cast(column, &DataType::Utf8)?.as_string::<i32>().iter().flatten().for_each(|v| self.add(v, 1)),
        }
        Ok(())
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for mut state in states(&columns[0]) {
            while !state.is_empty() {
                let (value, count) = read_entry(&mut state).ok_or_else(|| unreadable_state(NAME))?;
                self.add(value, count);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut entries: Vec<_> = self.counts.iter().collect();
        entries.sort_unstable();
        let mut bytes = Vec::with_capacity(self.text_bytes + 4 * entries.len());
        for (value, count) in entries {
            write_varint(&mut bytes, value.len() as u64);
            bytes.extend_from_slice(value.as_bytes());
            write_varint(&mut bytes, *count);
        }
        Ok(vec![ScalarValue::LargeBinary(Some(bytes))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut entries: Vec<(&str, u64)> = self.counts.iter().map(|(value, count)| (&**value, *count)).collect();
        entries.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        entries.truncate(self.k);
        let (mut values, mut counts) = (StringBuilder::new(), Int64Builder::new());
        for (value, count) in &entries {
            values.append_value(value);
            counts.append_value(*count as i64);
        }
        let rows = StructArray::new(FIELDS.clone(), vec![Arc::new(values.finish()), Arc::new(counts.finish())], None);
        let list = ListArray::new(ELEMENT.clone(), OffsetBuffer::from_lengths([entries.len()]), Arc::new(rows), None);
        Ok(ScalarValue::List(Arc::new(list)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.text_bytes + self.counts.capacity() * (size_of::<(Box<str>, u64)>() + 1)
    }
}

fn read_entry<'a>(state: &mut &'a [u8]) -> Option<(&'a str, u64)> {
    let length = usize::try_from(read_varint(state)?).ok()?;
    let (value, rest) = state.split_at_checked(length)?;
    *state = rest;
    Some((std::str::from_utf8(value).ok()?, read_varint(state)?))
}
