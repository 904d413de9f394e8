//! Columns of a query and columns of a Delta table. A Delta table knows fewer types than a query: numbers with signs,
//! times in microseconds. Wider ones are cast, and a value that does not fit is an error, not another value.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::expr_fn::cast;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result, near};

/// The columns that a new table gets for a query's: all may be NULL.
///
/// # Errors
/// A name or a type that a Delta table cannot have.
pub(crate) fn of_query(schema: &DFSchema) -> Result<SchemaRef> {
    let mut fields: Vec<Field> = Vec::new();
    for field in schema.fields() {
        let name = field.name();
        if name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            return Err(Error::invalid(format!("`{name}` is no name for a column of a Delta table"))
                .with_hint("give it one without spaces and ,;{}()= with AS"));
        }
        if fields.iter().any(|known| known.name().eq_ignore_ascii_case(name)) {
            return Err(Error::invalid(format!("a Delta table cannot have two columns `{name}`")));
        }
        let kind = stored(field.data_type()).ok_or_else(|| {
            Error::invalid(format!("column `{name}`: a Delta table has no type for {}", field.data_type()))
        })?;
        fields.push(Field::new(name, kind, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The type under which values of a type are stored.
fn stored(kind: &DataType) -> Option<DataType> {
    use DataType as T;
    let inner = |field: &FieldRef| Some(Arc::new(Field::new(field.name(), stored(field.data_type())?, true)));
    Some(match kind {
        T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Date32 => kind.clone(),
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 | T::UInt64 => T::Int64,
        T::Float16 => T::Float32,
        T::Date64 => T::Date32,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) | T::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            T::Decimal128(*precision, *scale)
        }
        T::Timestamp(_, None) => T::Timestamp(TimeUnit::Microsecond, None),
        T::Timestamp(_, Some(_)) => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::Dictionary(_, value) => stored(value)?,
        T::List(field) | T::LargeList(field) | T::ListView(field) | T::FixedSizeList(field, _) => {
            T::List(inner(field)?)
        }
        T::Struct(fields) => T::Struct(fields.iter().map(inner).collect::<Option<Fields>>()?),
        _ => return None,
    })
}

/// The plan with exactly the table's columns, in the table's order. Columns that the query does not have are NULL.
///
/// # Errors
/// A column that the table does not have, or has with another type; NULLs where the table allows none.
pub(super) fn fitted(plan: LogicalPlan, table: &Schema) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let names: Vec<&str> = table.fields().iter().map(|field| field.name().as_str()).collect();
    for field in schema.fields() {
        if !names.contains(&field.name().as_str()) {
            let error = Error::invalid(format!("the table has no column `{}`", field.name()));
            return Err(match near(field.name(), names.iter().copied()) {
                Some(name) => error.with_hint(format!("did you mean `{name}`?")),
                None => error.with_hint(format!("its columns are {}", names.join(", "))),
            });
        }
    }
    let columns: Result<Vec<Expr>> = table.fields().iter().map(|wanted| column(&schema, wanted)).collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns?)?.build()?)
}

fn column(schema: &DFSchema, wanted: &Field) -> Result<Expr> {
    let name = wanted.name();
    let refuse = |what: String| Err(Error::invalid(format!("column `{name}`: {what}")));
    let Some((qualifier, field)) = schema.iter().find(|(_, field)| field.name() == name) else {
        if !wanted.is_nullable() {
            return refuse("is NOT NULL in the table and not among the columns to write".to_string());
        }
        let null = ScalarValue::try_from(wanted.data_type())?;
        return Ok(lit(null).alias(name));
    };
    if field.is_nullable() && !wanted.is_nullable() {
        return refuse("is NOT NULL in the table, and what is to be written may have NULLs there".to_string());
    }
    let expression = Expr::Column(Column::from((qualifier, field)));
    if field.data_type() == wanted.data_type() {
        return Ok(expression.alias(name));
    }
    let known = stored(field.data_type());
    if !known.as_ref().is_some_and(|known| widens(known, wanted.data_type())) {
        let (found, expected) = (field.data_type(), wanted.data_type());
        return refuse(format!("is {expected} in the table and {found} in what is to be written"));
    }
    Ok(cast(expression, wanted.data_type().clone()).alias(name))
}

/// Whether every value of one type is a value of the other.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let rank = |kind: &DataType| match kind {
        T::Int8 => Some(1),
        T::Int16 => Some(2),
        T::Int32 => Some(3),
        T::Int64 => Some(4),
        _ => None,
    };
    match (from, to) {
        (T::Null, _) => true,
        (T::Float32, T::Float64) => true,
        (T::Int8 | T::Int16, T::Float32) | (T::Int8 | T::Int16 | T::Int32, T::Float64) => true,
        (T::Decimal128(p, s), T::Decimal128(to_p, to_s)) => {
            s <= to_s && i16::from(*p) - i16::from(*s) <= i16::from(*to_p) - i16::from(*to_s)
        }
        (T::List(from), T::List(to)) => widens(from.data_type(), to.data_type()),
        (T::Struct(from), T::Struct(to)) => {
            from.len() == to.len()
                && from
                    .iter()
                    .zip(to)
                    .all(|(from, to)| from.name() == to.name() && widens(from.data_type(), to.data_type()))
        }
        _ => from == to || matches!((rank(from), rank(to)), (Some(from), Some(to)) if from <= to),
    }
}

/// Whether the table's directories can be named after values of the type, and its log can hold them as text.
pub(super) fn may_partition(kind: &DataType) -> bool {
    kind.is_integer() || matches!(kind, DataType::Utf8 | DataType::Date32 | DataType::Boolean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_stored_as_delta_knows_them() {
        let utc = |unit| DataType::Timestamp(unit, Some("UTC".into()));
        for (from, to) in [
            (DataType::UInt32, Some(DataType::Int64)),
            (DataType::Utf8View, Some(DataType::Utf8)),
            (utc(TimeUnit::Nanosecond), Some(utc(TimeUnit::Microsecond))),
            (DataType::Timestamp(TimeUnit::Second, Some("+01:00".into())), Some(utc(TimeUnit::Microsecond))),
            (DataType::Duration(TimeUnit::Second), None),
            (DataType::new_list(DataType::UInt8, false), Some(DataType::new_list(DataType::Int16, true))),
        ] {
            assert_eq!(stored(&from), to, "{from}");
        }
    }

    #[test]
    fn only_wider_types_take_values() {
        for (from, to, expected) in [
            (DataType::Int32, DataType::Int64, true),
            (DataType::Int64, DataType::Int32, false),
            (DataType::Int64, DataType::Float64, false),
            (DataType::Utf8, DataType::Int64, false),
            (DataType::Decimal128(5, 2), DataType::Decimal128(8, 2), true),
            (DataType::Decimal128(5, 2), DataType::Decimal128(5, 3), false),
        ] {
            assert_eq!(widens(&from, &to), expected, "{from} -> {to}");
        }
    }
}
