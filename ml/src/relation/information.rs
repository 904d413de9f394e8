//! `ML.TRAINING_INFO`, `ML.FEATURE_INFO`, `ML.WEIGHTS` and `ML.ADVANCED_WEIGHTS`: what a model tells of itself.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use engine::Error;

use super::arguments::{Arguments, wrong};
use super::functions::column;
use super::units::Units;
use super::{invalid, rows_plan};
use crate::linear::LinearModel;
use crate::model::Predictor;
use crate::model::estimator::Trained;
use crate::model::files;
use crate::registry::Known;
use crate::transform::{Feature, FeatureInfo, Inputs};

/// The loss curve, of a finished version or of the run that is training now.
pub(super) fn plan_training(arguments: Arguments) -> Result<LogicalPlan> {
    arguments.only_model()?;
    let (batches, version, status) = match &arguments.known {
        Known::Loaded(loaded) => (loaded.training.clone(), Some(loaded.version), "finished"),
        Known::Running(_, run) => {
            (vec![files::training_batch(&run.history).map_err(invalid)?], Some(run.version), "running")
        }
        Known::Planned(_) => (vec![], None, "finished"),
    };
    let schema = files::training_schema();
    let names: Vec<Expr> = schema.fields().iter().map(|field| column(field.name())).collect();
    let more = [lit(ScalarValue::UInt64(version)).alias("version"), lit(status).alias("status")];
    LogicalPlanBuilder::from(rows_plan("training_info", schema, batches)?)
        .project(names.into_iter().chain(more).collect::<Vec<_>>())?
        .build()
}

