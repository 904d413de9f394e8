//! Which `ML.*` functions there are and how they are called.

use datafusion::common::ScalarValue;
use engine::{Error, Result, near};

use super::constants;
use crate::transform::{BucketFormat, CategoryLimit, FitFunction, Imputation};

/// Where a function may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anywhere in SQL: it works row by row.
    Scalar,
    /// In a TRANSFORM clause with an empty `OVER ()`: its statistics are fitted on the training rows.
    Analytic,
    /// After FROM.
    Relation,
}

/// A function and how it is called.
#[derive(Debug)]
pub struct Usage {
    /// With its prefix, e.g. `ML.BUCKETIZE`.
    pub name: &'static str,
    /// Where it may stand.
    pub kind: Kind,
    /// Its call, for messages and completion.
    pub call: &'static str,
}

const FUNCTIONS: &[Usage] = &[
    scalar("ML.BUCKETIZE", "ML.BUCKETIZE(x, [split points] [, exclude_boundaries] [, output_format])"),
    scalar("ML.FEATURE_CROSS", "ML.FEATURE_CROSS(STRUCT(a, b, ...) [, degree])"),
    scalar("ML.HASH_BUCKETIZE", "ML.HASH_BUCKETIZE(text, number_of_buckets)"),
    scalar("ML.NGRAMS", "ML.NGRAMS(array_of_strings, range [, separator])"),
    scalar("ML.NORMALIZER", "ML.NORMALIZER(array [, p])"),
    scalar("ML.POLYNOMIAL_EXPAND", "ML.POLYNOMIAL_EXPAND(STRUCT(a, b, ...) [, degree])"),
    analytic("ML.IMPUTER", "ML.IMPUTER(x, 'mean' | 'median' | 'most_frequent') OVER ()"),
    analytic("ML.LABEL_ENCODER", "ML.LABEL_ENCODER(x [, top_k] [, frequency_threshold]) OVER ()"),
    analytic("ML.MAX_ABS_SCALER", "ML.MAX_ABS_SCALER(x) OVER ()"),
    analytic("ML.MIN_MAX_SCALER", "ML.MIN_MAX_SCALER(x) OVER ()"),
    analytic("ML.MULTI_HOT_ENCODER", "ML.MULTI_HOT_ENCODER(array [, top_k] [, frequency_threshold]) OVER ()"),
    analytic(
        "ML.ONE_HOT_ENCODER",
        "ML.ONE_HOT_ENCODER(x [, 'none' | 'most_frequent'] [, top_k] [, frequency_threshold]) OVER ()",
    ),
    analytic("ML.QUANTILE_BUCKETIZE", "ML.QUANTILE_BUCKETIZE(x, number_of_buckets [, output_format]) OVER ()"),
    analytic("ML.ROBUST_SCALER", "ML.ROBUST_SCALER(x [, [25, 75]] [, with_median] [, with_quantile_range]) OVER ()"),
    analytic("ML.STANDARD_SCALER", "ML.STANDARD_SCALER(x) OVER ()"),
    relation("ML.ADVANCED_WEIGHTS", "ML.ADVANCED_WEIGHTS(MODEL m)"),
    relation("ML.CONFUSION_MATRIX", "ML.CONFUSION_MATRIX(MODEL m [, data] [, STRUCT(0.5 AS threshold)])"),
    relation("ML.EVALUATE", "ML.EVALUATE(MODEL m [, data] [, STRUCT(0.5 AS threshold)])"),
    relation("ML.FEATURE_INFO", "ML.FEATURE_INFO(MODEL m)"),
    relation("ML.PREDICT", "ML.PREDICT(MODEL m, {TABLE t | (query)} [, STRUCT(0.5 AS threshold)])"),
    relation("ML.ROC_CURVE", "ML.ROC_CURVE(MODEL m [, data] [, [thresholds]])"),
    relation("ML.TRAINING_INFO", "ML.TRAINING_INFO(MODEL m)"),
    relation("ML.TRANSFORM", "ML.TRANSFORM(MODEL m, {TABLE t | (query)})"),
    relation("ML.WEIGHTS", "ML.WEIGHTS(MODEL m)"),
];

