//! `ML.NGRAMS(words, [low, high] [, separator])`: runs of `low` up to `high` neighbouring strings of an array, joined
//! with the separator (a space): at each place the short ones first. NULL elements are left out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use engine::Result;

use super::catalogue::Usage;
use super::constants;
use super::row_function::RowFunction;
use crate::transform::{as_list, as_text, element_type, is_text};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ngrams;

/// The checked arguments of [`Ngrams`].
#[derive(Debug)]
pub(crate) struct Runs {
    low: usize,
    high: usize,
    separator: String,
}

impl RowFunction for Ngrams {
    const NAME: &'static str = "NGRAMS";
    type Constants = Runs;

    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<Runs> {
        let (range, separator) = match constants {
            [range] => (range, " ".to_owned()),
            [range, separator] => match separator.try_as_str() {
                Some(Some(text)) => (range, text.to_owned()),
                _ => return Err(usage.wrong(&format!("the separator is a string, got {separator}"))),
            },
            _ => return Err(usage.wrong(&format!("expected 2 or 3 arguments, got {}", constants.len() + 1))),
        };
        let ends = constants::numbers(range).or_else(|| constants::integer(range).map(|n| vec![n as f64]));
        let (low, high) = match ends.as_deref() {
            Some(&[n]) => (n, n),
            Some(&[low, high]) => (low, high),
            _ => (0.0, 0.0),
        };
        let whole = |x: f64| x.fract() == 0.0 && (1.0..=32.0).contains(&x);
        if !whole(low) || !whole(high) || low > high {
            return Err(
                usage.wrong(&format!("the range is a length or two, low before high, from 1 to 32, got {range}"))
            );
        }
        Ok(Runs { low: low as usize, high: high as usize, separator })
    }

    fn output_type(usage: &Usage, input: &DataType, _: Option<&Runs>) -> Result<DataType> {
        match element_type(input) {
            Some(element) if is_text(element) => Ok(DataType::new_list(DataType::Utf8, true)),
            _ => Err(usage.wrong(&format!("the first argument is an array of strings, got type {input}"))),
        }
    }

    fn apply(_: &Usage, values: &ArrayRef, runs: &Runs) -> Result<ArrayRef> {
        let list = as_list(values)?;
        let mut ngrams = ListBuilder::new(StringBuilder::new());
        for row in 0..list.len() {
            if list.is_null(row) {
                ngrams.append_null();
                continue;
            }
            let words = as_text(&list.value(row))?;
            let words: Vec<&str> = words.as_string::<i32>().iter().flatten().collect();
            for first in 0..words.len() {
                for length in runs.low..=runs.high.min(words.len() - first) {
                    ngrams.values().append_value(words[first..first + length].join(&runs.separator));
                }
            }
            ngrams.append(true);
        }
        Ok(Arc::new(ngrams.finish()))
    }
}
