//! What the query engine says, told to the user in nouns: which column, which table, where in the statement, and the
//! near name. Errors that are no mistake of the user's pass through unchanged.

use std::sync::Arc;

use datafusion::common::{Column, Diagnostic, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::analysis::SEVERAL_ROWS;
use crate::error::{Error, near};
use crate::fault;
use crate::memory::EXHAUSTED;
use crate::script::tokens::{is_word, offset_of, string_literal, tokenize};
use crate::source::Unopened;

/// How the query engine says that a subquery for one value gave several rows.
const UPSTREAM_SEVERAL_ROWS: &str = "Scalar subquery returned more than one row";

/// Names that a statement could have meant.
#[derive(Debug, Default)]
pub(crate) struct KnownNames {
    /// Tables and views.
    pub(crate) tables: Vec<String>,
    /// Functions of every kind.
    pub(crate) functions: Vec<String>,
}

/// Turns an error of the query engine about the statement `text` into one that names what is wrong and where.
pub(crate) fn explain(error: DataFusionError, text: &str, names: &KnownNames) -> Error {
    let mut place = None;
    let error = unwrap(error, &mut place);
    let offset = place.map(|location| offset_of(text, location));
    let explained = match error {
        DataFusionError::External(source) => match source.downcast::<Error>() {
            Ok(own) => *own,
            Err(source) => foreign(source, text),
        },
        DataFusionError::SQL(error, _) => return syntax(&error, text),
        DataFusionError::SchemaError(error, _) => schema(&error),
        DataFusionError::Plan(message) => plan(&message, names),
        DataFusionError::ResourcesExhausted(message) => exhausted(&message),
        DataFusionError::NotImplemented(message) if message.contains("literals are supported in tuples") => {
            Error::invalid("a row of several values is compared with a row, or with a query, of as many")
                .with_hint("struct(a, b) is one value with two fields")
        }
        DataFusionError::NotImplemented(message) => match sentence(&message).strip_prefix("Unsupported SQL type ") {
            // The place that the query engine knows is the whole SELECT.
            Some(name) => return unknown_type(name, text),
            None => Error::invalid(format!("not supported: {}", sentence(&message))),
        },
        DataFusionError::ExecutionJoin(error) if error.is_panic() => fault::of_text(&error.to_string()),
        DataFusionError::Shared(shared) => shared_error(&shared),
        DataFusionError::Execution(message) if message.contains(UPSTREAM_SEVERAL_ROWS) => Error::invalid(SEVERAL_ROWS),
        other => Error::Query(other),
    };
    let explained = match explained {
        // What a store has refused, wherever on its way here it was wrapped.
        Error::Query(error) => Error::of_storage(&error).unwrap_or(Error::Query(error)),
        Error::Storage(error @ storage::Error::Replaced { .. }) => Error::Replaced(error.to_string()),
        explained => explained,
    };
    match offset {
        Some(offset) => explained.at_offset(offset),
        None => explained,
    }
}

fn foreign(source: Box<dyn std::error::Error + Send + Sync>, text: &str) -> Error {
    let source = match source.downcast::<Unopened>() {
        Ok(unopened) => return at_place(unopened.error, &unopened.name, text),
        Err(source) => source,
    };
    match source.downcast::<storage::Error>() {
        Ok(storage) => Error::Storage(*storage),
        Err(source) => Error::Query(DataFusionError::External(source)),
    }
}

/// An error about the files that the statement `text` calls `name`, pointing at that name.
pub(crate) fn at_place(error: Error, name: &str, text: &str) -> Error {
    let is_name = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => word.value == name,
        _ => string_literal(token) == Some(name),
    };
    let tokens = tokenize(text).unwrap_or_default();
    let Some(token) = tokens.iter().find(|token| is_name(token)) else { return error };
    let error = match error {
        Error::Storage(storage) => Error::invalid(storage.to_string()),
        other => other,
    };
    error.at_offset(offset_of(text, token.span.start))
}

