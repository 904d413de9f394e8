//! What of a row is hashed: its values, in one type for each kind. A number has the same bytes in columns of any width, an
//! instant in any unit, so that the keys do not tell a CSV file from a Parquet file of the same rows. Nothing is lost: rows
//! that differ in their own types differ here.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit, UInt64Type};
use engine::Result;

use super::row_key::arrow_error;

/// How a column is made canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// As it is.
    Same,
    /// In a wider type, which has a place for each of its values.
    As(DataType),
    /// The bits of an unsigned number as those of a signed one: numbers that both types have look alike.
    Bits,
    /// So many units a second since 1970 (days are none: 0): whole seconds, and nanoseconds beyond them.
    Instant(i64),
}

impl Content {
    /// That of columns of a type.
    pub(super) fn of(kind: &DataType) -> Self {
        match kind {
            DataType::UInt64 => Content::Bits,
            DataType::Date32 => Content::Instant(0),
            DataType::Date64 => Content::Instant(1_000),
            DataType::Timestamp(unit, _) | DataType::Duration(unit) => Content::Instant(units_a_second(*unit)),
            other => match wide(other) {
                same if same == *other => Content::Same,
                wider => Content::As(wider),
            },
        }
    }

    /// The types of the columns that it becomes.
    pub(super) fn types(&self, kind: &DataType) -> Vec<DataType> {
        match self {
            Content::Same => vec![kind.clone()],
            Content::As(wider) => vec![wider.clone()],
            Content::Bits => vec![DataType::Int64],
            Content::Instant(_) => vec![DataType::Int64, DataType::Int64],
        }
    }

    /// Adds what a column becomes to `columns`.
    pub(super) fn add(&self, column: &ArrayRef, columns: &mut Vec<ArrayRef>) -> Result<()> {
        match self {
            Content::Same => columns.push(Arc::clone(column)),
            Content::As(wider) => columns.push(cast(column, wider).map_err(arrow_error)?),
            Content::Bits => {
                let bits: Int64Array = column.as_primitive::<UInt64Type>().unary(|bits| bits as i64);
                columns.push(Arc::new(bits));
            }
            Content::Instant(units) => {
                let counted = if *units == 0 { &cast(column, &DataType::Int32).map_err(arrow_error)? } else { column };
                let counted = cast(counted, &DataType::Int64).map_err(arrow_error)?;
                let counted = counted.as_primitive::<Int64Type>();
                let seconds: Int64Array = counted.unary(|time| match units {
                    0 => time * 86_400,
                    units => time.div_euclid(*units),
                });
                let beyond: Int64Array = counted.unary(|time| match units {
                    0 => 0,
                    units => time.rem_euclid(*units) * (1_000_000_000 / units),
                });
                columns.push(Arc::new(seconds));
                columns.push(Arc::new(beyond));
            }
        }
        Ok(())
    }
}

fn units_a_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The widest type of the same kind of values.
fn wide(kind: &DataType) -> DataType {
    let within = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(wide(field.data_type())));
    match kind {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            DataType::Int64
        }
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Nanosecond),
        DataType::Dictionary(_, values) => wide(values),
        DataType::List(field) => DataType::List(within(field)),
        DataType::LargeList(field) => DataType::LargeList(within(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(within(field), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(within).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, RecordBatch};

    use super::*;
    use crate::materialize::row_key::{RowKey, RowKeys};

    fn keys(column: &ArrayRef) -> Vec<RowKey> {
        let batch = RecordBatch::try_from_iter_with_nullable([("c", Arc::clone(column), true)]).unwrap();
        RowKeys::new(&batch.schema(), 7).unwrap().of(&batch).unwrap()
    }

    /// Each list of types has values of its own; in all of the types they have the same keys.
    #[test]
    fn a_value_has_one_key_in_all_types_that_have_it() {
        let numbers = [Some(1), None, Some(0), Some(100), Some(86_400)];
        let list = |item: DataType| DataType::List(Arc::new(Field::new("item", item, true)));
        let timestamp = |unit, zone: Option<&str>| DataType::Timestamp(unit, zone.map(Into::into));
        use DataType::{Date32, Date64, Float32, Float64, Int16, Int32, Int64, UInt8, UInt32, UInt64};
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        for (values, types) in [
            (4, vec![Int64, DataType::Int8, UInt8, Int16, Int32, UInt32, UInt64]),
            (5, vec![Float64, Float32]),
            (5, vec![DataType::Decimal128(9, 2), DataType::Decimal32(9, 2), DataType::Decimal64(9, 2)]),
            (
                5,
                vec![
                    timestamp(Second, None),
                    timestamp(Millisecond, None),
                    timestamp(Microsecond, Some("+00:00")),
                    timestamp(Nanosecond, None),
                ],
            ),
            (4, vec![Date32, Date64, timestamp(Second, None)]),
            (4, vec![list(Int64), list(Int32), list(UInt8)]),
        ] {
            let first: ArrayRef = match &types[0] {
                Date32 => Arc::new(arrow::array::Date32Array::from(vec![Some(0), None, Some(1), Some(-400)])),
                DataType::List(_) => {
                    let items = numbers[..values].iter().map(|n| n.map(|n| vec![Some(n), None, Some(0)]));
                    Arc::new(arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>(items))
                }
                kind => cast(&Int64Array::from(numbers[..values].to_vec()), kind).unwrap(),
            };
            let expected = keys(&first);
            for kind in &types[1..] {
                let same = cast(&first, kind).unwrap();
                assert_eq!(same.null_count(), first.null_count(), "{kind}: values got lost in the test");
                assert_eq!(keys(&same), expected, "{kind}");
            }
        }
    }

    #[test]
    fn what_differs_differs() {
        let text = ["1969-12-31T23:59:59.999999999", "1970-01-01", "9999-12-31T00:00:00", "2024-02-29T12:00:00.5"];
        let seconds =
            cast(&arrow::array::StringArray::from(text.to_vec()), &DataType::Timestamp(TimeUnit::Second, None));
        let mut all = keys(&seconds.unwrap());
        let ticks: ArrayRef = Arc::new(arrow::array::TimestampNanosecondArray::from(vec![-1, 1, i64::MAX, i64::MIN]));
        all.extend(keys(&ticks));
        let big: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![u64::MAX, 1 << 63]));
        all.extend(keys(&big));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
