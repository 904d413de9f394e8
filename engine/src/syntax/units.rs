//! Units of time that the parser does not know: it takes `decades` in `INTERVAL 3 decades` for a name. Those that intervals
//! have become part of the text, `INTERVAL '3 decades'`; another word in that place is refused.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result, near};
use crate::script::tokens::{is_space, is_word, offset_of, token_at};

/// Plurals and others that intervals know and the parser does not.
const MORE: &[(&str, &str)] = &[
    ("decades", "decades"),
    ("centuries", "centuries"),
    ("msecs", "milliseconds"),
    ("usecs", "microseconds"),
    ("secs", "seconds"),
    ("sec", "seconds"),
    ("mins", "minutes"),
    ("min", "minutes"),
    ("hrs", "hours"),
    ("hr", "hours"),
    ("mons", "months"),
    ("mon", "months"),
    ("yrs", "years"),
    ("yr", "years"),
];
const KNOWN: &[&str] =
    &["years", "months", "weeks", "days", "hours", "minutes", "seconds", "milliseconds", "decades", "centuries"];

/// Reads the units of the statement `text`.
///
/// # Errors
/// A word behind an interval's number that is no unit.
pub(crate) fn read(tokens: Vec<TokenWithSpan>, text: &str) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|token| is_word(token, "INTERVAL")) {
        return Ok(tokens);
    }
    let mut read: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        read.push(token.clone());
        index += 1;
        if !is_word(token, "INTERVAL") {
            continue;
        }
        let next = |from: usize| (from..tokens.len()).find(|index| !is_space(&tokens[*index]));
        let Some(number_at) = next(index) else { continue };
        let Some(number) = number_of(&tokens[number_at].token) else { continue };
        let Some((unit_at, unit)) = next(number_at + 1).and_then(|at| Some((at, plain_word(&tokens[at].token)?)))
        else {
            continue;
        };
        let Some((_, unit)) = MORE.iter().find(|(word, _)| word.eq_ignore_ascii_case(unit)) else {
            let error = Error::invalid(format!("INTERVAL {number} {unit}: there is no unit of time `{unit}`"));
            let error = error.at_offset(offset_of(text, tokens[unit_at].span.start));
            return Err(match near(unit, KNOWN.iter().copied()) {
                Some(known) => error.with_hint(format!("did you mean {known}?")),
                None => error.with_hint(format!("a name needs AS: AS {unit}")),
            });
        };
        let value = Token::SingleQuotedString(format!("{number} {unit}"));
        read.push(token_at(
            &tokens[number_at],
            Token::Whitespace(datafusion::sql::sqlparser::tokenizer::Whitespace::Space),
        ));
        read.push(token_at(&tokens[number_at], value));
        index = unit_at + 1;
    }
    Ok(read)
}

fn number_of(token: &Token) -> Option<String> {
    match token {
        Token::Number(digits, _) => Some(digits.clone()),
        Token::SingleQuotedString(text) if text.trim().parse::<f64>().is_ok() => Some(text.trim().to_string()),
        _ => None,
    }
}

/// A word that is no keyword, so that the parser could only take it for a name.
fn plain_word(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::NoKeyword => Some(&word.value),
        Token::Word(word) if MORE.iter().any(|(known, _)| known.eq_ignore_ascii_case(&word.value)) => Some(&word.value),
        _ => None,
    }
}
