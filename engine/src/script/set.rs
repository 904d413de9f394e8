//! `SET key = value`: an option of the session from here on, with the keys of `--set` and of the configuration file.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{describe, is_word, offset_at, string_literal};
use crate::error::{Error, Result};
use crate::session::Session;

/// A parsed `SET`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) key: String,
    pub(crate) value: String,
    offset: usize,
}

impl Set {
    pub(crate) fn parse(text: &str, words: &[TokenWithSpan]) -> Result<Self> {
        let end = words
            .iter()
            .position(|word| word.token == Token::Eq || is_word(word, "TO"))
            .ok_or_else(|| Error::invalid("expected SET key = value").at_offset(offset_at(text, words, 1)))?;
        let key: String = words[1..end].iter().map(plain).collect();
        if key.is_empty() {
            return Err(Error::invalid(format!("expected a key, found {}", describe(words, 1)))
                .at_offset(offset_at(text, words, 1)));
        }
        let value: String = words[end + 1..].iter().map(plain).collect();
        if value.is_empty() && words.len() == end + 1 {
            return Err(Error::invalid(format!("expected a value for {key}")).at_offset(text.len()));
        }
        Ok(Set { key, value, offset: offset_at(text, words, 1) })
    }

    /// Applies it.
    pub(crate) fn apply(&self, session: &Session) -> Result<()> {
        session.set(&self.key, &self.value).map_err(|error| match error {
            // In a script a wrong option is a mistake at a place, not one of the command line.
            Error::Usage(message) => Error::invalid(message).at_offset(self.offset),
            other => other,
        })
    }
}

fn plain(token: &TokenWithSpan) -> String {
    string_literal(token).map_or_else(|| token.token.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tokens::{significant, tokenize};

    #[test]
    fn keys_and_values() {
        for (text, expected) in [
            ("SET engine.batch_size = 1024", Some(("engine.batch_size", "1024"))),
            ("SET engine.memory_limit TO '512 m'", Some(("engine.memory_limit", "512 m"))),
            ("SET engine.memory_limit = 512m", Some(("engine.memory_limit", "512m"))),
            ("SET ml.seed = -1", Some(("ml.seed", "-1"))),
            ("SET sink.compression = zstd", Some(("sink.compression", "zstd"))),
            ("SET a = ''", Some(("a", ""))),
            ("SET a", None),
            ("SET a =", None),
            ("SET = 1", None),
        ] {
            let words = significant(&tokenize(text).unwrap());
            let got = Set::parse(text, &words).ok();
            assert_eq!(got.as_ref().map(|set| (set.key.as_str(), set.value.as_str())), expected, "{text}");
        }
    }
}
