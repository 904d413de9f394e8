//! Columns whose names have capital letters. SQL folds `UserID` to `userid`; files that Spark or pandas wrote have `UserID`.
//! Where the folded name is not found and exactly one column differs from it in case alone, the statement is read again with
//! that name. Only the place that the error is about changes: elsewhere the same word may be another column.

use std::collections::BTreeSet;

use datafusion::common::{Column, SchemaError, Span};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::script::tokens::is_word;

/// The tokens with the columns' own names where the error says that there are none; `None` when that is not what it says.
pub(crate) fn corrected(error: &DataFusionError, tokens: &[TokenWithSpan]) -> Option<Vec<TokenWithSpan>> {
    let mut missing = Vec::new();
    collect(error, None, &mut missing);
    let mut corrected = tokens.to_vec();
    let mut changed = false;
    for (place, field, valid) in missing {
        let Some(name) = only(field, valid) else { continue };
        let is_it = |token: &TokenWithSpan| match &token.token {
            Token::Word(word) => word.quote_style.is_none() && folded(&word.value, &field.name),
            _ => false,
        };
        let places: Vec<usize> = (0..corrected.len()).filter(|index| is_it(&corrected[*index])).collect();
        let chosen = match place {
            Some(place) => places.into_iter().find(|index| tokens[*index].span.start >= place).into_iter().collect(),
            None => without_place(&corrected, places, name),
        };
        for index in chosen {
            if let Token::Word(word) = &mut corrected[index].token {
                word.value = name.to_string();
                word.quote_style = Some('"');
                changed = true;
            }
        }
    }
    changed.then_some(corrected)
}

/// Without a place (GROUP BY, ORDER BY) there must be no doubt: all of them stand in one SELECT, or beside one that has been
/// corrected already.
fn without_place(tokens: &[TokenWithSpan], places: Vec<usize>, name: &str) -> Vec<usize> {
    let selects: Vec<Option<usize>> = places.iter().map(|place| select_of(tokens, *place)).collect();
    if selects.windows(2).all(|pair| pair[0] == pair[1]) {
        return places;
    }
    let is_corrected = |token: &TokenWithSpan| match &token.token {
        Token::Word(word) => word.quote_style == Some('"') && word.value == name,
        _ => false,
    };
    let corrected = (0..tokens.len()).filter(|index| is_corrected(&tokens[*index]));
    let beside: Vec<Option<usize>> = corrected.map(|index| select_of(tokens, index)).collect();
    let chosen = places.into_iter().zip(selects).filter(|(_, select)| beside.contains(select));
    chosen.map(|(place, _)| place).collect()
}

/// The SELECT that a token belongs to.
fn select_of(tokens: &[TokenWithSpan], index: usize) -> Option<usize> {
    let mut depth = 0;
    for before in (0..index).rev() {
        match &tokens[before].token {
            Token::RParen => depth += 1,
            Token::LParen => depth -= 1,
            Token::Word(_) if depth <= 0 && is_word(&tokens[before], "SELECT") => return Some(before),
            _ => {}
        }
    }
    None
}

fn folded(word: &str, name: &str) -> bool {
    word == name || word.to_lowercase() == name
}

type Missing<'a> = (Option<Location>, &'a Column, &'a [Column]);

fn collect<'a>(error: &'a DataFusionError, place: Option<Location>, missing: &mut Vec<Missing<'a>>) {
    match error {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let inside = diagnostic.span.map(|Span { start, .. }| Location { line: start.line, column: start.column });
            collect(inner, place.or(inside), missing);
        }
        DataFusionError::Context(_, inner) => collect(inner, place, missing),
        DataFusionError::Collection(errors) => errors.iter().for_each(|error| collect(error, place, missing)),
        DataFusionError::SchemaError(error, _) => {
            if let SchemaError::FieldNotFound { field, valid_fields } = error.as_ref() {
                missing.push((place, field, valid_fields));
            }
        }
        _ => {}
    }
}

/// The one name that differs in case alone.
fn only<'a>(field: &Column, valid: &'a [Column]) -> Option<&'a str> {
    let of_table = |column: &&Column| match (&field.relation, &column.relation) {
        (Some(wanted), Some(there)) => wanted.table() == there.table(),
        _ => true,
    };
    let same = |column: &&Column| column.name != field.name && column.name.to_lowercase() == field.name.to_lowercase();
    let names: BTreeSet<&str> = valid.iter().filter(of_table).filter(same).map(|column| column.name.as_str()).collect();
    if names.len() == 1 { names.into_iter().next() } else { None }
}
