//! `ML.NORMALIZER(array [, p])`: the array divided by its p-norm (default 2; infinity takes the largest magnitude). An
//! array of zeros stays as it is; a NULL element gives a NULL element and does not count.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, ListArray};
use arrow::datatypes::{DataType, Field};
use datafusion::common::ScalarValue;
use engine::Result;

use super::catalogue::Usage;
use super::constants;
use super::row_function::RowFunction;
use crate::transform::{as_list, as_numbers, element_type, is_number};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Normalizer;

impl RowFunction for Normalizer {
    const NAME: &'static str = "NORMALIZER";
    type Constants = f64;

    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<f64> {
        match constants {
            [] => Ok(2.0),
            [p] => match constants::number(p) {
                Some(p) if p >= 1.0 => Ok(p),
                _ => Err(usage.wrong(&format!("p is a number from 1 on, got {p}"))),
            },
            _ => Err(usage.wrong(&format!("expected 1 or 2 arguments, got {}", constants.len() + 1))),
        }
    }

    fn output_type(usage: &Usage, input: &DataType, _: Option<&f64>) -> Result<DataType> {
        match element_type(input) {
            Some(element) if is_number(element) => Ok(DataType::new_list(DataType::Float64, true)),
            _ => Err(usage.wrong(&format!("the first argument is an array of numbers, got type {input}"))),
        }
    }

    fn apply(_: &Usage, values: &ArrayRef, p: &f64) -> Result<ArrayRef> {
        let list = as_list(values)?;
        let numbers = as_numbers(list.values())?;
        let mut normalized: Vec<Option<f64>> = numbers.iter().collect();
        for ends in list.value_offsets().windows(2) {
            let row = &mut normalized[ends[0] as usize..ends[1] as usize];
            let norm = norm(row.iter().flatten().copied(), *p);
            if norm > 0.0 {
                row.iter_mut().flatten().for_each(|x| *x /= norm);
            }
        }
        let field = Arc::new(Field::new_list_field(DataType::Float64, true));
        let elements = Arc::new(Float64Array::from(normalized));
        Ok(Arc::new(ListArray::new(field, list.offsets().clone(), elements, list.nulls().cloned())))
    }
}

fn norm(values: impl Iterator<Item = f64>, p: f64) -> f64 {
    if p == 2.0 {
        values.map(|x| x * x).sum::<f64>().sqrt()
    } else if p == 1.0 {
        values.map(f64::abs).sum()
    } else if p.is_infinite() {
        values.map(f64::abs).fold(0.0, f64::max)
    } else {
        values.map(|x| x.abs().powf(p)).sum::<f64>().powf(1.0 / p)
    }
}
