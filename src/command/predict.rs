//! `gristmill predict MODEL DATA`: the model's predictions beside the columns of a file, through the same ML.PREDICT that
//! scripts use.

use engine::{Error, Result, Script};
use ml::ModelName;

use super::Console;
use super::job::Job;
use crate::args::{Format, PredictArgs};
use crate::diagnostic::Exit;

pub(super) fn predict(console: &Console, args: &PredictArgs) -> Result<Exit> {
    let model = match ModelName::parse(&args.model) {
        Ok(model) => model,
        Err(error) => return Ok(console.fail(&error)),
    };
    if args.threshold.is_some_and(|threshold| !(0.0..=1.0).contains(&threshold)) {
        return Err(Error::Usage("--threshold: expected a probability between 0 and 1".to_string()));
    }
    let settings = &console.config.settings;
    let format = settings.format.or_else(|| args.output.output.as_deref().and_then(format_of));
    // An array of probabilities in a cell would have to be taken apart by whoever reads it.
    let flat = matches!(format, Some(Format::Csv | Format::Tsv));
    let query = ml::registry::prediction_query(&model, &args.data, args.threshold, flat);
    let copy = args.output.output.as_deref().and_then(|output| Some((output, stored_as(console, output)?)));
    let text = match copy {
        Some((output, format)) => {
            format!("COPY ({query}) TO {} STORED AS {format} MODE OVERWRITE", literal(output))
        }
        None => query,
    };
    let script = Script::parse("predict", text)?;
    // The engine writes what it can write itself, in parallel and to any location; the printer writes the other formats.
    let printer = if copy.is_some() { console.printer_to_stdout()? } else { console.printer()? };
    let session = console.session()?;
    let with_report = console.verbose > 0;
    Ok(Job { console, session: &session, script: &script, parameters: vec![], with_report, generated: true }
        .run(printer))
}

/// The engine's name for the output's format, when the engine can write the output as it is wanted.
fn stored_as(console: &Console, output: &str) -> Option<&'static str> {
    let settings = &console.config.settings;
    if settings.null.is_some() || !settings.header {
        return None;
    }
    let directory = output.ends_with('/');
    match settings.format.or_else(|| format_of(output)) {
        Some(Format::Parquet) => Some("PARQUET"),
        Some(Format::Csv) => Some("CSV"),
        Some(Format::Tsv) => Some("TSV"),
        Some(Format::Jsonl) => Some("JSON"),
        Some(Format::Arrow) => Some("ARROW"),
        None if directory => Some("PARQUET"),
        _ => None,
    }
}

/// The format that a name asks for; the engine compresses what is called `out.csv.gz`.
fn format_of(name: &str) -> Option<Format> {
    let compressed = ["gz", "bz2", "xz", "zst"].iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'));
    Format::of_name(compressed.unwrap_or(name))
}

/// An SQL literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
