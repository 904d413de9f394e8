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

#[test]
fn quotients_round_half_away_from_zero() {
    let cases = [
        (1, 3, 4, 3333),
        (2, 3, 4, 6667),
        (-2, 3, 4, -6667),
        (1, 2, 0, 1),
        (-1, 2, 0, -1),
        (1, 32, 4, 313),
        (7, 7, 2, 100),
    ];
    for (total, count, digits, expected) in cases {
        assert_eq!(i128::from(total).quotient(count, digits), Some(expected), "{total} / {count}");
        assert_eq!(
            i256::from_i128(total.into()).quotient(count, digits),
            Some(i256::from_i128(expected)),
            "{total} / {count}"
        );
    }
    assert_eq!(i128::MAX.quotient(1, 1), None);
    assert_eq!(i256::MIN.quotient(1, 1), None);
    assert_eq!(i128::MAX.quotient(u64::MAX, 4), Some(92_233_720_368_547_758_085_000));
}
