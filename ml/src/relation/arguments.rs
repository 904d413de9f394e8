//! The arguments of an `ML.*` call: the model, the data, the settings.

use std::sync::Arc;

use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, TableFactor, Value,
};
use engine::{Error, near};

use super::{MODEL_PREFIX, invalid};
use crate::function::constants;
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
    /// `STRUCT(...)`.
    pub(super) settings: Settings,
    /// The array of ML.ROC_CURVE.
    pub(super) thresholds: Option<Vec<f64>>,
}

/// What `STRUCT(...)` says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    /// `0.5 AS threshold`.
    pub(super) threshold: Option<f64>,
    /// `TRUE AS probs_as_columns`.
    pub(super) probs_as_columns: bool,
    /// `TRUE AS standardize`.
    pub(super) standardize: bool,
}

/// The settings that a function takes, each with a call that shows it.
fn settings_of(function: &str) -> &'static [(&'static str, &'static str)] {
    const THRESHOLD: (&str, &str) = ("threshold", "STRUCT(0.5 AS threshold)");
    match function {
        "PREDICT" => &[THRESHOLD, ("probs_as_columns", "STRUCT(TRUE AS probs_as_columns)")],
        "EVALUATE" | "CONFUSION_MATRIX" => &[THRESHOLD],
        // It is told where thresholds belong.
        "ROC_CURVE" => &[THRESHOLD],
        "WEIGHTS" | "ADVANCED_WEIGHTS" => &[("standardize", "STRUCT(TRUE AS standardize)")],
        _ => &[],
    }
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
        let (mut data, mut settings, mut thresholds) = (None, None, None);
        for argument in given {
            match argument? {
                SqlExpr::Subquery(query) if data.is_none() && settings.is_none() && thresholds.is_none() => {
                    let derived =
                        TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None };
                    data = Some(without_qualifiers(function, context.plan(derived)?)?);
                }
                SqlExpr::Struct { values, .. } if settings.is_none() => {
                    settings = Some(read_settings(function, values)?)
                }
                other if function == "ROC_CURVE" && thresholds.is_none() && !matches!(other, SqlExpr::Subquery(_)) => {
                    thresholds = Some(read_thresholds(function, other)?);
                }
                other => {
                    let last = if function == "ROC_CURVE" { "an array of thresholds" } else { "STRUCT(...)" };
                    let expected = match data {
                        None => format!("TABLE name, (a query) or {last}"),
                        Some(_) => last.to_string(),
                    };
                    return Err(wrong(function, &format!("expected {expected}, got `{other}`")));
                }
            }
        }
        let settings = settings.unwrap_or_default();
        Ok(Arguments { function: function.to_string(), id, known, data, settings, thresholds })
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
        match (&self.data, self.settings.threshold, &self.thresholds) {
            (None, None, None) => Ok(()),
            _ => Err(wrong(&self.function, "it takes a model and nothing else")),
        }
    }

    /// The threshold, which must make sense for the model.
    pub(super) fn checked_threshold(&self) -> Result<f64> {
        match self.settings.threshold {
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

fn read_settings(function: &str, values: &[SqlExpr]) -> Result<Settings> {
    let known = settings_of(function);
    let Some((_, example)) = known.first() else {
        return Err(wrong(function, "it takes no settings"));
    };
    let mut settings = Settings::default();
    for value in values {
        let SqlExpr::Named { expr, name } = value else {
            return Err(wrong(function, &format!("settings have names: {example}")));
        };
        let name = name.value.to_lowercase();
        let expected = |what: &str| wrong(function, &format!("{name}: expected {what}, got {expr}"));
        let truth = || match constants::value(expr) {
            Ok(ScalarValue::Boolean(Some(wanted))) => Ok(wanted),
            _ => Err(expected("TRUE or FALSE")),
        };
        if !known.iter().any(|(known, _)| *known == name) {
            let error = Error::invalid(format!("ML.{function}: there is no setting {name}"));
            let examples = || known.iter().map(|(_, example)| *example).collect::<Vec<_>>().join(", ");
            return Err(invalid(match near(&name, known.iter().map(|(known, _)| *known)) {
                Some(known) => error.with_hint(format!("did you mean {known}?")),
                None => error.with_hint(format!("there is {}", examples())),
            }));
        }
        match name.as_str() {
            "threshold" => {
                let number = constants::value(expr).ok().as_ref().and_then(constants::number);
                let threshold = number.filter(|x| (0.0..=1.0).contains(x));
                settings.threshold = Some(threshold.ok_or_else(|| expected("a number from 0 to 1"))?);
            }
            "probs_as_columns" => settings.probs_as_columns = truth()?,
            _ => settings.standardize = truth()?,
        }
    }
    Ok(settings)
}

/// An array of numbers, or `GENERATE_ARRAY(from, to [, step])`.
fn read_thresholds(function: &str, expr: &SqlExpr) -> Result<Vec<f64>> {
    let numbers = match generated(expr) {
        Some(numbers) => numbers,
        None => constants::value(expr).ok().as_ref().and_then(constants::numbers),
    };
    let what = "expected thresholds from 0 to 1, such as [0.25, 0.5] or GENERATE_ARRAY(0.1, 0.9, 0.1)";
    match numbers {
        Some(numbers) if !numbers.is_empty() && numbers.iter().all(|x| (0.0..=1.0).contains(x)) => Ok(numbers),
        _ => Err(wrong(function, &format!("{what}, got `{expr}`"))),
    }
}

/// The most thresholds that a call may generate.
const GENERATED_MAX: f64 = 1e6;

/// The numbers of a call of GENERATE_ARRAY, both ends included; `None` inside when its arguments make no sense, `None`
/// outside when the expression is no such call.
fn generated(expr: &SqlExpr) -> Option<Option<Vec<f64>>> {
    let SqlExpr::Function(call) = expr else { return None };
    if !call.name.to_string().eq_ignore_ascii_case("GENERATE_ARRAY") {
        return None;
    }
    let FunctionArguments::List(list) = &call.args else { return Some(None) };
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
            constants::value(expr).ok().as_ref().and_then(constants::number)
        }
        _ => None,
    };
    let numbers: Option<Vec<f64>> = list.args.iter().map(argument).collect();
    let (from, to, step) = match numbers.as_deref() {
        Some(&[from, to]) => (from, to, 1.0),
        Some(&[from, to, step]) => (from, to, step),
        _ => return Some(None),
    };
    let steps = ((to - from) / step + 1e-9).floor();
    if !(0.0..=GENERATED_MAX).contains(&steps) {
        return Some(None);
    }
    // 0.1 + 2 * 0.1 is meant to be 0.3.
    let tidy = |x: f64| (x * 1e12).round() / 1e12;
    Some(Some((0..=steps as usize).map(|i| tidy(from + i as f64 * step)).collect()))
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

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn thresholds_are_arrays() {
        let read = |text: &str| {
            let expr = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            read_thresholds("ROC_CURVE", &expr).map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("[0.25, 0.5]", vec![0.25, 0.5]),
            ("ARRAY[1]", vec![1.0]),
            ("GENERATE_ARRAY(0.1, 0.5, 0.1)", vec![0.1, 0.2, 0.3, 0.4, 0.5]),
            ("generate_array(0.9, 0.5, -0.2)", vec![0.9, 0.7, 0.5]),
            ("GENERATE_ARRAY(0, 1)", vec![0.0, 1.0]),
            ("GENERATE_ARRAY(0.1, 0.25, 0.1)", vec![0.1, 0.2]),
            ("GENERATE_ARRAY(CAST('0.5' AS DOUBLE), 1 - 0.4, 0.1)", vec![0.5, 0.6]),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        for text in
            ["[]", "0.5", "[0.5, 1.5]", "GENERATE_ARRAY(0.1, 0.9, 0)", "GENERATE_ARRAY(0.9, 0.1, 0.1)", "x", "[x]"]
        {
            assert!(read(text).unwrap_err().contains("expected thresholds from 0 to 1"), "{text}");
        }
    }
}
