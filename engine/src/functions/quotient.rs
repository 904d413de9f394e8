//! Division of decimals with the digits that Spark gives it, rounded half away from zero. The query engine gives the dividend's
//! digits and four more, and cuts off.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, i256};
use datafusion::arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::checked::overflow;
use super::sql_type;

/// The function.
pub(crate) fn function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Quotient { signature }))
    });
    Arc::clone(&FUNCTION)
}

/// Whether the function divides such numbers: decimals by decimals or whole numbers, and whole numbers by decimals.
pub(crate) fn divides(dividend: &DataType, divisor: &DataType) -> bool {
    let is_decimal = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
    (is_decimal(dividend) || is_decimal(divisor)) && as_decimal(dividend).is_some() && as_decimal(divisor).is_some()
}

/// The decimals that hold all numbers of a type.
fn as_decimal(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Decimal128(..) => data_type.clone(),
        DataType::Int8 | DataType::UInt8 => DataType::Decimal128(3, 0),
        DataType::Int16 | DataType::UInt16 => DataType::Decimal128(5, 0),
        DataType::Int32 | DataType::UInt32 => DataType::Decimal128(10, 0),
        DataType::Int64 | DataType::UInt64 => DataType::Decimal128(20, 0),
        _ => return None,
    })
}

/// Digits of any decimal, and those behind the point that a quotient keeps in any case.
const DIGITS_MAX: i16 = 38;
const SCALE_MIN: i16 = 6;
/// What the query engine adds to the dividend's digits; never fewer, lest answers become shorter.
const SCALE_MORE: i16 = 4;

fn quotient_type(dividend: &DataType, divisor: &DataType) -> Option<DataType> {
    let (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) = (dividend, divisor) else { return None };
    let (p1, s1, p2, s2) = (i16::from(*p1), i16::from(*s1), i16::from(*p2), i16::from(*s2));
    let before = p1 - s1 + s2;
    let wanted = SCALE_MIN.max(s1 + p2 + 1);
    let room = (DIGITS_MAX - before).max(SCALE_MIN);
    let scale = wanted.min(room).max(s1 + SCALE_MORE).min(DIGITS_MAX);
    let precision = (before.max(0) + scale).clamp(1, DIGITS_MAX);
    Some(DataType::Decimal128(precision as u8, scale as i8))
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Quotient {
    signature: Signature,
}

impl ScalarUDFImpl for Quotient {
    fn name(&self) -> &'static str {
        "quotient"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [dividend, divisor] => format!("{} / {}", dividend.schema_name(), divisor.schema_name()),
            _ => self.name().to_string(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let decimals: Option<Vec<DataType>> = arg_types.iter().map(as_decimal).collect();
        decimals
            .filter(|types| types.len() == 2)
            .ok_or_else(|| DataFusionError::Plan("quotient takes two decimals".to_string()))
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let types = self.coerce_types(arg_types)?;
        quotient_type(&types[0], &types[1])
            .ok_or_else(|| DataFusionError::Plan("quotient takes two decimals".to_string()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        let name = args.arg_fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(" / ");
        Ok(Arc::new(Field::new(name, self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let quotients = divided(&arrays[0], &arrays[1], args.return_field.data_type(), args.return_field.name())?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&quotients, 0)?));
        }
        Ok(ColumnarValue::Array(quotients))
    }
}

fn divided(dividends: &ArrayRef, divisors: &ArrayRef, target: &DataType, name: &str) -> Result<ArrayRef> {
    let types = (dividends.data_type(), divisors.data_type(), target);
    let (DataType::Decimal128(_, s1), DataType::Decimal128(_, s2), DataType::Decimal128(precision, scale)) = types
    else {
        return Err(DataFusionError::Internal("quotient divides decimals".to_string()));
    };
    // dividend·10^-s1 / (divisor·10^-s2) = quotient·10^-scale
    let shift = i16::from(*scale) + i16::from(*s2) - i16::from(*s1);
    let bound = 10_i128.pow(u32::from(*precision));
    let narrow = u32::try_from(shift).ok().and_then(|shift| 10_i128.checked_pow(shift));
    let wide = i256::from_i128(10).wrapping_pow(shift.max(0) as u32);
    let (dividends, divisors) = (dividends.as_primitive::<Decimal128Type>(), divisors.as_primitive::<Decimal128Type>());
    let quotients = dividends.iter().zip(divisors.iter()).map(|(dividend, divisor)| {
        let (Some(dividend), Some(divisor)) = (dividend, divisor) else { return Ok(None) };
        if divisor == 0 {
            return Err(DataFusionError::from(ArrowError::DivideByZero));
        }
        let quotient = match narrow.and_then(|shift| dividend.checked_mul(shift)) {
            Some(dividend) => rounded(dividend, divisor),
            None => rounded_wide(dividend, wide, divisor),
        };
        match quotient.filter(|quotient| -bound < *quotient && *quotient < bound) {
            Some(quotient) => Ok(Some(quotient)),
            None => Err(overflow(name, &sql_type(target))),
        }
    });
    let quotients = quotients.collect::<Result<Decimal128Array>>()?;
    Ok(Arc::new(quotients.with_data_type(target.clone())))
}

fn rounded(dividend: i128, divisor: i128) -> Option<i128> {
    let (quotient, rest) = (dividend.checked_div(divisor)?, dividend % divisor);
    let is_half = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
    let away = if (dividend < 0) == (divisor < 0) { 1 } else { -1 };
    if is_half { quotient.checked_add(away) } else { Some(quotient) }
}

fn rounded_wide(dividend: i128, shift: i256, divisor: i128) -> Option<i128> {
    let dividend = i256::from_i128(dividend).checked_mul(shift)?;
    let divisor = i256::from_i128(divisor);
    let (quotient, rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
    let abs = |value: i256| if value.is_negative() { value.wrapping_neg() } else { value };
    let is_half = abs(rest) >= abs(divisor).wrapping_sub(abs(rest));
    let away = if dividend.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    let quotient = if is_half { quotient.checked_add(away)? } else { quotient };
    quotient.to_i128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        for (dividend, divisor, expected) in
            [(2, 3, 1), (1, 3, 0), (1, 2, 1), (-1, 2, -1), (-1, 3, 0), (-2, 3, -1), (1, -2, -1), (5, 1, 5), (0, 7, 0)]
        {
            assert_eq!(rounded(dividend, divisor), Some(expected), "{dividend} / {divisor}");
            assert_eq!(rounded_wide(dividend, i256::ONE, divisor), Some(expected), "{dividend} / {divisor}");
        }
    }

    #[test]
    fn digits_are_those_of_spark_and_never_fewer_than_four_more() {
        let decimal = DataType::Decimal128;
        for (dividend, divisor, expected) in [
            (decimal(10, 2), decimal(10, 2), decimal(23, 13)),
            (decimal(15, 2), decimal(1, 0), decimal(19, 6)),
            (decimal(38, 0), decimal(38, 0), decimal(38, 6)),
            (decimal(38, 4), decimal(38, 4), decimal(38, 8)),
        ] {
            assert_eq!(quotient_type(&dividend, &divisor), Some(expected), "{dividend} / {divisor}");
        }
    }
}
