//! `gristmill predict MODEL DATA`: the model's predictions beside the columns of a file or of standard input, through the
//! same ML.PREDICT that scripts use. Text is read with the types of the model's columns.

use std::io::Read;

use engine::{Error, Result, Script, Session};
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
    let session = console.session()?;
    let opened = match args.data.as_str() {
        "-" => standard_input(&session),
        data => Ok(data.to_string()),
    };
    let open = |data: String| console.wait(ml::registry::open_for_prediction(&session, &model, &data));
    if let Err(error) = opened.and_then(open) {
        return Ok(console.fail(&error));
    }
    let query = ml::registry::prediction_query(&model, args.threshold, flat);
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
    let with_report = console.verbose > 0;
    Ok(Job { console, session: &session, script: &script, parameters: vec![], with_report, generated: true }
        .run(printer))
}

/// Rows of standard input, as a file of the session; its first bytes tell the format.
fn standard_input(session: &Session) -> Result<String> {
    let mut bytes = Vec::new();
    let cannot = |error: std::io::Error| Error::Usage(format!("cannot read standard input: {error}"));
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.is_empty() {
        return Err(Error::Usage("standard input is empty: expected rows with the model's columns".into()));
    }
    let file = session.temp_dir().join(format!("standard-input.{}", ending_of(&bytes)));
    std::fs::write(&file, bytes).map_err(cannot)?;
    Ok(file.display().to_string())
}

/// How a file with these bytes would be called.
fn ending_of(bytes: &[u8]) -> &'static str {
    let first_line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    match bytes {
        [b'P', b'A', b'R', b'1', ..] => "parquet",
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => "arrow",
        [0x1f, 0x8b, ..] => "csv.gz",
        _ if first_line.trim_ascii_start().starts_with(b"{") => "jsonl",
        _ if first_line.contains(&b'\t') && !first_line.contains(&b',') => "tsv",
        _ => "csv",
    }
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
