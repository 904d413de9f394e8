//! What a query must know of a model in order to be planned: names and types, no weights.

use arrow::datatypes::{DataType, Field, Fields};
use std::sync::Arc;

use crate::spec::ModelType;
use crate::transform::{InputColumn, LabelSource};

/// Names and types of a model's inputs and outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelShape {
    /// The model's name.
    pub name: String,
    /// Which kind of model.
    pub model_type: ModelType,
    /// The label's column.
    pub label: String,
    /// Where data have the label.
    pub label_source: LabelSource,
    /// The label's type: that of classes, or of the number that is predicted.
    pub label_type: DataType,
    /// Columns that a prediction reads, with the types they had in training.
    pub inputs: Vec<InputColumn>,
    /// The classes as text, in their order; `None` for regressors, and while the model is only planned.
    pub classes: Option<Vec<String>>,
}

impl ModelShape {
    /// The columns of data that have the label, or that it is made of.
    pub(crate) fn label_columns(&self) -> Vec<&str> {
        match &self.label_source {
            LabelSource::Column(name) => vec![name],
            LabelSource::Made(inputs) => inputs.iter().map(|input| input.name.as_str()).collect(),
        }
    }

    /// `predicted_<label>`.
    pub fn predicted_column(&self) -> String {
        format!("predicted_{}", self.label)
    }

    /// The type of the predicted label.
    pub fn predicted_type(&self) -> DataType {
        if self.model_type.is_classifier() { self.label_type.clone() } else { DataType::Float64 }
    }

    /// The type of `predicted_<label>_probs`: ARRAY<STRUCT<label, prob>>.
    pub fn probabilities_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Struct(self.probability_fields()), true)))
    }

    /// The classes as columns show them. Before the model is trained its classes are not known: those of a boolean label
    /// stand for them.
    pub fn column_classes(&self) -> Vec<String> {
        self.classes.clone().unwrap_or_else(|| vec!["false".into(), "true".into()])
    }

    /// `predicted_<label>_probs_<class>`.
    pub fn probability_column(&self, class: &str) -> String {
        format!("{}_probs_{class}", self.predicted_column())
    }

    /// Fields of one of its elements.
    pub fn probability_fields(&self) -> Fields {
        Fields::from(vec![
            Field::new("label", self.label_type.clone(), true),
            Field::new("prob", DataType::Float64, true),
        ])
    }
}
