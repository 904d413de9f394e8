//! The arguments of an `ML.*` call: the model, the data, the settings.

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, TableFactor, UnaryOperator, Value,
};
use engine::{Error, near};

use super::{MODEL_PREFIX, invalid};
use crate::model::ModelShape;
use crate::registry::{self, Known};

/// What an `ML.*` call was given.
pub(super) struct Arguments {
    /// Upper case, without `ML.`.
    pub(super) function: String,
    /// The id under which the model is cached.
    pub(super) id: String,
    /// The model, or what is known of one that is only planned.
    pub(super) known: Known,
    /// The data's plan, its columns without qualifiers.
    pub(super) data: Option<LogicalPlan>,
    /// `STRUCT(t AS threshold)`.
    pub(super) threshold: Option<f64>,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// Arguments that are missing, too many or of another kind.
    pub(super) fn read(
        function: &str,
        relation: &TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let TableFactor::Table { args: Some(args), .. } = relation else {
            return Err(wrong(function, "it needs arguments"));
        };
        let mut given = args.args.iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
            other => Err(wrong(function, &format!("`{other}` is no argument of it"))),
        });
        given.next().transpose()?;
        let id = first_text(relation).and_then(|text| text.strip_prefix(MODEL_PREFIX)).map(str::to_string);
        let id = id.ok_or_else(|| wrong(function, "its first argument is MODEL and a name"))?;
        let known = registry::cached(&id).map_err(invalid)?;
        let (mut data, mut threshold) = (None, None);
        for argument in given {
            match argument? {
                SqlExpr::Subquery(query) if data.is_none() && threshold.is_none() => {
                    let derived =
                        TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
                    data = Some(without_qualifiers(function, context.plan(derived)?)?);
                }
                SqlExpr::Struct { values, .. } if threshold.is_none() => threshold = read_settings(function, values)?,
                other => {
                    let expected = if data.is_none() { "TABLE name, (a query) or STRUCT(...)" } else { "STRUCT(...)" };
                    return Err(wrong(function, &format!("expected {expected}, got `{other}`")));
                }
            }
        }
        Ok(Arguments { function: function.to_string(), id, known, data, threshold })
    }

    /// Names and types of the model.
    pub(super) fn shape(&self) -> &Arc<ModelShape> {
        self.known.shape()
    }

    /// The data, which this function cannot do without.
    pub(super) fn required_data(&self) -> Result<LogicalPlan> {
        self.data.clone().ok_or_else(|| {
            wrong(
                &self.function,
                &format!("it needs data: ML.{}(MODEL {}, TABLE ...)", self.function, self.shape().name),
            )
        })
    }

    /// Nothing but a model may be given.
    pub(super) fn only_model(&self) -> Result<()> {
        match (&self.data, self.threshold) {
            (None, None) => Ok(()),
            _ => Err(wrong(&self.function, "it takes a model and nothing else")),
        }
    }

    /// The threshold, which must make sense for the model.
    pub(super) fn checked_threshold(&self) -> Result<f64> {
        match self.threshold {
            None => Ok(0.5),
            Some(_) if !self.shape().model_type.is_classifier() => {
                Err(wrong(&self.function, "a regressor has no threshold"))
            }
            Some(_) if self.shape().classes.as_ref().is_some_and(|classes| classes.len() > 2) => {
                Err(wrong(&self.function, "a threshold decides between two classes, this model has more"))
            }
            Some(threshold) => Ok(threshold),
        }
    }
}

/// The first argument, when it is text.
pub(super) fn first_text(relation: &TableFactor) -> Option<&str> {
    let TableFactor::Table { args: Some(args), .. } = relation else { return None };
    match args.args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn wrong(function: &str, what: &str) -> datafusion::error::DataFusionError {
    invalid(Error::invalid(format!("ML.{function}: {what}")))
}

fn read_settings(function: &str, values: &[SqlExpr]) -> Result<Option<f64>> {
    let mut threshold = None;
    for value in values {
        let SqlExpr::Named { expr, name } = value else {
            return Err(wrong(function, "settings have names: STRUCT(0.5 AS threshold)"));
        };
        if !name.value.eq_ignore_ascii_case("threshold") {
            let error = Error::invalid(format!("ML.{function}: there is no setting {}", name.value));
            return Err(invalid(match near(&name.value, ["threshold"]) {
                Some(known) => error.with_hint(format!("did you mean {known}?")),
                None => error.with_hint("there is STRUCT(0.5 AS threshold)"),
            }));
        }
        let number = number(expr).filter(|x| (0.0..=1.0).contains(x));
        threshold = Some(
            number.ok_or_else(|| wrong(function, &format!("threshold: expected a number from 0 to 1, got {expr}")))?,
        );
    }
    Ok(threshold)
}

fn number(expr: &SqlExpr) -> Option<f64> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().ok(),
            _ => None,
        },
        SqlExpr::Nested(inner) => number(inner),
        SqlExpr::UnaryOp { op: UnaryOperator::Minus, expr } => number(expr).map(|x| -x),
        _ => None,
    }
}

/// The same columns without the names of their tables.
fn without_qualifiers(function: &str, plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut names: Vec<String> = Vec::new();
    let mut columns = Vec::new();
    for (qualifier, field) in plan.schema().iter() {
        if names.contains(field.name()) {
            return Err(wrong(function, &format!("the data has two columns called {}", field.name())));
        }
        names.push(field.name().clone());
        columns.push(Expr::Column(Column::new(qualifier.cloned(), field.name())).alias(field.name()));
    }
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}
