//! TARGET_ENCODING: a category becomes the mean label of its training rows, drawn towards the mean of all.
//!
//! With n rows of a category, their mean m and squared deviations s, and μ and σ² of all training rows:
//! ```text
//!   encoding = λ m + (1 - λ) μ        λ = σ² n / (σ² n + s / n)
//! ```
//! the empirical Bayes estimate (Micci-Barreca, 2001) that scikit-learn's `TargetEncoder(smooth='auto')` makes in
//! `fit(...).transform(...)`. The label is a number, for two classes 1 in rows of the second, for more classes one such
//! number for each. NULL is a category of its own; one that training did not show is encoded as μ.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, cast, lit};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::categories::{Categories, CategoryType, Lookup};
use super::exact_float;
use super::fitted::Fitted;
use super::label::LabelEncoding;
use crate::statistics::Rows;

/// The label that categories are encoded with, as the training rows show it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The label, over the columns of the training rows.
    pub label: Expr,
    /// What it means.
    pub encoding: LabelEncoding,
}

/// Encoded categories. K numbers for each: one for a number or two classes, else one for each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetEncodings {
    /// The categories of the training rows, without NULL.
    pub categories: Categories,
    /// [categories x K], row-major.
    #[serde(with = "exact_float::list")]
    pub encodings: Vec<f64>,
    /// [K], for NULL.
    #[serde(with = "exact_float::list")]
    pub null: Vec<f64>,
    /// [K], for a category that training did not show.
    #[serde(with = "exact_float::list")]
    pub unknown: Vec<f64>,
}

/// What the label is like in the rows of one category, for one of the K numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    mean: f64,
    squares: f64,
}

/// Fits the encoder of `column`. With `standardise` the numbers have mean 0 and deviation 1 over the training rows.
///
/// # Errors
/// A failing query.
pub(crate) async fn fit(
    train: &Rows,
    column: Expr,
    of: CategoryType,
    target: &Target,
    standardise: bool,
) -> Result<Fitted> {
    let groups = match target.encoding.classes() {
        Some(classes) => of_classes(train, column, &target.label, classes).await?,
        None => of_numbers(train, column, &target.label).await?,
    };
    let mut encodings = encode(&groups);
    if standardise {
        encodings.standardise();
    }
    let mut values: Vec<(&String, &Vec<f64>)> =
        encodings.groups.iter().filter_map(|(category, _, row)| Some((category.as_ref()?, row))).collect();
    if of == CategoryType::Integer {
        values.sort_by_key(|(value, _)| value.parse::<i128>().unwrap_or(i128::MAX));
    }
    let null = encodings.groups.iter().find(|(category, _, _)| category.is_none());
    Ok(Fitted::Target(TargetEncodings {
        categories: Categories::exactly(values.iter().map(|(value, _)| (*value).clone()).collect(), of),
        encodings: values.iter().flat_map(|(_, row)| row.iter().copied()).collect(),
        null: null.map_or_else(|| encodings.prior.clone(), |(_, _, row)| row.clone()),
        unknown: encodings.prior,
    }))
}

/// Rows of each category and of all, and their labels.
struct Groups {
    /// By category, NULL first: rows, then K shares.
    of: BTreeMap<Option<String>, (u64, Vec<Share>)>,
    /// K shares of all rows.
    all: Vec<Share>,
    rows: u64,
}

struct Encodings {
    /// Category, rows, K numbers; in the order of the text.
    groups: Vec<(Option<String>, u64, Vec<f64>)>,
    prior: Vec<f64>,
}

fn encode(groups: &Groups) -> Encodings {
    let number = |share: &Share, all: &Share, rows: u64| {
        let n = rows as f64;
        let weight = all.squares / groups.rows as f64 * n;
        let lambda = weight / (weight + share.squares / n);
        // Labels that are all the same say nothing about any category.
        if lambda.is_nan() { all.mean } else { lambda * share.mean + (1.0 - lambda) * all.mean }
    };
    let encoded = groups.of.iter().map(|(category, (rows, shares))| {
        let numbers = shares.iter().zip(&groups.all).map(|(share, all)| number(share, all, *rows));
        (category.clone(), *rows, numbers.collect())
    });
    Encodings { groups: encoded.collect(), prior: groups.all.iter().map(|all| all.mean).collect() }
}

impl Encodings {
    /// Moves and scales each of the K numbers; one that never varies is only moved.
    fn standardise(&mut self) {
        for k in 0..self.prior.len() {
            let rows: u64 = self.groups.iter().map(|(_, rows, _)| rows).sum();
            let over_rows = |of: &dyn Fn(f64) -> f64| {
                self.groups.iter().map(|(_, n, row)| *n as f64 * of(row[k])).sum::<f64>() / rows as f64
            };
            let mean = over_rows(&|x| x);
            let deviation = over_rows(&|x| (x - mean) * (x - mean)).sqrt();
            let scale = if deviation > 0.0 { deviation } else { 1.0 };
            let scaled = |x: &mut f64| *x = (*x - mean) / scale;
            self.groups.iter_mut().for_each(|(_, _, row)| scaled(&mut row[k]));
            scaled(&mut self.prior[k]);
        }
    }
}