/// Takes the wrappers off, and the place from the outermost diagnostic that has one.
fn unwrap(error: DataFusionError, place: &mut Option<Location>) -> DataFusionError {
    match error {
        DataFusionError::Context(_, inner) => unwrap(*inner, place),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            place_of(&diagnostic, place);
            unwrap(*inner, place)
        }
        DataFusionError::Collection(mut errors) if !errors.is_empty() => unwrap(errors.remove(0), place),
        DataFusionError::Shared(shared) => match Arc::try_unwrap(shared) {
            Ok(error) => unwrap(error, place),
            Err(shared) => DataFusionError::Shared(shared),
        },
        DataFusionError::ArrowError(error, backtrace) => match *error {
            arrow::error::ArrowError::ExternalError(source) => match source.downcast::<DataFusionError>() {
                Ok(error) => unwrap(*error, place),
                Err(source) => DataFusionError::External(source),
            },
            error => DataFusionError::ArrowError(Box::new(error), backtrace),
        },
        DataFusionError::External(source) => match source.downcast::<DataFusionError>() {
            Ok(error) => unwrap(*error, place),
            Err(source) => DataFusionError::External(source),
        },
        other => other,
    }
}

fn place_of(diagnostic: &Diagnostic, place: &mut Option<Location>) {
    if let (None, Some(span)) = (&place, diagnostic.span) {
        *place = Some(Location { line: span.start.line, column: span.start.column });
    }
}

/// An error that several tasks share cannot be taken apart; its root still says what is wrong.
fn shared_error(shared: &Arc<DataFusionError>) -> Error {
    if let Some(said) = Error::of_storage(shared.as_ref()) {
        return said;
    }
    match shared.find_root() {
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::External(source) => match source.downcast_ref::<Error>() {
            Some(Error::Cancelled) => Error::Cancelled,
            Some(Error::Fault(text)) => Error::Fault(text.clone()),
            Some(Error::Invalid { message, hint, .. }) => {
                let error = Error::invalid(message.clone());
                hint.iter().fold(error, |error, hint| error.with_hint(hint.clone()))
            }
            _ => Error::invalid(source.to_string()),
        },
        DataFusionError::Execution(message) if message.contains(UPSTREAM_SEVERAL_ROWS) => Error::invalid(SEVERAL_ROWS),
        root => Error::invalid(sentence(&root.strip_backtrace())),
    }
}

fn syntax(error: &ParserError, text: &str) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message.as_str(),
        ParserError::RecursionLimitExceeded => {
            return Error::invalid("the statement is nested too deeply")
                .with_hint("SET datafusion.sql_parser.recursion_limit = 200");
        }
    };
    let (message, location) = cut_location(message);
    let mut error = Error::invalid(message.replacen("Expected:", "expected", 1));
    let found = message.rsplit_once("found: ").map(|(_, found)| found.to_uppercase());
    if let Some(word) = found.and_then(|found| near_keyword(&found)) {
        error = error.with_hint(format!("did you mean {word}?"));
    }
    match location {
        Some(location) => error.at_offset(offset_of(text, location)),
        None if message.contains("found: EOF") => error.at_offset(text.trim_end().len()),
        None => error,
    }
}

/// The keyword that a word nearly is.
fn near_keyword(found: &str) -> Option<&'static str> {
    const KEYWORDS: &[&str] = &[
        "SELECT",
        "FROM",
        "WHERE",
        "GROUP",
        "ORDER",
        "HAVING",
        "LIMIT",
        "JOIN",
        "UNION",
        "WITH",
        "CREATE",
        "DROP",
        "INSERT",
        "COPY",
        "EXPLAIN",
        "DECLARE",
        "ASSERT",
        "SET",
        "VALUES",
        "EXTERNAL",
        "TABLE",
        "VIEW",
        "STORED",
        "LOCATION",
        "PARTITIONED",
        "OPTIONS",
        "BETWEEN",
        "DISTINCT",
    ];
    near(found, KEYWORDS.iter().copied()).filter(|keyword| *keyword != found && found.len() > 2)
}

/// `expected x, found: y at Line: 1, Column: 8` → the message and its place.
fn cut_location(message: &str) -> (&str, Option<Location>) {
    let Some(at) = message.rfind(" at Line: ") else { return (message, None) };
    let mut numbers = message[at..].split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(line), Some(column)) => (&message[..at], Some(Location { line, column })),
        _ => (message, None),
    }
}

fn schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => no_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            Error::invalid(format!("column `{}` is ambiguous", field.name)).with_hint("say which table's: table.column")
        }
        // Perhaps a group and an aggregate.
        SchemaError::DuplicateUnqualifiedField { name } if name.ends_with(')') => Error::invalid(format!(
            "two columns are named `{name}`"
        ))
        .with_hint("give one of them another name with AS; GROUP BY takes no aggregate, by its position or its name"),
        SchemaError::DuplicateUnqualifiedField { name } | SchemaError::DuplicateQualifiedField { name, .. } => {
            Error::invalid(format!("two columns are named `{name}`")).with_hint("give one of them another name with AS")
        }
    }
}

