//! Parameters of a job: what `DECLARE` made and `-p` overrode. A parameter is a typed value. It enters a statement as
//! tokens of a literal (`$day` becomes `CAST('2013-01-01' AS DATE)`) and is never lexed again, so no value can change
//! what a statement means. Only inside the string literals of LOCATION, TO and OPTIONS does `${name}` stand for the
//! value's text.

use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{is_space, is_word, offset_of, token_at, tokenize};
use crate::error::{Error, Result, near};

/// One declared parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// As declared, folded to lower case.
    pub name: String,
    /// The SQL type as written.
    pub sql_type: String,
    /// Its value.
    pub value: ScalarValue,
}

impl Parameter {
    /// The value as text; NULL is the empty text.
    pub fn text(&self) -> String {
        text_of(&self.value)
    }
}

/// All parameters declared so far, in order.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
}

impl Parameters {
    /// Declares a parameter, or declares it anew.
    pub fn set(&mut self, parameter: Parameter) {
        match self.list.iter_mut().find(|known| known.name == parameter.name) {
            Some(known) => *known = parameter,
            None => self.list.push(parameter),
        }
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.list.iter().find(|parameter| parameter.name.eq_ignore_ascii_case(name))
    }

    /// In order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.list.iter()
    }

    /// Names and values as text, in order of declaration.
    pub fn texts(&self) -> Vec<(String, String)> {
        self.list.iter().map(|parameter| (parameter.name.clone(), parameter.text())).collect()
    }

    /// Puts values in the place of `$name`, and of `${name}` in the literals where that is allowed. `text` is what the
    /// tokens were made from.
    ///
    /// # Errors
    /// A name that was not declared, with its offset and the near name.
    pub fn bind(&self, text: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
        let texts_allowed = places_of_text(&tokens);
        let mut bound = Vec::with_capacity(tokens.len());
        for (token, text_allowed) in tokens.into_iter().zip(texts_allowed) {
            match &token.token {
                // `$1` belongs to PREPARE, which the query engine knows.
                Token::Placeholder(name) if name.starts_with('$') && name[1..].parse::<usize>().is_err() => {
                    let parameter = self.named(&name[1..], || offset_of(text, token.span.start))?;
                    bound.extend(literal(parameter)?.into_iter().map(|literal| token_at(&token, literal)));
                }
                Token::SingleQuotedString(template) if text_allowed && template.contains("${") => {
                    let filled = self.fill(template, || offset_of(text, token.span.start))?;
                    bound.push(token_at(&token, Token::SingleQuotedString(filled)));
                }
                _ => bound.push(token),
            }
        }
        Ok(bound)
    }

    /// `offset` is asked only for an error: finding it takes a walk through the statement.
    fn named(&self, name: &str, offset: impl FnOnce() -> usize) -> Result<&Parameter> {
        self.get(name).ok_or_else(|| {
            let error = Error::invalid(format!("there is no parameter `{name}`")).at_offset(offset());
            match near(name, self.list.iter().map(|parameter| parameter.name.as_str())) {
                Some(known) => error.with_hint(format!("did you mean `${known}`?")),
                None => error.with_hint(format!("declare it first: DECLARE {name} TYPE DEFAULT ...;")),
            }
        })
    }

    fn fill(&self, template: &str, offset: impl Fn() -> usize) -> Result<String> {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(open) = rest.find("${") {
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| Error::invalid(format!("`${{` in '{template}' is never closed")).at_offset(offset()))?;
            filled.push_str(&rest[..open]);
            filled.push_str(&self.named(rest[open + 2..open + close].trim(), &offset)?.text());
            rest = &rest[open + close + 1..];
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// For each token whether it is a literal in which `${name}` is filled in: after LOCATION or TO (also each of
/// `LOCATION ('a', 'b')`), and anything inside `OPTIONS (...)`.
fn places_of_text(tokens: &[TokenWithSpan]) -> Vec<bool> {
    let mut allowed = vec![false; tokens.len()];
    let mut previous: Option<usize> = None;
    let mut list_depth: Option<usize> = None;
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        if is_space(token) {
            continue;
        }
        let after =
            |words: &[&str]| previous.is_some_and(|before| words.iter().any(|word| is_word(&tokens[before], word)));
        match token.token {
            Token::LParen => {
                depth += 1;
                if list_depth.is_none() && after(&["LOCATION", "OPTIONS"]) {
                    list_depth = Some(depth);
                }
            }
            Token::RParen => {
                if list_depth == Some(depth) {
                    list_depth = None;
                }
                depth = depth.saturating_sub(1);
            }
            Token::SingleQuotedString(_) => allowed[index] = list_depth.is_some() || after(&["LOCATION", "TO"]),
            _ => {}
        }
        previous = Some(index);
    }
    allowed
}

/// Tokens of a literal of the parameter's value. Whole and floating numbers are plain number literals, so that they fit
/// wherever SQL or an OPTIONS list wants one; all else that SQL has no literal for is a cast of its text.
fn literal(parameter: &Parameter) -> Result<Vec<Token>> {
    let value = &parameter.value;
    if value.is_null() {
        return cast(Token::make_keyword("NULL"), &parameter.sql_type);
    }
    let text = text_of(value);
    match value.data_type() {
        DataType::Boolean => Ok(vec![Token::make_keyword(if text == "true" { "TRUE" } else { "FALSE" })]),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(vec![Token::SingleQuotedString(text)]),
        kind if kind.is_integer() => Ok(number(&text)),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => match text.parse::<f64>() {
            Ok(finite) if finite.is_finite() => Ok(number(&floating(&text))),
            _ => cast(Token::SingleQuotedString(text), &parameter.sql_type),
        },
        _ => cast(Token::SingleQuotedString(text), &parameter.sql_type),
    }
}

