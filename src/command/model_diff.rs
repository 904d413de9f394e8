//! `gristmill models diff A B`: what differs between two versions, or two models: options, inputs, metrics, weights.

use std::collections::{BTreeMap, BTreeSet};

use engine::{Result, Session};
use ml::ModelName;
use ml::registry::{self, ModelDetails};
use serde_json::Value;

use super::Console;

/// Name of a property -> its value, in the order in which they are shown.
type Properties = Vec<(String, Value)>;

pub(super) fn diff(console: &Console, session: &Session, first: &str, second: &str) -> Result<()> {
    let read = |model: &str| -> Result<(String, Properties)> {
        let name = ModelName::parse(model)?;
        let details = console.wait(registry::show(session, &name))?;
        let mut properties = properties(&details);
        for (input, weight) in console.wait(registry::weights(session, &name))? {
            properties.push((format!("weights.{input}"), Value::from(weight)));
        }
        Ok((format!("{}@{}", details.summary.name, details.summary.version), properties))
    };
    let ((left_name, left), (right_name, right)) = (read(first)?, read(second)?);
    let rows = differences(&left, &right);
    if rows.is_empty() {
        console.remark(&format!("{left_name} and {right_name} do not differ"));
    }
    let printer = console.printer()?;
    let right_name = if right_name == left_name { format!("{right_name} (2)") } else { right_name };
    console.wait(printer.print_strings(&["property", &left_name, &right_name, "change"], &rows))?;
    console.commit(printer)
}

/// What can differ in a way that says something.
fn properties(details: &ModelDetails) -> Properties {
    let ModelDetails { summary, record, metrics, files } = details;
    let mut properties = vec![("type".to_string(), summary.model_type.into())];
    flatten("metrics", metrics.get("metrics").unwrap_or(&Value::Null), &mut properties);
    flatten("metrics.rows", metrics.get("rows").unwrap_or(&Value::Null), &mut properties);
    flatten("rows", record.get("rows").unwrap_or(&Value::Null), &mut properties);
    flatten("options", record.get("spec").unwrap_or(&Value::Null), &mut properties);
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or("").to_string();
    for input in record.get("inputs").and_then(Value::as_array).into_iter().flatten() {
        properties.push((format!("inputs.{}", text(input, "name")), text(input, "data_type").into()));
    }
    let lineage = record.get("lineage").unwrap_or(&Value::Null);
    for file in lineage.get("inputs").and_then(Value::as_array).into_iter().flatten() {
        let sha256 = text(file, "sha256");
        let told = format!(
            "{} bytes, sha256 {}",
            file.get("bytes").and_then(Value::as_u64).unwrap_or(0),
            sha256.get(..16).unwrap_or(&sha256)
        );
        properties.push((format!("files.{}", text(file, "location")), told.into()));
    }
    flatten("parameters", lineage.get("parameters").unwrap_or(&Value::Null), &mut properties);
    flatten("versions", lineage.get("versions").unwrap_or(&Value::Null), &mut properties);
    properties.push(("kernel".to_string(), record.get("kernel_fingerprint").cloned().unwrap_or(Value::Null)));
    properties.push(("duration_ms".to_string(), summary.duration_ms.into()));
    if let Some((_, _, sha256)) = files.iter().find(|(name, _, _)| name == "model.safetensors") {
        properties.push(("weights".to_string(), format!("sha256 {}", sha256.get(..16).unwrap_or(sha256)).into()));
    }
    properties.retain(|(name, value)| name != "options.name" && !value.is_null());
    properties
}

fn flatten(prefix: &str, value: &Value, properties: &mut Properties) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| flatten(&format!("{prefix}.{name}"), value, properties));
        }
        other => properties.push((prefix.to_string(), other.clone())),
    }
}

/// Rows of property, both values, and how a number has changed.
fn differences(left: &[(String, Value)], right: &[(String, Value)]) -> Vec<Vec<Option<String>>> {
    let by_name: BTreeMap<&str, &Value> = right.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let known: BTreeSet<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
    let mut rows = Vec::new();
    for (name, value) in left {
        let other = by_name.get(name.as_str()).copied();
        if other == Some(value) {
            continue;
        }
        let change = other.and_then(Value::as_f64).zip(value.as_f64()).map(|(new, old)| format!("{:+}", new - old));
        rows.push(vec![Some(name.clone()), Some(shown(value)), other.map(shown), change]);
    }
    for (name, value) in right.iter().filter(|(name, _)| !known.contains(name.as_str())) {
        rows.push(vec![Some(name.clone()), None, Some(shown(value)), None]);
    }
    rows
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_equal_is_left_out() {
        let properties = |value: Value| {
            let mut properties = Vec::new();
            flatten("m", &value, &mut properties);
            properties
        };
        let left = properties(json!({"a": 1, "b": {"c": "x\n  y"}, "only": true}));
        let right = properties(json!({"a": 1, "b": {"c": "z"}, "n": 2.5}));
        let row = |cells: [Option<&str>; 4]| cells.map(|cell| cell.map(str::to_string)).to_vec();
        assert_eq!(
            differences(&left, &right),
            [
                row([Some("m.b.c"), Some("x y"), Some("z"), None]),
                row([Some("m.only"), Some("true"), None, None]),
                row([Some("m.n"), None, Some("2.5"), None]),
            ]
        );
        let change = differences(&properties(json!({"auc": 0.5})), &properties(json!({"auc": 0.75})));
        assert_eq!(change, [row([Some("m.auc"), Some("0.5"), Some("0.75"), Some("+0.25")])]);
    }
}
