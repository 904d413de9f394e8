//! `ML.FEATURE_CROSS(STRUCT(a, b, c) [, degree])`: a string per combination of 2 up to `degree` fields, their values
//! joined with `_`, as a struct with fields named the same way: `a_b`, `a_c`, `b_c`. NULL in a field gives NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use engine::Result;

use super::catalogue::Usage;
use super::constants;
use super::row_function::RowFunction;
use crate::transform::{as_text, engine_error};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FeatureCross;

/// Degrees as BigQuery allows them.
const DEGREE_MAX: i64 = 4;
const FIELDS_MAX: usize = 10;

impl RowFunction for FeatureCross {
    const NAME: &'static str = "FEATURE_CROSS";
    type Constants = usize;

    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<usize> {
        match constants {
            [] => Ok(2),
            [degree] => match constants::integer(degree) {
                Some(degree @ 2..=DEGREE_MAX) => Ok(degree as usize),
                _ => Err(usage.wrong(&format!("the degree is a constant from 2 to {DEGREE_MAX}, got {degree}"))),
            },
            _ => Err(usage.wrong(&format!("expected 1 or 2 arguments, got {}", constants.len() + 1))),
        }
    }

    fn output_type(usage: &Usage, input: &DataType, degree: Option<&usize>) -> Result<DataType> {
        let Some(degree) = degree else { return Err(usage.wrong("the degree is a plain number")) };
        let DataType::Struct(fields) = input else {
            return Err(usage.wrong(&format!("the first argument is a STRUCT, got type {input}")));
        };
        if let Some(field) = fields.iter().find(|field| field.data_type().is_nested() || field.data_type().is_binary())
        {
            return Err(usage.wrong(&format!(
                "field `{}` of type {} cannot be crossed",
                field.name(),
                field.data_type()
            )));
        }
        if fields.len() < 2 || fields.len() > FIELDS_MAX {
            return Err(usage.wrong(&format!("the STRUCT has 2 to {FIELDS_MAX} fields, got {}", fields.len())));
        }
        Ok(DataType::Struct(output_fields(fields, *degree)))
    }

    fn apply(_: &Usage, values: &ArrayRef, degree: &usize) -> Result<ArrayRef> {
        let input = values.as_struct();
        let texts = input.columns().iter().map(as_text).collect::<Result<Vec<_>>>()?;
        let crossed = combinations(texts.len(), *degree).into_iter().map(|combination| {
            let mut crossed = StringBuilder::new();
            for row in 0..input.len() {
                if input.is_null(row) || combination.iter().any(|i| texts[*i].is_null(row)) {
                    crossed.append_null();
                    continue;
                }
                let parts: Vec<&str> = combination.iter().map(|i| texts[*i].as_string::<i32>().value(row)).collect();
                crossed.append_value(parts.join("_"));
            }
            Arc::new(crossed.finish()) as ArrayRef
        });
        let (fields, crossed) = (output_fields(input.fields(), *degree), crossed.collect());
        Ok(Arc::new(StructArray::try_new(fields, crossed, None).map_err(engine_error)?))
    }
}

fn output_fields(fields: &Fields, degree: usize) -> Fields {
    let name =
        |combination: Vec<usize>| combination.iter().map(|i| fields[*i].name().as_str()).collect::<Vec<_>>().join("_");
    combinations(fields.len(), degree).into_iter().map(|c| Field::new(name(c), DataType::Utf8, true)).collect()
}

/// Choices of 2 up to `degree` of `n` fields, small ones first, each in order.
fn combinations(n: usize, degree: usize) -> Vec<Vec<usize>> {
    let mut chosen: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    let mut all = Vec::new();
    for _ in 2..=degree.min(n) {
        chosen = chosen
            .iter()
            .flat_map(|c| (c[c.len() - 1] + 1..n).map(move |i| c.iter().copied().chain([i]).collect()))
            .collect();
        all.extend(chosen.iter().cloned());
    }
    all
}
