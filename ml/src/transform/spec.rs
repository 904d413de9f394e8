//! A transform as it was written or chosen, checked against the training query's columns, before anything is fitted.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::fitted::{Fitted, fitted_call};
use super::input::InputColumn;
use super::planning;

/// One column made from others. Steps stand in an order in which each needs only raw columns and earlier steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step<F> {
    /// The column it makes.
    pub name: String,
    /// How.
    #[serde(flatten)]
    pub work: Work<F>,
}

/// How a step makes its column; `F` is a function to be fitted or, in a frozen transform, a fitted one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Work<F> {
    /// A stateless expression over raw columns and earlier steps, as SQL text.
    Sql {
        /// The expression.
        sql: String,
    },
    /// A function of one column whose statistics come from the training rows.
    Fit {
        /// Its argument: a raw column or an earlier step.
        input: String,
        /// The function.
        function: F,
    },
}

/// A function whose statistics must be fitted, with its checked constant arguments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FitFunction {
    /// `(x - mean) / stddev`, population standard deviation.
    StandardScaler,
    /// `(x - min) / (max - min)`, capped to 0..=1.
    MinMaxScaler,
    /// `x / max(|x|)`, capped to -1..=1.
    MaxAbsScaler,
    /// `(x - median) / (quantile(high) - quantile(low))`.
    RobustScaler {
        /// Lower quantile in 0..1.
        low: f64,
        /// Upper quantile in 0..1.
        high: f64,
        /// Whether the median is subtracted.
        center: bool,
        /// Whether the range divides.
        scale: bool,
    },
    /// NULL becomes the mean, median or most frequent value.
    Imputer(Imputation),
    /// The name of the quantile bucket.
    QuantileBucketize {
        /// Number of buckets.
        buckets: usize,
        /// How a bucket is named.
        format: BucketFormat,
    },
    /// 1.. for the kept categories in ascending order, 0 for the rest and NULL.
    LabelEncoder(CategoryLimit),
    /// One column per kept category.
    OneHotEncoder {
        /// Which categories are kept.
        limit: CategoryLimit,
        /// Whether the most frequent category gets no column.
        drop_most_frequent: bool,
    },
    /// One column per kept element of an array.
    MultiHotEncoder(CategoryLimit),
    /// The mean label of the category's rows.
    TargetEncoder {
        /// Whether the encoded values are standardised.
        standardise: bool,
    },
}

/// What a missing value becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Imputation {
    /// The mean.
    Mean,
    /// The median.
    Median,
    /// The most frequent value, ties by value.
    MostFrequent,
}

/// Which categories get a number of their own; the rest of what training shows shares one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CategoryLimit {
    /// At most this many, the most frequent, ties by value.
    pub(crate) top_k: usize,
    /// Only those seen in at least this many training rows.
    pub(crate) frequency_threshold: u64,
    /// Whether the user has written both, and so knows of the rest.
    pub(crate) is_written: bool,
}

/// How a bucket is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BucketFormat {
    /// `bin_1`, `bin_2`, ...
    Names,
    /// `[1, 2)`
    Ranges,
    /// `{"start": "1", "end": "2"}`
    RangesJson,
}

/// One entry of what the model sees, before its width is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FeatureSpec {
    /// Name in the model.
    pub(crate) name: String,
    /// The column it is read from: a raw column or a step.
    pub(crate) column: String,
    /// How the column becomes inputs of the model.
    pub(crate) kind: FeatureKind,
}

/// How a column becomes inputs of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FeatureKind {
    /// A number, or an array of numbers of one length.
    Number,
    /// The index of a category, from a fitted encoder.
    OneHot,
    /// Indices of categories, from a fitted encoder.
    MultiHot,
    /// An index below `width`, from a hash.
    Buckets { width: u32 },
}

/// A label column: its name in the model and the column it is read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelColumn {
    /// Name in the model.
    pub name: String,
    /// A raw column, a stateless step, or a scaler or buckets of one.
    pub column: String,
}

impl LabelColumn {
    /// Where it comes from, `inputs` being the raw columns that it is made of.
    pub(crate) fn source(&self, inputs: Vec<InputColumn>) -> LabelSource {
        match super::steps::is_internal(&self.column) {
            true => LabelSource::Made(inputs),
            false => LabelSource::Column(self.column.clone()),
        }
    }
}

/// Where data have a model's label.
#[derive(Debug, Clone, PartialEq)]
pub enum LabelSource {
    /// It is this column.
    Column(String),
    /// TRANSFORM makes it of these columns.
    Made(Vec<InputColumn>),
}

