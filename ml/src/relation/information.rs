//! `ML.TRAINING_INFO`, `ML.FEATURE_INFO` and `ML.WEIGHTS`: what a model tells of itself.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;

use super::arguments::{Arguments, wrong};
use super::rows_plan;
use crate::linear::LinearModel;
use crate::model::Predictor;
use crate::model::estimator::Trained;
use crate::model::files;
use crate::registry::Known;
use crate::transform::{Feature, FeatureInfo, Inputs};

/// The loss curve.
pub(super) fn plan_training(arguments: Arguments) -> Result<LogicalPlan> {
    arguments.only_model()?;
    let batches = match &arguments.known {
        Known::Loaded(loaded) => loaded.training.clone(),
        Known::Planned(_) => vec![],
    };
    rows_plan("training_info", files::training_schema(), batches)
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
    arguments.only_model()?;
    if arguments.shape().model_type.is_network() {
        let name = arguments.shape().model_type.name();
        return Err(wrong(
            &arguments.function,
            &format!("it is for linear models, {} is a {name}", arguments.shape().name),
        ));
    }
    let Some(predictor) = arguments.known.predictor() else {
        return rows_plan("weights", weights_schema(false), vec![]);
    };
    let Trained::Linear(model) = &predictor.trained else {
        return Err(wrong(&arguments.function, "the model has no linear weights"));
    };
    let batch = weights(predictor, model)?;
    rows_plan("weights", batch.schema(), vec![batch])
}

fn weights(predictor: &Predictor, model: &LinearModel) -> Result<RecordBatch> {
    let outputs = model.kind.outputs();
    let classes = predictor.shape().classes.clone().filter(|_| outputs > 1);
    let schema = weights_schema(classes.is_some());
    let mut names = Vec::new();
    let mut values: Vec<Option<f64>> = Vec::new();
    let mut class_labels: Vec<Option<String>> = Vec::new();
    let structs = StructBuilder::from_fields(category_fields(), 0);
    let mut categories = ListBuilder::new(structs);
    let layout = predictor.transform.layout();
    let offsets = layout.group_offsets();
    let coefficient = |input: usize, output: usize| model.coefficients[input * outputs + output];
    for output in 0..outputs {
        let class = classes.as_ref().map(|classes| classes[output].clone());
        let (mut dense, mut group) = (0, 0);
        for feature in predictor.transform.features() {
            let inputs = match group_width(feature) {
                Some(width) => {
                    let first = offsets[group];
                    group += 1;
                    first..first + width as usize
                }
                None => {
                    let first = dense;
                    dense += dense_width(feature);
                    first..dense
                }
            };
            names.push(feature.name.clone());
            class_labels.push(class.clone());
            let single = group_width(feature).is_none() && inputs.len() == 1;
            values.push(single.then(|| coefficient(inputs.start, output)));
            if single {
                categories.append(false);
                continue;
            }
            for input in inputs {
                let entry = categories.values();
                if let Some(text) = entry.field_builder::<StringBuilder>(0) {
                    text.append_value(category(&layout.names[input], &feature.name));
                }
                if let Some(weight) = entry.field_builder::<Float64Builder>(1) {
                    weight.append_value(coefficient(input, output));
                }
                entry.append(true);
            }
            categories.append(true);
        }
        names.push("__INTERCEPT__".into());
        values.push(Some(model.intercepts[output]));
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
        Inputs::MultiHot { width } => width as usize,
        Inputs::OneHot { .. } | Inputs::Buckets { .. } => 0,
    }
}
