//! `ML.BUCKETIZE(x, [points])`: the name of the interval a number falls into. Buckets are closed below and open above.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use engine::Result;

use super::catalogue::Usage;
use super::constants;
use super::row_function::RowFunction;
use crate::transform::{BucketFormat, as_numbers, is_number};

/// The buckets between ascending split points, with their names.
#[derive(Debug, Clone)]
pub(crate) struct Buckets {
    splits: Vec<f64>,
    names: Vec<String>,
}

impl Buckets {
    /// `splits.len() + 1` buckets: below the first, between neighbours, from the last on.
    pub(crate) fn new(splits: &[f64], format: BucketFormat) -> Self {
        let edge = |i: usize| match i {
            0 => f64::NEG_INFINITY,
            i if i > splits.len() => f64::INFINITY,
            i => splits[i - 1],
        };
        let text = |x: f64| match x {
            f64::INFINITY => "+Infinity".to_owned(),
            f64::NEG_INFINITY => "-Infinity".to_owned(),
            x => x.to_string(),
        };
        let name = |i: usize| match format {
            BucketFormat::Names => format!("bin_{}", i + 1),
            BucketFormat::Ranges if i == 0 => format!("(-inf, {})", edge(i + 1)).replace("inf)", "+inf)"),
            BucketFormat::Ranges => format!("[{}, {})", edge(i), edge(i + 1)).replace("inf)", "+inf)"),
            BucketFormat::RangesJson => {
                format!("{{\"start\": \"{}\", \"end\": \"{}\"}}", text(edge(i)), text(edge(i + 1)))
            }
        };
        Buckets { splits: splits.to_vec(), names: (0..=splits.len()).map(name).collect() }
    }

    /// The name of the bucket of `x`; NaN, which is no place on the line, counts as above everything.
    pub(crate) fn name_of(&self, x: f64) -> &str {
        &self.names[self.splits.partition_point(|split| *split <= x || x.is_nan())]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bucketize;

impl RowFunction for Bucketize {
    const NAME: &'static str = "BUCKETIZE";
    type Constants = Buckets;

    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<Buckets> {
        let (points, rest) = match constants {
            [points, rest @ ..] if rest.len() <= 2 => (points, rest),
            _ => return Err(usage.wrong(&format!("expected 2 to 4 arguments, got {}", constants.len() + 1))),
        };
        let Some(mut points) = constants::numbers(points) else {
            return Err(usage.wrong(&format!("the split points are a constant array of numbers, got {points}")));
        };
        // exclude_boundaries and output_format, both optional, in this order
        let (exclude, format) = match rest {
            [] => (false, None),
            [ScalarValue::Boolean(Some(exclude))] => (*exclude, None),
            [ScalarValue::Boolean(Some(exclude)), format] => (*exclude, Some(format)),
            [format] => (false, Some(format)),
            [other, ..] => return Err(usage.wrong(&format!("exclude_boundaries is TRUE or FALSE, got {other}"))),
        };
        let format = match format {
            None => BucketFormat::Names,
            Some(format) => match format.try_as_str() {
                Some(Some(text)) => usage.bucket_format(text)?,
                _ => return Err(usage.wrong(&format!("output_format is a string, got {format}"))),
            },
        };
        if points.iter().any(|x| !x.is_finite()) || points.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(usage.wrong("the split points must be finite and ascending"));
        }
        if exclude {
            if points.len() < 3 {
                return Err(usage.wrong("without its boundaries, nothing is left of fewer than 3 split points"));
            }
            points.pop();
            points.remove(0);
        }
        if points.is_empty() {
            return Err(usage.wrong("at least one split point is needed"));
        }
        Ok(Buckets::new(&points, format))
    }

    fn output_type(usage: &Usage, input: &DataType, _: Option<&Buckets>) -> Result<DataType> {
        match input {
            number if is_number(number) => Ok(DataType::Utf8),
            other => Err(usage.wrong(&format!("the first argument is a number, got type {other}"))),
        }
    }

    fn apply(_: &Usage, values: &ArrayRef, buckets: &Buckets) -> Result<ArrayRef> {
        let mut names = StringBuilder::new();
        as_numbers(values)?.iter().for_each(|x| names.append_option(x.map(|x| buckets.name_of(x))));
        Ok(Arc::new(names.finish()))
    }
}
