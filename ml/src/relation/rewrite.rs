//! Before a statement is parsed: `MODEL name` in the arguments of an `ML.*` call becomes a literal with the model's id,
//! and the model is loaded; `TABLE name` becomes `(SELECT * FROM name)`.

use async_trait::async_trait;
use datafusion::common::{Diagnostic, Span};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use engine::extension::SqlRewrite;
use engine::{Error, Result, Session};

use super::MODEL_PREFIX;
use crate::function;
use crate::name::ModelName;
use crate::registry;

/// See the module.
#[derive(Debug)]
pub(crate) struct ModelNames;

#[async_trait]
impl SqlRewrite for ModelNames {
    async fn rewrite(&self, session: &Session, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
        if let Some((place, error)) = misplaced(&tokens) {
            return Err(placed(place, error));
        }
        let calls = calls(&tokens);
        if calls.is_empty() {
            return Ok(tokens);
        }
        let mut written = Vec::with_capacity(tokens.len() + 8);
        let mut at = 0;
        for argument in calls {
            written.extend_from_slice(&tokens[at..argument.start]);
            let place = &tokens[argument.start];
            match argument.kind {
                Kind::Model { function, name } => {
                    super::must_exist(&function).map_err(|error| placed(place, error))?;
                    let name = ModelName::parse(&name).map_err(|error| placed(place, error))?;
                    let needs_rows = super::reads_held_out(&function);
                    let id = match function.as_str() {
                        "TRAINING_INFO" => registry::load_curve_for_planning(session, &name).await,
                        _ => registry::load_for_planning(session, &name, needs_rows).await,
                    };
                    let id = id.map_err(|error| placed(place, error))?;
                    written.push(like(place, Token::SingleQuotedString(format!("{MODEL_PREFIX}{id}"))));
                }
                Kind::Models => {
                    let key = super::models_table::remember(session);
                    written.extend_from_slice(&tokens[argument.start..argument.end]);
                    for token in [Token::LParen, Token::SingleQuotedString(key), Token::RParen] {
                        written.push(like(place, token));
                    }
                }
                Kind::Table => {
                    let space =
                        || like(place, Token::Whitespace(datafusion::sql::sqlparser::tokenizer::Whitespace::Space));
                    written.push(like(place, Token::LParen));
                    for token in [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")] {
                        written.push(like(place, token));
                        written.push(space());
                    }
                    written.extend_from_slice(&tokens[argument.start + 1..argument.end]);
                    written.push(like(place, Token::RParen));
                }
            }
            at = argument.end;
        }
        written.extend_from_slice(&tokens[at..]);
        Ok(written)
    }
}

/// `MODEL name` or `TABLE name`, as a range of tokens.
struct Argument {
    start: usize,
    end: usize,
    kind: Kind,
}

enum Kind {
    Model {
        function: String,
        name: String,
    },
    Table,
    /// INFORMATION_SCHEMA.MODELS.
    Models,
}

/// All such arguments, in order.
fn calls(tokens: &[TokenWithSpan]) -> Vec<Argument> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_) | Token::EOF)).collect();
    let token = |i: usize| significant.get(i).map(|at| &tokens[*at].token);
    let mut found = Vec::new();
    // For each open parenthesis the ML function that it belongs to.
    let mut open: Vec<Option<String>> = Vec::new();
    let mut i = 0;
    while let Some(current) = token(i) {
        let begins_argument = matches!(token(i.wrapping_sub(1)), Some(Token::LParen | Token::Comma));
        match current {
            Token::LParen => open.push(ml_function(&token, i)),
            Token::RParen => {
                open.pop();
            }
            Token::Word(word) if word.value.eq_ignore_ascii_case("INFORMATION_SCHEMA") => {
                let models = matches!(token(i + 2), Some(Token::Word(w)) if w.value.eq_ignore_ascii_case("MODELS"));
                if token(i + 1) == Some(&Token::Period) && models && token(i + 3) != Some(&Token::LParen) {
                    found.push(Argument { start: significant[i], end: significant[i + 2] + 1, kind: Kind::Models });
                    i += 2;
                }
            }
            Token::Word(word) if begins_argument && word.quote_style.is_none() => {
                let function = open.last().cloned().flatten();
                let kind = word.value.to_uppercase();
                if let (Some(function), "MODEL" | "TABLE") = (function, kind.as_str())
                    && let Some((name, end)) = name_after(&token, i + 1)
                {
                    let kind = if kind == "MODEL" { Kind::Model { function, name } } else { Kind::Table };
                    found.push(Argument { start: significant[i], end: significant[end - 1] + 1, kind });
                    i = end;
                    continue;
                }
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// A function of TRANSFORM in ordinary SQL, with its place.
fn misplaced(tokens: &[TokenWithSpan]) -> Option<(&TokenWithSpan, Error)> {
    let significant: Vec<&TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)).collect();
    let token = |i: usize| significant.get(i).map(|token| &token.token);
    let calls = (0..significant.len()).filter(|i| token(*i) == Some(&Token::LParen));
    let mut named = calls.filter_map(|i| Some((i, function::named(&ml_function(&token, i)?).ok()?)));
    let (i, usage) = named.find(|(_, usage)| usage.kind == function::Kind::Analytic)?;
    let what = format!("{} stands in TRANSFORM: its statistics are fitted on the training rows", usage.name);
    Some((significant[i - 3], Error::invalid(what).with_hint(format!("TRANSFORM ({} AS x, ...)", usage.call))))
}

/// The X of `ML.X(`, upper case, when the parenthesis at `i` belongs to one.
fn ml_function<'a>(token: &impl Fn(usize) -> Option<&'a Token>, i: usize) -> Option<String> {
    let word = |i: usize| match token(i) {
        Some(Token::Word(word)) => Some(word.value.to_uppercase()),
        _ => None,
    };
    if i < 3 || token(i - 2) != Some(&Token::Period) || word(i - 3)? != "ML" {
        return None;
    }
    word(i - 1)
}

