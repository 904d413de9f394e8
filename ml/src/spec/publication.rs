//! `publish_if = 'roc_auc >= 0.9'`: a condition on a model's metrics without which it is not published. It is SQL over the
//! metrics' names, with SQL's three values: what is unknown does not hold.

use std::cell::RefCell;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use engine::{Error, Result, near};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

/// A checked condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    text: String,
    condition: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Number(Option<f64>),
    Truth(Option<bool>),
}

impl Publication {
    /// Reads the condition; `metrics` are the names that it may speak of.
    ///
    /// # Errors
    /// Text that is no such condition; names of no metric, with the near one.
    pub(super) fn parse(text: &str, metrics: &[&str]) -> Result<Self> {
        let expected = |what: String| Error::invalid(format!("option publish_if: {what}"));
        let example = format!("such as '{} >= 0.9'", metrics.last().copied().unwrap_or("accuracy"));
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(text).and_then(|mut parser| {
            let condition = parser.parse_expr()?;
            parser.expect_token(&Token::EOF)?;
            Ok(condition)
        });
        let condition =
            parsed.map_err(|_| expected(format!("expected a condition on metrics, {example}, got '{text}'")))?;
        let publication = Publication { text: text.to_string(), condition };
        let known = |name: &str| match metrics.contains(&name) {
            true => Ok(None),
            false => {
                let error = expected(format!("there is no metric {name}"));
                Err(match near(name, metrics.iter().copied()) {
                    Some(metric) => error.with_hint(format!("did you mean {metric}?")),
                    None => error.with_hint(format!("metrics are {}", metrics.join(", "))),
                })
            }
        };
        match answer(&publication.condition, &known)? {
            Answer::Truth(_) => Ok(publication),
            Answer::Number(_) => Err(expected(format!("expected a condition on metrics, {example}, got '{text}'"))),
        }
    }

    /// The condition as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why a model with these metrics is not published; `None` when it is. `metrics` is what `metrics.json` holds.
    ///
    /// # Errors
    /// Never for a condition that was parsed.
    pub(crate) fn refusal(&self, model: &str, metrics: &Json) -> Result<Option<Error>> {
        let of_rows = metrics.get("metrics").unwrap_or(&Json::Null);
        let asked: RefCell<Vec<String>> = RefCell::default();
        let value = |name: &str| {
            let value = of_rows.get(name).and_then(Json::as_f64);
            let told = format!("{name} is {}", value.map_or("unknown".to_string(), |value| format!("{value:.4}")));
            let mut asked = asked.borrow_mut();
            if !asked.contains(&told) {
                asked.push(told);
            }
            Ok(value)
        };
        if answer(&self.condition, &value)? == Answer::Truth(Some(true)) {
            return Ok(None);
        }
        let rows = metrics.get("rows").and_then(Json::as_u64).unwrap_or(0);
        let of = metrics.get("of").and_then(Json::as_str).unwrap_or("evaluation");
        Ok(Some(Error::Assertion(format!(
            "{model} was trained and is not published: publish_if asks for {}, and {} on {rows} {of} rows",
            self.text,
            asked.borrow().join(", ")
        ))))
    }
}

