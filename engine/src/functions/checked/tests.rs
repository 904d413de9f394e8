#![allow(clippy::unwrap_used)]

use datafusion::arrow::array::{Int8Array, Int64Array, UInt64Array};

use super::*;

fn checked(operator: Operator, left: ArrayRef, right: ArrayRef) -> Option<ArrayRef> {
    Checked::new(operator).arrays(&left, &right).unwrap()
}

#[test]
fn every_pair_of_bytes_is_as_in_wide_arithmetic() {
    for operator in OPERATORS {
        for left in i8::MIN..=i8::MAX {
            let rights: Vec<i8> = (i8::MIN..=i8::MAX).collect();
            for right in rights {
                let (wide_left, wide_right) = (i16::from(left), i16::from(right));
                let expected = match operator {
                    Operator::Plus => wide_left + wide_right,
                    Operator::Minus => wide_left - wide_right,
                    _ => wide_left * wide_right,
                };
                let result =
                    checked(operator, Arc::new(Int8Array::from(vec![left])), Arc::new(Int8Array::from(vec![right])));
                let result =
                    result.map(|array| array.as_primitive::<datafusion::arrow::datatypes::Int8Type>().value(0));
                assert_eq!(result, i8::try_from(expected).ok(), "{left} {operator} {right}");
            }
        }
    }
}

#[test]
fn rubbish_under_a_null_does_not_overflow() {
    let values = datafusion::arrow::buffer::ScalarBuffer::from(vec![i64::MAX, 1]);
    let nulls = datafusion::arrow::buffer::NullBuffer::from(vec![false, true]);
    let left: ArrayRef = Arc::new(Int64Array::new(values, Some(nulls)));
    let right: ArrayRef = Arc::new(Int64Array::from(vec![1, 1]));
    let sum = checked(Operator::Plus, left, right).unwrap();
    assert_eq!(sum.as_ref(), &Int64Array::from(vec![None, Some(2)]) as &dyn Array);
}

#[test]
fn unsigned_numbers_do_not_go_below_zero() {
    let zero: ArrayRef = Arc::new(UInt64Array::from(vec![0]));
    let one: ArrayRef = Arc::new(UInt64Array::from(vec![1]));
    assert!(checked(Operator::Minus, Arc::clone(&zero), Arc::clone(&one)).is_none());
    assert!(checked(Operator::Plus, zero, one).is_some());
}
