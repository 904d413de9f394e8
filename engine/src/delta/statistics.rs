//! What a commit says of each file: rows, and the least and greatest values of columns, by which readers leave files out.

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value, json};

/// Bounds that are longer would make the log heavy.
const TEXT_MAX: usize = 64;

/// The `stats` of an add action, from what the file's footer says of the table's columns.
pub(super) fn of_file(rows: u64, statistics: &Statistics, columns: &SchemaRef) -> String {
    let (mut least, mut greatest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (field, column) in columns.fields().iter().zip(&statistics.column_statistics) {
        if let Precision::Exact(count) = column.null_count {
            nulls.insert(field.name().clone(), json!(count));
        }
        if let Some((low, high)) = bounds(column) {
            least.insert(field.name().clone(), low);
            greatest.insert(field.name().clone(), high);
        }
    }
    json!({ "numRecords": rows, "minValues": least, "maxValues": greatest, "nullCount": nulls }).to_string()
}

fn bounds(column: &ColumnStatistics) -> Option<(Value, Value)> {
    Some((bound(column.min_value.get_value()?)?, bound(column.max_value.get_value()?)?))
}

/// As the log spells it; `None` for types whose bounds would not survive the spelling (decimals as JSON numbers) or do not
/// bound (NaN is greater than every bound).
fn bound(value: &ScalarValue) -> Option<Value> {
    if value.is_null() {
        return None;
    }
    match value.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            match value.cast_to(&DataType::Int64).ok()? {
                ScalarValue::Int64(Some(number)) => Some(json!(number)),
                _ => None,
            }
        }
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Date32 => {
            match value.cast_to(&DataType::Utf8).ok()? {
                ScalarValue::Utf8(Some(text)) if text.len() <= TEXT_MAX => Some(json!(text)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn footers_become_json() {
        let columns = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("day", DataType::Date32, true),
            Field::new("x", DataType::Float64, true),
            Field::new("long", DataType::Utf8, true),
        ]));
        let column = |low: ScalarValue, high: ScalarValue, nulls| ColumnStatistics {
            null_count: Precision::Exact(nulls),
            min_value: Precision::Exact(low),
            max_value: Precision::Exact(high),
            ..ColumnStatistics::new_unknown()
        };
        let text = |length| ScalarValue::Utf8(Some("x".repeat(length)));
        let statistics = Statistics {
            num_rows: Precision::Exact(5),
            total_byte_size: Precision::Absent,
            column_statistics: vec![
                column(ScalarValue::Int32(Some(-1)), ScalarValue::Int32(Some(7)), 2),
                column(ScalarValue::Date32(Some(0)), ScalarValue::Date32(Some(15706)), 0),
                column(ScalarValue::Float64(Some(0.5)), ScalarValue::Float64(Some(1.5)), 1),
                column(text(1), text(100), 0),
            ],
        };
        let expected = json!({
            "numRecords": 5,
            "minValues": {"n": -1, "day": "1970-01-01"},
            "maxValues": {"n": 7, "day": "2013-01-01"},
            "nullCount": {"n": 2, "day": 0, "x": 1, "long": 0},
        });
        let got: Value = serde_json::from_str(&of_file(5, &statistics, &columns)).unwrap();
        assert_eq!(got, expected);
    }
}
