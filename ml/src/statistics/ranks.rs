//! The values that stand at given places of a sorted column. The column is sorted by the query engine, which spills, so
//! this needs little memory for any number of distinct values; a tally is faster where it fits. In this process the sorted
//! values are counted as they pass; elsewhere they are numbered, and only those that are wanted come here.

use datafusion::common::ScalarValue;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, cast, lit};
use datafusion::prelude::{DataFrame, ident};
use engine::{Error, Result};
use futures::TryStreamExt;

use super::Rows;
use crate::tally;

const VALUE: &str = "value";
const NUMBER: &str = "number";

/// The values at `ranks` (ascending, from 0) of `expression` over `rows`, in ascending order without NULL.
///
/// # Errors
/// A failing query; fewer values than the last rank asks for.
pub(crate) async fn at_ranks(rows: &Rows, expression: Expr, ranks: &[u64]) -> Result<Vec<ScalarValue>> {
    debug_assert!(ranks.is_sorted(), "ranks come in ascending order");
    let column = rows.frame().select(vec![expression.alias(VALUE)])?.filter(ident(VALUE).is_not_null())?;
    if rows.is_remote() { numbered(rows, column, ranks).await } else { passing(column, ranks).await }
}

/// Sorts the values here, and goes through them as far as the last rank.
async fn passing(column: DataFrame, ranks: &[u64]) -> Result<Vec<ScalarValue>> {
    let mut batches = column.sort(vec![ident(VALUE).sort(true, false)])?.execute_stream().await?;
    let mut found = Vec::with_capacity(ranks.len());
    let mut passed = 0;
    while found.len() < ranks.len() {
        let Some(batch) = batches.try_next().await? else {
            return Err(ended_early(passed));
        };
        let end = passed + batch.num_rows() as u64;
        while let Some(rank) = ranks.get(found.len()).filter(|rank| **rank < end) {
            found.push(ScalarValue::try_from_array(batch.column(0), (rank - passed) as usize)?);
        }
        passed = end;
    }
    Ok(found)
}

/// Has the values numbered in their order by whoever executes queries, and those of the ranks sent here.
async fn numbered(rows: &Rows, column: DataFrame, ranks: &[u64]) -> Result<Vec<ScalarValue>> {
    let number = row_number().order_by(vec![ident(VALUE).sort(true, false)]).build()?.alias(NUMBER);
    let wanted = ranks.iter().map(|rank| lit(rank + 1)).collect();
    let wanted = column.select(vec![ident(VALUE), number])?.filter(ident(NUMBER).in_list(wanted, false))?;
    let mut found = Vec::with_capacity(ranks.len());
    for batch in rows.answer(wanted.sort(vec![ident(NUMBER).sort(true, false)])?).await? {
        for row in 0..batch.num_rows() {
            found.push(ScalarValue::try_from_array(batch.column(0), row)?);
        }
    }
    if found.len() == ranks.len() { Ok(found) } else { Err(ended_early(found.len() as u64)) }
}

fn ended_early(values: u64) -> Error {
    Error::invalid(format!("a sorted column ended after {values} values"))
}

/// What [`tally::Tally::quantiles`] gives for the `count` values of `expression` that are not NULL, by sorting them.
pub(crate) async fn sorted_quantiles(
    rows: &Rows,
    expression: &Expr,
    count: u64,
    probabilities: &[f64],
) -> Result<Option<Vec<f64>>> {
    let Some(last) = count.checked_sub(1) else { return Ok(None) };
    let mut ranks = tally::quantile_ranks(count, probabilities);
    // NaN is sorted to an end, by its sign.
    ranks.extend([0, last]);
    ranks.sort_unstable();
    ranks.dedup();
    let number = cast(expression.clone(), arrow::datatypes::DataType::Float64);
    let values = at_ranks(rows, number, &ranks).await?;
    let values: Vec<f64> = values
        .iter()
        .map(|value| match value {
            // Adding 0 makes -0 the same value as 0.
            ScalarValue::Float64(Some(x)) => x + 0.0,
            other => unreachable!("a column of DOUBLE without NULL holds {other:?}"),
        })
        .collect();
    if values.iter().any(|x| x.is_nan()) {
        return Ok(Some(vec![f64::NAN; probabilities.len()]));
    }
    let at = |rank: u64| values[ranks.binary_search(&rank).expect("every rank was looked up")];
    Ok(Some(tally::interpolated(count, probabilities, at)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, Float64Array, Int32Array, RecordBatch};
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::tally::Tally;

    async fn by_sorting(columns: &[ArrayRef], probabilities: &[f64]) -> Option<Vec<f64>> {
        let batches = columns.iter().map(|column| RecordBatch::try_from_iter([("x", column.clone())]).unwrap());
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
        let rows = context.read_batches(batches).unwrap();
        let count = columns.iter().map(|column| column.len() - column.null_count()).sum::<usize>();
        let rows = Rows::from(&rows);
        if let Some(last) = (count as u64).checked_sub(1) {
            let mut ranks = vec![0, last / 3, last];
            ranks.dedup();
            let column = rows.frame().select(vec![ident("x").alias(VALUE)]).unwrap();
            let column = column.filter(ident(VALUE).is_not_null()).unwrap();
            let by_number = numbered(&rows, column.clone(), &ranks).await.unwrap();
            // As text, in which a value that is no number is equal to itself.
            assert_eq!(format!("{by_number:?}"), format!("{:?}", passing(column, &ranks).await.unwrap()));
        }
        sorted_quantiles(&rows, &ident("x"), count as u64, probabilities).await.unwrap()
    }

    #[tokio::test]
    async fn sorting_and_counting_give_the_same_bits() {
        let probabilities = [0.0, 0.1, 1.0 / 3.0, 0.5, 0.999, 1.0];
        let bits = |quantiles: Option<Vec<f64>>| quantiles.map(|q| q.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        let many: Vec<f64> = (0..50_000u64).map(|i| ((i * 7919) % 20_011) as f64 * 0.37 - 1000.0).collect();
        for values in [many, vec![-0.0, 0.0, -0.0], vec![2.5], vec![1.0, f64::NAN, 3.0], vec![-f64::NAN, 1.0], vec![]] {
            let mut tally = Tally::new();
            tally.add_slice(&values);
            let columns: Vec<ArrayRef> =
                values.chunks(1000).map(|part| Arc::new(Float64Array::from(part.to_vec())) as _).collect();
            let columns =
                if columns.is_empty() { vec![Arc::new(Float64Array::from(vec![0.0; 0])) as _] } else { columns };
            let sorted = by_sorting(&columns, &probabilities).await;
            assert_eq!(bits(sorted), bits(tally.quantiles(&probabilities)), "{} values", values.len());
        }
    }

    #[tokio::test]
    async fn null_is_left_out_and_integers_are_numbers() {
        let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(4), None, Some(1), None]));
        assert_eq!(by_sorting(&[values], &[0.5]).await, Some(vec![2.5]));
    }
}
