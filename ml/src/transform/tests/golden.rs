//! The same rows transformed by scikit-learn (tests/golden/transform.py).

use arrow::array::{AsArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use serde_json::Value;

use super::*;

fn batch(rows: &Value) -> RecordBatch {
    let numbers = |name: &str| -> ArrayRef {
        Arc::new(rows[name].as_array().unwrap().iter().map(Value::as_f64).collect::<Float64Array>())
    };
    let text: ArrayRef = Arc::new(rows["s"].as_array().unwrap().iter().map(Value::as_str).collect::<StringArray>());
    let fields = ["x", "u", "v"].map(|name| Field::new(name, DataType::Float64, true));
    let fields: Vec<Field> = fields.into_iter().chain([Field::new("s", DataType::Utf8, true)]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![numbers("x"), numbers("u"), numbers("v"), text]).unwrap()
}

#[tokio::test]
async fn equal_to_scikit_learn_where_the_definitions_are_equal() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/golden/transform.json")).unwrap();
    let train = context(3).read_batch(batch(&golden["train"])).unwrap();
    let test = batch(&golden["test"]);
    for case in golden["cases"].as_array().unwrap() {
        let transform = case["transform"].as_str().unwrap();
        let frozen = fitted(&train, transform, &[]).await.unwrap_or_else(|e| panic!("{transform}: {}", message(&e)));
        let seen = frozen.apply_to_batch(&test).unwrap();
        if let Some(expected) = case["indices"].as_array() {
            let block = frozen.apply(&test).unwrap();
            let got: Vec<i64> =
                block.indices.iter().map(|i| if *i == NO_CATEGORY { -1 } else { i64::from(*i) }).collect();
            assert_eq!(got, expected.iter().map(|i| i.as_i64().unwrap()).collect::<Vec<_>>(), "{transform}");
            let sparse = seen.column(0).as_list::<i32>();
            let shown = sparse.values().as_struct().column(0).as_primitive::<Int64Type>().values().to_vec();
            assert_eq!(shown, got.iter().copied().filter(|i| *i >= 0).collect::<Vec<_>>(), "{transform}");
        }
        let Some(expected) = case["numbers"].as_array() else { continue };
        let got: Vec<Vec<f64>> = match seen.column(0).data_type() {
            DataType::Float64 => {
                seen.columns().iter().map(|c| c.as_primitive::<Float64Type>().values().to_vec()).collect()
            }
            _ => {
                let list = seen.column(0).as_list::<i32>();
                let values = list.values().as_primitive::<Float64Type>().values();
                let width = expected.len();
                (0..width).map(|i| values.iter().skip(i).step_by(width).copied().collect()).collect()
            }
        };
        assert_eq!(got.len(), expected.len(), "{transform}");
        for (got, expected) in got.iter().zip(expected) {
            let expected = expected.as_array().unwrap();
            assert_eq!(got.len(), expected.len(), "{transform}");
            for (row, (x, y)) in got.iter().zip(expected).enumerate() {
                let y = y.as_f64().unwrap();
                assert!((x - y).abs() <= 1e-12 * y.abs().max(1.0), "{transform}, row {row}: {x}, expected {y}");
            }
        }
    }
}
