//! SQL tokens of one statement and what everybody needs to ask of them: where a token lies in the text, which word it
//! is, where a parenthesis closes. The lexer is the SQL parser's own, so a script and the parser never disagree about
//! what a literal or a comment is.

use std::ops::Range;

use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, Result};

/// Tokens of `text` with white space and comments, without the end marker; an unterminated literal is an error with
/// its offset.
pub fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>> {
    tokenize_as(text, &GenericDialect {})
}

/// As [`tokenize`], by the rules of a dialect: what is a literal, and what an operator, differs.
pub fn tokenize_as(text: &str, dialect: &dyn Dialect) -> Result<Vec<TokenWithSpan>> {
    Tokenizer::new(dialect, text).tokenize_with_location().map_err(|error| {
        let offset = offset_of(text, error.location);
        Error::invalid(error.message).at_offset(offset)
    })
}

/// Byte offset of a line and column (both from 1, columns in characters); the end of `text` when it lies beyond.
pub fn offset_of(text: &str, location: Location) -> usize {
    let mut offset = 0;
    for _ in 1..location.line {
        match text[offset..].find('\n') {
            Some(end) => offset += end + 1,
            None => return text.len(),
        }
    }
    let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
    text[offset..].char_indices().nth(column).map_or(text.len(), |(at, _)| offset + at)
}

/// The bytes of `text` that a token was made from.
pub fn range_of(text: &str, token: &TokenWithSpan) -> Range<usize> {
    offset_of(text, token.span.start)..offset_of(text, token.span.end)
}

/// Only the tokens that mean something.
pub fn significant(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    tokens.iter().filter(|token| !is_space(token)).cloned().collect()
}

/// White space or a comment.
pub fn is_space(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Whitespace(_) | Token::EOF)
}

/// Whether the token is this unquoted word, whatever its case.
pub fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

/// Whether the tokens begin with these words.
pub fn begins_with(tokens: &[TokenWithSpan], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| is_word(token, word))
}

/// The text of a string literal.
pub fn string_literal(token: &TokenWithSpan) -> Option<&str> {
    match &token.token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Some(text),
        Token::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// How a name is used by the engine: unquoted names are folded to lower case.
pub fn identifier(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        Token::Word(word) => Some(word.value.clone()),
        _ => None,
    }
}

/// Index of the token after the parenthesis that closes the one at `open`; `None` when it never closes.
pub fn after_parenthesis(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Offset of the token at `index`, or of the end of `text` when there are no more.
pub fn offset_at(text: &str, tokens: &[TokenWithSpan], index: usize) -> usize {
    tokens.get(index).map_or(text.len(), |token| offset_of(text, token.span.start))
}

/// A made-up token at the place of another, so that errors about it point there.
pub fn token_at(place: &TokenWithSpan, token: Token) -> TokenWithSpan {
    TokenWithSpan { token, span: place.span }
}

/// How a token is called in an error message.
pub fn describe(tokens: &[TokenWithSpan], index: usize) -> String {
    tokens.get(index).map_or_else(|| "the end of the statement".to_string(), |token| format!("`{}`", token.token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters_and_lines() {
        let text = "SELECT 'é',\n  x\nFROM t";
        for word in ["SELECT", "x", "FROM", "t"] {
            let tokens = tokenize(text).unwrap();
            let token = tokens.iter().find(|token| is_word(token, word)).unwrap();
            assert_eq!(&text[range_of(text, token)], word);
        }
    }

    #[test]
    fn parentheses_close_where_they_should() {
        for (text, after) in [("(a)", Some(3)), ("(a (b) c) d", Some(7)), ("(a", None), ("('(') x", Some(3))] {
            let tokens = significant(&tokenize(text).unwrap());
            assert_eq!(after_parenthesis(&tokens, 0), after, "{text}");
        }
    }
}
