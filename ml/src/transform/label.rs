//! Labels: the classes of a classifier, the values of a regressor.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use datafusion::logical_expr::Expr;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::categories::{Categories, CategoryType, Lookup};
use super::exact_float;
use super::fitted::as_numbers;
use super::input::type_as_text;
use super::spec::{engine_error, is_text};
use super::statistics::{Find, Needs, collect};
use crate::statistics::Rows;

/// More classes than this are taken for a number, a name or a key.
const CLASSES_MAX: usize = 1_000;

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelTask {
    /// One of a few values.
    Classification,
    /// A number.
    Regression,
}

/// How a label becomes the number that training compares with, and back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelEncoding {
    /// The label's name.
    pub name: String,
    /// Its type in the training query, which predictions have, too.
    #[serde(with = "type_as_text")]
    pub data_type: DataType,
    /// Classes, or statistics of the values.
    #[serde(flatten)]
    pub values: LabelValues,
}

/// Classes, or statistics of the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelValues {
    /// Ascending: strings by their bytes, integers by number, FALSE before TRUE.
    Classes {
        /// As text.
        values: Vec<String>,
        /// Training rows of each.
        counts: Vec<u64>,
    },
    /// Of the training rows.
    Numbers {
        /// Mean.
        #[serde(with = "exact_float")]
        mean: f64,
        /// Standard deviation of the population.
        #[serde(with = "exact_float")]
        stddev: f64,
        /// Smallest.
        #[serde(with = "exact_float")]
        min: f64,
        /// Largest.
        #[serde(with = "exact_float")]
        max: f64,
        /// What training counts in; labels as they are where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scale: Option<LabelScale>,
    },
}

/// Training sees `(label - offset) / unit`: what is subtracted is subtracted in 64 bits, before anything is rounded to 32.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelScale {
    /// The mean label, or 0 for models without an intercept.
    #[serde(with = "exact_float")]
    pub offset: f64,
    /// 1, or a power of two near the labels' standard deviation.
    #[serde(with = "exact_float")]
    pub unit: f64,
}

impl LabelScale {
    /// Labels as they are.
    pub const NONE: LabelScale = LabelScale { offset: 0.0, unit: 1.0 };

    /// What training sees of a label.
    pub fn of(self, label: f64) -> f32 {
        ((label - self.offset) / self.unit) as f32
    }

    /// A label, from what training sees of it.
    pub fn back(self, seen: f64) -> f64 {
        seen * self.unit + self.offset
    }
}

/// A label's encoding and what was found on the way.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedLabel {
    /// The encoding.
    pub encoding: LabelEncoding,
    /// Training rows, those without a label included.
    pub rows: u64,
    /// Rows whose label is NULL: they cannot be learned from and are to be left out.
    pub nulls: u64,
    /// A sentence about those, if any.
    pub warning: Option<String>,
}

