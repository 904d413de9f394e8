//! Trains a model again from its lineage and compares the bytes of its weights, or says what has changed.

use engine::extension::{JobContext, StatementParser};
use engine::script::tokens::{significant, tokenize};
use engine::{Error, Result, RunSettings, Script, Session};

use crate::chance::{Chance, chances};
use crate::model::files::{self, ModelRecord};
use crate::name::ModelName;
use crate::registry;
use crate::statement::{CreateModel, ModelStatements};
use crate::training;

/// How a reproduction ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Reproduction {
    /// The same bytes.
    Same {
        /// SHA-256 of `model.safetensors`.
        sha256: String,
    },
    /// Other bytes, from the same inputs.
    Different {
        /// SHA-256 of the model's weights.
        expected: String,
        /// SHA-256 of those that were trained now.
        got: String,
        /// What is known to be different: versions, kernel.
        because: Vec<String>,
    },
    /// The inputs are not what they were: nothing was trained.
    InputsChanged {
        /// A sentence for each.
        changes: Vec<String>,
    },
}

/// Trains `name` again. The session should be a fresh one: tables and views of the script are made in it.
///
/// # Errors
/// No such model; a model that no script made; whatever the script meets.
pub async fn reproduce(session: &Session, name: &ModelName, settings: &RunSettings) -> Result<Reproduction> {
    let (artifact, record, expected) = registry::read_for_reproduction(session, name).await?;
    let lineage = &record.lineage;
    if lineage.script.is_empty() {
        return Err(Error::invalid(format!(
            "{artifact} was trained by a program, not by a script: run the program again"
        )));
    }
    prepare(session, &record, settings).await?;
    let statement = create_model(session, &lineage.statement)?;
    let changes = changes(&record, &training::inputs_now(session, &statement).await?);
    if !changes.is_empty() {
        return Ok(Reproduction::InputsChanged { changes });
    }
    let job = JobContext {
        events: settings.events.clone(),
        cancel: settings.cancel.clone(),
        statement_text: lineage.statement.clone(),
        script_text: lineage.script.as_str().into(),
        parameters: std::sync::Arc::new(lineage.parameters.clone()),
    };
    let made = training::retrain(session, &statement, &record, &job).await?;
    let got = made
        .files
        .iter()
        .find(|(name, _)| name == files::WEIGHTS)
        .map(|(_, bytes)| storage::sha256_hex(bytes))
        .ok_or_else(|| Error::invalid("training gave no weights"))?;
    if got == expected {
        return Ok(Reproduction::Same { sha256: got });
    }
    let query = session.plan_query(&statement.query).await?;
    let mut because: Vec<String> = chances(query.logical_plan())?.iter().map(Chance::reason).collect();
    if made.kernel.fingerprint != record.kernel_fingerprint {
        because.push(format!(
            "the matrix kernel was {} ({}), it is {} ({}) here",
            record.kernel,
            record.kernel_fingerprint,
            made.kernel.kernel.name(),
            made.kernel.fingerprint
        ));
    }
    for (what, then) in &lineage.versions {
        if let Some(now) = made.versions.get(what).filter(|now| *now != then) {
            because.push(format!("{what} was {then}, it is {now} now"));
        }
    }
    Ok(Reproduction::Different { expected, got, because })
}

/// Runs what defines tables, views and parameters before the statement; nothing that writes or shows.
async fn prepare(session: &Session, record: &ModelRecord, settings: &RunSettings) -> Result<()> {
    let lineage = &record.lineage;
    let script = Script::parse("lineage", lineage.script.as_str())?;
    let mut text = String::new();
    let mut declared = Vec::new();
    for statement in script.statements() {
        if statement == lineage.statement {
            break;
        }
        let tokens = significant(&tokenize(statement)?);
        let words: Vec<String> = tokens.iter().take(6).map(|t| t.token.to_string().to_uppercase()).collect();
        let defines = match words.first().map(String::as_str) {
            Some("DECLARE") => {
                declared.extend(words.get(1).map(|name| name.to_lowercase()));
                true
            }
            Some("SET") => true,
            Some("CREATE") => !ModelStatements.recognises(&tokens),
            _ => false,
        };
        if defines {
            text.push_str(statement);
            text.push_str(";\n");
        }
    }
    let mut settings = settings.clone();
    settings.parameters = lineage.parameters.iter().filter(|(name, _)| declared.contains(name)).cloned().collect();
    session.run_script(&Script::parse("lineage", text)?, &settings).await?;
    Ok(())
}

fn create_model(session: &Session, text: &str) -> Result<CreateModel> {
    let tokens = significant(&session.bind(text)?);
    ModelStatements.parse_create(text, &tokens)
}

fn changes(record: &ModelRecord, now: &[crate::lineage::InputFile]) -> Vec<String> {
    let then = &record.lineage.inputs;
    let mut changes = Vec::new();
    for file in then {
        match now.iter().find(|other| other.location == file.location) {
            None => changes.push(format!("{} is no longer read", file.location)),
            Some(other) if other != file => changes.push(format!(
                "{} has changed: {} bytes with SHA-256 {}, it had {} and {}",
                file.location, other.bytes, other.sha256, file.bytes, file.sha256
            )),
            Some(_) => {}
        }
    }
    for file in now {
        if !then.iter().any(|other| other.location == file.location) {
            changes.push(format!("{} is new", file.location));
        }
    }
    changes
}
