//! A fitted transform: what travels with a model, as JSON, and computes its inputs.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::logical_expr::Expr;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::apply::Slots;
use super::categories::Categories;
use super::evaluate::Evaluator;
use super::fitted::{Fitted, fitted_call};
use super::info::FeatureInfo;
use super::input::InputColumn;
use super::planning::Reading;
use super::spec::{LabelColumn, LabelSource, Step, Work};
use crate::shards::FeatureLayout;

/// The version of the JSON. Since 2 expressions are planned as in a SELECT.
const FORMAT: u32 = 2;

/// One entry of what the model sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name: that of the item in the TRANSFORM clause or of the column, with `.part` for a part of a struct or a
    /// timestamp.
    pub name: String,
    /// The raw column or step it is read from.
    pub column: String,
    /// Which inputs of the model it becomes.
    #[serde(flatten)]
    pub inputs: Inputs,
}

/// Which inputs of the model a feature becomes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "inputs", rename_all = "snake_case")]
pub enum Inputs {
    /// One number.
    Number {
        /// Stands for NULL.
        #[serde(with = "super::exact_float")]
        missing: f64,
    },
    /// `length` numbers, from an array.
    Numbers {
        /// Elements of each array.
        length: usize,
        /// Stands for NULL.
        #[serde(with = "super::exact_float")]
        missing: f64,
    },
    /// A one-hot group over the categories of an encoder.
    OneHot {
        /// Columns.
        width: u32,
    },
    /// `width` inputs of the bag, each 0 or 1, over the categories of an encoder.
    Bag {
        /// Columns.
        width: u32,
    },
    /// `width` numbers, each 0 or 1, over the categories of an encoder: as models of format 1 have them.
    MultiHot {
        /// Columns.
        width: u32,
    },
    /// A one-hot group over the buckets of a hash.
    Buckets {
        /// Columns.
        width: u32,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Document {
    format: u32,
    inputs: Vec<InputColumn>,
    steps: Vec<Step<Fitted>>,
    features: Vec<Feature>,
    labels: Vec<LabelColumn>,
    feature_info: Vec<FeatureInfo>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// A fitted transform, planned and ready to be applied. See [`FrozenTransform::apply`].
#[derive(Debug)]
pub struct FrozenTransform {
    document: Document,
    layout: FeatureLayout,
    pub(crate) evaluator: Evaluator,
    pub(crate) slots: Slots,
}

impl FrozenTransform {
    pub(crate) fn new(
        inputs: Vec<InputColumn>,
        steps: Vec<Step<Fitted>>,
        features: Vec<Feature>,
        labels: Vec<LabelColumn>,
        feature_info: Vec<FeatureInfo>,
        warnings: Vec<String>,
    ) -> Result<Self> {
        FrozenTransform::plan(Document { format: FORMAT, inputs, steps, features, labels, feature_info, warnings })
    }

    fn plan(document: Document) -> Result<Self> {
        let reading = if document.format < 2 { Reading::First } else { Reading::Sql };
        let evaluator = Evaluator::new(&document.inputs, &document.steps, reading)?;
        let slots = Slots::new(&document.features, &document.labels, &evaluator)?;
        let layout = layout(&document);
        Ok(FrozenTransform { document, layout, evaluator, slots })
    }

    /// The transform as JSON text; [`FrozenTransform::from_json`] gives back one that computes the same bits.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(&self.document)
            .map_err(|error| Error::invalid(format!("the transform cannot be written: {error}")))
    }

    /// Reads a transform back and plans its expressions.
    ///
    /// # Errors
    /// Not the JSON of a transform, one of a later format, or with an expression that this build does not understand.
    pub fn from_json(text: &str) -> Result<Self> {
        let document: Document = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("this is no transform that can be read: {error}")))?;
        if document.format > FORMAT {
            return Err(Error::invalid(format!(
                "the transform has format {}, this build reads up to {FORMAT}",
                document.format
            )));
        }
        FrozenTransform::plan(document)
    }

    /// How features are laid out as inputs of the model: all numbers first, then the bag, then the one-hot groups, each in the order
    /// of [`FrozenTransform::features`].
    pub fn layout(&self) -> &FeatureLayout {
        &self.layout
    }

    /// What the model sees, in order.
    pub fn features(&self) -> &[Feature] {
        &self.document.features
    }

    /// The categories behind a one-hot or multi-hot feature; a name per column is in [`Categories::names`].
    pub fn categories(&self, feature: &Feature) -> Option<&Categories> {
        let step = self.document.steps.iter().find(|step| step.name == feature.column)?;
        match &step.work {
            Work::Fit { function, .. } => function.categories(),
            Work::Sql { .. } => None,
        }
    }

