//! Errors for people: one message, its place with the source line and a caret, a hint, an exit code. Printed once, here.

use std::fmt::Write;

use engine::{Error, Place};

use crate::color::Paint;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    Assertion = 3,
    Cancelled = 4,
    ClusterLost = 5,
    Interrupted = 130,
}

impl Exit {
    /// The exit code of an error. A cancelled job is [`Exit::Interrupted`] when the cancelling was Ctrl-C, which the
    /// caller knows.
    pub(crate) fn of(error: &Error) -> Exit {
        match error {
            Error::Usage(_) => Exit::Usage,
            Error::Assertion(_) => Exit::Assertion,
            Error::Cancelled => Exit::Cancelled,
            Error::Cluster(_) => Exit::ClusterLost,
            Error::At { source, .. } => Exit::of(source),
            _ => Exit::Failed,
        }
    }
}

/// The error as it is shown: message, place with caret, hint; ends with a newline.
pub(crate) fn render(error: &Error, paint: Paint) -> String {
    let mut text = String::new();
    let (place, innermost) = outermost_place(error);
    let (message, hint) = message_and_hint(innermost);
    let mut lines = message.lines();
    let first = lines.next().unwrap_or("unknown error");
    let _ = writeln!(text, "{} {}", paint.red_bold("error:"), paint.bold(first));
    lines.for_each(|line| {
        let _ = writeln!(text, "  {line}");
    });
    if let Some(place) = place {
        render_place(&mut text, place, paint);
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "{} {hint}", paint.cyan_bold("hint:"));
    }
    text
}

/// One line that the user should act on.
pub(crate) fn warning(message: &str, paint: Paint) -> String {
    format!("{} {message}", paint.yellow_bold("warning:"))
}

fn outermost_place(error: &Error) -> (Option<&Place>, &Error) {
    match error {
        // Of two places the outer one is in the user's script.
        Error::At { place, source } => (Some(place), source.innermost()),
        error => (None, error),
    }
}

fn message_and_hint(error: &Error) -> (String, Option<String>) {
    match error {
        Error::Invalid { message, hint, .. } => (tidy(message), hint.clone()),
        Error::Query(error) => (tidy(&error.strip_backtrace()), None),
        error => (tidy(&error.to_string()), None),
    }
}

/// Without the names of the layers that an error came through: they tell where it was noticed, not what is wrong.
fn tidy(message: &str) -> String {
    const LAYERS: [&str; 15] = [
        "Generic local error: ",
        "Generic gristmill error: ",
        "Object Store error: ",
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "External error: ",
        "Arrow error: ",
        "Parquet error: ",
        "External: ",
        "Optimizer rule 'type_coercion' failed\ncaused by\n",
        "Invalid argument error: ",
        "This feature is not implemented: ",
        "Compute error: ",
    ];
    let mut rest = message.trim();
    while let Some(shorter) = LAYERS.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = shorter.trim_start();
    }
    // ParserError("...") is how the SQL parser's error prints when it is wrapped.
    let parser = rest.strip_prefix("ParserError(\"").and_then(|rest| rest.strip_suffix("\")"));
    parser.map_or_else(|| rest.to_string(), |inner| inner.replace("\\\"", "\""))
}

fn render_place(text: &mut String, place: &Place, paint: Paint) {
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let bar = paint.blue_bold("|");
    let _ = writeln!(text, "{gutter}{} {place}", paint.blue_bold("-->"));
    if place.source_line.trim().is_empty() {
        return;
    }
    let (shown, column) = window(&place.source_line, place.column);
    let lead: String = shown.chars().take(column - 1).map(|letter| if letter == '\t' { '\t' } else { ' ' }).collect();
    let carets = "^".repeat(word_length(&shown, column));
    let _ = writeln!(text, "{gutter} {bar}");
    let _ = writeln!(text, "{} {bar} {shown}", paint.blue_bold(&number));
    let _ = writeln!(text, "{gutter} {bar} {lead}{}", paint.red_bold(&carets));
}

