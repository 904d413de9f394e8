//! Which files of a table may hold rows that pass a filter, by what the log says of each of them: its partition, and the
//! bounds and counts of its columns. A bound that is missing, or whose spelling in the log does not bound (floats because
//! of NaN, decimals as JSON numbers), says nothing, and the file is kept.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::Column;
use datafusion::common::pruning::PruningStatistics;
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value};

/// Bounds of timestamps are cut to milliseconds, so the greatest value may lie above by less than this.
const MICROSECONDS_CUT: i64 = 1000;

/// What the log says of one file.
pub(super) struct FileFacts {
    /// The values of the table's partition columns, in their order.
    pub(super) partition: Vec<ScalarValue>,
    /// Rows, where known.
    pub(super) rows: Option<u64>,
    /// The `stats` of its add action, parsed.
    pub(super) stats: Value,
}

impl FileFacts {
    fn of(&self, what: &str, column: &str) -> Option<&Value> {
        self.stats.get(what).and_then(Value::as_object).and_then(|columns: &Map<String, Value>| columns.get(column))
    }
}

/// The files of a snapshot.
pub(super) struct Files<'a> {
    pub(super) columns: &'a SchemaRef,
    pub(super) partition_by: &'a [String],
    pub(super) facts: Vec<FileFacts>,
}

impl Files<'_> {
    /// One value for each file, NULL where nothing is known; nothing when that is so of all.
    fn bounds(&self, column: &Column, what: &str) -> Option<ArrayRef> {
        let kind = self.columns.field_with_name(&column.name).ok()?.data_type();
        let place = self.partition_by.iter().position(|name| *name == column.name);
        let unknown = ScalarValue::try_from(kind).ok()?;
        let mut known = false;
        let values = self.facts.iter().map(|file| {
            let value = match place {
                Some(place) => Some(file.partition[place].clone()),
                None => file.of(what, &column.name).and_then(|value| bound(value, kind, what == GREATEST)),
            };
            known |= value.is_some();
            value.unwrap_or_else(|| unknown.clone())
        });
        let values: Vec<ScalarValue> = values.collect();
        if known { ScalarValue::iter_to_array(values).ok() } else { None }
    }
}

const LEAST: &str = "minValues";
const GREATEST: &str = "maxValues";

/// A bound as the log spells it.
fn bound(value: &Value, kind: &DataType, is_greatest: bool) -> Option<ScalarValue> {
    match kind {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            ScalarValue::Int64(Some(value.as_i64()?)).cast_to(kind).ok()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Date32 => {
            ScalarValue::try_from_string(value.as_str()?.to_string(), kind).ok()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            match ScalarValue::try_from_string(value.as_str()?.to_string(), kind).ok()? {
                ScalarValue::TimestampMicrosecond(Some(at), zone) => {
                    let above = if is_greatest { MICROSECONDS_CUT } else { 0 };
                    Some(ScalarValue::TimestampMicrosecond(Some(at.saturating_add(above)), zone))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

impl PruningStatistics for Files<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, LEAST)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, GREATEST)
    }

    fn num_containers(&self) -> usize {
        self.facts.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let place = self.partition_by.iter().position(|name| *name == column.name);
        let count = |file: &FileFacts| match place {
            Some(place) if file.partition[place].is_null() => file.rows,
            Some(_) => Some(0),
            None => file.of("nullCount", &column.name).and_then(Value::as_u64),
        };
        Some(Arc::new(self.facts.iter().map(count).collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.facts.iter().map(|file| file.rows).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
    use datafusion::prelude::SessionContext;
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_left_out_by_partition_and_bounds_and_kept_where_nothing_is_known() {
        let columns: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("day", DataType::Date32, true),
            Field::new("n", DataType::Int32, true),
            Field::new("name", DataType::Utf8, true),
            Field::new("x", DataType::Float64, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        ]));
        let file = |day: Option<i32>, stats: Value| FileFacts {
            partition: vec![ScalarValue::Date32(day)],
            rows: stats.get("numRecords").and_then(Value::as_u64),
            stats,
        };
        let facts = || {
            vec![
                file(
                    Some(15_000),
                    json!({"numRecords": 3, "minValues": {"n": 1, "name": "a", "x": 0.5, "at": "2013-01-01T05:00:00.000Z"},
                           "maxValues": {"n": 5, "name": "f", "x": 1.5, "at": "2013-01-01T06:00:00.000Z"},
                           "nullCount": {"n": 0}}),
                ),
                file(
                    Some(15_001),
                    json!({"numRecords": 2, "minValues": {"n": 6}, "maxValues": {"n": 9}, "nullCount": {"n": 0, "name": 2}}),
                ),
                file(None, json!({"numRecords": 4})),
            ]
        };
        let context = SessionContext::new();
        let schema = DFSchema::try_from(Arc::clone(&columns)).unwrap();
        for (filter, expected) in [
            ("n > 5", [false, true, true]),
            ("n = 9", [false, true, true]),
            ("name = 'g'", [false, false, true]),
            ("name IS NOT NULL", [true, false, true]),
            ("day = DATE '2011-01-26'", [true, false, false]),
            ("day > DATE '2011-01-26'", [false, true, false]),
            ("day IS NULL", [false, false, true]),
            // A bound that is cut does not exclude what was cut off.
            ("at > TIMESTAMP '2013-01-01T06:00:00.0005Z'", [true, true, true]),
            ("at > TIMESTAMP '2013-01-01T06:00:00.001Z'", [false, true, true]),
            ("x > 2", [true, true, true]),
        ] {
            let expression = context.parse_sql_expr(filter, &schema).unwrap();
            let physical = context.create_physical_expr(expression, &schema).unwrap();
            let pruning =
                PruningPredicateBuilder::new().with_file_schema(Arc::clone(&columns)).try_build(physical).unwrap();
            let files = Files { columns: &columns, partition_by: &["day".to_string()], facts: facts() };
            assert_eq!(pruning.prune(&files).unwrap(), expected, "{filter}");
        }
    }
}