/// What the expression is worth, with `value` for the names in it.
fn answer(expr: &Expr, value: &dyn Fn(&str) -> Result<Option<f64>>) -> Result<Answer> {
    let wrong = || Error::invalid(format!("option publish_if: `{expr}` is no part of a condition on metrics"));
    let number = |expr: &Expr| match answer(expr, value)? {
        Answer::Number(number) => Ok(number),
        Answer::Truth(_) => Err(wrong()),
    };
    let truth = |expr: &Expr| match answer(expr, value)? {
        Answer::Truth(truth) => Ok(truth),
        Answer::Number(_) => Err(wrong()),
    };
    Ok(match expr {
        Expr::Nested(inner) => answer(inner, value)?,
        Expr::Identifier(ident) => Answer::Number(value(&ident.value.to_lowercase())?),
        Expr::Value(literal) => match &literal.value {
            Value::Number(text, _) => Answer::Number(Some(text.parse().map_err(|_| wrong())?)),
            Value::Boolean(truth) => Answer::Truth(Some(*truth)),
            _ => return Err(wrong()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Answer::Number(number(expr)?.map(|x| -x)),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => Answer::Truth(truth(expr)?.map(|truth| !truth)),
        Expr::IsNull(inner) => Answer::Truth(Some(number(inner)?.is_none())),
        Expr::IsNotNull(inner) => Answer::Truth(Some(number(inner)?.is_some())),
        Expr::Between { expr, negated, low, high } => {
            let within = both(
                compare(number(expr)?, number(low)?, |x, y| x >= y),
                compare(number(expr)?, number(high)?, |x, y| x <= y),
            );
            Answer::Truth(within.map(|within| within != *negated))
        }
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => Answer::Truth(both(truth(left)?, truth(right)?)),
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
            let neither = both(truth(left)?.map(|truth| !truth), truth(right)?.map(|truth| !truth));
            Answer::Truth(neither.map(|neither| !neither))
        }
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (number(left)?, number(right)?);
            let calculated = |of: fn(f64, f64) -> f64| Answer::Number(left.zip(right).map(|(x, y)| of(x, y)));
            match op {
                BinaryOperator::Plus => calculated(|x, y| x + y),
                BinaryOperator::Minus => calculated(|x, y| x - y),
                BinaryOperator::Multiply => calculated(|x, y| x * y),
                BinaryOperator::Divide => calculated(|x, y| x / y),
                BinaryOperator::Gt => Answer::Truth(compare(left, right, |x, y| x > y)),
                BinaryOperator::GtEq => Answer::Truth(compare(left, right, |x, y| x >= y)),
                BinaryOperator::Lt => Answer::Truth(compare(left, right, |x, y| x < y)),
                BinaryOperator::LtEq => Answer::Truth(compare(left, right, |x, y| x <= y)),
                BinaryOperator::Eq => Answer::Truth(compare(left, right, |x, y| x == y)),
                BinaryOperator::NotEq => Answer::Truth(compare(left, right, |x, y| x != y)),
                _ => return Err(wrong()),
            }
        }
        _ => return Err(wrong()),
    })
}

fn compare(left: Option<f64>, right: Option<f64>, holds: fn(&f64, &f64) -> bool) -> Option<bool> {
    left.zip(right).map(|(left, right)| holds(&left, &right))
}

/// SQL's AND.
fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

impl Serialize for Publication {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Publication {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = Parser::new(&GenericDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
        let condition = parsed.map_err(serde::de::Error::custom)?;
        Ok(Publication { text, condition })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const METRICS: [&str; 3] = ["accuracy", "log_loss", "roc_auc"];

    #[test]
    fn conditions_hold_or_do_not() {
        let metrics =
            json!({"of": "evaluation", "rows": 100, "metrics": {"accuracy": 0.9, "log_loss": 0.2, "roc_auc": null}});
        for (text, holds) in [
            ("accuracy >= 0.9", true),
            ("ACCURACY > 0.9", false),
            ("accuracy >= 0.8 AND log_loss < 0.3", true),
            ("accuracy > 0.95 OR (log_loss <= 0.2)", true),
            ("NOT accuracy < 0.5", true),
            ("accuracy BETWEEN 0.85 AND 0.95", true),
            ("accuracy - log_loss > 0.71", false),
            ("-log_loss > -0.3", true),
            ("roc_auc > 0.5", false),
            ("roc_auc IS NULL", true),
            ("roc_auc > 0.5 OR accuracy > 0.5", true),
        ] {
            let publication = Publication::parse(text, &METRICS).unwrap();
            assert_eq!(publication.refusal("m", &metrics).unwrap().is_none(), holds, "{text}");
            let again: Publication = serde_json::from_value(serde_json::to_value(&publication).unwrap()).unwrap();
            assert_eq!(again, publication);
        }
        let publication = Publication::parse("roc_auc > 0.5 AND accuracy > 0.95", &METRICS).unwrap();
        let told = publication.refusal("m", &metrics).unwrap().unwrap().to_string();
        assert!(told.ends_with("and roc_auc is unknown, accuracy is 0.9000 on 100 evaluation rows"), "{told}");
    }

    #[test]
    fn what_is_no_condition_says_so() {
        for (text, told) in [
            ("accuracy", "expected a condition on metrics, such as 'roc_auc >= 0.9', got 'accuracy'"),
            ("accuracy >=", "expected a condition on metrics"),
            ("accuracy >= 0.9; DROP", "expected a condition on metrics"),
            ("acuracy >= 0.9", "there is no metric acuracy"),
            ("accuracy >= 'high'", "is no part of a condition on metrics"),
            ("accuracy AND TRUE", "is no part of a condition on metrics"),
            ("abs(accuracy) > 1", "is no part of a condition on metrics"),
        ] {
            let error = Publication::parse(text, &METRICS).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
