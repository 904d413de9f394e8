//! `ML.PREDICT(MODEL m, data [, STRUCT(t AS threshold, b AS probs_as_columns)])`: the data's columns, then the predictions.
//! `ML.TRANSFORM(MODEL m, data)`: what the model sees.

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use datafusion::common::Result;
use datafusion::functions::core::expr_fn::get_field;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use engine::{Error, near};
use std::sync::Arc;

use super::arguments::{Arguments, wrong};
use super::functions::{self, column};
use super::invalid;
use crate::model::ModelShape;
use crate::registry::Known;

/// Holds the struct that the model's function gives.
const PREDICTION: &str = "__gm_prediction";

pub(super) fn plan(arguments: Arguments) -> Result<LogicalPlan> {
    let data = arguments.required_data()?;
    let threshold = arguments.checked_threshold()?;
    let shape = arguments.shape();
    check_columns(&arguments, &data)?;
    let is_classifier = shape.model_type.is_classifier();
    let as_columns = arguments.settings.probs_as_columns && is_classifier;
    let mut outputs = vec![("label".to_string(), shape.predicted_column())];
    if as_columns {
        let classes = shape.column_classes();
        let column =
            |(index, class): (usize, &String)| (functions::class_field(index), shape.probability_column(class));
        outputs.extend(classes.iter().enumerate().map(column));
    } else if is_classifier {
        outputs.push(("probs".to_string(), format!("{}_probs", shape.predicted_column())));
    }
    for (_, name) in &outputs {
        if data.schema().has_column_with_unqualified_name(name) {
            return Err(wrong(&arguments.function, &format!("the data has a column called {name} already")));
        }
    }
    let passed: Vec<Expr> = data.schema().fields().iter().map(|field| column(field.name())).collect();
    let function = if as_columns { functions::predict_columns } else { functions::predict };
    let prediction = function(&arguments.id, threshold, shape).alias(PREDICTION);
    let outputs = outputs.into_iter().map(|(field, name)| get_field(column(PREDICTION), field).alias(name));
    LogicalPlanBuilder::from(data)
        .project(passed.iter().cloned().chain([prediction]))?
        .project(passed.iter().cloned().chain(outputs).collect::<Vec<_>>())?
        .build()
}

pub(super) fn plan_transform(arguments: Arguments) -> Result<LogicalPlan> {
    let data = arguments.required_data()?;
    check_columns(&arguments, &data)?;
    let Some(predictor) = arguments.known.predictor() else {
        return Err(wrong(&arguments.function, "the model has not been trained yet, so its columns are not known"));
    };
    let names: Vec<String> = predictor.transform.output_schema().fields().iter().map(|f| f.name().clone()).collect();
    LogicalPlanBuilder::from(data)
        .project([functions::transform(&arguments.id, arguments.shape()).alias(PREDICTION)])?
        .project(names.into_iter().map(|name| get_field(column(PREDICTION), name.as_str()).alias(name)))?
        .build()
}

/// The data must have the columns that the model reads, in types that fit.
pub(super) fn check_columns(arguments: &Arguments, data: &LogicalPlan) -> Result<()> {
    let shape: &ModelShape = arguments.shape();
    let names = || data.schema().fields().iter().map(|field| field.name().as_str());
    let missing: Vec<&str> =
        shape.inputs.iter().map(|i| i.name.as_str()).filter(|input| !names().any(|name| name == *input)).collect();
    if !missing.is_empty() {
        return Err(invalid(lacks(arguments, &missing, &names().collect::<Vec<_>>())));
    }
    if let Known::Loaded(loaded) = &arguments.known {
        loaded.predictor.transform.apply(&no_rows(data)).map_err(invalid)?;
    }
    Ok(())
}

/// No rows of the data, which are enough to see whether types fit.
pub(super) fn no_rows(data: &LogicalPlan) -> RecordBatch {
    let fields = data.schema().fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
    RecordBatch::new_empty(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// All columns that are missing, each with the near name of one that is there and that the model does not read.
fn lacks(arguments: &Arguments, missing: &[&str], there: &[&str]) -> Error {
    let shape = arguments.shape();
    let error = Error::invalid(format!(
        "ML.{}: the data has no column{} {}, which the model {} reads",
        arguments.function,
        if missing.len() == 1 { "" } else { "s" },
        missing.join(", "),
        shape.name
    ));
    let free = || there.iter().copied().filter(|name| !shape.inputs.iter().any(|input| input.name == *name));
    let meant = |input: &&str| near(input, free()).map(|name| (input.to_string(), name));
    match missing.iter().filter_map(meant).collect::<Vec<_>>().as_slice() {
        [] => error.with_hint(format!("its columns are {}", there.join(", "))),
        [(_, name)] if missing.len() == 1 => error.with_hint(format!("is it the column {name}?")),
        several => {
            let pairs: Vec<String> = several.iter().map(|(input, name)| format!("{input} the column {name}")).collect();
            error.with_hint(format!("is {}?", pairs.join(", ")))
        }
    }
}