impl LabelEncoding {
    /// Finds the classes, or checks the values, of the label `expr` (see [`TransformSpec::label`]) in the rows `train`.
    ///
    /// [`TransformSpec::label`]: super::TransformSpec::label
    ///
    /// # Errors
    /// No rows; NULL in all of them; one value alone; more than 1,000 classes; a type that does not fit the task; NaN or
    /// infinities.
    pub async fn fit(
        train: impl Into<Rows>,
        name: &str,
        expr: Expr,
        data_type: &DataType,
        task: LabelTask,
    ) -> Result<FittedLabel> {
        check_type(name, data_type, task)?;
        let needs = match task {
            LabelTask::Classification => Needs { categories: true, ..Needs::default() },
            LabelTask::Regression => Needs { moments: true, ..Needs::default() },
        };
        let found = collect(&train.into(), &[(expr, needs)], Find::ByCounting).await?.swap_remove(0);
        let (rows, nulls) = (found.rows, found.nulls);
        if rows == 0 {
            return Err(Error::invalid("there are no training rows"));
        }
        if nulls == rows {
            return Err(Error::invalid(format!("label column `{name}` is NULL in all {rows} training rows")));
        }
        let constant = |value: &str| {
            Error::invalid(format!(
                "label column `{name}` is {value} in all {} training rows: there is nothing to tell apart",
                rows - nulls
            ))
        };
        let values = match task {
            LabelTask::Classification => {
                let counts = found.categories.unwrap_or_default().counts;
                match counts.as_slice() {
                    [(value, _)] => return Err(constant(&format!("'{value}'"))),
                    many if many.len() > CLASSES_MAX => {
                        return Err(Error::invalid(format!(
                            "label column `{name}` has {} classes, at most {CLASSES_MAX} can be told apart",
                            many.len()
                        ))
                        .with_hint("to predict a number use linear_reg or dnn_regressor"));
                    }
                    _ => classes(counts, data_type),
                }
            }
            LabelTask::Regression => {
                let moments = found.moments.unwrap_or_default();
                if moments.not_finite > 0 {
                    let what = if moments.not_finite == 1 { "value that is" } else { "values that are" };
                    return Err(Error::invalid(format!(
                        "label column `{name}` holds {} {what} NaN or infinite",
                        moments.not_finite
                    )));
                }
                let number = |x: Option<f64>| x.unwrap_or(0.0);
                let (min, max) = (number(moments.min), number(moments.max));
                if min == max {
                    return Err(constant(&min.to_string()));
                }
                let (mean, stddev) = (number(moments.mean), number(moments.stddev));
                LabelValues::Numbers { mean, stddev, min, max, scale: None }
            }
        };
        let warning = (nulls > 0)
            .then(|| format!("label column `{name}` is NULL in {nulls} of {rows} rows: they are left out of training"));
        let encoding = LabelEncoding { name: name.to_owned(), data_type: data_type.clone(), values };
        Ok(FittedLabel { encoding, rows, nulls, warning })
    }

    /// The classes as text, ascending; `None` for a regressor.
    pub fn classes(&self) -> Option<&[String]> {
        match &self.values {
            LabelValues::Classes { values, .. } => Some(values),
            LabelValues::Numbers { .. } => None,
        }
    }

    /// Training rows of each class; `None` for a regressor.
    pub fn class_counts(&self) -> Option<&[u64]> {
        match &self.values {
            LabelValues::Classes { counts, .. } => Some(counts),
            LabelValues::Numbers { .. } => None,
        }
    }

    /// The same label for a training that sees it relative to its mean (`centred`) and in units near its standard deviation
    /// (`scaled`).
    ///
    /// # Errors
    /// Numbers that are too large or too close together to be told apart in 32 bits.
    pub fn for_training(self, centred: bool, scaled: bool) -> Result<Self> {
        let LabelValues::Numbers { mean, stddev, min, max, .. } = self.values else { return Ok(self) };
        let offset = if centred { mean } else { 0.0 };
        let unit = if scaled { 2f64.powf(stddev.log2().round()) } else { 1.0 };
        let scale = LabelScale { offset, unit };
        let spread = stddev / unit;
        if ![offset, unit, spread].iter().all(|x| x.is_finite()) || unit == 0.0 || !(1e-30..1e30).contains(&spread) {
            return Err(Error::invalid(format!(
                "label column `{}` is from {min:e} to {max:e}: such numbers cannot be trained on as they are",
                self.name
            ))
            .with_hint("multiply the label by a constant"));
        }
        let values = LabelValues::Numbers { mean, stddev, min, max, scale: Some(scale) };
        Ok(LabelEncoding { values, ..self })
    }

    /// How numbers are seen by training; classes are seen as they are.
    pub fn scale(&self) -> LabelScale {
        match self.values {
            LabelValues::Numbers { scale: Some(scale), .. } => scale,
            _ => LabelScale::NONE,
        }
    }

    /// Labels as metrics count them: index of the class, or the number itself.
    ///
    /// # Errors
    /// As [`LabelEncoding::encode`].
    pub fn values(&self, labels: &ArrayRef) -> Result<Vec<f64>> {
        if self.classes().is_some() {
            return Ok(self.encode(labels)?.into_iter().map(f64::from).collect());
        }
        self.encode(labels)?;
        Ok(as_numbers(labels)?.values().to_vec())
    }

