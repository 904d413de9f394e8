//! `ML.POLYNOMIAL_EXPAND(STRUCT(a, b) [, degree])`: products of 1 up to `degree` fields, repetition allowed, as a struct
//! with fields named by their factors: `a`, `b`, `a_a`, `a_b`, `b_b`. NULL in a factor gives NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use engine::Result;

use super::catalogue::Usage;
use super::constants;
use super::row_function::RowFunction;
use crate::transform::{as_numbers, engine_error, is_number};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PolynomialExpand;

/// Limits as in BigQuery.
const DEGREE_MAX: i64 = 4;
const FIELDS_MAX: usize = 10;

impl RowFunction for PolynomialExpand {
    const NAME: &'static str = "POLYNOMIAL_EXPAND";
    type Constants = usize;

    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<usize> {
        match constants {
            [] => Ok(2),
            [degree] => match constants::integer(degree) {
                Some(degree @ 1..=DEGREE_MAX) => Ok(degree as usize),
                _ => Err(usage.wrong(&format!("the degree is a constant from 1 to {DEGREE_MAX}, got {degree}"))),
            },
            _ => Err(usage.wrong(&format!("expected 1 or 2 arguments, got {}", constants.len() + 1))),
        }
    }

    fn output_type(usage: &Usage, input: &DataType, degree: Option<&usize>) -> Result<DataType> {
        let Some(degree) = degree else { return Err(usage.wrong("the degree is a plain number")) };
        let DataType::Struct(fields) = input else {
            return Err(usage.wrong(&format!("the first argument is a STRUCT of numbers, got type {input}")));
        };
        if let Some(field) = fields.iter().find(|field| !is_number(field.data_type())) {
            return Err(usage.wrong(&format!("field `{}` of type {} is no number", field.name(), field.data_type())));
        }
        if fields.is_empty() || fields.len() > FIELDS_MAX {
            return Err(usage.wrong(&format!("the STRUCT has 1 to {FIELDS_MAX} fields, got {}", fields.len())));
        }
        Ok(DataType::Struct(output_fields(fields, *degree)))
    }

    fn apply(_: &Usage, values: &ArrayRef, degree: &usize) -> Result<ArrayRef> {
        let input = values.as_struct();
        let numbers = input.columns().iter().map(as_numbers).collect::<Result<Vec<_>>>()?;
        let products = factors(numbers.len(), *degree).into_iter().map(|factors| {
            let product = |row: usize| {
                factors.iter().try_fold(1.0, |product, i| {
                    (input.is_valid(row) && numbers[*i].is_valid(row)).then(|| product * numbers[*i].value(row))
                })
            };
            Arc::new((0..input.len()).map(product).collect::<Float64Array>()) as ArrayRef
        });
        let (fields, products) = (output_fields(input.fields(), *degree), products.collect());
        Ok(Arc::new(StructArray::try_new(fields, products, None).map_err(engine_error)?))
    }
}

fn output_fields(fields: &Fields, degree: usize) -> Fields {
    let name = |factors: Vec<usize>| factors.iter().map(|i| fields[*i].name().as_str()).collect::<Vec<_>>().join("_");
    factors(fields.len(), degree).into_iter().map(|f| Field::new(name(f), DataType::Float64, true)).collect()
}

/// Choices with repetition of 1 up to `degree` of `n` fields, small ones first, each in order.
fn factors(n: usize, degree: usize) -> Vec<Vec<usize>> {
    let mut chosen: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    let mut all = chosen.clone();
    for _ in 2..=degree {
        chosen = chosen
            .iter()
            .flat_map(|c| (c[c.len() - 1]..n).map(move |i| c.iter().copied().chain([i]).collect()))
            .collect();
        all.extend(chosen.iter().cloned());
    }
    all
}
