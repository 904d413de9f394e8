//! The raw columns a transform reads: found by name in a batch and brought to the type they had in training.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field};
use engine::{Error, Result, near};
use serde::{Deserialize, Serialize};

/// A column of the training query that the transform reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputColumn {
    /// As the query names it.
    pub name: String,
    /// The type in training.
    #[serde(with = "type_as_text")]
    pub data_type: DataType,
}

impl InputColumn {
    /// The column as a nullable field.
    pub fn field(&self) -> Field {
        Field::new(&self.name, self.data_type.clone(), true)
    }

    /// The column's values in `batch`, in the type of training.
    ///
    /// # Errors
    /// The column is missing, or its type or a value does not fit without loss.
    pub(crate) fn read(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let schema = batch.schema_ref();
        let Ok(index) = schema.index_of(&self.name) else {
            let error = Error::invalid(format!("feature column `{}` is missing from the data", self.name));
            let names = schema.fields().iter().map(|field| field.name().as_str());
            return Err(match near(&self.name, names) {
                Some(name) => error.with_hint(format!("is it the column `{name}`?")),
                None => error.with_hint("the data must have the columns of the training query, with the same names"),
            });
        };
        let values = batch.column(index);
        if *values.data_type() == self.data_type { Ok(Arc::clone(values)) } else { self.convert(values) }
    }

    /// As [`InputColumn::read`], for a column of which nothing is wanted but a number: whole numbers in training do not keep
    /// 2.5 from being one.
    ///
    /// # Errors
    /// The column is missing, or is of no type of numbers.
    pub(crate) fn read_number(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let values = batch.column_by_name(&self.name);
        let fraction = |kind: &DataType| kind.is_floating() || kind.is_decimal();
        let is_exact = self.data_type.is_integer() || self.data_type.is_decimal();
        match values.filter(|values| is_exact && fraction(values.data_type())) {
            Some(values) => cast(values, &DataType::Float64).map_err(super::spec::engine_error),
            None => self.read(batch),
        }
    }

    fn convert(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let (got, expected) = (values.data_type(), &self.data_type);
        if let (Some(texts), DataType::Utf8) = (values.as_string_view_opt(), expected) {
            // A cast would copy the list of all buffers that the texts of the whole batch lie in, for each of its slices.
            return Ok(Arc::new(texts.iter().collect::<StringArray>()));
        }
        if !convertible(got, expected) {
            return Err(self.wrong_type(got));
        }
        let strict = CastOptions { safe: false, ..Default::default() };
        let converted = cast_with_options(values, expected, &strict).map_err(|_| self.does_not_fit(got))?;
        if narrows(got, expected) {
            // What cannot be brought back has lost something: 2.5 as an integer, 2^53 + 1 as a double.
            let back = cast(&converted, got).map_err(|_| self.does_not_fit(got))?;
            if back.to_data() != values.to_data() {
                return Err(self.does_not_fit(got));
            }
        }
        Ok(converted)
    }

    fn wrong_type(&self, got: &DataType) -> Error {
        Error::invalid(format!("feature column `{}` has type {got}, expected {}", self.name, self.data_type))
            .with_hint(format!("cast it in the query: CAST({} AS ...)", self.name))
    }

    fn does_not_fit(&self, got: &DataType) -> Error {
        Error::invalid(format!(
            "feature column `{}` of type {got} holds values that do not fit the expected type {} without loss",
            self.name, self.data_type
        ))
    }
}

/// Whether values of one type may stand for values of the other, each value permitting.
fn convertible(got: &DataType, expected: &DataType) -> bool {
    use DataType::*;
    let text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    let number = |t: &DataType| t.is_numeric();
    match (got, expected) {
        (Null, _) => true,
        (Dictionary(_, values), _) => **values == *expected || convertible(values, expected),
        (_, Dictionary(_, values)) => convertible(got, values) || got == values.as_ref(),
        (
            List(a) | LargeList(a) | FixedSizeList(a, _) | ListView(a) | LargeListView(a),
            List(b) | LargeList(b) | FixedSizeList(b, _),
        ) => a.data_type() == b.data_type() || convertible(a.data_type(), b.data_type()),
        (Timestamp(_, a), Timestamp(_, b)) => a.is_some() == b.is_some(),
        (Date32 | Date64, Date32 | Date64 | Timestamp(_, None)) => true,
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) | (Duration(_), Duration(_)) => true,
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| {
                    a.name() == b.name()
                        && (a.data_type() == b.data_type() || convertible(a.data_type(), b.data_type()))
                })
        }
        _ => (text(got) && text(expected)) || (number(got) && number(expected)),
    }
}

/// Whether a conversion between two numeric types must be checked value by value.
fn narrows(got: &DataType, expected: &DataType) -> bool {
    use DataType::*;
    let whole = |t: &DataType| t.is_integer() && !matches!(t, Int64 | UInt64);
    match (got, expected) {
        (Float32 | Float16, Float64) => false,
        // A measurement in 64 bits stands for one in 32: the rounding is what training saw, too.
        (Float64 | Decimal128(..) | Decimal256(..) | Decimal32(..) | Decimal64(..), Float32 | Float16 | Float64) => {
            false
        }
        (a, Float64) if whole(a) => false,
        (a, b) => a.is_numeric() && b.is_numeric(),
    }
}

/// Arrow types as their text, e.g. `Timestamp(ns, "UTC")`.
pub(crate) mod type_as_text {
    use super::{DataType, FromStr};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes a type.
    pub(crate) fn serialize<S: Serializer>(data_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(data_type)
    }

    /// Reads a type.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        let text = String::deserialize(deserializer)?;
        DataType::from_str(&text).map_err(|error| D::Error::custom(format!("type `{text}`: {error}")))
    }
}
