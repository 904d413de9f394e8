//! `gristmill models`: what the warehouse holds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use engine::{Error, Result, RunSettings, Session};
use ml::registry::{self, ModelDetails, ModelSummary};
use ml::{Headline, ModelName, Reproduction};
use serde_json::{Value, json};

use super::{Console, model_diff};
use crate::args::{CommonArgs, Format, ModelsAction, OutputArgs};
use crate::diagnostic::Exit;
use crate::format::{count, plural, size};
use crate::printer::print_text;
use crate::progress::Voice;

pub(super) fn models(common: &CommonArgs, action: ModelsAction) -> Result<Exit> {
    let nothing = OutputArgs::default();
    let output = match &action {
        ModelsAction::Ls { output } | ModelsAction::Show { output, .. } | ModelsAction::Diff { output, .. } => output,
        ModelsAction::Rm { .. } | ModelsAction::Reproduce { .. } => &nothing,
    };
    let console = Console::new(common, output, Voice::Outcomes)?;
    let session = console.session()?;
    let done = match &action {
        ModelsAction::Ls { .. } => list(&console, &session),
        ModelsAction::Show { model, .. } => show(&console, &session, model),
        ModelsAction::Rm { models, force } => {
            models.iter().try_for_each(|model| remove(&console, &session, model, *force))
        }
        ModelsAction::Diff { first, second, .. } => model_diff::diff(&console, &session, first, second),
        ModelsAction::Reproduce { model } => reproduce(&console, &session, model),
    };
    Ok(match done {
        Ok(()) => Exit::Ok,
        Err(error) => console.fail(&error),
    })
}

fn list(console: &Console, session: &Session) -> Result<()> {
    let models = console.wait(registry::list(session))?;
    if models.is_empty() {
        console.remark(&format!("no models in {}; CREATE MODEL makes one", session.warehouse()));
    }
    let text = |cell: fn(&ModelSummary) -> String| -> ArrayRef {
        Arc::new(models.iter().map(|model| Some(cell(model))).collect::<StringArray>())
    };
    let number = |cell: fn(&ModelSummary) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(models.iter().map(cell)))
    };
    let columns = [
        ("model", text(|model| model.name.clone())),
        ("version", number(|model| model.version)),
        ("aliases", text(|model| model.aliases.join(", "))),
        ("type", text(|model| model.model_type.to_string())),
        ("label", text(|model| model.label.clone())),
        ("metric", text(|model| model.headline.as_ref().map(headline).unwrap_or_default())),
        ("rows_trained", number(|model| model.rows.train as u64)),
        ("seconds", Arc::new(Float64Array::from_iter_values(models.iter().map(|m| m.duration_ms as f64 / 1000.0)))),
        ("bytes", number(|model| model.bytes)),
        ("created", text(|model| model.created.clone())),
    ];
    let printer = console.printer()?;
    console.wait(printer.print_columns(columns.into_iter()))?;
    console.commit(printer)
}

/// `roc_auc 0.9123`
fn headline(headline: &Headline) -> String {
    format!("{} {:.4}", headline.name, headline.value)
}

fn show(console: &Console, session: &Session, model: &str) -> Result<()> {
    let details = console.wait(registry::show(session, &ModelName::parse(model)?))?;
    let printer = console.printer()?;
    if printer.format() == Format::Json && !printer.is_file() {
        let text = serde_json::to_string_pretty(&as_json(&details));
        return print_text(&format!("{}\n", text.map_err(|error| Error::invalid(error.to_string()))?));
    }
    console.wait(printer.print_strings(&["property", "value"], &properties(&details)))?;
    console.commit(printer)
}

fn as_json(details: &ModelDetails) -> Value {
    let ModelDetails { summary, record, metrics, files } = details;
    let files: Vec<Value> =
        files.iter().map(|(name, bytes, sha256)| json!({"name": name, "bytes": bytes, "sha256": sha256})).collect();
    json!({
        "name": summary.name, "version": summary.version, "aliases": summary.aliases, "location": summary.location,
        "metrics": metrics, "model": record, "files": files,
    })
}

