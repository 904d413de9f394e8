//! TARGET_ENCODING against scikit-learn's TargetEncoder (tests/golden/target.py).

use arrow::array::{AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type};
use serde_json::Value;

use super::*;

fn text(values: &Value) -> ArrayRef {
    Arc::new(values.as_array().unwrap().iter().map(Value::as_str).collect::<StringArray>())
}

/// The rows of the batch, each with its label, in `parts` partitions of the other order.
async fn train(golden: &Value, label: &ArrayRef, parts: usize) -> DataFrame {
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("s", text(&golden["train"]), true),
        ("label", Arc::clone(label), true),
    ])
    .unwrap();
    let rows = batch.num_rows().div_ceil(parts);
    let part = |i: usize| batch.slice(i * rows, rows.min(batch.num_rows() - i * rows));
    let partitions = (0..parts).rev().map(|i| vec![part(i)]).collect();
    context(3).read_table(Arc::new(MemTable::try_new(batch.schema(), partitions).unwrap())).unwrap()
}

#[tokio::test]
async fn categories_are_encoded_as_scikit_learn_does() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/golden/target.json")).unwrap();
    let test = RecordBatch::try_from_iter_with_nullable([("s", text(&golden["test"]), true)]).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let kind = case["kind"].as_str().unwrap();
        let labels = case["labels"].as_array().unwrap();
        let (label, task): (ArrayRef, _) = match kind {
            "continuous" => {
                (Arc::new(labels.iter().map(Value::as_f64).collect::<Float64Array>()), LabelTask::Regression)
            }
            _ => (Arc::new(labels.iter().map(Value::as_i64).collect::<Int64Array>()), LabelTask::Classification),
        };
        for (name, standardise) in [("encoded", false), ("standardised", true)] {
            let mut written = Vec::new();
            for parts in [1, 4] {
                let rows = train(&golden, &label, parts).await;
                let y = planning::column("label");
                let encoding = LabelEncoding::fit(&rows, "label", y.clone(), label.data_type(), task).await.unwrap();
                let options = AutomaticOptions {
                    categories: CategoryEncoding::Target,
                    standardise,
                    ..AutomaticOptions::default()
                };
                let spec = TransformSpec::automatic(&schema_of(&rows), &["label".into()], options).unwrap();
                let target = Some(Target { label: y, encoding: encoding.encoding });
                let frozen = spec.fit(&rows, &FitOptions { target, ..FitOptions::default() }).await.unwrap();
                written.push(frozen.to_json().unwrap());
                let read = FrozenTransform::from_json(&written[0]).unwrap();
                assert_eq!(read.apply(&test).unwrap(), frozen.apply(&test).unwrap());
                check(&format!("{kind}, {name}"), &frozen.apply_to_batch(&test).unwrap(), &case[name]);
            }
            assert_eq!(written[0], written[1], "{kind}: partitions change the encoding");
        }
    }
}

fn check(what: &str, seen: &RecordBatch, expected: &Value) {
    let column = seen.column(0);
    let numbers = match column.data_type() {
        DataType::Float64 => column.clone(),
        _ => column.as_list::<i32>().values().clone(),
    };
    let got = numbers.as_primitive::<Float64Type>().values().to_vec();
    let expected: Vec<f64> = expected
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|x| x.as_f64().unwrap())
        .collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (x, y)) in got.iter().zip(&expected).enumerate() {
        assert!((x - y).abs() <= 1e-12 * y.abs().max(1.0), "{what}, number {i}: {x}, expected {y}");
    }
}
