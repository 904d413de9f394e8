//! What a model shall be: as written ([`ModelSpec`], from SQL or from Rust), and checked into another type
//! ([`CheckedSpec`]) before anything is read. Past the check there are no option texts.

mod check;
mod option;
mod publication;

use serde::{Deserialize, Serialize};

pub use check::{CheckedSpec, ClassWeights, Estimator, LinearSettings, NetworkSettings};
pub use check::{LearnRateStrategy, OptimizeStrategy};
pub use option::ModelType;
pub(crate) use option::option_names;
pub use publication::Publication;

/// A model as written: nothing about it has been checked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSpec {
    /// The model's name.
    pub name: String,
    /// What to do when the name is taken.
    pub if_exists: IfExists,
    /// The select list of TRANSFORM, without its parentheses.
    pub transform: Option<Written<String>>,
    /// The options in their order.
    pub options: Vec<WrittenOption>,
}

/// Something written, with its place in the statement's text where it has one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Written<T> {
    /// What is written.
    pub value: T,
    /// Byte offset into the statement.
    pub offset: Option<usize>,
}

/// What CREATE MODEL does when there is a model of the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IfExists {
    /// An error.
    #[default]
    Error,
    /// Nothing: the old model stays.
    Keep,
    /// A new version is made.
    Replace,
}

/// `name = value` of an OPTIONS list.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenOption {
    /// As written.
    pub name: Written<String>,
    /// Its value.
    pub value: Written<OptionValue>,
}

/// A value of an OPTIONS list.
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// TRUE or FALSE.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Text(String),
    /// `[a, b]`.
    List(Vec<OptionValue>),
    /// `STRUCT(value AS name, ...)`; names may be missing.
    Struct(Vec<(Option<String>, OptionValue)>),
}

impl ModelSpec {
    /// A model without options yet.
    pub fn new(name: impl Into<String>) -> Self {
        ModelSpec { name: name.into(), ..ModelSpec::default() }
    }

    /// Linear regression: least squares, with penalties if wanted.
    pub fn linear_reg(name: impl Into<String>) -> Self {
        ModelSpec::of(ModelType::LinearReg, name)
    }

    /// Logistic regression over two classes or more.
    pub fn logistic_reg(name: impl Into<String>) -> Self {
        ModelSpec::of(ModelType::LogisticReg, name)
    }

    /// A feed-forward network over two classes or more.
    pub fn dnn_classifier(name: impl Into<String>) -> Self {
        ModelSpec::of(ModelType::DnnClassifier, name)
    }

    /// A feed-forward network that predicts a number.
    pub fn dnn_regressor(name: impl Into<String>) -> Self {
        ModelSpec::of(ModelType::DnnRegressor, name)
    }

    fn of(model_type: ModelType, name: impl Into<String>) -> Self {
        ModelSpec::new(name).option("model_type", model_type.name())
    }

    /// The column that is to be predicted (`label` when nothing is said).
    #[must_use]
    pub fn label(self, column: impl Into<String>) -> Self {
        self.option("input_label_cols", [column.into()])
    }

    /// Makes a new version when there is a model of the name already, as `CREATE OR REPLACE MODEL` does.
    #[must_use]
    pub fn or_replace(self) -> Self {
        self.if_exists(IfExists::Replace)
    }

    /// Adds an option, under its name in SQL: `.option("hidden_units", [64, 64])`.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<OptionValue>) -> Self {
        self.options.push(WrittenOption {
            name: Written { value: name.into(), offset: None },
            value: Written { value: value.into(), offset: None },
        });
        self
    }

    /// Preprocessing, as the select list of TRANSFORM.
    #[must_use]
    pub fn transform(mut self, select_list: impl Into<String>) -> Self {
        self.transform = Some(Written { value: select_list.into(), offset: None });
        self
    }

    /// What to do when the name is taken.
    #[must_use]
    pub fn if_exists(mut self, what: IfExists) -> Self {
        self.if_exists = what;
        self
    }
}

impl std::fmt::Display for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OptionValue::Boolean(true) => f.write_str("TRUE"),
            OptionValue::Boolean(false) => f.write_str("FALSE"),
            OptionValue::Integer(i) => write!(f, "{i}"),
            OptionValue::Float(x) => write!(f, "{x:?}"),
            OptionValue::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            OptionValue::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            OptionValue::Struct(fields) => {
                f.write_str("STRUCT(")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                    if let Some(name) = name {
                        write!(f, " AS {name}")?;
                    }
                }
                f.write_str(")")
            }
        }
    }
}

impl From<bool> for OptionValue {
    fn from(value: bool) -> Self {
        OptionValue::Boolean(value)
    }
}
impl From<i64> for OptionValue {
    fn from(value: i64) -> Self {
        OptionValue::Integer(value)
    }
}
impl From<i32> for OptionValue {
    fn from(value: i32) -> Self {
        OptionValue::Integer(value.into())
    }
}
impl From<f64> for OptionValue {
    fn from(value: f64) -> Self {
        OptionValue::Float(value)
    }
}
impl From<&str> for OptionValue {
    fn from(value: &str) -> Self {
        OptionValue::Text(value.into())
    }
}
impl From<String> for OptionValue {
    fn from(value: String) -> Self {
        OptionValue::Text(value)
    }
}
impl<T: Into<OptionValue>> From<Vec<T>> for OptionValue {
    fn from(values: Vec<T>) -> Self {
        OptionValue::List(values.into_iter().map(Into::into).collect())
    }
}
impl<T: Into<OptionValue>, const N: usize> From<[T; N]> for OptionValue {
    fn from(values: [T; N]) -> Self {
        OptionValue::List(values.into_iter().map(Into::into).collect())
    }
}
