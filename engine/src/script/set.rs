//! `SET key = value` and `RESET key`: an option of the session from here on, with the keys of `--set` and of the
//! configuration file. The query engine's own keys are those that begin with `datafusion.`, and `TIME ZONE`.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{begins_with, describe, is_word, offset_at, string_literal};
use crate::error::{Error, Result};
use crate::session::Session;

/// A parsed `SET`, or a `RESET`, which has no value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) key: String,
    value: Option<String>,
    offset: usize,
}

impl Set {
    pub(crate) fn parse(text: &str, words: &[TokenWithSpan]) -> Result<Self> {
        let (key, mut at) = if begins_with(&words[1..], &["TIME", "ZONE"]) {
            ("timezone".to_string(), 3)
        } else {
            let end = words.iter().position(is_assignment).unwrap_or(words.len());
            (words[1..end].iter().map(plain).collect(), end)
        };
        let is_time_zone = key == "timezone" && at == 3;
        match words.get(at) {
            Some(word) if is_assignment(word) => at += 1,
            Some(_) if is_time_zone => {}
            _ => return Err(Error::invalid("expected SET key = value").at_offset(offset_at(text, words, 1))),
        }
        if key.is_empty() {
            return Err(Error::invalid(format!("expected a key, found {}", describe(words, 1)))
                .at_offset(offset_at(text, words, 1)));
        }
        let value = value(text, words, at, &key)?;
        Ok(Set { key, value: Some(value), offset: offset_at(text, words, 1) })
    }

    pub(crate) fn parse_reset(text: &str, words: &[TokenWithSpan]) -> Result<Self> {
        let offset = offset_at(text, words, 1);
        let is_time_zone = words.len() == 3 && begins_with(&words[1..], &["TIME", "ZONE"]);
        let key: String = if is_time_zone { "timezone".into() } else { words[1..].iter().map(plain).collect() };
        if key.is_empty() {
            return Err(Error::invalid("expected RESET key").at_offset(offset));
        }
        Ok(Set { key, value: None, offset })
    }

    pub(crate) fn title(&self) -> String {
        format!("{} {}", if self.value.is_some() { "SET" } else { "RESET" }, self.key)
    }

    /// Applies it.
    pub(crate) fn apply(&self, session: &Session) -> Result<()> {
        let done = match &self.value {
            Some(value) => session.set(&self.key, value),
            None => session.reset(&self.key),
        };
        done.map_err(|error| match error {
            // In a script a wrong option is a mistake at a place, not one of the command line.
            Error::Usage(message) => Error::invalid(message).at_offset(self.offset),
            other => other,
        })
    }
}

fn is_assignment(word: &TokenWithSpan) -> bool {
    word.token == Token::Eq || is_word(word, "TO")
}

fn value(text: &str, words: &[TokenWithSpan], at: usize, key: &str) -> Result<String> {
    let offset = offset_at(text, words, at);
    match &words[at..] {
        [] => Err(Error::invalid(format!("expected a value for {key}")).at_offset(text.len())),
        [null] if is_word(null, "NULL") => Err(Error::invalid(format!("NULL is no value for {key}"))
            .at_offset(offset)
            .with_hint(format!("RESET {key}"))),
        given if given.iter().any(|word| word.token == Token::Comma) => {
            Err(Error::invalid(format!("expected one value for {key}, got several")).at_offset(offset))
        }
        given => Ok(given.iter().map(plain).collect()),
    }
}

fn plain(token: &TokenWithSpan) -> String {
    match &token.token {
        Token::Word(word) => word.value.clone(),
        other => string_literal(token).map_or_else(|| other.to_string(), str::to_string),
    }
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
            ("SET a = \"tree\"", Some(("a", "tree"))),
            ("SET TIME ZONE = '+08:00'", Some(("timezone", "+08:00"))),
            ("SET TIME ZONE 'UTC'", Some(("timezone", "UTC"))),
            ("SET a = NULL", None),
            ("SET a = 1, 2", None),
            ("SET a", None),
            ("SET a =", None),
            ("SET = 1", None),
        ] {
            let words = significant(&tokenize(text).unwrap());
            let got = Set::parse(text, &words).ok();
            let got = got.as_ref().and_then(|set| Some((set.key.as_str(), set.value.as_deref()?)));
            assert_eq!(got, expected, "{text}");
        }
    }
}
