#![allow(clippy::unwrap_used)]

use datafusion::arrow::array::{Int64Array, UInt64Array};

use super::*;

#[test]
fn halves_add_up_to_the_whole() {
    let cases: [&[i64]; 5] = [
        &[],
        &[i64::MIN, i64::MIN, i64::MIN],
        &[i64::MAX, i64::MAX, 1],
        &[-1, 1, -4_294_967_296, 4_294_967_295],
        &[i64::MIN, i64::MAX],
    ];
    for values in cases {
        let expected: i128 = values.iter().map(|value| i128::from(*value)).sum();
        assert_eq!(Int64Type::add_up(&Int64Array::from(values.to_vec())), Some(expected));
        let with_null = values.iter().map(|value| Some(*value)).chain([None]);
        assert_eq!(Int64Type::add_up(&Int64Array::from_iter(with_null)), Some(expected));
    }
    let unsigned = UInt64Array::from(vec![u64::MAX, u64::MAX, 1]);
    assert_eq!(UInt64Type::add_up(&unsigned), Some(2 * i128::from(u64::MAX) + 1));
}

#[test]
fn totals_of_256_bits_say_when_they_wrap() {
    let mut total = i256::MAX;
    assert!(!total.add(i256::ZERO));
    assert!(!total.add(i256::from_i128(-1)));
    assert!(!total.take(i256::from_i128(-1)));
    assert!(total.add(i256::from_i128(1)));
    let mut total = i256::MIN;
    assert!(!total.take(i256::ZERO));
    assert!(total.take(i256::from_i128(1)));
}
