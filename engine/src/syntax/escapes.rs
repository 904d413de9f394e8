//! ESCAPE of LIKE. The query engine knows the backslash alone, so a pattern that has another letter for it is written anew.

use datafusion::sql::sqlparser::ast::{Expr, Value, ValueWithSpan};

use crate::error::{Error, Result};

/// Has a pattern escape with a backslash.
///
/// # Errors
/// An ESCAPE that is no single letter, or the last letter of its pattern, or that stands beside a pattern which is no text.
pub(super) fn settle(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) -> Result<()> {
    let Some(given) = escape else { return Ok(()) };
    let Value::SingleQuotedString(letter) = &given.value else {
        return Err(Error::invalid(format!("ESCAPE takes one letter in quotes, got {given}")));
    };
    let mut letters = letter.chars();
    let letter = match (letters.next(), letters.next()) {
        (Some('\\'), None) => return Ok(()),
        (letter, None) => letter,
        _ => return Err(Error::invalid(format!("ESCAPE takes one letter, got {given}"))),
    };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = pattern else {
        return Err(Error::invalid(format!("ESCAPE {given} needs a pattern that is a text"))
            .with_hint("without ESCAPE a backslash takes the meaning from % and _ in any pattern"));
    };
    *text = with_backslashes(text, letter)
        .ok_or_else(|| Error::invalid(format!("the pattern {text:?} ends with its ESCAPE letter")))?;
    *escape = None;
    Ok(())
}

/// The same pattern with a backslash in the place of the letter; none when nothing follows the letter.
fn with_backslashes(pattern: &str, letter: Option<char>) -> Option<String> {
    let mut own = String::with_capacity(pattern.len() + 4);
    let mut rest = pattern.chars();
    while let Some(next) = rest.next() {
        let (escaped, plain) = if Some(next) == letter { (true, rest.next()?) } else { (false, next) };
        let is_special = matches!(plain, '%' | '_');
        if plain == '\\' || escaped && is_special {
            own.push('\\');
        }
        own.push(plain);
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::with_backslashes;

    #[test]
    fn letters_become_backslashes() {
        for (pattern, letter, expected) in [
            ("a$_b", Some('$'), Some("a\\_b")),
            ("100$%%", Some('$'), Some("100\\%%")),
            ("a$$b", Some('$'), Some("a$b")),
            ("a$xb", Some('$'), Some("axb")),
            ("a\\b", Some('$'), Some("a\\\\b")),
            ("a\\%", None, Some("a\\\\%")),
            ("%%", Some('%'), Some("\\%")),
            ("a$", Some('$'), None),
        ] {
            assert_eq!(with_backslashes(pattern, letter).as_deref(), expected, "{pattern}");
        }
    }
}