/// A dotted name that ends where the argument does, with the index after it. It may have hyphens, as BigQuery's projects.
fn name_after<'a>(token: &impl Fn(usize) -> Option<&'a Token>, mut i: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    loop {
        match token(i)? {
            Token::Word(word) if word.quote_style.is_none() => name.push_str(&word.value.to_lowercase()),
            Token::Word(word) => name.push_str(&word.value),
            Token::SingleQuotedString(text) => name.push_str(text),
            Token::Number(digits, false) if name.ends_with('-') => name.push_str(digits),
            _ => return None,
        }
        i += 1;
        match token(i)? {
            Token::Period => name.push('.'),
            Token::Minus => name.push('-'),
            Token::Comma | Token::RParen => return Some((name, i)),
            // `a-1.b`: the tokens are `a`, `-`, `1.` and `b`.
            Token::Word(_) if name.ends_with('.') => continue,
            _ => return None,
        }
        i += 1;
    }
}

fn like(place: &TokenWithSpan, token: Token) -> TokenWithSpan {
    TokenWithSpan { token, span: place.span }
}

/// An error at a token: the engine turns the span into a place in the text.
fn placed(token: &TokenWithSpan, error: Error) -> Error {
    let Error::Invalid { message, .. } = &error else { return error };
    let diagnostic = Diagnostic::new_error(message.clone(), Span::try_from_sqlparser_span(token.span));
    Error::Query(DataFusionError::External(Box::new(error)).with_diagnostic(diagnostic))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap();
        let describe = |argument: Argument| {
            let range: String = tokens[argument.start..argument.end].iter().map(|t| t.token.to_string()).collect();
            match argument.kind {
                Kind::Model { function, name } => format!("{range} = {function} {name}"),
                Kind::Table | Kind::Models => range,
            }
        };
        calls(&tokens).into_iter().map(describe).collect()
    }

    #[test]
    fn arguments_of_ml_calls_are_found() {
        let cases: &[(&str, &[&str])] = &[
            ("SELECT model FROM t", &[]),
            ("SELECT f(model, table) FROM t", &[]),
            ("SELECT * FROM ML.EVALUATE(MODEL m)", &["MODEL m = EVALUATE m"]),
            (
                "SELECT * FROM ml.predict(model Late, TABLE s.t, STRUCT(0.5 AS threshold))",
                &["model Late = PREDICT late", "TABLE s.t"],
            ),
            (
                "SELECT * FROM ML.PREDICT(MODEL \"M\"@3, (SELECT model FROM ML.PREDICT(MODEL b, TABLE 'x.csv')))",
                &["MODEL b = PREDICT b", "TABLE 'x.csv'"],
            ),
            (
                "SELECT * FROM ML.PREDICT(MODEL my-project-1.d.m, TABLE t)",
                &["MODEL my-project-1.d.m = PREDICT my-project-1.d.m", "TABLE t"],
            ),
            (
                "SELECT * FROM ML . PREDICT ( MODEL m@champion , /* all */ TABLE t )",
                &["MODEL m@champion = PREDICT m@champion", "TABLE t"],
            ),
            ("SELECT ML.NORMALIZER(model) FROM t", &[]),
            ("SELECT * FROM information_schema.models m", &["information_schema.models"]),
            ("SELECT * FROM information_schema.tables", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(found(text), *expected, "{text}");
        }
    }
}