    /// Offset and scale of a feature that is the result of a scaler.
    pub(crate) fn scaling(&self, feature: &Feature) -> Option<(f64, f64)> {
        let step = self.document.steps.iter().find(|step| step.name == feature.column)?;
        match &step.work {
            Work::Fit { function: Fitted::Scale { offset, scale, .. }, .. } => Some((*offset, *scale)),
            _ => None,
        }
    }

    /// Whether nothing is asked of this raw column but a number: 2.5 will do where training saw whole numbers alone.
    pub(crate) fn reads_as_number(&self, input: &str) -> bool {
        self.evaluator.reads_as_number(input)
    }

    /// The raw columns that prediction needs, in the order of the training query.
    pub fn feature_inputs(&self) -> impl Iterator<Item = &InputColumn> {
        self.evaluator.inputs(&self.slots.feature_columns)
    }

    /// The raw columns that the labels are made from.
    pub fn label_inputs(&self) -> impl Iterator<Item = &InputColumn> {
        self.evaluator.inputs(&self.slots.label_columns)
    }

    /// Where data have the label; `None` without one.
    pub fn label_source(&self) -> Option<LabelSource> {
        let label = self.document.labels.first()?;
        Some(label.source(self.label_inputs().cloned().collect()))
    }

    /// The label of what [`LabelSpec::base`](super::LabelSpec::base) gave.
    ///
    /// # Errors
    /// Values of another type.
    pub(crate) fn finished_label(&self, base: &ArrayRef) -> Result<ArrayRef> {
        match self.slots.label_function(&self.evaluator) {
            Some(function) => function.apply(base),
            None => Ok(Arc::clone(base)),
        }
    }

    /// The same as an expression over `base`.
    ///
    /// # Errors
    /// A function that cannot be written.
    pub(crate) fn finished_label_call(&self, base: Expr) -> Result<Expr> {
        let column = self.document.labels.first().map(|label| label.column.as_str());
        let step = self.document.steps.iter().find(|step| Some(step.name.as_str()) == column);
        match step.map(|step| &step.work) {
            Some(Work::Fit { function, .. }) => fitted_call(function, base),
            _ => Ok(base),
        }
    }

    /// All raw columns the transform reads, labels included: what must be kept of the training rows.
    pub fn inputs(&self) -> &[InputColumn] {
        &self.document.inputs
    }

    /// The labels.
    pub fn labels(&self) -> &[LabelColumn] {
        &self.document.labels
    }

    /// A row for each raw column that features are made of, for ML.FEATURE_INFO.
    pub fn feature_info(&self) -> &[FeatureInfo] {
        &self.document.feature_info
    }

    /// What the user should know about the training rows, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.document.warnings
    }

    /// The raw columns a feature is made of.
    pub fn inputs_of(&self, feature: &Feature) -> Vec<&str> {
        let Ok(id) = self.evaluator.id(&feature.column) else { return Vec::new() };
        let needed = self.evaluator.needed([id].into_iter());
        let names: BTreeSet<&str> = self.evaluator.inputs(&needed).map(|input| input.name.as_str()).collect();
        self.document.inputs.iter().map(|input| input.name.as_str()).filter(|name| names.contains(name)).collect()
    }
}

fn layout(document: &Document) -> FeatureLayout {
    let (mut dense, mut bag, mut groups, mut group_widths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for feature in &document.features {
        let name = &feature.name;
        let categories = || {
            let step = document.steps.iter().find(|step| step.name == feature.column);
            match step.map(|step| &step.work) {
                Some(Work::Fit { function, .. }) => function.categories().map(Categories::names).unwrap_or_default(),
                _ => Vec::new(),
            }
        };
        match feature.inputs {
            Inputs::Number { .. } => dense.push(name.clone()),
            Inputs::Numbers { length, .. } => dense.extend((0..length).map(|i| format!("{name}[{i}]"))),
            Inputs::MultiHot { .. } => dense.extend(categories().iter().map(|category| format!("{name}={category}"))),
            Inputs::Bag { .. } => bag.extend(categories().iter().map(|category| format!("{name}={category}"))),
            Inputs::OneHot { width: 0 } => {}
            Inputs::OneHot { width } => {
                groups.extend(categories().iter().map(|category| format!("{name}={category}")));
                group_widths.push(width);
            }
            Inputs::Buckets { width } => {
                groups.extend((0..width).map(|bucket| format!("{name}={bucket}")));
                group_widths.push(width);
            }
        }
    }
    let (numbers, bag_width) = (dense.len(), bag.len());
    dense.extend(bag);
    dense.extend(groups);
    FeatureLayout { dense: numbers, bag: bag_width, groups: group_widths, names: dense }
}