/// Functions of the dialect for TRANSFORM that this build does not have.
const FUNCTIONS_ELSEWHERE: &[&str] = &["ML.BAG_OF_WORDS", "ML.TF_IDF"];

const fn scalar(name: &'static str, call: &'static str) -> Usage {
    Usage { name, kind: Kind::Scalar, call }
}

const fn analytic(name: &'static str, call: &'static str) -> Usage {
    Usage { name, kind: Kind::Analytic, call }
}

const fn relation(name: &'static str, call: &'static str) -> Usage {
    Usage { name, kind: Kind::Relation, call }
}

/// All functions, for completion and help.
pub fn all() -> &'static [Usage] {
    FUNCTIONS
}

/// The function called `name` (without `ML.`, any case).
///
/// # Errors
/// There is none; names the near one.
pub fn named(name: &str) -> Result<&'static Usage> {
    let full = format!("ML.{}", name.to_uppercase());
    FUNCTIONS.iter().find(|usage| usage.name == full).ok_or_else(|| {
        let names = || FUNCTIONS.iter().map(|usage| usage.name);
        let there_are = || format!("there are {}", names().collect::<Vec<_>>().join(", "));
        if FUNCTIONS_ELSEWHERE.contains(&full.as_str()) {
            return Error::invalid(format!("{full} is not in this build yet")).with_hint(there_are());
        }
        let error = Error::invalid(format!("unknown function {full}"));
        match near(&full, names().chain(FUNCTIONS_ELSEWHERE.iter().copied())) {
            Some(known) => error.with_hint(format!("did you mean {known}?")),
            None => error.with_hint(there_are()),
        }
    })
}

/// BigQuery's defaults for encoders that are written out.
const DEFAULT_TOP_K: i64 = 32_000;
const TOP_K_MAX: i64 = 1_000_000;
const DEFAULT_FREQUENCY_THRESHOLD: i64 = 5;

