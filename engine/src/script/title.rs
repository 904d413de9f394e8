//! Short titles of SQL statements, for progress and report: their first words and the name that they are about.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::tokens::{is_word, string_literal};

/// `CREATE EXTERNAL TABLE flights`, `SELECT`, `DROP VIEW v`.
pub(crate) fn title(words: &[TokenWithSpan]) -> String {
    const SKIPPED: &[&str] = &["OR", "REPLACE", "IF", "NOT", "EXISTS", "TEMPORARY", "TEMP", "UNBOUNDED", "INTO"];
    let Some(first) = words.first() else { return String::new() };
    let mut title = vec![first.token.to_string().to_uppercase()];
    if !["CREATE", "DROP", "ALTER", "SHOW", "DESCRIBE", "EXPLAIN", "INSERT"].contains(&title[0].as_str()) {
        return title.remove(0);
    }
    let about = |token: &TokenWithSpan| {
        ["TABLE", "VIEW", "SCHEMA", "DATABASE", "FUNCTION", "EXTERNAL", "ANALYZE", "VERBOSE"]
            .iter()
            .any(|word| is_word(token, word))
    };
    let mut rest = words[1..].iter().filter(|word| !SKIPPED.iter().any(|skipped| is_word(word, skipped))).peekable();
    while let Some(word) = rest.next_if(|word| about(word)) {
        title.push(word.token.to_string().to_uppercase());
    }
    let mut name = String::new();
    while let Some(word) = rest.next() {
        match &word.token {
            Token::Word(part) if part.quote_style.is_none() => name.push_str(&part.value),
            Token::Word(part) => name.push_str(&part.to_string()),
            Token::Period => name.push('.'),
            _ => name.push_str(string_literal(word).unwrap_or_default()),
        }
        if rest.peek().is_none_or(|next| next.token != Token::Period) && !name.ends_with('.') {
            break;
        }
    }
    if !name.is_empty() {
        title.push(name);
    }
    title.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tokens::{significant, tokenize};

    #[test]
    fn titles() {
        for (text, expected) in [
            ("select * from t", "SELECT"),
            ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH"),
            ("create or replace view s.V as select 1", "CREATE VIEW s.V"),
            ("CREATE EXTERNAL TABLE IF NOT EXISTS flights STORED AS PARQUET", "CREATE EXTERNAL TABLE flights"),
            ("DROP TABLE IF EXISTS \"Odd name\"", "DROP TABLE \"Odd name\""),
            ("INSERT INTO t VALUES (1)", "INSERT t"),
            ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN ANALYZE SELECT"),
        ] {
            assert_eq!(title(&significant(&tokenize(text).unwrap())), expected, "{text}");
        }
    }
}
