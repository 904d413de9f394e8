//! The statements about models: CREATE, DROP, ALTER, SHOW. Parsing is here; what they do is in the modules they call.

mod alter_model;
mod create_model;
mod cursor;
mod drop_model;
mod show_models;
mod value;

use std::sync::Arc;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use engine::extension::{Statement, StatementParser};
use engine::{Error, Result};

pub use create_model::CreateModel;
pub(crate) use cursor::Cursor;

/// Recognises and parses the statements about models.
#[derive(Debug)]
pub(crate) struct ModelStatements;

/// First words of each statement.
const KEYWORDS: &[&str] = &[
    "CREATE MODEL",
    "CREATE OR REPLACE MODEL",
    "DROP MODEL",
    "ALTER MODEL",
    "SHOW MODELS",
    "SHOW MODEL",
    "EXPORT MODEL",
];

impl StatementParser for ModelStatements {
    fn keywords(&self) -> &'static [&'static str] {
        KEYWORDS
    }

    fn recognises(&self, tokens: &[TokenWithSpan]) -> bool {
        KEYWORDS.iter().any(|words| {
            let words: Vec<&str> = words.split(' ').collect();
            tokens.len() >= words.len() && words.iter().zip(tokens).all(|(word, token)| is_word(&token.token, word))
        })
    }

    fn parse(&self, text: &str, tokens: &[TokenWithSpan]) -> Result<Arc<dyn Statement>> {
        let mut cursor = Cursor::new(text, tokens);
        let first = tokens.first().map(|t| t.token.to_string().to_uppercase()).unwrap_or_default();
        match first.as_str() {
            "CREATE" => Ok(Arc::new(create_model::parse(&mut cursor)?)),
            "DROP" => Ok(Arc::new(drop_model::parse(&mut cursor)?)),
            "ALTER" => Ok(Arc::new(alter_model::parse(&mut cursor)?)),
            "SHOW" => Ok(Arc::new(show_models::parse(&mut cursor)?)),
            "EXPORT" => Err(Error::invalid("EXPORT MODEL is not in this build yet").at_offset(0)),
            _ => Err(cursor.expected(&KEYWORDS.join(", "))),
        }
    }
}

impl ModelStatements {
    /// Parses a CREATE MODEL statement.
    pub(crate) fn parse_create(&self, text: &str, tokens: &[TokenWithSpan]) -> Result<CreateModel> {
        create_model::parse(&mut Cursor::new(text, tokens))
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
