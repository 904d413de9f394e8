//! `ASSERT <condition> [AS 'message'] [ON FAILURE WARN|FAIL]`: a claim about the data. A failed one shows what was seen:
//! the sides of its comparisons that are no literals are computed first, as columns, and the condition over them.

use datafusion::common::ScalarValue;
use datafusion::sql::parser::Statement as SqlStatement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, Select, SelectItem, SetExpr, Statement, TableFactor, TableWithJoins,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::parameters::text_of;
use super::tokens::{begins_with, is_word, offset_at, range_of, string_literal, token_at};
use crate::error::{Error, Result};
use crate::events::Outcome;
use crate::session::Session;

/// A parsed assertion.
#[derive(Debug)]
pub(crate) struct Assert {
    condition: Vec<TokenWithSpan>,
    /// The condition as written.
    pub(crate) condition_text: String,
    pub(crate) message: Option<String>,
    pub(crate) warn_only: bool,
}

impl Assert {
    pub(crate) fn parse(text: &str, words: &[TokenWithSpan]) -> Result<Self> {
        let mut end = words.len();
        let mut warn_only = false;
        let failure = end.saturating_sub(3);
        if end > 3 && begins_with(&words[failure..], &["ON", "FAILURE"]) {
            warn_only = match &words[end - 1] {
                word if is_word(word, "WARN") => true,
                word if is_word(word, "FAIL") => false,
                word => {
                    return Err(Error::invalid(format!("expected WARN or FAIL, found `{}`", word.token))
                        .at_offset(offset_at(text, words, end - 1)));
                }
            };
            end = failure;
        }
        let mut message = None;
        if end > 2
            && is_word(&words[end - 2], "AS")
            && let Some(given) = string_literal(&words[end - 1])
        {
            message = Some(given.to_string());
            end -= 2;
        }
        if end <= 1 {
            return Err(Error::invalid("expected a condition after ASSERT").at_offset(offset_at(text, words, 1)));
        }
        let condition = words[1..end].to_vec();
        let range = range_of(text, &condition[0]).start..range_of(text, &condition[condition.len() - 1]).end;
        let condition_text = text[range].split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Assert { condition, condition_text, message, warn_only })
    }

    /// What it is called in progress and report.
    pub(crate) fn title(&self) -> String {
        format!("ASSERT {}", self.message.as_deref().unwrap_or(&self.condition_text))
    }

    /// Plans it; no data is read.
    pub(crate) async fn check(&self, session: &Session, text: &str) -> Result<()> {
        self.plan(session, text).await.map(|_| ())
    }

    /// Computes it.
    ///
    /// # Errors
    /// [`Error::Assertion`] when it does not hold and should fail.
    pub(crate) async fn evaluate(&self, session: &Session, text: &str) -> Result<Outcome> {
        let frame = self.plan(session, text).await?;
        let plan = frame.logical_plan().clone();
        let batches = match session.collect(frame).await {
            Ok(batches) => batches,
            Err(error) => return Err(session.explain_failure(error, &plan, text).await),
        };
        let row = batches.iter().find(|batch| batch.num_rows() > 0);
        let row = row.ok_or_else(|| Error::invalid("the condition of the ASSERT is a query without rows"))?;
        let cell = |column: usize| ScalarValue::try_from_array(row.column(column), 0);
        let held = cell(0)? == ScalarValue::Boolean(Some(true));
        let seen = (1..row.num_columns()).map(|column| Ok(shown(&cell(column)?))).collect::<Result<Vec<_>>>()?;
        let value = if seen.is_empty() { shown(&cell(0)?) } else { seen.join(" and ") };
        if !held && !self.warn_only {
            return Err(Error::Assertion(self.failure(&value)));
        }
        let text = self.message.clone().unwrap_or_else(|| self.condition_text.clone());
        Ok(Outcome::Assertion { text, held, value, warn_only: self.warn_only })
    }

    /// The sentence about a condition that does not hold.
    pub(crate) fn failure(&self, value: &str) -> String {
        match &self.message {
            Some(message) => format!("{message}: {} (got {value})", self.condition_text),
            None => format!("{} (got {value})", self.condition_text),
        }
    }

    async fn plan(&self, session: &Session, text: &str) -> Result<datafusion::dataframe::DataFrame> {
        let mut tokens = vec![token_at(&self.condition[0], Token::make_keyword("SELECT"))];
        tokens.extend(self.condition.iter().cloned());
        let offset = range_of(text, &self.condition[0]).start;
        let (plan, ()) = session
            .plan_adjusted(text, tokens, |statement| {
                observe_statement(statement)
                    .ok_or_else(|| Error::invalid("ASSERT takes one condition").at_offset(offset))
            })
            .await?;
        let kind = plan.schema().field(0).data_type().clone();
        if !matches!(kind, arrow::datatypes::DataType::Boolean | arrow::datatypes::DataType::Null) {
            return Err(Error::invalid(format!(
                "ASSERT takes a condition that is true or false, and this is a {kind}"
            ))
            .at_offset(offset));
        }
        Ok(session.data_frame(plan))
    }
}