    /// Labels as training sees them: index of the class, or the number by its [`LabelScale`].
    ///
    /// # Errors
    /// NULL, a class that training did not show, NaN or infinities, another type.
    pub fn encode(&self, labels: &ArrayRef) -> Result<Vec<f32>> {
        if labels.null_count() > 0 {
            return Err(Error::invalid(format!("label column `{}` holds NULL", self.name))
                .with_hint(format!("leave such rows out: WHERE {} IS NOT NULL", self.name)));
        }
        match &self.values {
            LabelValues::Numbers { .. } => {
                check_type(&self.name, labels.data_type(), LabelTask::Regression)?;
                let (numbers, scale) = (as_numbers(labels)?, self.scale());
                let seen: Vec<f32> = numbers.values().iter().map(|x| scale.of(*x)).collect();
                match seen.iter().position(|x| !x.is_finite()) {
                    Some(row) => {
                        let holds = numbers.value(row);
                        Err(Error::invalid(format!("label column `{}` holds {holds}", self.name)))
                    }
                    None => Ok(seen),
                }
            }
            LabelValues::Classes { values, .. } => {
                check_type(&self.name, labels.data_type(), LabelTask::Classification)?;
                let of = CategoryType::of(&self.data_type);
                let categories = Categories::exactly(values.clone(), of);
                let same_kind = of == CategoryType::of(labels.data_type());
                let labels = if same_kind { Arc::clone(labels) } else { self.as_trained(labels)? };
                let indices = Lookup::new(&categories).indices(&labels)?;
                match indices.values().iter().position(|index| *index < 0) {
                    None => Ok(indices.values().iter().map(|index| *index as f32).collect()),
                    Some(row) => {
                        let text = super::as_text(&labels)?;
                        let value = arrow::array::AsArray::as_string::<i32>(&text).value(row).to_owned();
                        let shown = values.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
                        Err(Error::invalid(format!(
                            "label column `{}` holds '{value}', which is none of the {} classes of training",
                            self.name,
                            values.len()
                        ))
                        .with_hint(format!("the classes are {shown}{}", if values.len() > 10 { ", ..." } else { "" })))
                    }
                }
            }
        }
    }

    /// The values of classes, in the label's own type.
    ///
    /// # Errors
    /// A regressor has no classes.
    pub fn decode(&self, classes: &[u32]) -> Result<ArrayRef> {
        let values = self.class_values()?;
        take(&values, &UInt32Array::from(classes.to_vec()), None).map_err(engine_error)
    }

    /// The value of each class, in the label's own type.
    ///
    /// # Errors
    /// A regressor has no classes.
    pub fn class_values(&self) -> Result<ArrayRef> {
        let Some(classes) = self.classes() else {
            return Err(Error::invalid(format!("label `{}` is a number and has no classes", self.name)));
        };
        let text: ArrayRef = Arc::new(classes.iter().map(|class| Some(class.as_str())).collect::<StringArray>());
        cast(&text, &self.data_type).map_err(engine_error)
    }

    fn as_trained(&self, labels: &ArrayRef) -> Result<ArrayRef> {
        cast(labels, &self.data_type).map_err(|_| {
            Error::invalid(format!(
                "label column `{}` has type {}, expected {}",
                self.name,
                labels.data_type(),
                self.data_type
            ))
        })
    }
}

fn classes(mut counts: Vec<(String, u64)>, data_type: &DataType) -> LabelValues {
    match CategoryType::of(data_type) {
        CategoryType::Text => counts.sort_unstable(),
        CategoryType::Integer => counts.sort_unstable_by_key(|(value, _)| value.parse::<i128>().unwrap_or(i128::MAX)),
    }
    let (values, counts) = counts.into_iter().unzip();
    LabelValues::Classes { values, counts }
}

fn check_type(name: &str, data_type: &DataType, task: LabelTask) -> Result<()> {
    let wrong = |what: &str, hint: &str| {
        Err(Error::invalid(format!("label column `{name}` has type {data_type}: {what}")).with_hint(hint.to_owned()))
    };
    match task {
        LabelTask::Classification => match data_type {
            DataType::Boolean => Ok(()),
            t if is_text(t) || t.is_integer() => Ok(()),
            t if t.is_numeric() => wrong(
                "classes are strings, integers or booleans",
                "for classes cast it: CAST(y AS BIGINT); to predict a number use linear_reg or dnn_regressor",
            ),
            _ => wrong("classes are strings, integers or booleans", "cast it: CAST(y AS VARCHAR)"),
        },
        LabelTask::Regression => match data_type {
            t if t.is_numeric() => Ok(()),
            _ => wrong("a regressor predicts numbers", "for classes use logistic_reg or dnn_classifier"),
        },
    }
}
