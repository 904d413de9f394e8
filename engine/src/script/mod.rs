//! Job scripts: text cut into statements, statements run in order. Plain SQL goes to the query engine; `DECLARE`, `SET`,
//! `ASSERT`, `COPY` and `CREATE EXTERNAL TABLE` are ours; what an extension recognises is the extension's.

mod assert;
mod change;
mod check;
pub(crate) mod copy;
mod create_table;
mod declare;
pub mod field_access;
mod insert;
pub(crate) mod keys;
pub(crate) mod names;
pub mod parameters;
pub(crate) mod run;
mod set;
mod split;
pub(crate) mod sql;
mod store;
mod title;
pub mod tokens;

pub use run::{Resume, RunSettings};
pub use split::{Script, is_complete};

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::error::Result;
use crate::extension::Statement;
use crate::session::Session;
use tokens::{begins_with, is_word, significant};

/// A statement, as far as its first words tell.
pub(crate) enum Kind {
    Declare(declare::Declare),
    Set(set::Set),
    Assert(assert::Assert),
    Copy(copy::Copy),
    Extension(Arc<dyn Statement>),
    /// All that the query engine plans, with parameters bound.
    Sql(Vec<TokenWithSpan>),
}

/// Tells what kind of statement `text` is and reads it as far as can be done without looking at any table.
pub(crate) fn parse(session: &Session, text: &str) -> Result<Kind> {
    let bound = session.bind(text)?;
    let words = significant(&bound);
    if begins_with(&words, &["DECLARE"]) {
        return Ok(Kind::Declare(declare::Declare::parse(text, &words)?));
    }
    if begins_with(&words, &["SET"]) {
        return Ok(Kind::Set(set::Set::parse(text, &words)?));
    }
    if begins_with(&words, &["RESET"]) {
        return Ok(Kind::Set(set::Set::parse_reset(text, &words)?));
    }
    if begins_with(&words, &["ASSERT"]) {
        return Ok(Kind::Assert(assert::Assert::parse(text, &words)?));
    }
    for parser in &session.extension().statements {
        if parser.recognises(&words) {
            return Ok(Kind::Extension(parser.parse(text, &words)?));
        }
    }
    if words.first().is_some_and(|word| is_word(word, "COPY"))
        && !words.get(1).is_some_and(|word| is_word(word, "INTO"))
    {
        return Ok(Kind::Copy(copy::Copy::parse(text, &words)?));
    }
    Ok(Kind::Sql(bound))
}