fn shown(value: &ScalarValue) -> String {
    if value.is_null() { "NULL".to_string() } else { text_of(value) }
}

/// `SELECT a > 1` becomes `SELECT seen_0 > 1, seen_0 FROM (SELECT a AS seen_0)`.
fn observe_statement(statement: &mut SqlStatement) -> Option<()> {
    let SqlStatement::Statement(statement) = statement else { return None };
    let Statement::Query(query) = statement.as_mut() else { return None };
    let inner_query = query.as_ref().clone();
    let select = select_of(query)?;
    if !select.from.is_empty() || select.projection.len() != 1 {
        return None;
    }
    let (SelectItem::UnnamedExpr(condition) | SelectItem::ExprWithAlias { expr: condition, .. }) =
        select.projection[0].clone()
    else {
        return None;
    };
    let mut seen = Vec::new();
    let condition = observe(condition, &mut seen);
    if seen.is_empty() {
        return Some(());
    }
    let mut inner = inner_query;
    select_of(&mut inner)?.projection =
        (seen.into_iter()).map(|(name, expr)| SelectItem::ExprWithAlias { expr, alias: Ident::new(name) }).collect();
    let names: Vec<SelectItem> = (0..select_of(&mut inner)?.projection.len())
        .map(|index| SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(name_of(index)))))
        .collect();
    select.projection = [SelectItem::UnnamedExpr(condition)].into_iter().chain(names).collect();
    select.from = vec![TableWithJoins {
        relation: TableFactor::Derived { lateral: false, subquery: Box::new(inner), alias: None, sample: None },
        joins: Vec::new(),
    }];
    Some(())
}

fn select_of(query: &mut Query) -> Option<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) => Some(select),
        _ => None,
    }
}

fn name_of(index: usize) -> String {
    format!("seen_{index}")
}

/// Replaces what should be shown by names, and collects what they stand for.
fn observe(condition: Expr, seen: &mut Vec<(String, Expr)>) -> Expr {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    match condition {
        Expr::Nested(inner) => Expr::Nested(Box::new(observe(*inner, seen))),
        Expr::UnaryOp { op, expr } => Expr::UnaryOp { op, expr: Box::new(observe(*expr, seen)) },
        Expr::BinaryOp { left, op: op @ (And | Or), right } => {
            Expr::BinaryOp { left: Box::new(observe(*left, seen)), op, right: Box::new(observe(*right, seen)) }
        }
        Expr::BinaryOp { left, op: op @ (Eq | NotEq | Lt | LtEq | Gt | GtEq), right } => {
            let left = Box::new(operand(*left, seen));
            Expr::BinaryOp { left, op, right: Box::new(operand(*right, seen)) }
        }
        Expr::Between { expr, negated, low, high } => {
            Expr::Between { expr: Box::new(operand(*expr, seen)), negated, low, high }
        }
        Expr::IsNull(expr) => Expr::IsNull(Box::new(operand(*expr, seen))),
        Expr::IsNotNull(expr) => Expr::IsNotNull(Box::new(operand(*expr, seen))),
        other => other,
    }
}

fn operand(expr: Expr, seen: &mut Vec<(String, Expr)>) -> Expr {
    if is_literal(&expr) {
        return expr;
    }
    let name = name_of(seen.len());
    seen.push((name.clone(), expr));
    Expr::Identifier(Ident::new(name))
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(_) | Expr::TypedString { .. } | Expr::Interval(_) => true,
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } | Expr::Cast { expr: inner, .. } => is_literal(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::tokens::{significant, tokenize};

    #[test]
    fn clauses() {
        for (text, condition, message, warn_only) in [
            ("ASSERT 1 < 2", "1 < 2", None, false),
            ("ASSERT 1 < 2 AS 'fine'", "1 < 2", Some("fine"), false),
            ("ASSERT CAST('1' AS INT)\n  = 1 ON FAILURE WARN", "CAST('1' AS INT) = 1", None, true),
            ("assert x as 'a' on failure fail", "x", Some("a"), false),
        ] {
            let assert = Assert::parse(text, &significant(&tokenize(text).unwrap())).unwrap();
            let got = (assert.condition_text.as_str(), assert.message.as_deref(), assert.warn_only);
            assert_eq!(got, (condition, message, warn_only), "{text}");
        }
        for text in ["ASSERT", "ASSERT AS 'x'", "ASSERT true ON FAILURE PANIC"] {
            assert!(Assert::parse(text, &significant(&tokenize(text).unwrap())).is_err(), "{text}");
        }
    }
}
