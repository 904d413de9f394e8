//! One schema for files that do not all have the same: columns that came later are NULL in the older files, and a type
//! that became wider is read as the wider one. Columns that do not fit together are told with both files.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::error::{Error, Result};

/// The schema that fits all files, in the order in which their columns appear. Names are places of files, for messages.
///
/// # Errors
/// A column whose types do not fit together, with both files.
pub(super) fn merged(files: &[(String, SchemaRef)]) -> Result<SchemaRef> {
    merged_or(files, None)
}

/// The same for files of texts whose types were told from their rows: what does not fit together is text.
///
/// # Errors
/// None that is expected.
pub(super) fn merged_as_text(files: &[(String, SchemaRef)]) -> Result<SchemaRef> {
    merged_or(files, Some(&DataType::Utf8))
}

fn merged_or(files: &[(String, SchemaRef)], otherwise: Option<&DataType>) -> Result<SchemaRef> {
    let mut columns: Vec<(FieldRef, &str, usize)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut metadata = HashMap::new();
    for (place, schema) in files {
        metadata.extend(schema.metadata().clone());
        for field in schema.fields() {
            let Some(&at) = known.get(field.name()) else {
                known.insert(field.name().clone(), columns.len());
                columns.push((Arc::clone(field), place, 1));
                continue;
            };
            let (before, first, count) = &mut columns[at];
            *count += 1;
            if before.data_type() == field.data_type() && before.is_nullable() == field.is_nullable() {
                continue;
            }
            let Some(wider) = wider(before.data_type(), field.data_type()).or_else(|| otherwise.cloned()) else {
                return Err(Error::invalid(format!(
                    "column `{}` is {} in {first} and {} in {place}",
                    field.name(),
                    before.data_type(),
                    field.data_type()
                ))
                .with_hint("read them apart, or declare the column: CREATE EXTERNAL TABLE t (...)"));
            };
            // The file of the type that counts is the one to name in the next message.
            if wider != *before.data_type() {
                *first = place;
            }
            let nullable = before.is_nullable() || field.is_nullable();
            *before = Arc::new(before.as_ref().clone().with_data_type(wider).with_nullable(nullable));
        }
    }
    let fields: Vec<FieldRef> = columns
        .into_iter()
        .map(|(field, _, count)| match count < files.len() && !field.is_nullable() {
            true => Arc::new(field.as_ref().clone().with_nullable(true)),
            false => field,
        })
        .collect();
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// The type that holds the values of both without loss; `None` when there is none.
pub(super) fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        (Float64, Float32 | Float16) | (Float32 | Float16, Float64) => Float64,
        (Float32, Float16) | (Float16, Float32) => Float32,
        (Float64, whole) | (whole, Float64) if bits(whole).is_some() => Float64,
        (Float32 | Float16, whole) | (whole, Float32 | Float16) if bits(whole).is_some() => Float64,
        (Utf8 | LargeUtf8, Utf8 | LargeUtf8) => LargeUtf8,
        (Utf8View, Utf8 | LargeUtf8) | (Utf8 | LargeUtf8, Utf8View) => Utf8View,
        (Binary | LargeBinary, Binary | LargeBinary) => LargeBinary,
        (BinaryView, Binary | LargeBinary) | (Binary | LargeBinary, BinaryView) => BinaryView,
        (Date32, Date64) | (Date64, Date32) => Date64,
        (Date32 | Date64, Timestamp(unit, zone)) | (Timestamp(unit, zone), Date32 | Date64) => {
            Timestamp(*unit, zone.clone())
        }
        (Timestamp(a, zone), Timestamp(b, other)) if zone == other => Timestamp(finer(*a, *b), zone.clone()),
        (Decimal128(p, s), Decimal128(q, t)) => {
            let (scale, whole) = ((*s).max(*t), (i16::from(*p) - i16::from(*s)).max(i16::from(*q) - i16::from(*t)));
            let precision = u8::try_from(whole + i16::from(scale)).ok().filter(|digits| *digits <= 38)?;
            Decimal128(precision, scale)
        }
        (List(a), List(b)) => List(wider_field(a, b)?),
        (LargeList(a), LargeList(b)) => LargeList(wider_field(a, b)?),
        (Struct(a), Struct(b)) => {
            let mut fields: Vec<FieldRef> = Vec::new();
            for field in a {
                match b.iter().find(|other| other.name() == field.name()) {
                    Some(other) => fields.push(wider_field(field, other)?),
                    None => fields.push(Arc::new(field.as_ref().clone().with_nullable(true))),
                }
            }
            for field in b.iter().filter(|field| !a.iter().any(|other| other.name() == field.name())) {
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            }
            Struct(fields.into())
        }
        (a, b) => {
            let ((signed, width), (other_signed, other_width)) = (bits(a)?, bits(b)?);
            match (signed, other_signed) {
                (true, true) => whole(true, width.max(other_width))?,
                (false, false) => whole(false, width.max(other_width))?,
                // All values of both, so one bit more than the unsigned one has.
                (true, false) => whole(true, width.max(2 * other_width))?,
                (false, true) => whole(true, other_width.max(2 * width))?,
            }
        }
    })
}

