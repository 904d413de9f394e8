//! The statistics that functions are fitted with, asked for many columns at once in one aggregate query.

use arrow::array::{Array, AsArray, ListArray, RecordBatch, StructArray};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::DataFrame;
use engine::{Error, Result};

use super::array_moments::array_moments;
use super::categories::CategoryCounts;
use super::planning;
use crate::statistics::Rows;
use crate::statistics::ranks::sorted_quantiles;

/// Which statistics of a column are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Needs {
    /// Of numbers.
    pub(crate) moments: bool,
    /// Of the elements of arrays of numbers, with the arrays' lengths.
    pub(crate) array_moments: bool,
    /// Probabilities of the quantiles of numbers.
    pub(crate) quantiles: Vec<f64>,
    /// Counts of all values.
    pub(crate) categories: bool,
    /// Counts of all elements of arrays.
    pub(crate) elements: bool,
}

impl Needs {
    /// Takes in what another wants of the same column.
    pub(crate) fn merge(&mut self, other: Needs) {
        self.moments |= other.moments;
        self.array_moments |= other.array_moments;
        self.categories |= other.categories;
        self.elements |= other.elements;
        let new = other.quantiles.into_iter().filter(|p| !self.quantiles.contains(p)).collect::<Vec<_>>();
        self.quantiles.extend(new);
    }
}

/// What was found of a column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnStatistics {
    /// Rows in all.
    pub(crate) rows: u64,
    /// Rows with NULL.
    pub(crate) nulls: u64,
    pub(crate) moments: Option<Moments>,
    /// Shortest and longest array.
    pub(crate) lengths: Option<(usize, usize)>,
    /// Probability and quantile; empty when there are no values.
    pub(crate) quantiles: Vec<(f64, f64)>,
    pub(crate) categories: Option<CategoryCounts>,
}

/// Of all values that are not NULL; `None` where there are none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Moments {
    pub(crate) mean: Option<f64>,
    pub(crate) stddev: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) max_abs: Option<f64>,
    pub(crate) not_finite: u64,
}

impl ColumnStatistics {
    /// The quantile at probability `p`.
    pub(crate) fn quantile(&self, p: f64) -> Option<f64> {
        self.quantiles.iter().find(|(known, _)| *known == p).map(|(_, quantile)| *quantile)
    }
}

/// How quantiles are found; both ways give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Find {
    /// In the one query, with memory for each distinct value.
    #[default]
    ByCounting,
    /// By sorting each column on its own, on disk when it must be.
    BySorting,
}

/// One aggregate query over `rows` for all statistics of plain columns and of arrays of numbers, and one more for each
/// column whose elements are counted.
pub(crate) async fn collect(rows: &Rows, wanted: &[(Expr, Needs)], find: Find) -> Result<Vec<ColumnStatistics>> {
    let mut aggregates = vec![count(lit(1i64)).alias("rows")];
    for (i, (column, needs)) in wanted.iter().enumerate() {
        aggregates.push(count(column.clone()).alias(format!("n{i}")));
        if needs.moments {
            aggregates.push(aggregate("gm_moments", vec![column.clone()])?.alias(format!("m{i}")));
        }
        if needs.array_moments {
            aggregates.push(array_moments().call(vec![column.clone()]).alias(format!("a{i}")));
        }
        if !needs.quantiles.is_empty() && find == Find::ByCounting {
            let probabilities = needs.quantiles.iter().map(|p| ScalarValue::Float64(Some(*p))).collect::<Vec<_>>();
            let list = ScalarValue::new_list(&probabilities, &arrow::datatypes::DataType::Float64, false);
            let arguments = vec![column.clone(), lit(ScalarValue::List(list))];
            aggregates.push(aggregate("gm_quantiles", arguments)?.alias(format!("q{i}")));
        }
        if needs.categories {
            let arguments = vec![column.clone(), lit(ScalarValue::Int64(None))];
            aggregates.push(aggregate("gm_top_categories", arguments)?.alias(format!("c{i}")));
        }
    }
    let answer = one_row(rows, rows.frame().aggregate(Vec::new(), aggregates)?).await?;
    let total = integer(&answer, "rows")?;
    let mut found = Vec::with_capacity(wanted.len());
    for (i, (column, needs)) in wanted.iter().enumerate() {
        let nulls = total - integer(&answer, &format!("n{i}"))?;
        let mut statistics = ColumnStatistics { rows: total, nulls, ..Default::default() };
        if needs.moments {
            statistics.moments = Some(moments(column_of(&answer, &format!("m{i}"))?.as_struct()));
        }
        if needs.array_moments {
            let answer = column_of(&answer, &format!("a{i}"))?.as_struct();
            let length = |name: &str| whole(answer, name).map(|n| n as usize);
            statistics.moments = Some(moments(answer));
            statistics.lengths = length("min_length").zip(length("max_length"));
        }
        if !needs.quantiles.is_empty() && find == Find::BySorting {
            let quantiles = sorted_quantiles(rows, column, total - nulls, &needs.quantiles).await?;
            statistics.quantiles =
                quantiles.map(|q| needs.quantiles.iter().copied().zip(q).collect()).unwrap_or_default();
        } else if !needs.quantiles.is_empty() {
            let list = column_of(&answer, &format!("q{i}"))?.as_list::<i32>();
            if list.is_valid(0) {
                let values = list.value(0);
                let values = values.as_primitive::<Float64Type>().values();
                statistics.quantiles = needs.quantiles.iter().copied().zip(values.iter().copied()).collect();
            }
        }
        if needs.categories {
            let counts = category_counts(column_of(&answer, &format!("c{i}"))?.as_list::<i32>());
            statistics.categories = Some(CategoryCounts { counts, nulls });
        }
        if needs.elements {
            statistics.categories = Some(elements(rows, column).await?);
        }
        found.push(statistics);
    }
    Ok(found)
}

