//! The shell's own commands, in two spellings: `.tables` as sqlite and duckdb have it, `\dt` as psql has it.

use clap::ValueEnum;
use engine::{Error, Result, near};

use crate::args::Format;

/// A command to the shell rather than to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meta {
    /// Lists tables and views.
    Tables,
    /// Columns and types of one table, or of all.
    Schema(Option<String>),
    /// Shows or sets the output format.
    Mode(Option<Format>),
    /// Turns the times after each statement on or off, or over.
    Timer(Option<bool>),
    /// Runs the statements of a file.
    Read(String),
    /// Shows the list of commands, or what is known of an SQL keyword.
    Help,
    Quit,
}

/// One line of `.help`.
struct Entry {
    dot: &'static str,
    backslash: &'static str,
    argument: &'static str,
    description: &'static str,
}

const ENTRIES: &[Entry] = &[
    Entry { dot: ".tables", backslash: "\\d, \\dt", argument: "", description: "list tables and views" },
    Entry {
        dot: ".schema",
        backslash: "\\d",
        argument: "[TABLE]",
        description: "columns and types of a table, or of all",
    },
    Entry { dot: ".mode", backslash: "", argument: "[FORMAT]", description: "show or set the output format" },
    Entry { dot: ".timer", backslash: "\\timing", argument: "[on|off]", description: "time each statement" },
    Entry { dot: ".read", backslash: "\\i", argument: "FILE", description: "run the statements of a file" },
    Entry { dot: ".help", backslash: "\\h, \\?", argument: "", description: "this list" },
    Entry { dot: ".quit", backslash: "\\q", argument: "", description: "leave (also Ctrl-D)" },
];

/// Whether the line is for the shell.
pub(crate) fn is_meta(line: &str) -> bool {
    let line = line.trim_start();
    // `.5 + 1` is no statement either, but a number is no command.
    line.starts_with('\\') || (line.starts_with('.') && line[1..].starts_with(|letter: char| letter.is_alphabetic()))
}

/// Every command as it may be typed, for completion.
pub(crate) fn spellings() -> impl Iterator<Item = &'static str> {
    ENTRIES
        .iter()
        .flat_map(|entry| [entry.dot].into_iter().chain(entry.backslash.split(", ")))
        .filter(|spelling| !spelling.is_empty())
}

/// The text of `.help`.
pub(crate) fn help() -> String {
    let mut text = String::new();
    for entry in ENTRIES {
        let dot = format!("{} {}", entry.dot, entry.argument);
        text += &format!("  {dot:<20} {:<10} {}\n", entry.backslash, entry.description);
    }
    text + "A statement ends with `;` and may have several lines. Tab completes names;\n\
            Ctrl-R searches the history; Ctrl-C drops the line or stops the running statement.\n"
}

impl Meta {
    /// Understands a line for which [`is_meta`] holds.
    ///
    /// # Errors
    /// An unknown command (names the near one) or a wrong argument.
    pub(crate) fn parse(line: &str) -> Result<Meta> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = Some(argument.trim()).filter(|argument| !argument.is_empty());
        let unquoted = || argument.map(|argument| argument.trim_matches(['\'', '"']).to_string());
        match command.to_lowercase().as_str() {
            ".tables" | "\\dt" => Ok(Meta::Tables),
            "\\d" if argument.is_none() => Ok(Meta::Tables),
            ".schema" | "\\d" => Ok(Meta::Schema(unquoted())),
            ".mode" => argument.map(format).transpose().map(Meta::Mode),
            ".timer" | "\\timing" => argument.map(on_or_off).transpose().map(Meta::Timer),
            ".read" | "\\i" => unquoted()
                .map(Meta::Read)
                .ok_or_else(|| Error::invalid(format!("{command}: expected the name of a file"))),
            ".help" | "\\h" | "\\?" => Ok(Meta::Help),
            ".quit" | ".exit" | "\\q" => Ok(Meta::Quit),
            unknown => {
                let error = Error::invalid(format!("unknown command `{unknown}`"));
                Err(match near(unknown, spellings()) {
                    Some(known) => error.with_hint(format!("did you mean `{known}`? .help lists the commands")),
                    None => error.with_hint(".help lists the commands"),
                })
            }
        }
    }
}

fn format(text: &str) -> Result<Format> {
    let names = || Format::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    match Format::from_str(text, true) {
        Ok(format) if format.is_binary() => {
            Err(Error::invalid(format!(".mode {text}: binary results need a file")).with_hint("COPY (query) TO 'file'"))
        }
        Ok(format) => Ok(format),
        Err(_) => {
            let names: Vec<String> = names().map(|name| name.get_name().to_string()).collect();
            let error = Error::invalid(format!("unknown format `{text}`; formats are {}", names.join(", ")));
            Err(match near(text, names.iter().map(String::as_str)) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None => error,
            })
        }
    }
}

fn on_or_off(text: &str) -> Result<bool> {
    match text.to_lowercase().as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(Error::invalid(format!("expected on or off, got `{text}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let text = |text: &str| Some(text.to_string());
        for (line, expected) in [
            (".tables", Ok(Meta::Tables)),
            ("\\d", Ok(Meta::Tables)),
            ("\\dt;", Ok(Meta::Tables)),
            ("\\d flights", Ok(Meta::Schema(text("flights")))),
            ("  .schema \"flights\" ", Ok(Meta::Schema(text("flights")))),
            (".mode CSV", Ok(Meta::Mode(Some(Format::Csv)))),
            (".mode", Ok(Meta::Mode(None))),
            (
                ".mode cvs",
                Err("unknown format `cvs`; formats are table, csv, tsv, json, jsonl, markdown, arrow, parquet"),
            ),
            (".mode parquet", Err(".mode parquet: binary results need a file")),
            ("\\timing on", Ok(Meta::Timer(Some(true)))),
            (".timer maybe", Err("expected on or off, got `maybe`")),
            ("\\i 'job.sql'", Ok(Meta::Read("job.sql".to_string()))),
            (".read", Err(".read: expected the name of a file")),
            ("\\h", Ok(Meta::Help)),
            ("\\q", Ok(Meta::Quit)),
            (".table", Err("unknown command `.table`")),
        ] {
            let got = Meta::parse(line).map_err(|error| error.to_string());
            assert_eq!(got, expected.map_err(str::to_string), "{line}");
        }
    }

    #[test]
    fn every_listed_spelling_is_understood() {
        for spelling in spellings() {
            assert!(is_meta(spelling));
            assert!(Meta::parse(&format!("{spelling} on")).is_ok() || Meta::parse(spelling).is_ok(), "{spelling}");
        }
        assert!(!is_meta("SELECT 1") && !is_meta(".5") && !is_meta(""));
    }
}
