//! What the line editor knows: when a statement is complete, and which names could stand at the cursor.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter, MatchingBracketHighlighter};
use rustyline::hint::HistoryHinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Hinter};

use super::meta;

/// Words that begin or join the clauses of our statements.
const KEYWORDS: &[&str] = &[
    "ALL",
    "ALTER MODEL",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "ASSERT",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COPY",
    "CREATE EXTERNAL TABLE",
    "CREATE MODEL",
    "CREATE OR REPLACE MODEL",
    "CREATE OR REPLACE VIEW",
    "CREATE TABLE",
    "CREATE VIEW",
    "CROSS JOIN",
    "DECLARE",
    "DEFAULT",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP MODEL",
    "DROP TABLE",
    "DROP VIEW",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL JOIN",
    "GROUP BY",
    "HAVING",
    "IF EXISTS",
    "IF NOT EXISTS",
    "IN",
    "INNER JOIN",
    "INTERSECT",
    "INTERVAL",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "ML.CONFUSION_MATRIX(",
    "ML.EVALUATE(",
    "ML.FEATURE_INFO(",
    "ML.PREDICT(",
    "ML.ROC_CURVE(",
    "ML.TRAINING_INFO(",
    "ML.TRANSFORM(",
    "ML.WEIGHTS(",
    "MODE APPEND",
    "MODE ERROR",
    "MODE OVERWRITE",
    "MODE OVERWRITE PARTITIONS",
    "MODEL",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "ON FAILURE WARN",
    "OPTIONS",
    "OR",
    "ORDER BY",
    "OUTER JOIN",
    "OVER",
    "PARTITION BY",
    "PARTITIONED BY",
    "RIGHT JOIN",
    "SELECT",
    "SET",
    "SHOW COLUMNS FROM",
    "SHOW MODELS",
    "SHOW TABLES",
    "STORED AS",
    "TABLE",
    "THEN",
    "TO",
    "TRANSFORM",
    "TRUE",
    "UNION ALL",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// The names of a session at one moment; taken anew after every statement.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Columns by table or view.
    pub(crate) tables: BTreeMap<String, Vec<String>>,
    pub(crate) functions: Vec<String>,
    pub(crate) models: Vec<String>,
}

impl Names {
    /// Where the word at the cursor begins, and what it may become.
    pub(crate) fn complete(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let before = &line[..cursor];
        if meta::is_meta(before) && !before.trim_start().contains(char::is_whitespace) {
            let start = before.len() - before.trim_start().len();
            let word = before.trim_start();
            return (start, meta::spellings().filter(|name| name.starts_with(word)).map(str::to_string).collect());
        }
        let start = before
            .rfind(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '_' | '.' | '$'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[start..];
        // `t.col`: columns of that table, or of the table that the alias stands for (then of any table).
        if let Some((table, column)) = word.rsplit_once('.').filter(|(table, _)| !table.eq_ignore_ascii_case("ml")) {
            let columns = self.columns_of(table).filter(|name| begins_with(name, column));
            return (start, sorted(columns.map(|name| format!("{table}.{}", quoted(name)))));
        }
        if word.is_empty() {
            return (start, Vec::new());
        }
        // Some words leave little choice of what comes next.
        let previous = before[..start].split_whitespace().next_back().unwrap_or_default().to_uppercase();
        if matches!(previous.as_str(), "FROM" | "JOIN" | "TABLE" | "VIEW" | "DESCRIBE" | "INTO") {
            let relations = KEYWORDS.iter().filter(|keyword| keyword.starts_with("ML.")).map(|name| name.to_string());
            let names = self.tables.keys().map(|name| quoted(name)).chain(relations);
            return (start, sorted(names.filter(|name| begins_with(name, word))));
        }
        if previous.rsplit('(').next() == Some("MODEL") {
            return (start, sorted(self.models.iter().filter(|name| begins_with(name, word)).cloned()));
        }
        let named = self.tables.keys().map(|name| quoted(name));
        let columns = self.tables.values().flatten().map(|name| quoted(name));
        let functions = self.functions.iter().map(|name| format!("{name}("));
        let models = self.models.iter().cloned();
        let mut names =
            sorted(named.chain(columns).chain(functions).chain(models).filter(|name| begins_with(name, word)));
        // Lower-case words stay lower case: the shell completes in the hand of its user.
        let lower = word.chars().all(|letter| !letter.is_uppercase());
        let cased = |keyword: &&str| if lower { keyword.to_lowercase() } else { keyword.to_string() };
        names.extend(KEYWORDS.iter().filter(|keyword| begins_with(keyword, word)).map(cased));
        names.dedup();
        (start, names)
    }

    fn columns_of<'a>(&'a self, table: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self.tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)) {
            Some((_, columns)) => Box::new(columns.iter().map(String::as_str)),
            None => Box::new(self.tables.values().flatten().map(String::as_str)),
        }
    }
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

