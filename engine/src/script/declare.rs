//! `DECLARE name TYPE [DEFAULT expression]`: a parameter of the job. `-p name=value` comes before the default; either is
//! cast to the declared type, and what cannot be cast is refused here, not where it is used.

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::parameters::Parameter;
use super::tokens::{begins_with, describe, identifier, is_word, offset_at, token_at};
use crate::error::{Error, Result};
use crate::mistake::sentence;
use crate::session::Session;

/// A parsed declaration.
#[derive(Debug)]
pub(crate) struct Declare {
    pub(crate) name: String,
    type_tokens: Vec<TokenWithSpan>,
    default: Option<Vec<TokenWithSpan>>,
}

impl Declare {
    pub(crate) fn parse(text: &str, words: &[TokenWithSpan]) -> Result<Self> {
        let at = |index: usize| offset_at(text, words, index);
        let expected = |what: &str, index: usize| {
            Error::invalid(format!("expected {what}, found {}", describe(words, index))).at_offset(at(index))
        };
        let name = words.get(1).and_then(identifier).ok_or_else(|| expected("a parameter's name", 1))?;
        let type_end = words.iter().position(|word| is_word(word, "DEFAULT")).unwrap_or(words.len());
        if type_end <= 2 {
            return Err(expected("a type, as in DECLARE name DOUBLE DEFAULT 0.5", 2));
        }
        let type_tokens = words[2..type_end].to_vec();
        check_type(&type_tokens).map_err(|message| Error::invalid(message).at_offset(at(2)))?;
        let default = (type_end < words.len()).then(|| words[type_end + 1..].to_vec());
        if default.as_ref().is_some_and(Vec::is_empty) {
            return Err(expected("a value after DEFAULT", words.len()));
        }
        Ok(Declare { name, type_tokens, default })
    }

    /// The name and type for progress and report.
    pub(crate) fn title(&self) -> String {
        format!("DECLARE {} {}", self.name, self.sql_type())
    }

    /// The type as SQL.
    pub(crate) fn sql_type(&self) -> String {
        let mut sql = String::new();
        for token in &self.type_tokens {
            let text = token.token.to_string();
            let glued = matches!(token.token, Token::LParen | Token::RParen | Token::Comma | Token::Lt | Token::Gt);
            if !sql.is_empty() && !glued && !sql.ends_with(['(', '<', ',']) {
                sql.push(' ');
            }
            sql.push_str(&text);
        }
        sql
    }

    /// Gives the parameter its value: the overriding one, else the default.
    ///
    /// # Errors
    /// Neither is there, or the value is not of the type.
    pub(crate) async fn evaluate(&self, session: &Session, text: &str, given: Option<&str>) -> Result<Parameter> {
        let value = match (given, &self.default) {
            (Some(given), _) => {
                let literal = token_at(&self.type_tokens[0], Token::SingleQuotedString(given.to_string()));
                self.cast(session, text, vec![literal]).await.map_err(|_| {
                    let kind = self.sql_type();
                    Error::Usage(format!("parameter `{}` is declared as {kind}, and `{given}` is no {kind}", self.name))
                })?
            }
            (None, Some(default)) => self.cast(session, text, default.clone()).await?,
            (None, None) => {
                return Err(Error::Usage(format!(
                    "parameter `{0}` has no value: give it one with -p {0}=... (it is a {1})",
                    self.name,
                    self.sql_type()
                )));
            }
        };
        Ok(Parameter { name: self.name.clone(), sql_type: self.sql_type(), value })
    }

    async fn cast(&self, session: &Session, text: &str, value: Vec<TokenWithSpan>) -> Result<ScalarValue> {
        let place = value.first().unwrap_or(&self.type_tokens[0]).clone();
        let made = |token: Token| token_at(&place, token);
        let mut tokens: Vec<TokenWithSpan> = ["SELECT", "CAST"].map(|word| made(Token::make_keyword(word))).to_vec();
        tokens.extend([made(Token::LParen), made(Token::LParen)]);
        tokens.extend(value);
        tokens.extend([made(Token::RParen), made(Token::make_keyword("AS"))]);
        tokens.extend(self.type_tokens.iter().cloned());
        tokens.push(made(Token::RParen));
        let frame = session.plan_tokens(text, tokens).await?;
        let batches = session.collect(frame).await.map_err(|error| {
            let reason = sentence(&error.find_root().strip_backtrace());
            Error::invalid(format!("parameter `{}` is declared as {}: {reason}", self.name, self.sql_type()))
                .at_offset(super::tokens::offset_of(text, place.span.start))
        })?;
        let value = batches.iter().find(|batch| batch.num_rows() > 0);
        match value {
            Some(batch) => Ok(ScalarValue::try_from_array(batch.column(0), 0)?),
            None => Err(Error::invalid(format!("the default of parameter `{}` is a query without rows", self.name))),
        }
    }
}

fn check_type(tokens: &[TokenWithSpan]) -> Result<(), String> {
    if begins_with(tokens, &["="]) {
        return Err("expected a type".to_string());
    }
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens.to_vec());
    let shown = || tokens.iter().map(|token| token.token.to_string()).collect::<Vec<_>>().join(" ");
    let kind = parser.parse_data_type().map_err(|_| format!("`{}` is no type", shown()))?;
    if parser.peek_token() != Token::EOF {
        return Err(format!(
            "expected DEFAULT or the end of the statement after the type {kind}, found `{}`",
            parser.peek_token().token
        ));
    }
    Ok(())
}
