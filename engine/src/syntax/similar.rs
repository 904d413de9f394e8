//! SIMILAR TO (SQL:1999, 8.6): the whole text must match; `%` is any text and `_` any character, beside `| * + ? {m,n} ( )`
//! and `[ ]` of regular expressions; every other character stands for itself. The planner takes the pattern for a regular
//! expression that may match anywhere, so it is rewritten: `a SIMILAR TO 'x%'` becomes `a ~ '^(?:x(?s:.*))$'`.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, Value, ValueWithSpan,
};

use crate::error::{Error, Result};
use crate::functions::similar::{self, Escape};

/// Rewrites a SIMILAR TO into a match of a regular expression.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let Expr::SimilarTo { negated, expr: text, pattern, escape_char } = expr else { return Ok(()) };
    let escape = escape(escape_char.as_ref())?;
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let taken = |expr: &mut Box<Expr>| std::mem::replace(expr, Box::new(Expr::value(Value::Null)));
    let right = match pattern.as_ref() {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(pattern), .. }) => {
            Box::new(Expr::value(Value::SingleQuotedString(similar::to_regex(pattern, escape)?)))
        }
        Expr::Value(ValueWithSpan { value: Value::Null, .. }) => taken(pattern),
        _ => Box::new(translated(*taken(pattern), escape)),
    };
    *expr = Expr::BinaryOp { left: taken(text), op, right };
    Ok(())
}

fn escape(given: Option<&ValueWithSpan>) -> Result<Escape> {
    let Some(given) = given else { return Ok(Some('\\')) };
    let Value::SingleQuotedString(text) = &given.value else {
        return Err(Error::invalid(format!("ESCAPE takes one character in quotes, got {given}")));
    };
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (escape, None) => Ok(escape),
        _ => Err(Error::invalid(format!("ESCAPE takes one character, got '{text}'"))),
    }
}

/// Of a pattern that is no literal: the same, row by row.
fn translated(pattern: Expr, escape: Escape) -> Expr {
    let escape = Expr::value(Value::SingleQuotedString(escape.map(String::from).unwrap_or_default()));
    let unnamed = |expr: Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let list = FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![unnamed(pattern), unnamed(escape)],
        clauses: Vec::new(),
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(similar::NAME)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
