//! Totals of whole numbers and decimals in 128 or 256 bits, from which sums and averages are taken.
//!
//! A total is wide enough for any number of rows of whole numbers, so its value does not depend on their order, and what
//! does not fit into the type of the result is found when the result is asked for. Between stages it travels as a decimal of
//! the widest precision, as it is. A total of decimals that leaves even that width is an error at once.

mod distinct;
mod groups;
mod single;
mod widened;

use datafusion::arrow::array::{Array, ArrowPrimitiveType, PrimitiveArray};
use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Int64Type, UInt64Type, i256,
};
use datafusion::error::{DataFusionError, Result};

pub(super) use distinct::DistinctTotal;
pub(super) use groups::GroupTotals;
pub(super) use single::Total;
pub(super) use widened::Widened;

use super::{checked, sql_type};

/// A kind of values that can be added up.
pub(super) trait Summand: ArrowPrimitiveType + std::fmt::Debug + Send {
    /// The type of totals.
    type Wide: ArrowPrimitiveType<Native: Wide + From<<Self as ArrowPrimitiveType>::Native>> + Send;

    /// All values of an array; `None` when they leave the type of totals.
    fn add_up(values: &PrimitiveArray<Self>) -> Option<Number<Self>>
    where
        Self: Sized,
    {
        let mut total = Number::<Self>::default();
        let mut overflows = false;
        if values.null_count() == 0 {
            for value in values.values() {
                overflows |= total.add((*value).into());
            }
        } else {
            for value in values.iter().flatten() {
                overflows |= total.add(value.into());
            }
        }
        (!overflows).then_some(total)
    }
}

/// A total of values of a kind.
pub(super) type Number<S> = <<S as Summand>::Wide as ArrowPrimitiveType>::Native;

impl Summand for Int64Type {
    type Wide = Decimal128Type;

    fn add_up(values: &PrimitiveArray<Self>) -> Option<i128> {
        Some(halves(values, |value| value >> HALF, |value| value & MASK as i64))
    }
}

impl Summand for UInt64Type {
    type Wide = Decimal128Type;

    fn add_up(values: &PrimitiveArray<Self>) -> Option<i128> {
        Some(halves(values, |value| (value >> HALF) as i64, |value| (value & MASK) as i64))
    }
}

impl Summand for Decimal32Type {
    type Wide = Decimal128Type;
}

impl Summand for Decimal64Type {
    type Wide = Decimal128Type;
}

impl Summand for Decimal128Type {
    type Wide = Decimal128Type;
}

impl Summand for Decimal256Type {
    type Wide = Decimal256Type;
}

const HALF: u32 = 32;
const MASK: u64 = (1 << HALF) - 1;

/// The upper and the lower halves added up apart, in vector registers of 64 bits: exact for up to 2^31 values.
fn halves<T: ArrowPrimitiveType>(
    values: &PrimitiveArray<T>,
    upper: impl Fn(T::Native) -> i64,
    lower: impl Fn(T::Native) -> i64,
) -> i128 {
    let (mut uppers, mut lowers) = (0_i64, 0_i64);
    if values.null_count() == 0 {
        for value in values.values() {
            uppers += upper(*value);
            lowers += lower(*value);
        }
    } else {
        for value in values.iter().flatten() {
            uppers += upper(value);
            lowers += lower(value);
        }
    }
    (i128::from(uppers) << HALF) + i128::from(lowers)
}

/// What totals are kept in.
pub(super) trait Wide: Copy + Default + Eq + std::hash::Hash + Send + Sync + std::fmt::Debug + 'static {
    /// Adds a value; true when the total has wrapped around.
    fn add(&mut self, value: Self) -> bool;
    /// Takes a value off; true when the total has wrapped around.
    fn take(&mut self, value: Self) -> bool;
    /// As nearly as a double can be.
    fn to_f64(self) -> f64;
    /// The total over a count, with so many more digits behind the point, rounded half away from zero; `None` when it
    /// does not fit.
    fn quotient(self, count: u64, digits: u32) -> Option<Self>;
}

impl Wide for i128 {
    fn add(&mut self, value: Self) -> bool {
        let (total, overflows) = self.overflowing_add(value);
        *self = total;
        overflows
    }

    fn take(&mut self, value: Self) -> bool {
        let (total, overflows) = self.overflowing_sub(value);
        *self = total;
        overflows
    }

    fn to_f64(self) -> f64 {
        self as f64
    }

    fn quotient(self, count: u64, digits: u32) -> Option<Self> {
        let (count, factor) = (i128::from(count), 10_i128.checked_pow(digits)?);
        let (whole, rest) = (self.checked_div(count)?, (self % count).checked_mul(factor)?);
        let (part, left) = (rest / count, rest % count);
        let rounded = if 2 * left.abs() >= count { part + self.signum() } else { part };
        whole.checked_mul(factor)?.checked_add(rounded)
    }
}

impl Wide for i256 {
    fn add(&mut self, value: Self) -> bool {
        let total = self.wrapping_add(value);
        let overflows = value.is_negative() != (total < *self);
        *self = total;
        overflows
    }

    fn take(&mut self, value: Self) -> bool {
        let total = self.wrapping_sub(value);
        let overflows = value.is_negative() != (total > *self);
        *self = total;
        overflows && value != i256::ZERO
    }

    fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    fn quotient(self, count: u64, digits: u32) -> Option<Self> {
        let (count, factor) = (i256::from_i128(count.into()), i256::from_i128(10).checked_pow(digits)?);
        let (whole, rest) = (self.checked_div(count)?, self.checked_rem(count)?.checked_mul(factor)?);
        let (part, left) = (rest.checked_div(count)?, rest.checked_rem(count)?);
        let sign = if self.is_negative() { i256::MINUS_ONE } else { i256::ONE };
        let rounded =
            if left.wrapping_abs().checked_add(left.wrapping_abs())? >= count { part.checked_add(sign)? } else { part };
        whole.checked_mul(factor)?.checked_add(rounded)
    }
}

/// What becomes of a total: the sum in the type of the result, or an average.
pub(super) trait Outcome<S: Summand>: Send + Sync + std::fmt::Debug + 'static {
    /// The result's kind.
    type Result: ArrowPrimitiveType + Send;

    /// The result for a total of so many values, more than none; `None` when it does not fit.
    fn result(&self, total: Number<S>, count: u64) -> Option<<Self::Result as ArrowPrimitiveType>::Native>;

    /// The result's type.
    fn data_type(&self) -> &DataType;

    /// Whether [`Outcome::result`] looks at the count.
    const COUNTS: bool;
}

/// The type in which totals of values of a type travel.
pub(super) fn travels_as(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) => {
            DataType::Decimal128(38, *scale)
        }
        DataType::Decimal256(_, scale) => DataType::Decimal256(76, *scale),
        _ => DataType::Decimal128(38, 0),
    }
}

/// What is said when an aggregate does not fit into its type.
fn overflow(name: &str, data_type: &DataType) -> DataFusionError {
    checked::overflow(name, &sql_type(data_type))
}

/// A number of rows as one of these totals counts them.
fn count_of(values: &dyn Array) -> u64 {
    (values.len() - values.null_count()) as u64
}

/// The result, or the error with the aggregate's name.
fn checked_result<S: Summand, O: Outcome<S>>(
    outcome: &O,
    name: &str,
    total: Number<S>,
    count: u64,
) -> Result<<O::Result as ArrowPrimitiveType>::Native> {
    outcome.result(total, count).ok_or_else(|| overflow(name, outcome.data_type()))
}

#[cfg(test)]
mod tests;