fn begins_with(name: &str, word: &str) -> bool {
    name.len() >= word.len() && name.is_char_boundary(word.len()) && name[..word.len()].eq_ignore_ascii_case(word)
}

/// The name as SQL must have it.
fn quoted(name: &str) -> String {
    let plain = name
        .chars()
        .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '_' | '.'));
    if plain && !name.starts_with(|letter: char| letter.is_ascii_digit()) {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Whether Enter runs what was typed rather than beginning another line.
pub(crate) fn is_complete(text: &str) -> bool {
    text.trim().is_empty() || meta::is_meta(text) || engine::script::is_complete(text)
}

/// The line editor's helper.
#[derive(Helper, Hinter)]
pub(super) struct SqlHelper {
    pub(super) names: Names,
    files: FilenameCompleter,
    brackets: MatchingBracketHighlighter,
    #[rustyline(Hinter)]
    hinter: HistoryHinter,
    colored: bool,
}

impl SqlHelper {
    pub(super) fn new(colored: bool) -> Self {
        SqlHelper {
            names: Names::default(),
            files: FilenameCompleter::new(),
            brackets: MatchingBracketHighlighter::new(),
            hinter: HistoryHinter::new(),
            colored,
        }
    }
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, cursor: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..cursor];
        let in_literal = before.matches('\'').count() % 2 == 1;
        let after_read = [".read ", "\\i "].iter().any(|command| before.trim_start().starts_with(command));
        if in_literal || after_read {
            return self.files.complete(line, cursor, context);
        }
        let (start, names) = self.names.complete(line, cursor);
        Ok((start, names.into_iter().map(|name| Pair { display: name.clone(), replacement: name }).collect()))
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if is_complete(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Highlighter for SqlHelper {
    fn highlight<'l>(&self, line: &'l str, cursor: usize) -> Cow<'l, str> {
        if self.colored { self.brackets.highlight(line, cursor) } else { Cow::Borrowed(line) }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        if self.colored { Cow::Owned(format!("\x1b[1;36m{prompt}\x1b[0m")) } else { Cow::Borrowed(prompt) }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.colored { Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }

    fn highlight_char(&self, line: &str, cursor: usize, kind: CmdKind) -> bool {
        self.colored && self.brackets.highlight_char(line, cursor, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let table = |name: &str, columns: &[&str]| (name.to_string(), columns.iter().map(|c| c.to_string()).collect());
        Names {
            tables: [table("flights", &["carrier", "arr_delay", "Tail Num"]), table("weather", &["origin", "temp"])]
                .into(),
            functions: vec!["avg".to_string(), "array_length".to_string()],
            models: vec!["late_flights".to_string()],
        }
    }

    #[test]
    fn completions() {
        for (line, start, expected) in [
            ("SELECT arr", 7, &["arr_delay", "array_length("][..]),
            ("SELECT f.ca", 7, &["f.carrier"]),
            ("SELECT weather.", 7, &["weather.origin", "weather.temp"]),
            ("SELECT flights.T", 7, &["flights.\"Tail Num\""]),
            ("SELECT flights.x", 7, &[]),
            ("sel", 0, &["select"]),
            ("SEL", 0, &["SELECT"]),
            ("SELECT * FROM fl", 14, &["flights"]),
            ("SELECT * FROM ML.PRED", 14, &["ML.PREDICT("]),
            ("SELECT * FROM ml.pred", 14, &["ML.PREDICT("]),
            ("SELECT * FROM f", 14, &["flights"]),
            ("SELECT * FROM ML.PREDICT(MODEL la", 31, &["late_flights"]),
            ("SELECT 1, ", 10, &[]),
            (".ta", 0, &[".tables"]),
            ("DROP MODEL late", 11, &["late_flights"]),
            ("größe(ca", 8, &["carrier", "case", "cast"]),
        ] {
            assert_eq!(
                names().complete(line, line.len()),
                (start, expected.iter().map(|e| e.to_string()).collect()),
                "{line}"
            );
        }
    }

    #[test]
    fn enter_runs_what_is_complete() {
        for (text, complete) in [
            ("", true),
            ("SELECT 1", false),
            ("SELECT 1;", true),
            ("SELECT ';", false),
            ("SELECT ';';", true),
            ("SELECT 1; -- done", true),
            ("-- only a remark", true),
            (".tables", true),
            ("\\d flights", true),
        ] {
            assert_eq!(is_complete(text), complete, "{text}");
        }
    }
}
