//! `gm_quantiles(x, [p, ...])`: exact quantiles of a column of numbers, by counting its distinct values.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use super::moments::{as_number, numbers};
use super::{binary_state, constant, states, unreadable_state};
use crate::tally::Tally;

const NAME: &str = "gm_quantiles";

/// `gm_quantiles(x, [0.25, 0.5, 0.75])` gives `ARRAY<DOUBLE>`, one quantile per probability, with linear interpolation
/// as NumPy's default. The probabilities are a constant array (or one number) within 0 and 1. NULL is left out; a NaN
/// makes every quantile NaN; without values the result is NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Quantiles {
    signature: Signature,
}

impl Default for Quantiles {
    fn default() -> Self {
        Quantiles { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Quantiles {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [x, probabilities] = arguments else {
            return Err(DataFusionError::Plan(format!(
                "{NAME} takes a column and an array of probabilities, got {} arguments",
                arguments.len()
            )));
        };
        let probabilities = match probabilities {
            number if number.is_numeric() => DataType::Float64,
            list => list.clone(),
        };
        Ok(vec![as_number(NAME, x)?, probabilities])
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        binary_state(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let probabilities = probabilities(&constant(&args, 1, NAME, "the array of probabilities")?)?;
        Ok(Box::new(QuantilesAccumulator { probabilities, tally: Tally::new() }))
    }
}

fn probabilities(constant: &ScalarValue) -> Result<Vec<f64>> {
    let elements = match constant {
        ScalarValue::List(list) => list.value(0),
        ScalarValue::LargeList(list) => list.value(0),
        ScalarValue::FixedSizeList(list) => list.value(0),
        number => number.to_array()?,
    };
    let elements = cast(&elements, &DataType::Float64)?;
    let wrong =
        |what: String| DataFusionError::Plan(format!("{NAME}: {what} among the probabilities, expected 0 to 1"));
    elements
        .as_primitive::<Float64Type>()
        .iter()
        .map(|p| {
            let p = p.ok_or_else(|| wrong("NULL".into()))?;
            if (0.0..=1.0).contains(&p) { Ok(p) } else { Err(wrong(p.to_string())) }
        })
        .collect()
}

#[derive(Debug)]
struct QuantilesAccumulator {
    probabilities: Vec<f64>,
    tally: Tally,
}

impl Accumulator for QuantilesAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.tally.add_slice(&numbers(&values[0])?);
        Ok(())
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for mut state in states(&columns[0]) {
            self.tally.merge(&Tally::read(&mut state).ok_or_else(|| unreadable_state(NAME))?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::LargeBinary(Some(self.tally.to_bytes()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let quantiles = self.tally.quantiles(&self.probabilities);
        let Some(quantiles) = quantiles else {
            return ScalarValue::try_from(&DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))));
        };
        let values: Vec<ScalarValue> = quantiles.into_iter().map(|q| ScalarValue::Float64(Some(q))).collect();
        Ok(ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Float64)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.tally.size()
    }
}