/// Statistics of the raw columns over the training rows.
pub(super) fn plan_features(arguments: Arguments) -> Result<LogicalPlan> {
    arguments.only_model()?;
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let count = |name: &str| Field::new(name, DataType::UInt64, true);
    let schema = Arc::new(Schema::new(vec![
        Field::new("input", DataType::Utf8, false),
        number("min"),
        number("max"),
        number("mean"),
        number("median"),
        number("stddev"),
        count("category_count"),
        count("null_count"),
        count("dimension"),
    ]));
    let Some(predictor) = arguments.known.predictor() else { return rows_plan("feature_info", schema, vec![]) };
    let info = predictor.transform.feature_info();
    let floats = |value: fn(&FeatureInfo) -> Option<f64>| -> ArrayRef {
        Arc::new(info.iter().map(value).collect::<Float64Array>())
    };
    let counts = |value: fn(&FeatureInfo) -> Option<u64>| -> ArrayRef {
        Arc::new(info.iter().map(value).collect::<UInt64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(info.iter().map(|i| Some(i.input.as_str())).collect::<StringArray>()),
        floats(|i| i.min),
        floats(|i| i.max),
        floats(|i| i.mean),
        floats(|i| i.median),
        floats(|i| i.stddev),
        counts(|i| i.category_count),
        counts(|i| Some(i.null_count)),
        counts(|i| i.dimension),
    ];
    rows_plan("feature_info", schema.clone(), vec![RecordBatch::try_new(schema, columns)?])
}

fn category_fields() -> Fields {
    Fields::from(vec![Field::new("category", DataType::Utf8, true), Field::new("weight", DataType::Float64, true)])
}

fn weights_schema(classes: bool) -> SchemaRef {
    let categories = DataType::List(Arc::new(Field::new_list_field(DataType::Struct(category_fields()), true)));
    let mut fields = vec![
        Field::new("processed_input", DataType::Utf8, false),
        Field::new("weight", DataType::Float64, true),
        Field::new("category_weights", categories, true),
    ];
    if classes {
        fields.push(Field::new("class_label", DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

/// The coefficients of a linear model; for more than two classes a row for each feature and class.
pub(super) fn plan_weights(arguments: Arguments) -> Result<LogicalPlan> {
    let Some((predictor, model)) = linear_model(&arguments)? else {
        return rows_plan("weights", weights_schema(false), vec![]);
    };
    let batch = weights(predictor, model, &units(&arguments, predictor, model))?;
    rows_plan("weights", batch.schema(), vec![batch])
}

/// The coefficients of a linear model that was trained with CALCULATE_P_VALUES, with standard errors and p-values.
pub(super) fn plan_advanced_weights(arguments: Arguments) -> Result<LogicalPlan> {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let schema = Arc::new(Schema::new(vec![
        Field::new("processed_input", DataType::Utf8, false),
        Field::new("category", DataType::Utf8, true),
        number("weight"),
        number("standard_error"),
        number("p_value"),
    ]));
    let Some((predictor, model)) = linear_model(&arguments)? else {
        return rows_plan("advanced_weights", schema, vec![]);
    };
    let Some(inference) = &model.inference else {
        let name = &arguments.shape().name;
        let what = format!("{name} was trained without standard errors and p-values");
        let error = Error::invalid(format!("ML.{}: {what}", arguments.function));
        return Err(invalid(error.with_hint("train it with OPTIONS (calculate_p_values = TRUE, ...)")));
    };
    let names = &predictor.transform.layout().names;
    let units = units(&arguments, predictor, model);
    let (mut inputs, mut categories, mut columns) = (Vec::new(), Vec::new(), vec![]);
    for weighted in weighted_features(predictor) {
        for input in weighted.inputs.clone() {
            let name = &weighted.feature.name;
            inputs.push(name.clone());
            let category = (!weighted.is_single).then(|| category(&names[input], name).to_string());
            categories.push(category);
            columns.push(input);
        }
    }
    let of =
        |values: &[f64]| columns.iter().map(|input| Some(units.weight(*input, values[*input]))).collect::<Vec<_>>();
    let p_values = columns.iter().map(|input| Some(inference.p_values[*input])).collect();
    let mut numbers = [of(&model.coefficients), of(&inference.standard_errors), p_values];
    // Without an intercept there is no row for it.
    if inference.standard_errors.len() > model.coefficients.len() {
        inputs.push(INTERCEPT.to_string());
        categories.push(None);
        let (error, p_value) = units.intercept_inference(model, inference).unzip();
        let values = [Some(units.intercept(model, 0)), error, p_value];
        numbers.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let [weights, errors, p_values] = numbers.map(|column| Arc::new(Float64Array::from(column)) as ArrayRef);
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(inputs)), Arc::new(StringArray::from(categories)), weights, errors, p_values];
    rows_plan("advanced_weights", schema.clone(), vec![RecordBatch::try_new(schema, columns)?])
}

/// Those of the columns, unless `TRUE AS standardize` asks for those of the standardised inputs.
fn units(arguments: &Arguments, predictor: &Predictor, model: &LinearModel) -> Units {
    match arguments.settings.standardize {
        true => Units::of_the_model(model),
        false => Units::of_the_columns(predictor, model),
    }
}

/// The model, which must be a linear one; `None` while it is only planned.
fn linear_model(arguments: &Arguments) -> Result<Option<(&Predictor, &LinearModel)>> {
    arguments.only_model()?;
    if arguments.shape().model_type.is_network() {
        let name = arguments.shape().model_type.name();
        return Err(wrong(
            &arguments.function,
            &format!("it is for linear models, {} is a {name}", arguments.shape().name),
        ));
    }
    let Some(predictor) = arguments.known.predictor() else { return Ok(None) };
    match &predictor.trained {
        Trained::Linear(model) => Ok(Some((predictor, model))),
        Trained::Network(_) => Err(wrong(&arguments.function, "the model has no linear weights")),
    }
}

/// The name of the intercept's row.
const INTERCEPT: &str = "__INTERCEPT__";

/// A feature with the inputs of the model that it becomes.
pub(super) struct WeightedFeature<'a> {
    pub(super) feature: &'a Feature,
    pub(super) inputs: Range<usize>,
    /// Whether it is one number, so that it has one weight and no categories.
    is_single: bool,
}

pub(super) fn weighted_features(predictor: &Predictor) -> Vec<WeightedFeature<'_>> {
    let offsets = predictor.transform.layout().group_offsets();
    let (mut dense, mut bag, mut group) = (0, predictor.transform.layout().dense, 0);
    let weighted = |feature: &Feature| match group_width(feature) {
        // A group without columns is none.
        Some(0) => (0..0, false),
        Some(width) => {
            let first = offsets[group];
            group += 1;
            (first..first + width as usize, false)
        }
        None if matches!(feature.inputs, Inputs::Bag { .. }) => {
            let first = bag;
            bag += dense_width(feature);
            (first..bag, false)
        }
        None => {
            let first = dense;
            dense += dense_width(feature);
            (first..dense, matches!(feature.inputs, Inputs::Number { .. }))
        }
    };
    let features = predictor.transform.features();
    let inputs: Vec<(Range<usize>, bool)> = features.iter().map(weighted).collect();
    let named = features.iter().zip(inputs);
    named.map(|(feature, (inputs, is_single))| WeightedFeature { feature, inputs, is_single }).collect()
}

fn weights(predictor: &Predictor, model: &LinearModel, units: &Units) -> Result<RecordBatch> {
    let outputs = model.kind.outputs();
    let classes = predictor.shape().classes.clone().filter(|_| outputs > 1);
    let schema = weights_schema(classes.is_some());
    let mut names = Vec::new();
    let mut values: Vec<Option<f64>> = Vec::new();
    let mut class_labels: Vec<Option<String>> = Vec::new();
    let structs = StructBuilder::from_fields(category_fields(), 0);
    let mut categories = ListBuilder::new(structs);
    let layout = predictor.transform.layout();
    let features = weighted_features(predictor);
    let coefficient = |input: usize, output: usize| units.weight(input, model.coefficients[input * outputs + output]);
    for output in 0..outputs {
        let class = classes.as_ref().map(|classes| classes[output].clone());
        for WeightedFeature { feature: Feature { name, .. }, inputs, is_single } in &features {
            names.push(name.clone());
            class_labels.push(class.clone());
            values.push(is_single.then(|| coefficient(inputs.start, output)));
            if *is_single {
                categories.append(false);
                continue;
            }
            for input in inputs.clone() {
                let entry = categories.values();
                if let Some(text) = entry.field_builder::<StringBuilder>(0) {
                    text.append_value(category(&layout.names[input], name));
                }
                if let Some(weight) = entry.field_builder::<Float64Builder>(1) {
                    weight.append_value(coefficient(input, output));
                }
                entry.append(true);
            }
            categories.append(true);
        }
        names.push(INTERCEPT.into());
        values.push(Some(units.intercept(model, output)));
        class_labels.push(class);
        categories.append(false);
    }
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(names)), Arc::new(Float64Array::from(values)), Arc::new(categories.finish())];
    if classes.is_some() {
        columns.push(Arc::new(StringArray::from(class_labels)));
    }
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Every coefficient by the name of its input, and of its class where there are more than two, in units of the columns.
pub(crate) fn named_weights(predictor: &Predictor, model: &LinearModel) -> Vec<(String, f64)> {
    let units = Units::of_the_columns(predictor, model);
    let outputs = model.kind.outputs();
    let classes = predictor.shape().classes.clone().filter(|_| outputs > 1);
    let mut named = Vec::new();
    for output in 0..outputs {
        let of = classes.as_ref().map_or(String::new(), |classes| format!(" of {}", classes[output]));
        for (input, name) in predictor.transform.layout().names.iter().enumerate() {
            let weight = units.weight(input, model.coefficients[input * outputs + output]);
            named.push((format!("{name}{of}"), weight));
        }
        named.push((format!("{INTERCEPT}{of}"), units.intercept(model, output)));
    }
    named
}

/// `carrier=AA` of the feature `carrier` is the category `AA`.
fn category<'a>(input: &'a str, feature: &str) -> &'a str {
    input.strip_prefix(feature).and_then(|rest| rest.strip_prefix('=')).unwrap_or(input)
}

/// Columns of a one-hot group.
fn group_width(feature: &Feature) -> Option<u32> {
    match feature.inputs {
        Inputs::OneHot { width } | Inputs::Buckets { width } => Some(width),
        _ => None,
    }
}

/// Numbers of a feature that is no one-hot group.
fn dense_width(feature: &Feature) -> usize {
    match feature.inputs {
        Inputs::Number { .. } => 1,
        Inputs::Numbers { length, .. } => length,
        Inputs::MultiHot { width } | Inputs::Bag { width } => width as usize,
        Inputs::OneHot { .. } | Inputs::Buckets { .. } => 0,
    }
}
