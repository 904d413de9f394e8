//! Which rows train, which are held out: decided a row at a time from its key or a column, so that the parts are the
//! same for any order of the input. The methods and their defaults are BigQuery ML's.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, RecordBatch};
use arrow::compute::kernels::cmp::{gt_eq, lt};
use arrow::compute::{and, cast, is_null, not, or};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::ident;
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::key_functions::row_unit;
use super::row_key::{RowKey, arrow_error};
use super::training_rows::TrainingRows;
use super::written_split as written;
use crate::statistics::ranks::at_ranks;

/// Rows that AUTO_SPLIT holds out of more than 50,000.
const HELD_OUT: usize = 10_000;

/// A part of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Rows that fit transforms and weights.
    Train,
    /// Held out, for early stopping and evaluation.
    Eval,
    /// Held out a second time; nothing is decided on these rows.
    Test,
}

/// `DATA_SPLIT_METHOD` with what belongs to it, as written.
#[derive(Debug, Clone, PartialEq)]
pub enum SplitMethod {
    /// No held-out rows under 500, 20 % up to 50,000, then 10,000 rows, chosen at random.
    Auto,
    /// Fractions of all rows, chosen at random, the same rows at every run.
    Random { eval: f64, test: f64 },
    /// A BOOL column; TRUE and NULL are eval, FALSE trains.
    Custom { column: String },
    /// The smallest values of a column (and NULL) train, the largest are test, those between are eval.
    Sequential { column: String, eval: f64, test: f64 },
    /// All rows train.
    None,
}

impl SplitMethod {
    /// The column that decides: it is no feature.
    pub fn column(&self) -> Option<&str> {
        match self {
            SplitMethod::Custom { column } | SplitMethod::Sequential { column, .. } => Some(column),
            SplitMethod::Auto | SplitMethod::Random { .. } | SplitMethod::None => None,
        }
    }

    /// Checks the method against the training query's columns.
    ///
    /// # Errors
    /// A column that does not exist or is of the wrong type; fractions that leave nothing to train on.
    pub fn check(&self, schema: &Schema) -> Result<()> {
        match self {
            SplitMethod::Custom { column } => match field_type(schema, column)? {
                DataType::Boolean => Ok(()),
                other => Err(Error::invalid(format!(
                    "DATA_SPLIT_COL `{column}` is of type {other}; DATA_SPLIT_METHOD = 'CUSTOM' expects BOOLEAN, TRUE for eval"
                ))),
            },
            SplitMethod::Sequential { column, eval, test } => {
                let data_type = field_type(schema, column)?;
                if data_type.is_nested() || matches!(data_type, DataType::Boolean) {
                    return Err(Error::invalid(format!(
                        "DATA_SPLIT_COL `{column}` is of type {data_type}; DATA_SPLIT_METHOD = 'SEQ' expects a column with an order"
                    )));
                }
                check_fractions(*eval, *test)
            }
            SplitMethod::Random { eval, test } => check_fractions(*eval, *test),
            SplitMethod::Auto | SplitMethod::None => Ok(()),
        }
    }
}

fn field_type<'a>(schema: &'a Schema, column: &str) -> Result<&'a DataType> {
    schema.field_with_name(column).map(|field| field.data_type()).map_err(|_| {
        let error = Error::invalid(format!("DATA_SPLIT_COL `{column}` is no column of the training query"));
        match engine::near(column, schema.fields().iter().map(|field| field.name().as_str())) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}

fn check_fractions(eval: f64, test: f64) -> Result<()> {
    let unit = 0.0..=1.0;
    if unit.contains(&eval) && unit.contains(&test) && eval + test < 1.0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "DATA_SPLIT_EVAL_FRACTION {eval} and DATA_SPLIT_TEST_FRACTION {test} must be from 0 to 1 and leave rows to train on"
    )))
}

/// A method made definite for the rows at hand; tells every row's part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Split {
    /// All rows train.
    None,
    /// By the key: below `eval` is eval, from there to `eval + test` is test.
    Fraction {
        #[serde(with = "crate::bits::one")]
        eval: f64,
        #[serde(with = "crate::bits::one")]
        test: f64,
    },
    /// By the key: rows up to `last` are eval.
    First { last: RowKey },
    /// By a BOOL column.
    Column { name: String },
    /// By a column's values: from `test` on is test, from `eval` on is eval.
    Threshold {
        column: String,
        #[serde(with = "written::value")]
        eval: Option<ScalarValue>,
        #[serde(with = "written::value")]
        test: Option<ScalarValue>,
    },
}

