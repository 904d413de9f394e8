//! Values in an `OPTIONS (...)` list: literals, arrays and STRUCTs. Parameters have become literals before.

use datafusion::sql::sqlparser::tokenizer::Token;
use engine::{Error, Result};

use crate::spec::OptionValue;
use crate::statement::cursor::Cursor;

/// Parses one value.
pub(crate) fn parse_value(cursor: &mut Cursor) -> Result<OptionValue> {
    let start = cursor.offset();
    if cursor.at_word("ARRAY") {
        cursor.next();
        skip_type_arguments(cursor)?;
        return list(cursor);
    }
    if cursor.at_word("STRUCT") {
        cursor.next();
        skip_type_arguments(cursor)?;
        cursor.expect(&Token::LParen)?;
        return fields(cursor);
    }
    if cursor.take_words(&["TRUE"]) {
        return Ok(OptionValue::Boolean(true));
    }
    if cursor.take_words(&["FALSE"]) {
        return Ok(OptionValue::Boolean(false));
    }
    if cursor.take_words(&["NULL"]) {
        return Err(Error::invalid("an option cannot be NULL: leave it out").at_offset(start));
    }
    match cursor.peek() {
        Some(Token::LBracket) => list(cursor),
        Some(Token::LParen) => {
            cursor.next();
            match fields(cursor)? {
                OptionValue::Struct(mut only) if only.len() == 1 && only[0].0.is_none() => Ok(only.remove(0).1),
                many => Ok(many),
            }
        }
        Some(Token::Minus) => {
            cursor.next();
            match parse_value(cursor)? {
                OptionValue::Integer(i) => Ok(OptionValue::Integer(-i)),
                OptionValue::Float(f) => Ok(OptionValue::Float(-f)),
                _ => Err(Error::invalid("expected a number after `-`").at_offset(start)),
            }
        }
        Some(Token::Plus) => {
            cursor.next();
            parse_value(cursor)
        }
        Some(Token::Number(text, _)) => {
            cursor.next();
            number(text).ok_or_else(|| Error::invalid(format!("`{text}` is no number that fits")).at_offset(start))
        }
        Some(
            Token::SingleQuotedString(s)
            | Token::DoubleQuotedString(s)
            | Token::EscapedStringLiteral(s)
            | Token::NationalStringLiteral(s),
        ) => {
            cursor.next();
            Ok(OptionValue::Text(s.clone()))
        }
        // BigQuery's other quotes: the generic dialect reads "text" as a quoted name.
        Some(Token::Word(word)) if word.quote_style == Some('"') => {
            cursor.next();
            Ok(OptionValue::Text(word.value.clone()))
        }
        _ => Err(cursor.expected("a value: text, a number, TRUE, FALSE, [a list] or STRUCT(...)")),
    }
}

fn number(text: &str) -> Option<OptionValue> {
    match text.parse::<i64>() {
        Ok(i) => Some(OptionValue::Integer(i)),
        Err(_) => text.parse::<f64>().ok().filter(|f| f.is_finite()).map(OptionValue::Float),
    }
}

fn list(cursor: &mut Cursor) -> Result<OptionValue> {
    cursor.expect(&Token::LBracket)?;
    let mut items = Vec::new();
    while !cursor.take(&Token::RBracket) {
        items.push(parse_value(cursor)?);
        if !cursor.take(&Token::Comma) {
            cursor.expect(&Token::RBracket).map_err(|_| cursor.expected("`,` or `]`"))?;
            break;
        }
    }
    Ok(OptionValue::List(items))
}

/// `value [AS name], ...)`; the opening parenthesis is taken.
fn fields(cursor: &mut Cursor) -> Result<OptionValue> {
    let mut fields = Vec::new();
    loop {
        let value = parse_value(cursor)?;
        let name = if cursor.take_words(&["AS"]) { Some(cursor.name("a field's name")?) } else { None };
        fields.push((name, value));
        if cursor.take(&Token::RParen) {
            return Ok(OptionValue::Struct(fields));
        }
        if !cursor.take(&Token::Comma) {
            return Err(cursor.expected("`,` or `)`"));
        }
    }
}

/// `<STRING, FLOAT64>` after ARRAY or STRUCT says nothing that the values do not.
fn skip_type_arguments(cursor: &mut Cursor) -> Result<()> {
    if !cursor.take(&Token::Lt) {
        return Ok(());
    }
    let mut depth = 1i32;
    while depth > 0 {
        match cursor.next() {
            Some(Token::Lt) => depth += 1,
            Some(Token::Gt) => depth -= 1,
            Some(Token::ShiftRight) => depth -= 2,
            Some(_) => {}
            None => return Err(cursor.expected("`>`")),
        }
    }
    Ok(())
}
