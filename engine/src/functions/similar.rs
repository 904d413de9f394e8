//! Patterns of SIMILAR TO as regular expressions, and the function that translates those which no literal gives.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::error::{Error, Result};

/// The function's name.
pub(crate) const NAME: &str = "gm_similar_to_regex";

/// The character that makes the next one stand for itself.
pub(crate) type Escape = Option<char>;

/// The regular expression that matches whole texts as the pattern does.
///
/// # Errors
/// A pattern that ends within brackets or behind its escape, or repeats nothing.
pub(crate) fn to_regex(pattern: &str, escape: Escape) -> Result<String> {
    let wrong = |what: &str| Error::invalid(format!("SIMILAR TO '{pattern}': {what}"));
    let mut regex = String::from("^(?:");
    let mut characters = pattern.chars().peekable();
    // Whether something stands before that can be repeated.
    let mut repeatable = false;
    while let Some(character) = characters.next() {
        let before = std::mem::replace(&mut repeatable, true);
        match character {
            _ if Some(character) == escape => {
                let literal = characters.next().ok_or_else(|| wrong("nothing follows the escape character"))?;
                regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
            }
            '%' => regex.push_str("(?s:.*)"),
            '_' => regex.push_str("(?s:.)"),
            '(' | '|' => {
                regex.push(character);
                repeatable = false;
            }
            ')' => regex.push(')'),
            '*' | '+' | '?' => {
                if !before {
                    return Err(wrong(&format!("`{character}` repeats nothing")));
                }
                regex.push(character);
                repeatable = false;
            }
            '{' => {
                let bounds: String = characters.by_ref().take_while(|next| *next != '}').collect();
                let is_count = !bounds.is_empty() && bounds.chars().all(|next| next.is_ascii_digit() || next == ',');
                if !before || !is_count {
                    return Err(wrong("expected something before {m}, {m,} or {m,n}"));
                }
                regex.push_str(&format!("{{{bounds}}}"));
                repeatable = false;
            }
            '[' => bracket(&mut characters, &mut regex, escape).ok_or_else(|| wrong("a `[` has no `]`"))?,
            literal => regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push_str(")$");
    regex::Regex::new(&regex).map_err(|_| wrong("this is no pattern"))?;
    Ok(regex)
}

/// What stands behind a `[`, up to its `]`; `None` when there is none.
fn bracket(
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
    regex: &mut String,
    escape: Escape,
) -> Option<()> {
    regex.push('[');
    if characters.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    let mut first = true;
    loop {
        let character = characters.next()?;
        match character {
            ']' if !first => {
                regex.push(']');
                return Some(());
            }
            _ if Some(character) == escape => literal_in_bracket(characters.next()?, regex),
            '-' => regex.push('-'),
            '[' if characters.next_if_eq(&':').is_some() => {
                let class: String = characters.by_ref().take_while(|next| *next != ':').collect();
                characters.next_if_eq(&']')?;
                regex.push_str(&format!("[:{}:]", class.to_lowercase()));
            }
            other => literal_in_bracket(other, regex),
        }
        first = false;
    }
}

fn literal_in_bracket(character: char, regex: &mut String) {
    if matches!(character, '[' | ']' | '\\' | '^' | '-' | '&' | '~') {
        regex.push('\\');
    }
    regex.push(character);
}

/// `gm_similar_to_regex(pattern, escape)`: NULL of NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SimilarToRegex {
    signature: Signature,
}

impl Default for SimilarToRegex {
    fn default() -> Self {
        SimilarToRegex { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for SimilarToRegex {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> PlanResult<Vec<DataType>> {
        match types {
            [pattern, _] if pattern.is_string() || *pattern == DataType::Null => {
                Ok(vec![DataType::Utf8, DataType::Utf8])
            }
            _ => plan_err!("SIMILAR TO takes a text as its pattern"),
        }
    }

    fn return_type(&self, _types: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let texts = |index: usize| -> PlanResult<ArrayRef> {
            Ok(cast(&args.args[index].to_array(args.number_rows)?, &DataType::Utf8)?)
        };
        let (patterns, escapes) = (texts(0)?, texts(1)?);
        let (patterns, escapes) = (patterns.as_string::<i32>(), escapes.as_string::<i32>());
        let translate = |row: usize| {
            let escape = if escapes.is_null(row) { None } else { escapes.value(row).chars().next() };
            let translated = to_regex(patterns.value(row), escape);
            translated.map_err(|error| DataFusionError::External(Box::new(error)))
        };
        let rows = (0..patterns.len()).map(|row| patterns.is_valid(row).then(|| translate(row)).transpose());
        Ok(ColumnarValue::Array(Arc::new(rows.collect::<PlanResult<StringArray>>()?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        for (text, pattern, expected) in [
            ("abc", "a", false),
            ("abc", "a%", true),
            ("abc", "(a|x)_c", true),
            ("abc", "a|abc", true),
            ("xabc", "a|abc", false),
            ("a.c", "a.c", true),
            ("abc", "a.c", false),
            ("aaa", "a{2,3}", true),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("b1", "[a-c][[:digit:]]", true),
            ("d1", "[^a-c]1", true),
            ("a\nb", "a_b", true),
            ("$^", "$^", true),
            ("", "", true),
            ("", "%", true),
        ] {
            let regex = regex::Regex::new(&to_regex(pattern, Some('\\')).unwrap()).unwrap();
            assert_eq!(regex.is_match(text), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn patterns_that_are_none_are_refused() {
        for pattern in ["*a", "(?i)a", "[a", "a\\", "a{x}", "(a", "a**"] {
            to_regex(pattern, Some('\\')).unwrap_err();
        }
    }
}
