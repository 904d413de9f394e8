//! Walks over a statement's tokens. Every error carries its place in the statement's text.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use engine::{Error, Result};

/// A place in the tokens of one statement. `tokens` holds no white space or comments.
pub(crate) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first token.
    pub(crate) fn new(text: &'a str, tokens: &'a [TokenWithSpan]) -> Self {
        let end = tokens.iter().rposition(|t| !matches!(t.token, Token::SemiColon | Token::EOF)).map_or(0, |i| i + 1);
        Cursor { text, tokens: &tokens[..end], at: 0 }
    }

    /// The next token, without taking it.
    pub(crate) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    /// Takes the next token.
    pub(crate) fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at).map(|t| &t.token);
        self.at += usize::from(token.is_some());
        token
    }

    /// Byte offset of the next token, or of the end of the text.
    pub(crate) fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |t| offset_of(self.text, t.span.start))
    }

    /// Byte offset of the end of the last token taken.
    fn offset_after_last(&self) -> usize {
        match self.at.checked_sub(1).and_then(|i| self.tokens.get(i)) {
            Some(t) => offset_of(self.text, t.span.end),
            None => 0,
        }
    }

    /// An error at the next token: `expected X, got Y`.
    pub(crate) fn expected(&self, what: &str) -> Error {
        let got = self.peek().map_or("the end of the statement".to_string(), |t| format!("`{t}`"));
        Error::invalid(format!("expected {what}, got {got}")).at_offset(self.offset())
    }

    /// Whether the next token is this word, unquoted, in any case.
    pub(crate) fn at_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
    }

    /// Takes the words when they come next, all of them or none.
    pub(crate) fn take_words(&mut self, words: &[&str]) -> bool {
        let start = self.at;
        for word in words {
            if !self.at_word(word) {
                self.at = start;
                return false;
            }
            self.at += 1;
        }
        true
    }

    /// Takes the words, which must come next.
    pub(crate) fn expect_words(&mut self, words: &[&str]) -> Result<()> {
        if self.take_words(words) { Ok(()) } else { Err(self.expected(&words.join(" "))) }
    }

    /// Takes this token when it comes next.
    pub(crate) fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    /// Takes this token, which must come next.
    pub(crate) fn expect(&mut self, token: &Token) -> Result<()> {
        if self.take(token) { Ok(()) } else { Err(self.expected(&format!("`{token}`"))) }
    }

    /// A name with its parts joined by dots, folded to lower case where it is not quoted. Hyphens without space around them
    /// belong to it, as in BigQuery's names of projects.
    pub(crate) fn name(&mut self, what: &str) -> Result<String> {
        let mut name = self.name_part(what)?;
        loop {
            if self.take(&Token::Period) {
                name.push('.');
                name.push_str(&self.name_part(what)?);
            } else if let Some(part) = self.hyphened() {
                name.push('-');
                name.push_str(part.strip_suffix('.').unwrap_or(&part));
                if part.ends_with('.') {
                    // `a-1.b`: the tokens are `a`, `-`, `1.` and `b`.
                    name.push('.');
                    name.push_str(&self.name_part(what)?);
                }
            } else {
                return Ok(name);
            }
        }
    }

    /// What follows a hyphen that touches both neighbours, when that comes next.
    fn hyphened(&mut self) -> Option<String> {
        let [before, hyphen, after] = self.tokens.get(self.at.checked_sub(1)?..self.at + 2)? else { return None };
        let touching = before.span.end == hyphen.span.start && hyphen.span.end == after.span.start;
        let part = match &after.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_lowercase(),
            Token::Number(digits, false) => digits.clone(),
            _ => return None,
        };
        if hyphen.token != Token::Minus || !touching {
            return None;
        }
        self.at += 2;
        Some(part)
    }

    fn name_part(&mut self, what: &str) -> Result<String> {
        let part = match self.peek() {
            Some(Token::Word(w)) if w.quote_style.is_none() => w.value.to_lowercase(),
            Some(Token::Word(w)) => w.value.clone(),
            // The generic dialect reads a name in single quotes as text; people write both.
            Some(Token::SingleQuotedString(s)) => s.clone(),
            _ => return Err(self.expected(what)),
        };
        self.at += 1;
        Ok(part)
    }

    /// Takes `( ... )` with balanced parentheses and gives the text between them and where it begins.
    pub(crate) fn parenthesised(&mut self) -> Result<(&'a str, usize)> {
        let open = self.offset();
        self.expect(&Token::LParen)?;
        let start = self.offset_after_last();
        let mut depth = 1;
        loop {
            let end = self.offset();
            match self.next() {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) => depth -= 1,
                Some(_) => {}
                None => return Err(Error::invalid("this `(` is never closed").at_offset(open)),
            }
            if depth == 0 {
                return Ok((&self.text[start..end], start));
            }
        }
    }

    /// All that is left, as text; the cursor is at its end then.
    pub(crate) fn rest(&mut self) -> &'a str {
        let start = self.offset();
        self.at = self.tokens.len();
        let end = self.offset_after_last().max(start);
        &self.text[start..end]
    }

    /// Nothing may be left.
    pub(crate) fn expect_end(&self) -> Result<()> {
        if self.at == self.tokens.len() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }
}

/// Byte offset of a line and column (both from 1, columns in characters); the end of `text` when it lies beyond.
pub(crate) fn offset_of(text: &str, location: Location) -> usize {
    let mut start = 0;
    for _ in 1..location.line {
        match text[start..].find('\n') {
            Some(end) => start += end + 1,
            None => return text.len(),
        }
    }
    let column = usize::try_from(location.column.saturating_sub(1)).unwrap_or(usize::MAX);
    text[start..].char_indices().nth(column).map_or(text.len(), |(at, _)| start + at)
}