fn no_column(field: &Column, valid: &[Column]) -> Error {
    let error = Error::invalid(format!("there is no column `{}`", field.flat_name()));
    let mut known: Vec<&str> = valid.iter().map(|column| column.name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    match near(&field.name, known.iter().copied()) {
        // The column exists, under another table's name.
        Some(same) if same == field.name => {
            let owners: Vec<String> =
                valid.iter().filter(|column| column.name == same).map(Column::flat_name).collect();
            error.with_hint(format!("did you mean `{}`?", owners.join("` or `")))
        }
        Some(name) if name.eq_ignore_ascii_case(&field.name) => {
            error.with_hint(format!("did you mean \"{name}\"? Names with capital letters need double quotes"))
        }
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None if known.is_empty() => error,
        None if known.len() > 24 => error.with_hint(format!("columns are {}, ...", known[..24].join(", "))),
        None => error.with_hint(format!("columns are {}", known.join(", "))),
    }
}

fn plan(message: &str, names: &KnownNames) -> Error {
    if let Some(table) = quoted_after(message, "table '").filter(|_| message.contains("not found")) {
        let short = table.strip_prefix("datafusion.public.").unwrap_or(table);
        let error = Error::invalid(format!("there is no table `{short}`"));
        return match near(short, names.tables.iter().map(String::as_str)) {
            Some(name) => error.with_hint(format!("did you mean `{name}`?")),
            None if names.tables.is_empty() => {
                error.with_hint("a file is named in quotes: FROM 'data.parquet'".to_string())
            }
            None => error.with_hint(format!("tables are {}", names.tables.join(", "))),
        };
    }
    if let Some(function) = quoted_after(message, "Invalid function '") {
        let error = Error::invalid(format!("there is no function `{function}`"));
        return match near(function, names.functions.iter().map(String::as_str)) {
            Some(name) => error.with_hint(format!("did you mean `{name}`?")),
            None => error,
        };
    }
    if message.contains("require unique expression names") {
        return Error::invalid("two columns have one name, where each needs its own")
            .with_hint("give one of them another name with AS");
    }
    Error::invalid(sentence(message))
}

/// A type that this SQL does not have, with its place and the near name.
fn unknown_type(name: &str, text: &str) -> Error {
    const TYPES: &[&str] = &[
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "INT64",
        "FLOAT",
        "DOUBLE",
        "FLOAT64",
        "DECIMAL",
        "NUMERIC",
        "VARCHAR",
        "STRING",
        "TEXT",
        "BYTEA",
        "BYTES",
        "DATE",
        "TIME",
        "TIMESTAMP",
        "DATETIME",
        "INTERVAL",
    ];
    let error = Error::invalid(format!("there is no type {name}"));
    let error = match near(name, TYPES.iter().copied()) {
        Some(known) if !known.eq_ignore_ascii_case(name) => error.with_hint(format!("did you mean {known}?")),
        _ => error.with_hint(format!("types are {}", TYPES.join(", "))),
    };
    let first = name.split(['(', ' ']).next().unwrap_or(name);
    let tokens = tokenize(text).unwrap_or_default();
    match tokens.iter().find(|token| is_word(token, first)) {
        Some(token) => error.at_offset(offset_of(text, token.span.start)),
        None => error,
    }
}

fn quoted_after<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = &message[message.find(prefix)? + prefix.len()..];
    rest.split('\'').next()
}

fn exhausted(message: &str) -> Error {
    let root = message.find(EXHAUSTED).map_or(message, |at| &message[at..]);
    Error::invalid(sentence(root)).with_hint("allow more with -m (engine.memory_limit), or use fewer threads with -j")
}

/// The first line of a message, without the query engine's own prefixes and backtraces.
pub(crate) fn sentence(message: &str) -> String {
    let message = message.split("\n\nbacktrace:").next().unwrap_or(message);
    let mut message = message.lines().next().unwrap_or(message).trim();
    for prefix in ["Error during planning: ", "Execution error: ", "Arrow error: ", "External error: "] {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    message.to_string()
}
