//! `FROM t WHERE ...` without SELECT is `SELECT * FROM t WHERE ...`, as in DuckDB. The parser knows `FROM t` and gives it no
//! columns, so the missing words are put in front of it before it reads the statement.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::script::tokens::{is_space, is_word, token_at};

/// Words after which a query may begin.
const BEFORE: &[&str] = &["AS", "UNION", "ALL", "EXCEPT", "INTERSECT", "DISTINCT", "EXPLAIN", "ANALYZE", "VERBOSE"];

/// Puts `SELECT *` in front of each FROM that begins a query and has no SELECT behind it.
pub(crate) fn complete(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    if !tokens.iter().any(|token| is_word(token, "FROM")) {
        return tokens;
    }
    let mut complete = Vec::with_capacity(tokens.len() + 2);
    let mut before: Option<usize> = None;
    for (index, token) in tokens.iter().enumerate() {
        if is_word(token, "FROM") && begins(&tokens, before) && !has_select(&tokens[index + 1..]) {
            complete.push(token_at(token, Token::make_keyword("SELECT")));
            complete.push(token_at(token, Token::Mul));
        }
        complete.push(token.clone());
        if !is_space(token) {
            before = Some(index);
        }
    }
    complete
}

/// Whether a query begins behind this token.
fn begins(tokens: &[TokenWithSpan], before: Option<usize>) -> bool {
    let Some(before) = before else { return true };
    let word = |word: &&&str| is_word(&tokens[before], word);
    match &tokens[before].token {
        Token::LParen => !is_call(tokens, before),
        // `WITH a AS (...) FROM a`, `INSERT INTO t (a) FROM s`
        Token::RParen => is_statement(tokens) && depth(&tokens[..=before]) == 0,
        Token::Word(_) if BEFORE.iter().any(|known| word(&known)) => {
            // `count(DISTINCT FROM`, `IS DISTINCT FROM`
            let earlier = tokens[..before].iter().rev().find(|token| !is_space(token));
            let follows = |words: &[&str]| earlier.is_some_and(|token| words.iter().any(|word| is_word(token, word)));
            !is_word(&tokens[before], "DISTINCT") || follows(&["UNION", "EXCEPT", "INTERSECT"])
        }
        _ => is_insert_target(tokens, before),
    }
}

/// `trim(FROM x)`: a parenthesis behind a name.
fn is_call(tokens: &[TokenWithSpan], open: usize) -> bool {
    let earlier = tokens[..open].iter().rev().find(|token| !is_space(token));
    earlier.is_some_and(|token| ["TRIM", "EXTRACT", "SUBSTRING", "OVERLAY"].iter().any(|word| is_word(token, word)))
}

/// Whether a FROM that follows a closing parenthesis on the outside can begin a query.
fn is_statement(tokens: &[TokenWithSpan]) -> bool {
    let first = tokens.iter().find(|token| !is_space(token));
    let is_first = |words: &[&str]| first.is_some_and(|token| words.iter().any(|word| is_word(token, word)));
    is_first(&["WITH", "INSERT"])
        && !tokens.iter().any(|token| is_word(token, "SELECT") && depth_at(tokens, token) == 0)
}

/// `INSERT INTO t FROM s`
fn is_insert_target(tokens: &[TokenWithSpan], before: usize) -> bool {
    let words: Vec<&TokenWithSpan> = tokens[..=before].iter().filter(|token| !is_space(token)).collect();
    let inserts = words.first().is_some_and(|token| is_word(token, "INSERT"));
    let names = words.iter().skip(2);
    inserts
        && words.get(1).is_some_and(|token| is_word(token, "INTO") || is_word(token, "OVERWRITE"))
        && names.clone().count() > 0
        && names.enumerate().all(|(index, token)| match token.token {
            Token::Word(_) => index % 2 == 0,
            Token::Period => index % 2 == 1,
            _ => false,
        })
}

fn depth_at(tokens: &[TokenWithSpan], token: &TokenWithSpan) -> i64 {
    let index = tokens.iter().position(|other| std::ptr::eq(other, token)).unwrap_or(tokens.len());
    depth(&tokens[..index])
}

fn depth(tokens: &[TokenWithSpan]) -> i64 {
    let step = |token: &TokenWithSpan| match token.token {
        Token::LParen => 1,
        Token::RParen => -1,
        _ => 0,
    };
    tokens.iter().map(step).sum()
}

/// Whether a SELECT follows on the same level, before the query ends.
fn has_select(rest: &[TokenWithSpan]) -> bool {
    let mut depth = 0;
    for token in rest {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            Token::Word(_) if depth == 0 => {
                if is_word(token, "SELECT") {
                    return true;
                }
                if ["UNION", "EXCEPT", "INTERSECT"].iter().any(|word| is_word(token, word)) {
                    return false;
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tokens::tokenize;

    #[test]
    fn select_is_put_in_front() {
        for (text, expected) in [
            ("FROM t", "SELECT*FROM t"),
            ("FROM t WHERE a = 1", "SELECT*FROM t WHERE a = 1"),
            ("FROM t SELECT a", "FROM t SELECT a"),
            ("SELECT a FROM t", "SELECT a FROM t"),
            ("CREATE TABLE x AS FROM t", "CREATE TABLE x AS SELECT*FROM t"),
            ("SELECT * FROM (FROM t) AS s", "SELECT * FROM (SELECT*FROM t) AS s"),
            ("WITH a AS (SELECT 1) FROM a", "WITH a AS (SELECT 1) SELECT*FROM a"),
            ("WITH a AS (FROM t) SELECT b FROM a", "WITH a AS (SELECT*FROM t) SELECT b FROM a"),
            ("FROM a UNION ALL FROM b", "SELECT*FROM a UNION ALL SELECT*FROM b"),
            ("SELECT a IS DISTINCT FROM b", "SELECT a IS DISTINCT FROM b"),
            ("SELECT trim(FROM b)", "SELECT trim(FROM b)"),
            ("SELECT extract(year FROM b), (a) FROM c", "SELECT extract(year FROM b), (a) FROM c"),
            ("INSERT INTO t FROM s", "INSERT INTO t SELECT*FROM s"),
            ("INSERT INTO t (a) FROM s", "INSERT INTO t (a) SELECT*FROM s"),
            ("INSERT INTO t SELECT a FROM s", "INSERT INTO t SELECT a FROM s"),
            ("DELETE FROM t", "DELETE FROM t"),
            ("SELECT DISTINCT ON (a) b FROM c", "SELECT DISTINCT ON (a) b FROM c"),
        ] {
            let made = complete(tokenize(text).unwrap_or_default());
            let made: String = made.iter().map(|token| token.token.to_string()).collect();
            assert_eq!(made, expected);
        }
    }
}
