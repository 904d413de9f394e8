//! One walk over the parsed statement. The parser knows the clauses of a dozen dialects, the planner reads some of them and
//! drops the others without a word; here each is walked on (the planner reads it), rewritten into what the planner reads, or
//! refused with its place.
//!
//! What holds: structures are taken apart without `..` and enumerations without a wildcard, so a new version of the parser
//! does not compile until somebody has decided about each new field. Statements that the planner refuses as a whole are the
//! one exception; they stand together in one arm of `statement.rs`.
//!
//! The walk is linear, and grows the stack as it needs.

mod change;
mod create;
mod expression;
mod function;
mod query;
mod relation;
mod select;
mod statement;

use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::windows::Windows;
use crate::error::{Error, Result};
use crate::script::tokens::{is_word, offset_of, significant, tokenize};

/// A stack below this is grown before the walk goes deeper; frames of debug builds are large.
const RED_ZONE: usize = 256 << 10;
/// By how much.
const GROWTH: usize = 2 << 20;

/// Tells whether a function of this name is planned as a scalar one.
pub(crate) type IsScalar<'a> = &'a dyn Fn(&str) -> bool;

/// Walks the statement `text`.
///
/// # Errors
/// A clause that nothing would read, at its place.
pub(crate) fn settle(statement: &mut SqlStatement, text: &str, is_scalar: IsScalar<'_>) -> Result<()> {
    let begin = Location { line: 0, column: 0 };
    let mut walk = Clauses {
        text,
        is_scalar,
        from: begin,
        at: begin,
        windows: Vec::new(),
        in_boolean: false,
        joined: false,
        prepared: false,
    };
    walk.sql_statement(statement)
}

/// The walk.
struct Clauses<'a> {
    text: &'a str,
    is_scalar: IsScalar<'a>,
    /// Where the innermost statement or SELECT begins.
    from: Location,
    /// The place that was seen last.
    at: Location,
    /// The named windows of the SELECTs around, innermost last.
    windows: Vec<Windows>,
    /// Whether the expression belongs to AND, OR and NOT above it, which have been put right already.
    in_boolean: bool,
    /// Whether the innermost SELECT reads several tables.
    joined: bool,
    /// Whether the statement is being prepared.
    prepared: bool,
}

impl Clauses<'_> {
    /// Remembers where the walk is.
    fn seen(&mut self, span: Span) {
        if span.start.line > 0 {
            self.at = span.start;
        }
    }

    fn seen_ident(&mut self, ident: &Ident) {
        self.seen(ident.span);
    }

    fn seen_name(&mut self, name: &ObjectName) {
        if let Some(ObjectNamePart::Identifier(ident)) = name.0.first() {
            self.seen(ident.span);
        }
    }

    /// Goes deeper, on a larger stack if need be.
    fn deeper<T>(&mut self, walk: impl FnOnce(&mut Self) -> T) -> T {
        stacker::maybe_grow(RED_ZONE, GROWTH, || walk(self))
    }

    /// Refuses a clause, at its first words after the beginning of the SELECT or statement.
    fn refuse(&self, clause: &str) -> Error {
        Error::invalid(format!("{clause} is not supported")).at_offset(self.place_of(clause))
    }

    /// Refuses what has been seen last.
    fn refuse_here(&self, what: &str) -> Error {
        Error::invalid(format!("{what} is not supported")).at_offset(self.offset(self.at))
    }

    /// An error at what has been seen last.
    fn wrong(&self, message: impl Into<String>) -> Error {
        Error::invalid(message).at_offset(self.offset(self.at))
    }

    fn offset(&self, location: Location) -> usize {
        if location.line == 0 { 0 } else { offset_of(self.text, location) }
    }

    fn place_of(&self, clause: &str) -> usize {
        let words: Vec<&str> = clause.split(' ').filter(|word| word.chars().all(char::is_alphanumeric)).collect();
        let tokens = significant(&tokenize(self.text).unwrap_or_default());
        let is_here = |index: usize| {
            let here = tokens.get(index..index + words.len());
            here.is_some_and(|here| here.iter().zip(&words).all(|(token, word)| is_word(token, word)))
        };
        let after = |from: Location| {
            let begin = tokens.iter().position(|token| token.span.start >= from)?;
            (begin..tokens.len()).find(|index| is_here(*index)).map(|index| self.offset(tokens[index].span.start))
        };
        if words.is_empty() {
            return self.offset(self.at);
        }
        after(self.from).or_else(|| after(Location { line: 0, column: 0 })).unwrap_or_else(|| self.offset(self.at))
    }

    /// Refuses a clause when it is there.
    fn none<T>(&self, clause: &str, given: &Option<T>) -> Result<()> {
        match given {
            Some(_) => Err(self.refuse(clause)),
            None => Ok(()),
        }
    }

    /// Refuses a clause when it is there.
    fn empty<T>(&self, clause: &str, given: &[T]) -> Result<()> {
        if given.is_empty() { Ok(()) } else { Err(self.refuse(clause)) }
    }

    /// Refuses a word when it is there.
    fn not(&self, clause: &str, given: bool) -> Result<()> {
        if given { Err(self.refuse(clause)) } else { Ok(()) }
    }
}
#[cfg(test)]
mod tests;