/// How a label is made of the training rows.
#[derive(Debug, Clone)]
pub struct LabelSpec {
    /// Over the training query: the label, or what a fitted function makes it of. NULL where a row has none.
    pub base: Expr,
    /// The label's own type.
    pub data_type: DataType,
    /// Whether a function that is fitted on the training rows stands around `base`.
    pub is_fitted: bool,
    /// Where other data have it.
    pub source: LabelSource,
}

/// A transform as it was written or chosen. See [`TransformSpec::parse`] and [`TransformSpec::automatic`].
#[derive(Debug, Clone)]
pub struct TransformSpec {
    pub(crate) inputs: Vec<InputColumn>,
    pub(crate) steps: Vec<Step<FitFunction>>,
    pub(crate) features: Vec<FeatureSpec>,
    pub(crate) labels: Vec<LabelColumn>,
    /// Raw columns, then one field per step.
    pub(crate) columns: Schema,
}

impl TransformSpec {
    /// Raw columns that features or labels read.
    pub fn inputs(&self) -> &[InputColumn] {
        &self.inputs
    }

    /// Names of the labels.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(|label| label.name.as_str())
    }

    /// How a label is made.
    ///
    /// # Errors
    /// No label of that name; one that depends on fitted statistics in another way than by a scaler or by buckets of its own
    /// quantiles.
    pub fn label(&self, name: &str) -> Result<LabelSpec> {
        let label = self
            .labels
            .iter()
            .find(|label| label.name == name)
            .ok_or_else(|| Error::invalid(format!("the transform has no label `{name}`")))?;
        let data_type = self.columns.field_with_name(&label.column).map_err(engine_error)?.data_type().clone();
        let fit = self.steps.iter().find(|step| step.name == label.column).and_then(|step| match &step.work {
            Work::Fit { input, function } => Some((input, function)),
            Work::Sql { .. } => None,
        });
        let refuse = |why: &str| {
            let what = self.describe(&label.column);
            let hint = "a label is an expression of the row, or a scaler or ML.QUANTILE_BUCKETIZE of one";
            Err(Error::invalid(format!("TRANSFORM: `{what}` cannot be the label `{name}`: {why}")).with_hint(hint))
        };
        let base = match fit {
            None => &label.column,
            Some((input, function)) if function.is_for_labels() => input,
            Some((_, FitFunction::Imputer(_))) => return refuse("rows without a label are left out and not made up"),
            Some(_) => return refuse("it is for features"),
        };
        let Ok(base) = self.expression(base, &[]) else { return refuse("it depends on fitted statistics inside") };
        let inputs = self.raw_columns_of(std::iter::once(label.column.as_str()))?;
        let inputs = self.inputs.iter().filter(|input| inputs.contains(&input.name)).cloned().collect();
        Ok(LabelSpec { base, data_type, is_fitted: fit.is_some(), source: label.source(inputs) })
    }

    /// The raw columns that `columns` are made from, in the order of the inputs.
    pub(crate) fn raw_columns_of<'a>(&self, columns: impl Iterator<Item = &'a str>) -> Result<BTreeSet<String>> {
        let mut wanted: BTreeSet<String> = columns.map(str::to_owned).collect();
        for step in self.steps.iter().rev().filter(|step| !step.name.is_empty()) {
            if wanted.remove(&step.name) {
                wanted.extend(self.step_inputs(step)?);
            }
        }
        Ok(wanted)
    }

    fn step_inputs(&self, step: &Step<FitFunction>) -> Result<BTreeSet<String>> {
        match &step.work {
            Work::Sql { sql } => Ok(planning::columns_of(&planning::plan(sql, &self.columns)?)),
            Work::Fit { input, .. } => Ok(BTreeSet::from([input.clone()])),
        }
    }

    /// `column` as an expression over the training query, in which every step it is made of is spelled out; `fitted`
    /// holds the functions of the steps that are fitted already.
    pub(crate) fn expression(&self, column: &str, fitted: &[Step<Fitted>]) -> Result<Expr> {
        let Some(step) = self.steps.iter().find(|step| step.name == column) else {
            return Ok(planning::column(column));
        };
        match &step.work {
            Work::Sql { sql } => {
                let inlined = planning::plan(sql, &self.columns)?.transform_up(|expr| match &expr {
                    Expr::Column(inner) if super::steps::is_internal(&inner.name) => {
                        let inner = self
                            .expression(&inner.name, fitted)
                            .map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
                        Ok(Transformed::yes(inner))
                    }
                    _ => Ok(Transformed::no(expr)),
                })?;
                Ok(inlined.data)
            }
            Work::Fit { input, .. } => {
                let function = fitted.iter().find(|known| known.name == column).map(|known| &known.work);
                let Some(Work::Fit { function, .. }) = function else {
                    return Err(Error::invalid(format!(
                        "`{}` must not depend on fitted statistics",
                        self.describe(column)
                    )));
                };
                fitted_call(function, self.expression(input, fitted)?)
            }
        }
    }

    /// A column as the user wrote it, for messages.
    pub(crate) fn describe(&self, column: &str) -> String {
        super::steps::describe(&self.steps, column)
    }
}

