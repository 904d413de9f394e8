//! Values as text, by the conventions of DataFusion's own SQL tests: NULL, `(empty)`, floating numbers to twelve digits
//! behind the point, no zeros at the end, and a cell of several lines as several rows.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float16Type, Float32Type,
    Float64Type, Schema,
};
use arrow::error::ArrowError;
use arrow::util::display::ArrayFormatter;
use datafusion::config::ConfigField;
use sqllogictest::ColumnType;

/// What the letter of a column in `query TIR` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    DateTime,
    Integer,
    Float,
    Text,
    Timestamp,
    Another,
}

const LETTERS: [(char, Kind); 6] = [
    ('B', Kind::Boolean),
    ('D', Kind::DateTime),
    ('I', Kind::Integer),
    ('P', Kind::Timestamp),
    ('R', Kind::Float),
    ('T', Kind::Text),
];

impl ColumnType for Kind {
    fn from_char(letter: char) -> Option<Self> {
        Some(LETTERS.iter().find(|(known, _)| *known == letter).map_or(Kind::Another, |(_, kind)| *kind))
    }

    fn to_char(&self) -> char {
        LETTERS.iter().find(|(_, kind)| kind == self).map_or('?', |(letter, _)| *letter)
    }
}

/// The kinds of the columns.
pub(super) fn kinds(schema: &Schema) -> Vec<Kind> {
    schema.fields().iter().map(|field| kind(field.data_type())).collect()
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Boolean => Kind::Boolean,
        data_type if data_type.is_integer() => Kind::Integer,
        data_type if data_type.is_floating() || data_type.is_decimal() => Kind::Float,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Text,
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => Kind::DateTime,
        DataType::Timestamp(_, _) => Kind::Timestamp,
        DataType::Dictionary(_, value) if value.is_string() => Kind::Text,
        _ => Kind::Another,
    }
}

/// The rows of a batch.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let cells = batch.columns().iter().map(|column| cell(column, row)).collect::<Result<Vec<_>, _>>()?;
        rows.extend(lines(cells));
    }
    Ok(rows)
}

/// A last cell of several lines (a plan) becomes rows with the number of the line.
fn lines(mut cells: Vec<String>) -> Vec<Vec<String>> {
    let Some(last) = cells.pop_if(|last| last.contains('\n')) else { return vec![cells] };
    let numbered = last.split('\n').enumerate().map(|(index, line)| {
        let content = line.trim_start();
        vec![format!("{:02}){}{content}", index + 1, "-".repeat(line.len() - content.len()))]
    });
    std::iter::once(cells).chain(numbered).collect()
}

fn cell(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    if column.is_null(row) {
        return Ok("NULL".to_string());
    }
    Ok(match column.data_type() {
        DataType::Null => "NULL".to_string(),
        DataType::Float16 => {
            let value = column.as_primitive::<Float16Type>().value(row);
            floating(f64::from(value), &value.to_string())
        }
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            floating(f64::from(value), &value.to_string())
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            floating(value, &value.to_string())
        }
        DataType::Decimal32(_, scale) => decimal::<Decimal32Type>(column, row, *scale),
        DataType::Decimal64(_, scale) => decimal::<Decimal64Type>(column, row, *scale),
        DataType::Decimal128(_, scale) => decimal::<Decimal128Type>(column, row, *scale),
        DataType::Decimal256(_, scale) => decimal::<Decimal256Type>(column, row, *scale),
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            cell(dictionary.values(), dictionary.normalized_keys()[row])?
        }
        _ => displayed(column, row)?,
    })
}

fn text(value: &str) -> String {
    if value.is_empty() { "(empty)".to_string() } else { value.trim_end_matches('\n').replace('\0', "\\0") }
}

fn displayed(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    let mut format = datafusion::config::FormatOptions::default();
    format.set("null", "NULL").map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    let format = (&format).try_into().map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
    Ok(ArrayFormatter::try_new(column.as_ref(), &format)?.value(row).to_string())
}

fn decimal<T: DecimalType>(column: &ArrayRef, row: usize, scale: i8) -> String {
    rounded(&T::format_decimal(column.as_primitive::<T>().value(row), u8::MAX, scale), usize::MAX)
}

fn floating(value: f64, digits: &str) -> String {
    match value {
        value if value.is_nan() => "NaN".to_string(),
        f64::INFINITY => "Infinity".to_string(),
        f64::NEG_INFINITY => "-Infinity".to_string(),
        _ => rounded(digits, 12),
    }
}

/// Plain decimal digits, rounded to `places` behind the point (half to even), without zeros at the end.
fn rounded(digits: &str, places: usize) -> String {
    let (sign, magnitude) = digits.strip_prefix('-').map_or(("", digits), |magnitude| ("-", magnitude));
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let kept = fraction.len().min(places);
    let mut number: Vec<u8> = whole.bytes().chain(fraction[..kept].bytes()).collect();
    let rest = fraction[kept..].trim_end_matches('0');
    let is_odd = number.last().is_some_and(|digit| digit % 2 == 1);
    if rest > "5" || rest == "5" && is_odd {
        match number.iter().rposition(|digit| *digit != b'9') {
            Some(at) => {
                number[at] += 1;
                number[at + 1..].fill(b'0');
            }
            None => {
                number.fill(b'0');
                number.insert(0, b'1');
            }
        }
    }
    let point = number.len() - kept;
    let text: String = number.into_iter().map(char::from).collect();
    let (whole, fraction) = text.split_at(point);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_string(),
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

#[test]
fn numbers_are_rounded_to_even_without_zeros_at_the_end() {
    for (digits, places, expected) in [
        ("0.110", 12, "0.11"),
        ("-0", 12, "0"),
        ("-0.0000000000001", 12, "0"),
        ("1.0000000000011", 12, "1.000000000001"),
        ("0.5", 0, "0"),
        ("1.5", 0, "2"),
        ("2.50001", 0, "3"),
        ("-99.96", 1, "-100"),
        ("100", 12, "100"),
        ("100.00", 2, "100"),
    ] {
        assert_eq!(rounded(digits, places), expected, "{digits} to {places}");
    }
}