impl Split {
    /// Decides on thresholds for these rows.
    ///
    /// # Errors
    /// A query that fails, rows that cannot be read.
    pub async fn decide(method: &SplitMethod, rows: &dyn TrainingRows) -> Result<Split> {
        Ok(match method {
            SplitMethod::None => Split::None,
            SplitMethod::Auto => match rows.rows() {
                0..500 => Split::None,
                500..=50_000 => Split::Fraction { eval: 0.2, test: 0.0 },
                _ => first_rows(rows).await?,
            },
            SplitMethod::Random { eval, test } => Split::Fraction { eval: *eval, test: *test },
            SplitMethod::Custom { column } => Split::Column { name: column.clone() },
            SplitMethod::Sequential { column, eval, test } => {
                let at = |held_out: f64| value_from_the_top(rows, column, held_out);
                Split::Threshold {
                    column: column.clone(),
                    eval: if *eval > 0.0 { at(eval + test).await? } else { None },
                    test: if *test > 0.0 { at(*test).await? } else { None },
                }
            }
        })
    }

    /// Whether a row of `batch` belongs to `part`.
    pub(super) fn mask(&self, batch: &RecordBatch, keys: &[RowKey], part: Part) -> Result<BooleanArray> {
        match self {
            Split::None => Ok(BooleanArray::from(vec![part == Part::Train; batch.num_rows()])),
            Split::Fraction { eval, test } => {
                let of = |unit: f64| match () {
                    () if unit < *eval => Part::Eval,
                    () if unit < eval + test => Part::Test,
                    () => Part::Train,
                };
                Ok(keys.iter().map(|key| Some(of(key.unit()) == part)).collect())
            }
            Split::First { last } => {
                let of = |key: &RowKey| if key <= last { Part::Eval } else { Part::Train };
                Ok(keys.iter().map(|key| Some(of(key) == part)).collect())
            }
            Split::Column { name } => custom_mask(batch, name, part),
            Split::Threshold { column, eval, test } => threshold_mask(batch, column, eval, test, part),
        }
    }
}

impl Split {
    /// What [`Split::mask`] says, as a condition on rows whose key is in the column `key`; `None` holds for all rows.
    pub(super) fn condition(&self, part: Part, key: &str) -> Option<Expr> {
        let nothing = || Some(lit(false));
        match self {
            Split::None if part == Part::Train => None,
            Split::None => nothing(),
            Split::Fraction { eval, test } => {
                let unit = || row_unit(ident(key));
                Some(match part {
                    Part::Eval => unit().lt(lit(*eval)),
                    Part::Test => unit().gt_eq(lit(*eval)).and(unit().lt(lit(eval + test))),
                    Part::Train => unit().gt_eq(lit(*eval)).and(unit().gt_eq(lit(eval + test))),
                })
            }
            Split::First { last } => match part {
                Part::Eval => Some(ident(key).lt_eq(last.literal())),
                Part::Train => Some(ident(key).gt(last.literal())),
                Part::Test => nothing(),
            },
            Split::Column { name } => match part {
                Part::Eval => Some(ident(name).is_not_false()),
                Part::Train => Some(ident(name).is_false()),
                Part::Test => nothing(),
            },
            Split::Threshold { column, eval, test } => {
                let from = |threshold: &ScalarValue| ident(column).gt_eq(lit(threshold.clone()));
                match (part, eval, test) {
                    (Part::Test, _, Some(test)) => Some(from(test)),
                    (Part::Eval, Some(eval), None) => Some(from(eval)),
                    (Part::Eval, Some(eval), Some(test)) => Some(from(eval).and(!from(test))),
                    (Part::Test, _, None) | (Part::Eval, None, _) => nothing(),
                    (Part::Train, None, None) => None,
                    (Part::Train, Some(lowest), _) | (Part::Train, None, Some(lowest)) => {
                        Some(ident(column).lt(lit(lowest.clone())).or(ident(column).is_null()))
                    }
                }
            }
        }
    }
}

/// The [`HELD_OUT`] rows with the smallest keys.
async fn first_rows(rows: &dyn TrainingRows) -> Result<Split> {
    let smallest = rows.smallest_keys(HELD_OUT).await?;
    let last = *smallest.last().expect("there are more rows than are held out");
    Ok(Split::First { last })
}

