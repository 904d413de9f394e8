//! Transforms of format 1 compute what they did: NULL, rare and unseen categories are one, elements of arrays are numbers,
//! and expressions mean what they meant.

use serde_json::{Value, json};

use super::*;

/// A transform as format 1 wrote it.
fn as_before(json: &str) -> String {
    let mut document: Value = serde_json::from_str(json).unwrap();
    document["format"] = json!(1);
    for step in document["steps"].as_array_mut().unwrap() {
        if let Some(function) = step.get_mut("function").and_then(Value::as_object_mut)
            && function.contains_key("values")
        {
            let has_rest = function.remove("null").is_some() | (function["other"] == json!(true));
            function.remove("others");
            function.insert("other".into(), json!(has_rest));
        }
    }
    for feature in document["features"].as_array_mut().unwrap() {
        if feature["inputs"] == json!("bag") {
            feature["inputs"] = json!("multi_hot");
        }
    }
    document.to_string()
}

#[tokio::test]
async fn transforms_of_format_1_give_what_they_gave() {
    let (frame, _) =
        rows(&values("s, a, x", "('b', ['u', 'v'], 7), ('a', ['v'], 2), (NULL, ['v'], 4), ('a', NULL, 9)")).await;
    let list =
        "ML.ONE_HOT_ENCODER(s, 'none', 10, 0) OVER () AS s, ML.MULTI_HOT_ENCODER(a, 10, 0) OVER () AS a, x / 2 AS h";
    let now = fitted(&frame, list, &[]).await.unwrap();
    let before = FrozenTransform::from_json(&as_before(&now.to_json().unwrap())).unwrap();
    let (_, seen) = rows(&values("s, a, x", "('b', ['w', 'u'], 7), ('zz', NULL, 5), (NULL, ['v'], 3)")).await;
    assert_eq!(show(&now.apply(&seen).unwrap(), now.layout()), ["3 1 0 | 1", "2 0 0 | -", "1 0 1 | 2"]);
    let block = before.apply(&seen).unwrap();
    // The numbers of the array come in the order of the features, before the one of the expression.
    assert_eq!(show(&block, before.layout()), ["1 0 3 | 1", "0 0 2 | 2", "0 1 1 | 2"]);
    assert_eq!(before.layout().names, ["a=u", "a=v", "h", "s=a", "s=b", "s=(other)"]);
    assert_eq!(now.layout().names, ["h", "a=u", "a=v", "s=a", "s=b", "s=(null)"]);
    // Written again it is still of format 1.
    let again = FrozenTransform::from_json(&before.to_json().unwrap()).unwrap();
    assert_eq!(again.apply(&seen).unwrap(), block);
}