async fn elements(rows: &Rows, array: &Expr) -> Result<CategoryCounts> {
    let elements = rows.frame().select(vec![array.clone().alias("x")])?.unnest_columns(&["x"])?;
    let x = planning::column("x");
    let counted = aggregate("gm_top_categories", vec![x, lit(ScalarValue::Int64(None))])?.alias("c");
    let answer = one_row(rows, elements.aggregate(Vec::new(), vec![counted])?).await?;
    // A missing array sets no column, so NULL does not count as "other" here.
    Ok(CategoryCounts { counts: category_counts(column_of(&answer, "c")?.as_list::<i32>()), nulls: 0 })
}

fn aggregate(name: &str, arguments: Vec<Expr>) -> Result<Expr> {
    let function = crate::statistics::aggregates().into_iter().find(|function| function.name() == name);
    Ok(function.expect("the statistics functions are in this crate").call(arguments))
}

async fn one_row(rows: &Rows, query: DataFrame) -> Result<RecordBatch> {
    let batches = rows.answer(query).await?;
    let row = batches.into_iter().find(|batch| batch.num_rows() > 0);
    row.ok_or_else(|| Error::invalid("an aggregate query over the training rows gave no answer"))
}

fn column_of<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a arrow::array::ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::invalid(format!("an aggregate query gave no column `{name}`")))
}

fn integer(batch: &RecordBatch, name: &str) -> Result<u64> {
    Ok(column_of(batch, name)?.as_primitive::<Int64Type>().value(0) as u64)
}

fn whole(answer: &StructArray, name: &str) -> Option<u64> {
    let column = answer.column_by_name(name)?.as_primitive::<Int64Type>();
    column.is_valid(0).then(|| column.value(0) as u64)
}

fn moments(answer: &StructArray) -> Moments {
    let number = |name: &str| {
        let column = answer.column_by_name(name)?.as_primitive::<Float64Type>();
        column.is_valid(0).then(|| column.value(0))
    };
    Moments {
        mean: number("mean"),
        stddev: number("stddev_pop"),
        min: number("min"),
        max: number("max"),
        max_abs: number("max_abs"),
        not_finite: whole(answer, "not_finite_count").unwrap_or(0),
    }
}

fn category_counts(list: &ListArray) -> Vec<(String, u64)> {
    if list.is_null(0) {
        return Vec::new();
    }
    let rows = list.value(0);
    let rows = rows.as_struct();
    let values = rows.column(0).as_string::<i32>();
    let counts = rows.column(1).as_primitive::<Int64Type>();
    values.iter().zip(counts.values()).filter_map(|(value, count)| Some((value?.to_owned(), *count as u64))).collect()
}