/// The value from which on the largest `fraction` of the rows lies; `None` without values.
async fn value_from_the_top(rows: &dyn TrainingRows, column: &str, fraction: f64) -> Result<Option<ScalarValue>> {
    let rows = rows.part(&Split::None, Part::Train).await?;
    let values = || ident(column);
    let count = rows.filtered(values().is_not_null())?.count().await?;
    let held_out = ((count as f64 * fraction).round() as usize).min(count);
    if held_out == 0 {
        return Ok(None);
    }
    Ok(at_ranks(&rows, values(), &[(count - held_out) as u64]).await?.pop())
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| Error::invalid(format!("DATA_SPLIT_COL `{name}` is no column of the training query")))
}

/// NULL holds a row out, too, as in BigQuery: only FALSE trains.
fn custom_mask(batch: &RecordBatch, name: &str, part: Part) -> Result<BooleanArray> {
    let flags = column(batch, name)?.as_boolean();
    let trains = null_is_false(&not(flags).map_err(arrow_error)?);
    match part {
        Part::Train => Ok(trains),
        Part::Eval => not(&trains).map_err(arrow_error),
        Part::Test => Ok(BooleanArray::from(vec![false; batch.num_rows()])),
    }
}

fn threshold_mask(
    batch: &RecordBatch,
    name: &str,
    eval: &Option<ScalarValue>,
    test: &Option<ScalarValue>,
    part: Part,
) -> Result<BooleanArray> {
    let values = column(batch, name)?;
    let values = match values.data_type() {
        // Compared as what they stand for.
        DataType::Dictionary(_, value_type) => cast(values, value_type).map_err(arrow_error)?,
        _ => values.clone(),
    };
    let none = || BooleanArray::from(vec![false; batch.num_rows()]);
    let from = |threshold: &Option<ScalarValue>| -> Result<BooleanArray> {
        let Some(threshold) = threshold else { return Ok(none()) };
        let scalar = threshold.cast_to(values.data_type())?.to_scalar()?;
        let mask = gt_eq(&values, &scalar as &dyn Datum).map_err(arrow_error)?;
        Ok(null_is_false(&mask))
    };
    match (part, eval, test) {
        (Part::Test, ..) => from(test),
        (Part::Eval, ..) => {
            let below_test = not(&from(test)?).map_err(arrow_error)?;
            and(&from(eval)?, &below_test).map_err(arrow_error)
        }
        (Part::Train, None, None) => Ok(BooleanArray::from(vec![true; batch.num_rows()])),
        (Part::Train, ..) => {
            let lowest = eval.as_ref().or(test.as_ref()).expect("one of them is set");
            let scalar = lowest.cast_to(values.data_type())?.to_scalar()?;
            let below = null_is_false(&lt(&values, &scalar as &dyn Datum).map_err(arrow_error)?);
            or(&below, &is_null(&values).map_err(arrow_error)?).map_err(arrow_error)
        }
    }
}