impl FitFunction {
    /// Whether it keeps a row's label a label: NULL stays NULL, and rows with other labels do not become alike.
    fn is_for_labels(&self) -> bool {
        match self {
            FitFunction::StandardScaler
            | FitFunction::MinMaxScaler
            | FitFunction::MaxAbsScaler
            | FitFunction::RobustScaler { .. }
            | FitFunction::QuantileBucketize { .. } => true,
            FitFunction::Imputer(_)
            | FitFunction::LabelEncoder(_)
            | FitFunction::OneHotEncoder { .. }
            | FitFunction::MultiHotEncoder(_)
            | FitFunction::TargetEncoder { .. } => false,
        }
    }

    /// As the user writes it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            FitFunction::StandardScaler => "ML.STANDARD_SCALER",
            FitFunction::MinMaxScaler => "ML.MIN_MAX_SCALER",
            FitFunction::MaxAbsScaler => "ML.MAX_ABS_SCALER",
            FitFunction::RobustScaler { .. } => "ML.ROBUST_SCALER",
            FitFunction::Imputer(_) => "ML.IMPUTER",
            FitFunction::QuantileBucketize { .. } => "ML.QUANTILE_BUCKETIZE",
            FitFunction::LabelEncoder(_) => "ML.LABEL_ENCODER",
            FitFunction::OneHotEncoder { .. } => "ML.ONE_HOT_ENCODER",
            FitFunction::MultiHotEncoder(_) => "ML.MULTI_HOT_ENCODER",
            FitFunction::TargetEncoder { .. } => "TARGET_ENCODING",
        }
    }

    /// The type it makes of an argument's type; `argument` names it in errors.
    pub(crate) fn output_type(&self, input: &DataType, argument: &str) -> Result<DataType> {
        let wrong = |expected: &str| {
            Err(Error::invalid(format!("{} takes {expected}, but `{argument}` has type {input}", self.name())))
        };
        let numbers = || match element_type(input) {
            Some(element) if is_number(element) => Ok(DataType::new_list(DataType::Float64, true)),
            None if is_number(input) => Ok(DataType::Float64),
            _ => wrong("numbers or an array of numbers"),
        };
        match self {
            FitFunction::StandardScaler | FitFunction::MinMaxScaler | FitFunction::MaxAbsScaler => numbers(),
            FitFunction::Imputer(Imputation::Mean) => numbers(),
            FitFunction::RobustScaler { .. } | FitFunction::Imputer(Imputation::Median) => {
                if is_number(input) {
                    Ok(DataType::Float64)
                } else {
                    wrong("numbers")
                }
            }
            FitFunction::QuantileBucketize { .. } => {
                if is_number(input) {
                    Ok(DataType::Utf8)
                } else {
                    wrong("numbers")
                }
            }
            FitFunction::Imputer(Imputation::MostFrequent) => match input {
                DataType::Boolean => Ok(DataType::Boolean),
                number if is_number(number) => Ok(DataType::Float64),
                text if is_text(text) => Ok(DataType::Utf8),
                _ => wrong("numbers, strings or booleans"),
            },
            FitFunction::LabelEncoder(_) | FitFunction::OneHotEncoder { .. } => {
                if is_category(input) {
                    Ok(DataType::Int64)
                } else {
                    wrong("plain values")
                }
            }
            // For more than two classes an array, which is known when it is fitted; nothing is made of it before.
            FitFunction::TargetEncoder { .. } if is_category(input) => Ok(DataType::Float64),
            FitFunction::TargetEncoder { .. } => wrong("plain values"),
            FitFunction::MultiHotEncoder(_) => match element_type(input) {
                Some(element) if is_category(element) => Ok(DataType::new_list(DataType::Int64, true)),
                _ => wrong("an array of plain values"),
            },
        }
    }
}

/// Numbers and what counts as one (true = 1).
pub(crate) fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean || *data_type == DataType::Null
}

/// Strings, dictionaries of strings included.
pub(crate) fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_category(data_type: &DataType) -> bool {
    is_text(data_type) || (!data_type.is_nested() && !data_type.is_binary())
}

/// The type of an array's elements.
pub(crate) fn element_type(data_type: &DataType) -> Option<&DataType> {
    match data_type {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

/// An Arrow error as the engine's.
pub(crate) fn engine_error(error: arrow::error::ArrowError) -> Error {
    Error::Query(error.into())
}