/// Counts of classes in each category: whole numbers, so the order of rows cannot matter.
async fn of_classes(train: &Rows, column: Expr, label: &Expr, classes: &[String]) -> Result<Groups> {
    let text = |expr: Expr, name: &str| cast(expr, DataType::Utf8).alias(name);
    let by = vec![text(column, "category"), text(label.clone(), "class")];
    let counted = train.frame().aggregate(by, vec![count(lit(1i64)).alias("rows")])?;
    let batches = train.answer(counted).await?;
    let mut counts: BTreeMap<Option<String>, Vec<u64>> = BTreeMap::new();
    for batch in &batches {
        let (categories, labels) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        let rows = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let class = classes.iter().position(|class| labels.is_valid(row) && class == labels.value(row));
            let Some(class) = class else { continue };
            let category = categories.is_valid(row).then(|| categories.value(row).to_owned());
            counts.entry(category).or_insert_with(|| vec![0; classes.len()])[class] += rows.value(row) as u64;
        }
    }
    // Of two classes the second alone: the first says the same.
    let first = if classes.len() == 2 { 1 } else { 0 };
    let shares = |counts: &[u64]| {
        let rows = counts.iter().sum::<u64>();
        let share = |count: &u64| {
            let mean = *count as f64 / rows as f64;
            Share { mean, squares: *count as f64 * (1.0 - mean) }
        };
        (rows, counts[first..].iter().map(share).collect::<Vec<_>>())
    };
    let mut all = vec![0; classes.len()];
    counts.values().for_each(|counts| all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count));
    let (rows, all) = shares(&all);
    Ok(Groups { of: counts.iter().map(|(category, counts)| (category.clone(), shares(counts))).collect(), all, rows })
}

/// Moments of the label in each category and in all rows, from exact sums.
async fn of_numbers(train: &Rows, column: Expr, label: &Expr) -> Result<Groups> {
    let moments = || {
        let found = crate::statistics::aggregates().into_iter().find(|function| function.name() == "gm_moments");
        found.expect("the statistics functions are in this crate").call(vec![label.clone()]).alias("moments")
    };
    let by = vec![cast(column, DataType::Utf8).alias("category")];
    let grouped = train.answer(train.frame().aggregate(by, vec![moments()])?).await?;
    let whole = train.answer(train.frame().aggregate(Vec::new(), vec![moments()])?).await?;
    let share = |moments: &ArrayRef, row: usize| -> Option<(u64, Vec<Share>)> {
        let moments = moments.as_struct();
        let number = |name: &str| {
            let column = moments.column_by_name(name)?.as_primitive::<Float64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        let rows = moments.column_by_name("count")?.as_primitive::<Int64Type>().value(row) as u64;
        let (mean, deviation) = (number("mean")?, number("stddev_pop")?);
        Some((rows, vec![Share { mean, squares: deviation * deviation * rows as f64 }]))
    };
    let mut of = BTreeMap::new();
    for batch in &grouped {
        let categories = batch.column(0).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let category = categories.is_valid(row).then(|| categories.value(row).to_owned());
            of.extend(share(batch.column(1), row).map(|share| (category, share)));
        }
    }
    let all = whole.iter().find(|batch| batch.num_rows() > 0).and_then(|batch| share(batch.column(0), 0));
    let (rows, all) = all.ok_or_else(|| Error::invalid("there are no training rows"))?;
    Ok(Groups { of, all, rows })
}

impl TargetEncodings {
    /// K.
    pub(crate) fn width(&self) -> usize {
        self.unknown.len()
    }

    /// The encoded values, a number or K numbers a row, never NULL.
    pub(crate) fn apply(&self, lookup: &Lookup, values: &ArrayRef) -> Result<ArrayRef> {
        let (width, indices) = (self.width(), lookup.indices(values)?);
        let mut numbers = Vec::with_capacity(width * values.len());
        for (row, index) in indices.values().iter().enumerate() {
            let encoded: &[f64] = match usize::try_from(*index) {
                _ if values.is_null(row) => &self.null,
                Ok(index) => &self.encodings[index * width..][..width],
                Err(_) => &self.unknown,
            };
            numbers.extend_from_slice(encoded);
        }
        let numbers = Arc::new(Float64Array::from(numbers));
        if width == 1 {
            return Ok(numbers);
        }
        let field = Arc::new(Field::new_list_field(DataType::Float64, true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, values.len()));
        Ok(Arc::new(ListArray::new(field, offsets, numbers, None)))
    }

    /// The type of what [`TargetEncodings::apply`] gives.
    pub(crate) fn output_type(&self) -> DataType {
        if self.width() == 1 { DataType::Float64 } else { DataType::new_list(DataType::Float64, true) }
    }
}