fn null_is_false(mask: &BooleanArray) -> BooleanArray {
    mask.iter().map(|value| Some(value.unwrap_or(false))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::materialize::key_functions::row_key;
    use crate::materialize::staging::tests::held;

    fn numbers(count: i64) -> RecordBatch {
        let values: ArrayRef =
            Arc::new(Int64Array::from_iter((0..count).map(|i| (i % 10 != 9).then_some((i * 7) % count))));
        let flags: ArrayRef = Arc::new((0..count).map(|i| Some(i % 4 == 0)).collect::<BooleanArray>());
        // An id makes these rows differ: what gives copies their keys is not asked here.
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        RecordBatch::try_from_iter_with_nullable([("n", values, true), ("held_out", flags, true), ("id", ids, false)])
            .unwrap()
    }

    async fn parts(method: SplitMethod, count: i64) -> [usize; 3] {
        let context = SessionContext::new();
        let rows = held(&context, vec![numbers(count)]).await;
        let split = Split::decide(&method, &rows).await.unwrap();
        let text = serde_json::to_string(&split).unwrap();
        assert_eq!(serde_json::from_str::<Split>(&text).unwrap(), split);
        // As a plan elsewhere would find the parts, by conditions on the rows and their keys.
        let columns = ["n", "held_out", "id"].map(ident);
        let keyed = context.read_batch(numbers(count)).unwrap().with_column("key", row_key(7, columns)).unwrap();
        let mut counts = [0; 3];
        for (count, part) in counts.iter_mut().zip([Part::Train, Part::Eval, Part::Test]) {
            *count = rows.part(&split, part).await.unwrap().count().await.unwrap();
            let condition = split.condition(part, "key").unwrap_or_else(|| lit(true));
            let of_condition = keyed.clone().filter(condition).unwrap().count().await.unwrap();
            assert_eq!(of_condition, *count, "{method:?} {part:?}");
        }
        counts
    }

    #[tokio::test]
    async fn every_row_has_one_part_and_the_sizes_are_as_asked() {
        let seq = |eval, test| SplitMethod::Sequential { column: "n".into(), eval, test };
        let random = |eval, test| SplitMethod::Random { eval, test };
        for (method, rows, expected, slack) in [
            (SplitMethod::None, 1_000, [1_000, 0, 0], 0),
            (SplitMethod::Auto, 499, [499, 0, 0], 0),
            (SplitMethod::Auto, 20_000, [16_000, 4_000, 0], 250),
            (SplitMethod::Auto, 50_001, [40_001, 10_000, 0], 0),
            (SplitMethod::Auto, 100_000, [90_000, 10_000, 0], 0),
            (random(0.2, 0.1), 20_000, [14_000, 4_000, 2_000], 300),
            (SplitMethod::Custom { column: "held_out".into() }, 1_000, [750, 250, 0], 0),
            // 900 of 1,000 rows have a value; the 100 NULLs train.
            (seq(0.2, 0.0), 1_000, [820, 180, 0], 0),
            (seq(0.2, 0.1), 1_000, [730, 180, 90], 0),
            (seq(0.0, 0.1), 1_000, [910, 0, 90], 0),
        ] {
            let got = parts(method.clone(), rows).await;
            assert_eq!(got.iter().sum::<usize>(), rows as usize, "{method:?}");
            assert!(
                got.iter().zip(expected).all(|(got, expected)| got.abs_diff(expected) <= slack),
                "{method:?}: {got:?}"
            );
        }
    }

    /// 60,000 rows of which each is there three times: the 10,000th and its equals are on both sides.
    #[tokio::test]
    async fn as_many_rows_are_held_out_when_rows_are_equal() {
        let thirds = |from: i64| {
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values((from..from + 20_000).map(|i| i / 3)));
            RecordBatch::try_from_iter_with_nullable([("n", values, true)]).unwrap()
        };
        let mut seen = Vec::new();
        for batches in [vec![0, 20_000, 40_000], vec![40_000, 0, 20_000]] {
            let context = SessionContext::new();
            let rows = held(&context, batches.into_iter().map(thirds).collect()).await;
            let split = Split::decide(&SplitMethod::Auto, &rows).await.unwrap();
            let mut sums = Vec::new();
            for part in [Part::Train, Part::Eval, Part::Test] {
                context.register_table("t", rows.staged().table(&split, part).unwrap()).unwrap();
                let rows = context.sql("SELECT count(*), sum(n) FROM t").await.unwrap().collect().await.unwrap();
                context.deregister_table("t").unwrap();
                sums.push((format!("{:?}", rows[0].column(0)), format!("{:?}", rows[0].column(1))));
            }
            assert!(sums[0].0.contains("50000") && sums[1].0.contains("10000"), "{sums:?}");
            seen.push(sums);
        }
        assert_eq!(seen[0], seen[1], "the rows' order changes the split");
    }

    #[test]
    fn wrong_columns_and_fractions_are_named() {
        let schema = numbers(1).schema();
        for (method, expected) in [
            (
                SplitMethod::Custom { column: "n".into() },
                "DATA_SPLIT_COL `n` is of type Int64; DATA_SPLIT_METHOD = 'CUSTOM' expects BOOLEAN",
            ),
            (SplitMethod::Custom { column: "heldout".into() }, "DATA_SPLIT_COL `heldout` is no column"),
            (
                SplitMethod::Sequential { column: "held_out".into(), eval: 0.2, test: 0.0 },
                "expects a column with an order",
            ),
            (SplitMethod::Random { eval: 0.6, test: 0.4 }, "leave rows to train on"),
        ] {
            let message = method.check(&schema).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