/// The part of a long line around its column, and the column in that part (1-based).
fn window(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 160;
    const BEFORE: usize = 60;
    let letters: Vec<char> = line.chars().collect();
    let column = column.clamp(1, letters.len() + 1);
    if letters.len() <= WIDTH {
        return (line.to_string(), column);
    }
    let start = column.saturating_sub(BEFORE + 1);
    let end = (start + WIDTH).min(letters.len());
    let middle: String = letters[start..end].iter().collect();
    let head = if start > 0 { "..." } else { "" };
    let tail = if end < letters.len() { "..." } else { "" };
    (format!("{head}{middle}{tail}"), column - start + head.len())
}

/// How many letters from the 1-based column on belong to the word there; at least one.
fn word_length(line: &str, column: usize) -> usize {
    let mut letters = line.chars().skip(column - 1).peekable();
    let length = match letters.peek() {
        Some(quote @ ('\'' | '"' | '`')) => {
            let quote = *quote;
            letters.next();
            let inside = letters.by_ref().take_while(|letter| *letter != quote).count();
            // Without its closing quote the literal runs to the end of the line.
            (inside + 2).min(line.chars().count() + 1 - column)
        }
        _ => letters.take_while(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '$' | '.')).count(),
    };
    length.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize, source_line: &str, source: Error) -> Error {
        let place = Place { file: "job.sql".to_string(), line, column, source_line: source_line.to_string() };
        Error::At { place: Box::new(place), source: Box::new(source) }
    }

    #[test]
    fn errors_as_they_are_shown() {
        let cases = [
            (
                at(
                    12,
                    8,
                    "SELECT carier FROM flights",
                    Error::invalid("no column `carier`").with_hint("did you mean `carrier`?"),
                ),
                "error: no column `carier`\n  --> job.sql:12:8\n   |\n12 | SELECT carier FROM flights\n   |        ^^^^^^\nhint: did you mean `carrier`?\n",
            ),
            (
                at(3, 6, "\tFROM 'a.csv' x", Error::invalid("a.csv: no such file")),
                "error: a.csv: no such file\n --> job.sql:3:6\n  |\n3 | \tFROM 'a.csv' x\n  | \t    ^\n",
            ),
            (
                at(3, 7, "\tFROM 'a.csv' x", Error::invalid("a.csv: no such file")),
                "error: a.csv: no such file\n --> job.sql:3:7\n  |\n3 | \tFROM 'a.csv' x\n  | \t     ^^^^^^^\n",
            ),
            (at(1, 1, "", Error::Cancelled), "error: cancelled\n --> job.sql:1:1\n"),
            (
                at(1, 99, "SELECT", Error::invalid("the statement ends too early")),
                "error: the statement ends too early\n --> job.sql:1:99\n  |\n1 | SELECT\n  |       ^\n",
            ),
            (Error::Usage("unknown option `a.b`".to_string()), "error: unknown option `a.b`\n"),
            (Error::Query(datafusion::error::DataFusionError::Plan("two\nlines".to_string())), "error: two\n  lines\n"),
        ];
        for (error, expected) in cases {
            assert_eq!(render(&error, Paint::plain()), expected);
        }
    }

    #[test]
    fn a_long_line_is_shown_around_its_column() {
        let line = format!("{}wrong{}", "a ".repeat(200), " b".repeat(200));
        let shown = render(&at(1, 401, &line, Error::invalid("no")), Paint::plain());
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[4].find('^').unwrap();
        assert_eq!(&lines[3][caret..caret + 5], "wrong");
        assert!(lines[3].len() < 180);
    }

    #[test]
    fn exit_codes() {
        for (error, exit) in [
            (Error::invalid("x"), 1),
            (Error::Usage("x".to_string()), 2),
            (at(1, 1, "", Error::Assertion("x".to_string())), 3),
            (at(1, 1, "", Error::Cancelled), 4),
        ] {
            assert_eq!(Exit::of(&error) as i32, exit, "{error}");
        }
    }
}
