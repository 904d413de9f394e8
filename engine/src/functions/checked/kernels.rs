//! Arithmetic of whole numbers: computed as if nothing could overflow, which the compiler turns into vector instructions,
//! then looked through for results that have wrapped around. Only a batch that has one is computed again value by value:
//! what wrapped may have been the rubbish under a NULL.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray};
use datafusion::arrow::compute::{binary, try_binary, unary};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;

/// Whole numbers that tell whether an operation on them has wrapped around.
pub(super) trait Whole: ArrowNativeTypeOp {
    fn sum_wrapped(self, other: Self, sum: Self) -> bool;
    fn difference_wrapped(self, other: Self, difference: Self) -> bool;
    fn product_wrapped(self, other: Self, product: Self) -> bool;
}

macro_rules! whole {
    (signed: $($native:ty as $wide:ty),*) => {$(
        impl Whole for $native {
            fn sum_wrapped(self, other: Self, sum: Self) -> bool {
                ((self ^ sum) & (other ^ sum)) < 0
            }
            fn difference_wrapped(self, other: Self, difference: Self) -> bool {
                ((self ^ other) & (self ^ difference)) < 0
            }
            fn product_wrapped(self, other: Self, product: Self) -> bool {
                <$wide>::from(self) * <$wide>::from(other) != <$wide>::from(product)
            }
        }
    )*};
    (unsigned: $($native:ty as $wide:ty),*) => {$(
        impl Whole for $native {
            fn sum_wrapped(self, _other: Self, sum: Self) -> bool {
                sum < self
            }
            fn difference_wrapped(self, other: Self, _difference: Self) -> bool {
                self < other
            }
            fn product_wrapped(self, other: Self, product: Self) -> bool {
                <$wide>::from(self) * <$wide>::from(other) != <$wide>::from(product)
            }
        }
    )*};
}

whole!(signed: i8 as i16, i16 as i32, i32 as i64, i64 as i128);
whole!(unsigned: u8 as u16, u16 as u32, u32 as u64, u64 as u128);

macro_rules! of_whole_type {
    ($data_type:expr, $function:ident, $($argument:expr),*) => {
        match $data_type {
            DataType::Int8 => $function::<Int8Type>($($argument),*),
            DataType::Int16 => $function::<Int16Type>($($argument),*),
            DataType::Int32 => $function::<Int32Type>($($argument),*),
            DataType::Int64 => $function::<Int64Type>($($argument),*),
            DataType::UInt8 => $function::<UInt8Type>($($argument),*),
            DataType::UInt16 => $function::<UInt16Type>($($argument),*),
            DataType::UInt32 => $function::<UInt32Type>($($argument),*),
            DataType::UInt64 => $function::<UInt64Type>($($argument),*),
            _ => None,
        }
    };
}

/// Two columns of one type of whole numbers: the result, or nothing in it where it overflows. `None` for other types.
pub(super) fn whole(operator: Operator, left: &ArrayRef, right: &ArrayRef) -> Option<Option<ArrayRef>> {
    if left.data_type() != right.data_type() || left.len() != right.len() {
        return None;
    }
    of_whole_type!(left.data_type(), columns, operator, left, right)
}

/// A column and a number of its type, in this order or turned round: `None` for other types and where it overflows.
pub(super) fn whole_and_number(
    operator: Operator,
    column: &ArrayRef,
    number: &ScalarValue,
    turned: bool,
) -> Option<ArrayRef> {
    if *column.data_type() != number.data_type() {
        return None;
    }
    of_whole_type!(column.data_type(), column_and_number, operator, column, number, turned)
}

fn columns<T>(operator: Operator, left: &ArrayRef, right: &ArrayRef) -> Option<Option<ArrayRef>>
where
    T: ArrowPrimitiveType,
    T::Native: Whole,
{
    let (left, right) = (left.as_primitive::<T>(), right.as_primitive::<T>());
    let result = match operator {
        Operator::Plus => checked(left, right, T::Native::add_wrapping, Whole::sum_wrapped, T::Native::add_checked),
        Operator::Minus => {
            checked(left, right, T::Native::sub_wrapping, Whole::difference_wrapped, T::Native::sub_checked)
        }
        _ => checked(left, right, T::Native::mul_wrapping, Whole::product_wrapped, T::Native::mul_checked),
    };
    Some(result.map(|result| Arc::new(result) as ArrayRef))
}

fn checked<T: ArrowPrimitiveType>(
    left: &PrimitiveArray<T>,
    right: &PrimitiveArray<T>,
    compute: impl Fn(T::Native, T::Native) -> T::Native,
    has_wrapped: impl Fn(T::Native, T::Native, T::Native) -> bool,
    compute_checked: impl Fn(T::Native, T::Native) -> Result<T::Native, datafusion::arrow::error::ArrowError>,
) -> Option<PrimitiveArray<T>> {
    let result: PrimitiveArray<T> = binary(left, right, compute).ok()?;
    let values = left.values().iter().zip(right.values().iter()).zip(result.values().iter());
    let wrapped = values.fold(false, |found, ((left, right), result)| found | has_wrapped(*left, *right, *result));
    if wrapped { try_binary(left, right, compute_checked).ok() } else { Some(result) }
}

fn column_and_number<T>(operator: Operator, column: &ArrayRef, number: &ScalarValue, turned: bool) -> Option<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Whole,
{
    let column = column.as_primitive::<T>();
    let number = number.to_array().ok()?.as_primitive::<T>().value(0);
    let result = match operator {
        Operator::Plus => against(column, number, turned, T::Native::add_wrapping, Whole::sum_wrapped),
        Operator::Minus => against(column, number, turned, T::Native::sub_wrapping, Whole::difference_wrapped),
        _ => against(column, number, turned, T::Native::mul_wrapping, Whole::product_wrapped),
    };
    result.map(|result| Arc::new(result) as ArrayRef)
}

fn against<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    number: T::Native,
    turned: bool,
    compute: impl Fn(T::Native, T::Native) -> T::Native,
    has_wrapped: impl Fn(T::Native, T::Native, T::Native) -> bool,
) -> Option<PrimitiveArray<T>> {
    if turned {
        checked_number(column, |value| compute(number, value), |value, result| has_wrapped(number, value, result))
    } else {
        checked_number(column, |value| compute(value, number), |value, result| has_wrapped(value, number, result))
    }
}

fn checked_number<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    compute: impl Fn(T::Native) -> T::Native,
    has_wrapped: impl Fn(T::Native, T::Native) -> bool,
) -> Option<PrimitiveArray<T>> {
    let result: PrimitiveArray<T> = unary(column, compute);
    let values = column.values().iter().zip(result.values().iter());
    let wrapped = values.fold(false, |found, (value, result)| found | has_wrapped(*value, *result));
    (!wrapped).then_some(result)
}