fn wider_field(a: &Field, b: &Field) -> Option<FieldRef> {
    let kind = wider(a.data_type(), b.data_type())?;
    Some(Arc::new(a.clone().with_data_type(kind).with_nullable(a.is_nullable() || b.is_nullable())))
}

/// Whether it has a sign, and its width.
fn bits(kind: &DataType) -> Option<(bool, u32)> {
    use DataType::*;
    Some(match kind {
        Int8 => (true, 8),
        Int16 => (true, 16),
        Int32 => (true, 32),
        Int64 => (true, 64),
        UInt8 => (false, 8),
        UInt16 => (false, 16),
        UInt32 => (false, 32),
        UInt64 => (false, 64),
        _ => return None,
    })
}

fn whole(signed: bool, width: u32) -> Option<DataType> {
    use DataType::*;
    Some(match (signed, width) {
        (true, 8) => Int8,
        (true, 16) => Int16,
        (true, 32) => Int32,
        (true, 64) => Int64,
        (false, 8) => UInt8,
        (false, 16) => UInt16,
        (false, 32) => UInt32,
        (false, 64) => UInt64,
        _ => return None,
    })
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) >= rank(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(place: &str, columns: &[(&str, DataType, bool)]) -> (String, SchemaRef) {
        let fields: Vec<Field> =
            columns.iter().map(|(name, kind, nullable)| Field::new(*name, kind.clone(), *nullable)).collect();
        (place.to_string(), Arc::new(Schema::new(fields)))
    }

    #[test]
    fn columns_are_added_and_types_become_wider() {
        use DataType::*;
        let files = [
            file("/1", &[("a", Int32, false), ("b", Utf8View, true)]),
            file("/2", &[("a", Int64, false), ("b", Utf8View, true), ("c", Float32, false)]),
            file("/3", &[("c", Int16, false), ("a", Int8, true), ("b", Utf8, true)]),
        ];
        let merged = merged(&files).unwrap();
        let got: Vec<_> = merged.fields().iter().map(|f| (f.name().as_str(), f.data_type(), f.is_nullable())).collect();
        assert_eq!(got, [("a", &Int64, true), ("b", &Utf8View, true), ("c", &Float64, true)]);
    }

    #[test]
    fn widths() {
        use DataType::*;
        for (a, b, expected) in [
            (Int32, UInt32, Some(Int64)),
            (UInt64, Int64, None),
            (Int64, Float32, Some(Float64)),
            (Date32, Timestamp(TimeUnit::Microsecond, None), Some(Timestamp(TimeUnit::Microsecond, None))),
            (
                Timestamp(TimeUnit::Second, None),
                Timestamp(TimeUnit::Nanosecond, None),
                Some(Timestamp(TimeUnit::Nanosecond, None)),
            ),
            (Decimal128(10, 2), Decimal128(8, 4), Some(Decimal128(12, 4))),
            (Decimal128(38, 0), Decimal128(38, 10), None),
            (Utf8, Int64, None),
            (Boolean, Int8, None),
            (Null, Utf8, Some(Utf8)),
        ] {
            assert_eq!(wider(&a, &b), expected, "{a} {b}");
            assert_eq!(wider(&b, &a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_conflict_names_both_files() {
        let files = [
            file("s3://b/1.parquet", &[("a", DataType::Int32, true)]),
            file("s3://b/2.parquet", &[("a", DataType::Int64, true)]),
            file("s3://b/3.parquet", &[("a", DataType::Utf8, true)]),
        ];
        let error = merged(&files).unwrap_err().to_string();
        assert_eq!(error, "column `a` is Int64 in s3://b/2.parquet and Utf8 in s3://b/3.parquet");
    }
}