impl Usage {
    /// A wrong call of this function.
    pub(crate) fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!("{}: {what}", self.name)).with_hint(format!("write {}", self.call))
    }

    /// The function to be fitted, from the constants after the first argument.
    ///
    /// # Errors
    /// Wrong number, type or range of the constants.
    pub(crate) fn fit_function(&self, constants: &[ScalarValue]) -> Result<FitFunction> {
        let at_most = |n: usize| match constants.len() {
            given if given > n => Err(self.wrong(&format!("expected at most {} arguments, got {}", n + 1, given + 1))),
            _ => Ok(()),
        };
        match self.name {
            "ML.STANDARD_SCALER" => at_most(0).map(|()| FitFunction::StandardScaler),
            "ML.MIN_MAX_SCALER" => at_most(0).map(|()| FitFunction::MinMaxScaler),
            "ML.MAX_ABS_SCALER" => at_most(0).map(|()| FitFunction::MaxAbsScaler),
            "ML.ROBUST_SCALER" => {
                at_most(3)?;
                let (low, high) = self.quantile_range(constants.first())?;
                Ok(FitFunction::RobustScaler {
                    low,
                    high,
                    center: self.flag(constants.get(1), "with_median", true)?,
                    scale: self.flag(constants.get(2), "with_quantile_range", true)?,
                })
            }
            "ML.IMPUTER" => {
                at_most(1)?;
                let strategy = self.text(constants.first(), "the strategy", "")?;
                Ok(FitFunction::Imputer(match strategy.to_lowercase().as_str() {
                    "mean" => Imputation::Mean,
                    "median" => Imputation::Median,
                    "most_frequent" => Imputation::MostFrequent,
                    _ => {
                        return Err(self
                            .wrong(&format!("the strategy is 'mean', 'median' or 'most_frequent', got '{strategy}'")));
                    }
                }))
            }
            "ML.QUANTILE_BUCKETIZE" => {
                at_most(2)?;
                let buckets = match constants.first().and_then(constants::integer) {
                    Some(n @ 2..=10_000) => n as usize,
                    _ => return Err(self.wrong("the number of buckets is a constant from 2 to 10,000")),
                };
                let format = self.text(constants.get(1), "output_format", "bucket_names")?;
                Ok(FitFunction::QuantileBucketize { buckets, format: self.bucket_format(&format)? })
            }
            "ML.LABEL_ENCODER" => {
                at_most(2)?;
                Ok(FitFunction::LabelEncoder(self.limit(constants)?))
            }
            "ML.MULTI_HOT_ENCODER" => {
                at_most(2)?;
                Ok(FitFunction::MultiHotEncoder(self.limit(constants)?))
            }
            "ML.ONE_HOT_ENCODER" => {
                at_most(3)?;
                let drop = self.text(constants.first(), "drop", "none")?;
                let drop_most_frequent = match drop.to_lowercase().as_str() {
                    "none" => false,
                    "most_frequent" => true,
                    _ => return Err(self.wrong(&format!("what is dropped is 'none' or 'most_frequent', got '{drop}'"))),
                };
                let limit = self.limit(constants.get(1..).unwrap_or_default())?;
                Ok(FitFunction::OneHotEncoder { limit, drop_most_frequent })
            }
            _ => Err(self.wrong("it is not fitted on training rows")),
        }
    }

    fn limit(&self, constants: &[ScalarValue]) -> Result<CategoryLimit> {
        let whole = |value: Option<&ScalarValue>, default: i64, least: i64, most: i64, what: &str| match value {
            None => Ok(default),
            Some(value) => match constants::integer(value) {
                Some(n) if (least..=most).contains(&n) => Ok(n),
                _ => Err(self.wrong(&format!("{what} is a constant from {least} to {most}, got {value}"))),
            },
        };
        Ok(CategoryLimit {
            top_k: whole(constants.first(), DEFAULT_TOP_K, 1, TOP_K_MAX, "top_k")? as usize,
            frequency_threshold: whole(
                constants.get(1),
                DEFAULT_FREQUENCY_THRESHOLD,
                0,
                i64::MAX,
                "frequency_threshold",
            )? as u64,
            is_written: constants.len() >= 2,
        })
    }

    fn quantile_range(&self, value: Option<&ScalarValue>) -> Result<(f64, f64)> {
        let Some(value) = value else { return Ok((0.25, 0.75)) };
        match constants::numbers(value).as_deref() {
            Some(&[low, high]) if 0.0 <= low && low < high && high <= 100.0 => Ok((low / 100.0, high / 100.0)),
            _ => {
                Err(self
                    .wrong(&format!("the quantile range is an array of two percentages, low before high, got {value}")))
            }
        }
    }

    fn flag(&self, value: Option<&ScalarValue>, what: &str, default: bool) -> Result<bool> {
        match value {
            None => Ok(default),
            Some(ScalarValue::Boolean(Some(flag))) => Ok(*flag),
            Some(other) => Err(self.wrong(&format!("{what} is TRUE or FALSE, got {other}"))),
        }
    }

    fn text(&self, value: Option<&ScalarValue>, what: &str, default: &str) -> Result<String> {
        match value {
            None if default.is_empty() => Err(self.wrong(&format!("{what} is missing"))),
            None => Ok(default.to_owned()),
            Some(value) => match value.try_as_str() {
                Some(Some(text)) => Ok(text.to_owned()),
                _ => Err(self.wrong(&format!("{what} is a string, got {value}"))),
            },
        }
    }

    /// How buckets are named, from the argument `output_format`.
    pub(crate) fn bucket_format(&self, text: &str) -> Result<BucketFormat> {
        match text.to_lowercase().as_str() {
            "bucket_names" => Ok(BucketFormat::Names),
            "bucket_ranges" => Ok(BucketFormat::Ranges),
            "bucket_ranges_json" => Ok(BucketFormat::RangesJson),
            _ => Err(self.wrong(&format!(
                "output_format is 'bucket_names', 'bucket_ranges' or 'bucket_ranges_json', got '{text}'"
            ))),
        }
    }
}
