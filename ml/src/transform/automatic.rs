//! What happens without a TRANSFORM clause: features chosen by column type.

use arrow::datatypes::Schema;
use engine::{Error, Result, near};
use serde::{Deserialize, Serialize};

use super::spec::{LabelColumn, TransformSpec};
use super::steps::{Defaults, Steps};

/// What becomes of strings and booleans, `CATEGORY_ENCODING_METHOD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoryEncoding {
    /// One column per category.
    #[default]
    OneHot,
    /// One column per category but the most frequent.
    Dummy,
    /// A number per category, ascending by value.
    Label,
    /// The mean label of the category's rows.
    Target,
}

/// What the weights of a linear model have room for, whatever else it reads.
pub const CATEGORIES_MAX: usize = 1_000_000;

/// How features are chosen.
#[derive(Debug, Clone, Copy)]
pub struct AutomaticOptions {
    /// What becomes of strings and booleans.
    pub categories: CategoryEncoding,
    /// Whether numbers are standardised; they are imputed with the mean in any case.
    pub standardise: bool,
    /// Categories of a column that get an input of their own, at most.
    pub categories_max: usize,
}

impl Default for AutomaticOptions {
    fn default() -> Self {
        AutomaticOptions { categories: CategoryEncoding::OneHot, standardise: true, categories_max: CATEGORIES_MAX }
    }
}

impl TransformSpec {
    /// Every column of `schema` but the labels becomes a feature: numbers are imputed with the mean and standardised
    /// (an array of numbers as a whole, by one mean and one deviation), strings and booleans one-hot encoded, arrays of
    /// strings multi-hot encoded, dates and timestamps expanded into standardised numbers, structs taken field by field.
    ///
    /// # Errors
    /// A label that is no column, a column whose type cannot be a feature, no features at all.
    pub fn automatic(schema: &Schema, labels: &[String], options: AutomaticOptions) -> Result<TransformSpec> {
        let mut steps = Steps::new(schema);
        check_labels(schema, labels)?;
        let AutomaticOptions { categories, standardise, categories_max } = options;
        let defaults = Defaults { standardise, categories, categories_max };
        for field in schema.fields().iter().filter(|field| !labels.contains(field.name())) {
            steps.feature(field.name(), field.name(), defaults)?;
        }
        let label = |name: &String| LabelColumn { name: name.clone(), column: name.clone() };
        steps.finish(labels.iter().map(label).collect())
    }
}

fn check_labels(schema: &Schema, labels: &[String]) -> Result<()> {
    for label in labels {
        if schema.index_of(label).is_err() {
            let names = || schema.fields().iter().map(|field| field.name().as_str());
            let error = Error::invalid(format!("the training query has no label column `{label}`"));
            return Err(match near(label, names()) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None => error.with_hint("name the label with OPTIONS (input_label_cols = ['...'])"),
            });
        }
    }
    Ok(())
}