fn number(text: &str) -> Vec<Token> {
    match text.strip_prefix('-') {
        // In parentheses because unary minus binds less tightly than some operators.
        Some(magnitude) => {
            vec![Token::LParen, Token::Minus, Token::Number(magnitude.to_string(), false), Token::RParen]
        }
        None => vec![Token::Number(text.to_string(), false)],
    }
}

/// `5` as a DOUBLE must not turn into a whole number, or division would truncate.
fn floating(text: &str) -> String {
    if text.contains(['.', 'e', 'E']) { text.to_string() } else { format!("{text}.0") }
}

fn cast(value: Token, sql_type: &str) -> Result<Vec<Token>> {
    let mut tokens = vec![Token::make_keyword("CAST"), Token::LParen, value, Token::make_keyword("AS")];
    tokens.extend(tokenize(sql_type)?.into_iter().filter(|token| !is_space(token)).map(|token| token.token));
    tokens.push(Token::RParen);
    Ok(tokens)
}

/// The text of a value as a cast to VARCHAR gives it.
pub(crate) fn text_of(value: &ScalarValue) -> String {
    if value.is_null() {
        return String::new();
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    value
        .to_array()
        .ok()
        .and_then(|array| cast_with_options(&array, &DataType::Utf8, &strict).ok())
        .and_then(|array| ScalarValue::try_from_array(&array, 0).ok())
        .and_then(|text| text.try_as_str().flatten().map(str::to_string))
        .unwrap_or_else(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Parameters {
        let mut parameters = Parameters::default();
        for (name, sql_type, value) in [
            ("n", "INT", ScalarValue::from(7i32)),
            ("minus", "BIGINT", ScalarValue::from(-7i64)),
            ("rate", "DOUBLE", ScalarValue::from(5.0f64)),
            ("lr", "FLOAT", ScalarValue::from(0.1f32)),
            ("who", "VARCHAR", ScalarValue::from("O'Hara; DROP TABLE t")),
            ("on", "BOOLEAN", ScalarValue::from(true)),
            ("day", "DATE", ScalarValue::Date32(Some(15706))),
            ("price", "DECIMAL(10, 2)", ScalarValue::Decimal128(Some(12345), 10, 2)),
            ("nothing", "INT", ScalarValue::Int32(None)),
        ] {
            parameters.set(Parameter { name: name.into(), sql_type: sql_type.into(), value });
        }
        parameters
    }

    fn bind(text: &str) -> Result<String> {
        let tokens = parameters().bind(text, tokenize(text)?)?;
        Ok(tokens.iter().map(|token| token.token.to_string()).collect())
    }

    #[test]
    fn values_enter_as_literals() {
        for (text, expected) in [
            ("SELECT $n", "SELECT 7"),
            ("LIMIT $N", "LIMIT 7"),
            ("1 - $minus", "1 - (-7)"),
            ("$rate / 2", "5.0 / 2"),
            ("$lr", "0.1"),
            ("name = $who", "name = 'O'Hara; DROP TABLE t'"),
            ("WHERE $on", "WHERE TRUE"),
            ("$day", "CAST('2013-01-01'ASDATE)"),
            ("$price", "CAST('123.45'ASDECIMAL(10,2))"),
            ("$nothing", "CAST(NULLASINT)"),
            ("'$n ${n}'", "'$n ${n}'"),
            ("PREPARE p AS SELECT $1", "PREPARE p AS SELECT $1"),
        ] {
            assert_eq!(bind(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn text_is_filled_into_locations_and_options_only() {
        for (text, expected) in [
            ("COPY t TO 'out/${day}/${ n }'", "COPY t TO 'out/2013-01-01/7'"),
            ("LOCATION 'in/${n}.csv'", "LOCATION 'in/7.csv'"),
            ("LOCATION ('a${n}', 'b${n}') x '${n}'", "LOCATION ('a7', 'b7') x '${n}'"),
            ("OPTIONS ('null' '${who}', f('${n}')) '${n}'", "OPTIONS ('null' 'O'Hara; DROP TABLE t', f('7')) '${n}'"),
            ("SELECT '${n}'", "SELECT '${n}'"),
        ] {
            assert_eq!(bind(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        for (text, message, offset, hint) in [
            ("SELECT $rat", "there is no parameter `rat`", 7, "did you mean `$rate`?"),
            ("SELECT $zzz", "there is no parameter `zzz`", 7, "declare it first: DECLARE zzz TYPE DEFAULT ...;"),
            ("COPY t TO 'x${dat}'", "there is no parameter `dat`", 10, "did you mean `$day`?"),
        ] {
            match bind(text).unwrap_err() {
                Error::Invalid { message: got, offset: at, hint: told } => {
                    assert_eq!((got.as_str(), at, told.as_deref()), (message, Some(offset), Some(hint)));
                }
                other => panic!("{other}"),
            }
        }
    }
}