/// What is worth reading, from the top: what it is, how good it is, how it was made, what it consists of.
fn properties(details: &ModelDetails) -> Vec<Vec<Option<String>>> {
    let ModelDetails { summary, record, metrics, files } = details;
    let rows = &summary.rows;
    let mut properties: Vec<(String, String)> = vec![
        ("model".to_string(), format!("{}@{}", summary.name, summary.version)),
        ("aliases".to_string(), summary.aliases.join(", ")),
        ("type".to_string(), summary.model_type.to_string()),
        ("label".to_string(), summary.label.clone()),
        ("description".to_string(), summary.description.clone().unwrap_or_default()),
        ("created".to_string(), summary.created.clone()),
        ("location".to_string(), summary.location.clone()),
        (
            "rows".to_string(),
            format!(
                "{} trained, {} evaluated, {} tested",
                count(rows.train as u64),
                count(rows.eval as u64),
                count(rows.test as u64)
            ),
        ),
    ];
    // What was measured stands beside of which rows it was measured on, without a level of its own.
    for (name, value) in metrics.as_object().into_iter().flatten() {
        let prefix = if name == "metrics" { name.clone() } else { format!("metrics.{name}") };
        flatten(&prefix, value, &mut properties);
    }
    // The label's and the inputs' statistics are in transform.json and ML.FEATURE_INFO.
    for (name, value) in
        record.as_object().into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "format" | "rows"))
    {
        flatten(name, value, &mut properties);
    }
    for (name, bytes, sha256) in files {
        properties.push((
            format!("files.{name}"),
            format!("{}, sha256 {}", size(*bytes), sha256.get(..16).unwrap_or(sha256)),
        ));
    }
    properties.retain(|(_, value)| !value.is_empty());
    properties.into_iter().map(|(name, value)| vec![Some(name), Some(value)]).collect()
}

fn flatten(prefix: &str, value: &Value, properties: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| flatten(&format!("{prefix}.{name}"), value, properties))
        }
        // Long texts (the script) are for --format json.
        Value::String(text) if text.lines().count() > 1 => {
            let lines = plural(text.lines().count() as u64, "line");
            properties.push((prefix.to_string(), format!("({lines}; see --format json)")));
        }
        Value::String(text) => properties.push((prefix.to_string(), text.clone())),
        Value::Array(items) if items.len() > 8 || items.iter().any(|item| item.is_object() || item.is_array()) => {
            properties.push((prefix.to_string(), format!("({})", plural(items.len() as u64, "item"))));
        }
        other => properties.push((prefix.to_string(), other.to_string())),
    }
}

fn reproduce(console: &Console, session: &Session, model: &str) -> Result<()> {
    let name = ModelName::parse(model)?;
    let settings =
        RunSettings { events: console.display.sink(), cancel: console.interrupt.token(), ..RunSettings::default() };
    let reproduction = console.wait(ml::reproduce(session, &name, &settings))?;
    console.display.close();
    match reproduction {
        Reproduction::Same { sha256 } => print_text(&format!("{model}: the same bytes again (sha256 {sha256})\n")),
        Reproduction::Different { expected, got, because } => {
            let reasons = because.iter().map(|reason| format!("\n{reason}")).collect::<String>();
            let error =
                Error::invalid(format!("{model}: other bytes came out: sha256 {got} instead of {expected}{reasons}"));
            Err(if because.is_empty() {
                error.with_hint("nothing is known to be different: please report it")
            } else {
                error
            })
        }
        Reproduction::InputsChanged { changes } => Err(Error::invalid(format!(
            "{model}: cannot be reproduced, its inputs are not what they were\n{}",
            changes.join("\n")
        ))),
    }
}

fn remove(console: &Console, session: &Session, model: &str, force: bool) -> Result<()> {
    let name = ModelName::parse(model)?;
    let aliases = console.wait(registry::aliases_of(session, &name))?;
    if let (false, Some((alias, version))) = (force, aliases.first_key_value()) {
        return Err(Error::invalid(format!("{}@{version} is what the alias {alias} names", name.name))
            .with_hint(format!("--force removes both; ALTER MODEL {} DROP ALIAS {alias} frees it", name.name)));
    }
    let removed = console.wait(registry::remove(session, &name, false))?;
    console.remark(&format!("removed {} of {model}", plural(removed as u64, "version")));
    Ok(())
}
