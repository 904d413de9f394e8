//! A job script's text, cut into statements. The cut is made between tokens: a `;` inside a literal, a quoted name, a
//! comment or a dollar-quoted string ends nothing.

use std::ops::Range;
use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::tokens::{is_space, offset_of, tokenize};
use crate::error::{Error, Place, Result};

/// A script: its name for messages, its text, and where its statements lie.
#[derive(Debug, Clone)]
pub struct Script {
    name: String,
    text: Arc<str>,
    statements: Vec<Range<usize>>,
}

impl Script {
    /// Cuts `text` into statements; `name` is the file as the user gave it, or `-c`, `<stdin>`.
    ///
    /// # Errors
    /// A literal or comment that never ends, with its place.
    pub fn parse(name: impl Into<String>, text: impl Into<Arc<str>>) -> Result<Self> {
        let mut script = Script { name: name.into(), text: text.into(), statements: Vec::new() };
        let tokens = tokenize(&script.text).map_err(|error| script.locate(error, 0))?;
        let mut open: Option<Range<usize>> = None;
        // Tokens come in order, so offsets are found by walking on from the last one instead of from the start.
        let mut walk = Walk { text: &script.text, line: 1, column: 1, at: 0 };
        for token in &tokens {
            if token.token == Token::SemiColon {
                script.statements.extend(open.take());
            } else if !is_space(token) {
                let start = walk.offset(token.span.start);
                let end = walk.offset(token.span.end);
                open = Some(open.map_or(start..end, |range| range.start..end));
            }
        }
        script.statements.extend(open);
        Ok(script)
    }

    /// The script's name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// How many statements there are; empty ones are not counted.
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// The texts of the statements, without their `;`.
    pub fn statements(&self) -> impl Iterator<Item = &str> {
        self.statements.iter().map(|range| &self.text[range.clone()])
    }

    /// Where each statement lies in the text, in bytes.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.statements
    }

    /// The line and column of a byte offset.
    pub fn place(&self, offset: usize) -> Place {
        let offset = floor_boundary(&self.text, offset);
        let start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |at| offset + at);
        Place {
            file: self.name.clone(),
            line: self.text[..offset].matches('\n').count() + 1,
            column: self.text[start..offset].chars().count() + 1,
            // A line that is shown, logged and kept with a job holds no secret.
            source_line: storage::masked(self.text[start..end].trim_end_matches('\r')),
        }
    }

    /// Puts an error of the statement that begins at byte `start` into its place; an error that is placed stays so.
    pub fn locate(&self, error: Error, start: usize) -> Error {
        match error {
            placed @ Error::At { .. } => placed,
            Error::Cancelled => Error::Cancelled,
            error => {
                let offset = error.offset().unwrap_or(0);
                Error::At { place: Box::new(self.place(start + offset)), source: Box::new(error) }
            }
        }
    }
}

/// Whether text typed so far ends with a complete statement, as an interactive shell wants to know: nothing is open and
/// the last token is `;`.
pub fn is_complete(text: &str) -> bool {
    tokenize(text).is_ok_and(|tokens| {
        tokens.iter().rev().find(|token| !is_space(token)).is_none_or(|token| token.token == Token::SemiColon)
    })
}

/// Goes through a text once, from place to place: a script may be one long line.
struct Walk<'a> {
    text: &'a str,
    line: u64,
    column: u64,
    at: usize,
}

impl Walk<'_> {
    fn offset(&mut self, location: Location) -> usize {
        while self.line < location.line {
            let Some(end) = self.text[self.at..].find('\n') else { return self.text.len() };
            (self.line, self.column) = (self.line + 1, 1);
            self.at += end + 1;
        }
        if location.line < self.line || location.column < self.column {
            return offset_of(self.text, location);
        }
        let letters = usize::try_from(location.column - self.column).unwrap_or(usize::MAX);
        let rest = &self.text[self.at..];
        self.at += rest.char_indices().nth(letters).map_or(rest.len(), |(at, _)| at);
        self.column = location.column;
        self.at
    }
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_between_tokens() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ;; -- nothing\n;", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"]),
            ("SELECT ';';\nSELECT \";\" FROM t;", &["SELECT ';'", "SELECT \";\" FROM t"]),
            ("SELECT 1 -- ; no\n, 2; /* ; */ SELECT 3 /* ; */", &["SELECT 1 -- ; no\n, 2", "SELECT 3"]),
            ("SELECT $$a;b$$; SELECT $x$;$x$", &["SELECT $$a;b$$", "SELECT $x$;$x$"]),
            ("SELECT 'é;ü' ;\r\n  SELECT 'it''s;'", &["SELECT 'é;ü'", "SELECT 'it''s;'"]),
            ("SELECT E'a\\';b'; SELECT 2", &["SELECT E'a\\';b'", "SELECT 2"]),
        ];
        for (text, expected) in cases {
            let script = Script::parse("t.sql", *text).unwrap();
            assert_eq!(&script.statements().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn places_are_lines_and_columns() {
        let script = Script::parse("job.sql", "SELECT 1;\n  SELECT 'é', oops;\n").unwrap();
        let place = script.place(script.text().find("oops").unwrap());
        assert_eq!(place.to_string(), "job.sql:2:15");
        assert_eq!(place.source_line, "  SELECT 'é', oops;");
        let script = Script::parse("job.sql", "SELECT 1 OPTIONS ('aws.secret_access_key' 'hush') oops").unwrap();
        let place = script.place(script.text().find("oops").unwrap());
        assert_eq!(place.source_line, "SELECT 1 OPTIONS ('aws.secret_access_key' '....') oops");
    }

    #[test]
    fn an_open_literal_is_an_error_with_its_place() {
        let error = Script::parse("job.sql", "SELECT 1;\nSELECT 'abc").unwrap_err().to_string();
        assert_eq!(error, "job.sql:2:8: Unterminated string literal");
    }

    #[test]
    fn a_shell_knows_when_to_run() {
        for (text, expected) in [
            ("SELECT 1", false),
            ("SELECT 1;", true),
            ("SELECT 1; -- done", true),
            ("SELECT ';", false),
            ("SELECT 1; SELECT", false),
            ("  ", true),
        ] {
            assert_eq!(is_complete(text), expected, "{text}");
        }
    }
}
