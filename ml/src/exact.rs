//! Sums of floating-point numbers that do not depend on the order of the terms.
//!
//! [`ExactSum`] is a fixed-point number wide enough for every finite `f64` (Radford Neal, "Fast exact summation using
//! small and large superaccumulators", 2015, the small one): adding is integer addition, therefore associative, and
//! rounding happens once, when the value is read. [`ExactMoments`] builds count, mean and variance on it.
//!
//! Always holds: any partitioning of the rows and any order of merging gives the same bits, in the value and in the
//! serialised state. This module knows nothing of SQL; [`crate::statistics`] wraps it for queries.

/// Chunks of the accumulator. Bit 0 of chunk 0 weighs 2^-1074; each chunk is 32 bits further. The largest finite
/// number ends at bit 2097 and 2^64 of them at bit 2162, inside chunk 67; two chunks are to spare.
const CHUNKS: usize = 70;
/// Terms that may be added before carries must move: each adds less than 2^52 to a chunk of 63 bits.
const PENDING_MAX: u32 = 1 << 10;
/// The upper 1 + 11 + 25 bits of a number: what is left of it after rounding to 26 significant bits.
const UPPER_HALF: u64 = !((1 << 27) - 1);

/// The exact sum of the numbers added so far.
#[derive(Clone)]
pub struct ExactSum {
    /// Signed, overlapping by carries that have not moved yet.
    chunks: [i64; CHUNKS],
    /// Terms added since carries last moved.
    pending: u32,
    /// Infinities and NaN seen: they decide the value as IEEE addition would.
    special: Special,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Special {
    nan: bool,
    plus_infinity: bool,
    minus_infinity: bool,
}

impl Default for ExactSum {
    fn default() -> Self {
        ExactSum::new()
    }
}

impl std::fmt::Debug for ExactSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExactSum({:e})", self.value())
    }
}

impl PartialEq for ExactSum {
    fn eq(&self, other: &Self) -> bool {
        self.special == other.special && self.digits() == other.digits()
    }
}

impl ExactSum {
    /// Zero.
    pub fn new() -> Self {
        ExactSum { chunks: [0; CHUNKS], pending: 0, special: Special::default() }
    }

    /// Adds one number.
    #[inline]
    pub fn add(&mut self, x: f64) {
        if self.pending == PENDING_MAX {
            self.carry();
        }
        self.pending += 1;
        if !x.is_finite() {
            return self.special.add(x);
        }
        add_finite(&mut self.chunks, x);
    }

    /// Adds every number of `values`: the same as [`ExactSum::add`] one by one, at about a nanosecond each.
    pub fn add_slice(&mut self, values: &[f64]) {
        for block in values.chunks(PENDING_MAX as usize) {
            if !block.iter().fold(true, |all, x| all & x.is_finite()) {
                block.iter().for_each(|x| self.add(*x));
                continue;
            }
            self.carry();
            self.pending = block.len() as u32;
            // Two accumulators by turns: neighbours tend to fall into the same chunk, and the second addition would
            // wait for the first one's store.
            let mut other = [0i64; CHUNKS];
            let mut pairs = block.chunks_exact(2);
            for pair in &mut pairs {
                add_finite(&mut self.chunks, pair[0]);
                add_finite(&mut other, pair[1]);
            }
            pairs.remainder().iter().for_each(|x| add_finite(&mut other, *x));
            self.chunks.iter_mut().zip(other).for_each(|(chunk, more)| *chunk += more);
        }
    }

    /// Adds the squares of `values`, each without rounding (short of underflow below 2^-1022, which rounds each square
    /// by itself and so keeps the sum free of order). Squares above the largest finite number count as infinite.
    pub fn add_squares(&mut self, values: &[f64]) {
        let (mut upper, mut lower) = ([0.0; 256], [0.0; 256]);
        for block in values.chunks(256) {
            let (upper, lower) = (&mut upper[..block.len()], &mut lower[..block.len()]);
            let mut any_lower = false;
            for i in 0..block.len() {
                (upper[i], lower[i]) = square(block[i]);
                any_lower |= lower[i] != 0.0;
            }
            self.add_slice(upper);
            if any_lower {
                self.add_slice(lower);
            }
        }
    }

    /// Adds `a * b` without rounding, under the conditions of [`ExactSum::add_squares`].
    pub fn add_product(&mut self, a: f64, b: f64) {
        let (upper, lower) = product(a, b);
        self.add(upper);
        self.add(lower);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        self.carry();
        let mut other = other.clone();
        other.carry();
        self.chunks.iter_mut().zip(other.chunks).for_each(|(chunk, more)| *chunk += more);
        // Two normalised numbers: no chunk exceeds 2^33, far from the limit of the pending terms.
        self.pending = 1;
        self.special.nan |= other.special.nan;
        self.special.plus_infinity |= other.special.plus_infinity;
        self.special.minus_infinity |= other.special.minus_infinity;
    }

    /// The sum, rounded once to the nearest `f64` (ties to even).
    pub fn value(&self) -> f64 {
        if let Some(special) = self.special.value() {
            return special;
        }
        let mut digits = self.digits();
        let negative = negate_if_negative(&mut digits);
        let magnitude = round(&digits);
        if negative { -magnitude } else { magnitude }
    }

    /// The sum as up to `N` numbers, largest first, of which each is the rounded rest: `N` = 3 keeps about 160 bits.
    pub fn parts<const N: usize>(&self) -> [f64; N] {
        let mut rest = self.clone();
        std::array::from_fn(|_| {
            let part = rest.value();
            if part.is_finite() {
                rest.add(-part);
            }
            part
        })
    }

    /// The state in few bytes, the same bytes for the same sum however it came about: flags, first chunk, chunks as
    /// 32-bit digits in two's complement without the zeros below and the repeated sign above.
    pub fn to_bytes(&self) -> Vec<u8> {
        let digits = self.digits();
        let first = digits.iter().position(|d| *d != 0).unwrap_or(CHUNKS);
        let sign = if digits[CHUNKS - 1] >> 31 == 1 { u32::MAX } else { 0 };
        let end = digits.iter().rposition(|d| *d != sign).map_or(0, |last| last + 1).max(first);
        let flags = u8::from(self.special.nan)
            | u8::from(self.special.plus_infinity) << 1
            | u8::from(self.special.minus_infinity) << 2
            | u8::from(sign != 0) << 3;
        let mut bytes = vec![flags, first as u8, (end - first) as u8];
        digits[first..end].iter().for_each(|d| bytes.extend_from_slice(&d.to_le_bytes()));
        bytes
    }

    /// Reads what [`ExactSum::to_bytes`] wrote from the front of `bytes` and moves past it; `None` when it is not that.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (&[flags, first, count], rest) = bytes.split_first_chunk::<3>()?;
        let (first, count) = (first as usize, count as usize);
        if first + count > CHUNKS || rest.len() < 4 * count || flags > 15 {
            return None;
        }
        let mut sum = ExactSum::new();
        for (chunk, digit) in sum.chunks[first..].iter_mut().zip(rest[..4 * count].chunks_exact(4)) {
            *chunk = i64::from(u32::from_le_bytes(digit.try_into().ok()?));
        }
        if flags & 8 != 0 {
            sum.chunks[first + count..].fill(i64::from(u32::MAX));
            // The last chunk holds the sign of the whole.
            sum.chunks[CHUNKS - 1] -= 1 << 32;
        }
        sum.special = Special { nan: flags & 1 != 0, plus_infinity: flags & 2 != 0, minus_infinity: flags & 4 != 0 };
        *bytes = &rest[4 * count..];
        Some(sum)
    }

    /// Moves the carries: every chunk but the last becomes a digit in 0..2^32, the last one keeps the sign.
    fn carry(&mut self) {
        if self.pending == 0 {
            return;
        }
        let mut carried = 0i64;
        for chunk in &mut self.chunks[..CHUNKS - 1] {
            let whole = *chunk + carried;
            *chunk = whole & 0xffff_ffff;
            carried = whole >> 32;
        }
        self.chunks[CHUNKS - 1] += carried;
        self.pending = 0;
    }

    /// The sum's finite part in two's complement, lowest digit first.
    fn digits(&self) -> [u32; CHUNKS] {
        let mut carried = self.clone();
        carried.carry();
        std::array::from_fn(|i| carried.chunks[i] as u32)
    }
}

impl Special {
    #[cold]
    fn add(&mut self, x: f64) {
        if x.is_nan() {
            self.nan = true;
        } else if x > 0.0 {
            self.plus_infinity = true;
        } else {
            self.minus_infinity = true;
        }
    }

    fn value(self) -> Option<f64> {
        match (self.nan, self.plus_infinity, self.minus_infinity) {
            (false, false, false) => None,
            (false, true, false) => Some(f64::INFINITY),
            (false, false, true) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }
}

/// Adds a finite number: its 53 bits, shifted by its exponent, fall into two neighbouring chunks.
#[inline(always)]
fn add_finite(chunks: &mut [i64; CHUNKS], x: f64) {
    let bits = x.to_bits();
    let exponent = (bits >> 52) & 0x7ff;
    let mantissa = (bits & ((1 << 52) - 1)) | (u64::from(exponent != 0) << 52);
    // Subnormal numbers share their scale with exponent 1.
    let shift = exponent.max(1) - 1;
    let (chunk, offset) = ((shift >> 5) as usize, shift & 31);
    let sign = (bits as i64) >> 63; // 0 or -1: (v ^ sign) - sign negates
    let low = ((mantissa << offset) & 0xffff_ffff) as i64;
    let high = (mantissa >> (32 - offset)) as i64;
    chunks[chunk] += (low ^ sign) - sign;
    chunks[chunk + 1] += (high ^ sign) - sign;
}

/// The magnitude in place; whether the number was negative.
fn negate_if_negative(digits: &mut [u32; CHUNKS]) -> bool {
    let negative = digits[CHUNKS - 1] >> 31 == 1;
    if negative {
        let mut carry = true;
        for digit in digits {
            (*digit, carry) = (!*digit).overflowing_add(u32::from(carry));
        }
    }
    negative
}

/// Rounds a magnitude (lowest digit first, bit 0 = 2^-1074) to the nearest number, ties to even.
fn round(digits: &[u32; CHUNKS]) -> f64 {
    let Some(top) = digits.iter().rposition(|d| *d != 0) else { return 0.0 };
    let bits = top * 32 + (32 - digits[top].leading_zeros() as usize); // length of the magnitude
    if bits <= 53 {
        // Subnormal, or exact: the two lowest digits are the bits of the number itself, since the exponent field
        // counts on where the mantissa overflows.
        return f64::from_bits(u64::from(digits[0]) | u64::from(digits[1]) << 32);
    }
    let cut = bits - 53; // bits below the mantissa
    let at = |i: usize| digits.get(i).map_or(0, |d| u64::from(*d));
    let (word, offset) = (cut / 32, cut % 32);
    let window = u128::from(at(word)) | u128::from(at(word + 1)) << 32 | u128::from(at(word + 2)) << 64;
    let mantissa = (window >> offset) as u64 & ((1 << 53) - 1);
    let half = digits[(cut - 1) / 32] >> ((cut - 1) % 32) & 1 == 1;
    let below = (cut - 1) / 32;
    let sticky = digits[..below].iter().any(|d| *d != 0) || digits[below] & ((1u32 << ((cut - 1) % 32)) - 1) != 0;
    let rounded = mantissa + u64::from(half && (sticky || mantissa & 1 == 1));
    // Exponent field: a magnitude of 53 bits has field 1; a mantissa rounded up to 2^53 carries into the field.
    let field = cut as u64 + 1;
    if field >= 0x7ff {
        return f64::INFINITY;
    }
    f64::from_bits(((field - 1) << 52) + rounded)
}

/// `x * x` as a rounded product and its error, both exact (Dekker 1971). The halves are cut by rounding the bits, which
/// unlike Veltkamp's multiplication cannot overflow.
#[inline(always)]
fn square(x: f64) -> (f64, f64) {
    let upper = x * x;
    let a = upper_half(x);
    let b = x - a;
    let lower = ((a * a - upper) + 2.0 * (a * b)) + b * b;
    (upper, if upper.is_finite() { lower } else { 0.0 })
}

/// `x * y` as a rounded product and its error, both exact.
fn product(x: f64, y: f64) -> (f64, f64) {
    let upper = x * y;
    let (a, c) = (upper_half(x), upper_half(y));
    let (b, d) = (x - a, y - c);
    let lower = (((a * c - upper) + a * d) + b * c) + b * d;
    (upper, if upper.is_finite() { lower } else { 0.0 })
}

/// `x` rounded to 26 significant bits; the rest fits 26 bits, too.
#[inline(always)]
fn upper_half(x: f64) -> f64 {
    f64::from_bits(x.to_bits().wrapping_add(1 << 26) & UPPER_HALF)
}

/// Count, extremes, and sums of a column and of its squares.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExactMoments {
    /// Values seen, NaN and infinities included.
    pub count: u64,
    /// NaN and infinities among them.
    pub not_finite: u64,
    /// Smallest and largest value; NaN does not take part, -0 counts as 0.
    range: Option<(f64, f64)>,
    sum: ExactSum,
    squares: ExactSum,
}

impl ExactMoments {
    /// Of no values.
    pub fn new() -> Self {
        ExactMoments::default()
    }

    /// Takes the values in.
    pub fn add_slice(&mut self, values: &[f64]) {
        self.count += values.len() as u64;
        self.not_finite += values.iter().filter(|x| !x.is_finite()).count() as u64;
        self.sum.add_slice(values);
        self.squares.add_squares(values);
        // f64::min and max drop a NaN on either side.
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low <= high {
            self.widen(low, high);
        }
    }

    fn widen(&mut self, low: f64, high: f64) {
        let (a, b) = self.range.unwrap_or((low, high));
        // + 0.0 turns -0 into 0: which of two equal zeros came first must not show.
        self.range = Some((a.min(low) + 0.0, b.max(high) + 0.0));
    }

    /// Takes in what another has seen.
    pub fn merge(&mut self, other: &ExactMoments) {
        self.count += other.count;
        self.not_finite += other.not_finite;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
        if let Some((low, high)) = other.range {
            self.widen(low, high);
        }
    }

    /// The sum.
    pub fn sum(&self) -> f64 {
        self.sum.value()
    }

    /// The sum of the squares.
    pub fn sum_of_squares(&self) -> f64 {
        self.squares.value()
    }

    /// Smallest value that is not NaN.
    pub fn min(&self) -> Option<f64> {
        self.range.map(|(low, _)| low)
    }

    /// Largest value that is not NaN.
    pub fn max(&self) -> Option<f64> {
        self.range.map(|(_, high)| high)
    }

    /// Largest magnitude.
    pub fn max_abs(&self) -> Option<f64> {
        self.range.map(|(low, high)| low.abs().max(high.abs()))
    }

    /// The mean, within one rounding of the exact one; NaN when a NaN or both infinities were seen.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum.value() / self.count as f64)
    }

    /// The sum of squared distances from the mean, Σ(x - x̄)² = (n Σx² - (Σx)²) / n, without cancellation: the
    /// difference is taken exactly, of sums of about 160 bits.
    pub fn squared_deviations(&self) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        if self.not_finite > 0 {
            return Some(f64::NAN);
        }
        let n = self.count as f64;
        let mut difference = ExactSum::new();
        for part in self.squares.parts::<3>() {
            difference.add_product(part, n);
        }
        let sum = self.sum.parts::<3>();
        for a in sum {
            for b in sum {
                difference.add_product(-a, b);
            }
        }
        Some((difference.value() / n).max(0.0))
    }

    /// Population variance (divides by n).
    pub fn variance(&self) -> Option<f64> {
        self.squared_deviations().map(|d| d / self.count as f64)
    }

    /// Population standard deviation.
    pub fn stddev(&self) -> Option<f64> {
        self.variance().map(f64::sqrt)
    }

    /// The state in few bytes, equal for equal rows however partitioned.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (low, high) = self.range.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.not_finite.to_le_bytes());
        bytes.extend_from_slice(&low.to_le_bytes());
        bytes.extend_from_slice(&high.to_le_bytes());
        bytes.extend(self.sum.to_bytes());
        bytes.extend(self.squares.to_bytes());
        bytes
    }

    /// Reads what [`ExactMoments::to_bytes`] wrote from the front of `bytes` and moves past it.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let count = u64::from_le_bytes(take(bytes)?);
        let not_finite = u64::from_le_bytes(take(bytes)?);
        let (low, high) = (f64::from_le_bytes(take(bytes)?), f64::from_le_bytes(take(bytes)?));
        let (sum, squares) = (ExactSum::read(bytes)?, ExactSum::read(bytes)?);
        Some(ExactMoments { count, not_finite, range: (low <= high).then_some((low, high)), sum, squares })
    }
}

/// The next eight bytes of a state.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<[u8; 8]> {
    let (word, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(*word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator for test inputs: numbers of mixed signs with exponents in -`spread`..=`spread`.
    struct Numbers(u64);

    impl Numbers {
        fn bits(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn number(&mut self, spread: u64) -> f64 {
            let exponent = 1023 - spread + self.bits() % (2 * spread + 1);
            f64::from_bits(self.bits() & 0x800f_ffff_ffff_ffff | exponent << 52)
        }
    }

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::new();
        sum.add_slice(values);
        sum.value()
    }

    #[test]
    fn rounds_once() {
        let tiny = f64::from_bits(1);
        let cases: &[(&[f64], f64)] = &[
            (&[], 0.0),
            (&[0.1], 0.1),
            (&[-0.1], -0.1),
            (&[1e308, 1e308, -1e308], 1e308),
            (&[f64::MAX, f64::MAX], f64::INFINITY),
            (&[-f64::MAX, -f64::MAX], f64::NEG_INFINITY),
            (&[1e100, 1.0, -1e100], 1.0),
            (&[tiny, tiny], f64::from_bits(2)),
            (&[f64::MIN_POSITIVE, -tiny], f64::from_bits((1 << 52) - 1)),
            (&[1.0, tiny], 1.0),
            (&[1.0, f64::EPSILON / 2.0], 1.0), // a tie goes to even
            (&[1.0, f64::EPSILON / 2.0, tiny], 1.0 + f64::EPSILON), // the tiniest bit breaks the tie
            (&[1.0 + f64::EPSILON, f64::EPSILON / 2.0], 1.0 + 2.0 * f64::EPSILON),
            (&[9007199254740991.0, 0.5], 9007199254740992.0),
            (&[f64::INFINITY, 1.0], f64::INFINITY),
            (&[0.1, 0.2, 0.3, -0.6], 2.7755575615628914e-17), // what fsum answers
        ];
        for (values, expected) in cases {
            assert_eq!(sum(values).to_bits(), expected.to_bits(), "{values:?} gave {}", sum(values));
        }
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
    }

    #[test]
    fn agrees_with_wide_integers() {
        // Multiples of 2^-40 below 2^60 sum exactly in i128: the naive twin.
        let mut numbers = Numbers(1);
        for _ in 0..200 {
            let integers: Vec<i64> = (0..300).map(|_| (numbers.bits() as i64) >> (11 + numbers.bits() % 50)).collect();
            let values: Vec<f64> = integers.iter().map(|i| *i as f64 / (1u64 << 40) as f64).collect();
            let exact: i128 = integers.iter().map(|i| i128::from(*i)).sum();
            assert_eq!(sum(&values), exact as f64 / (1u64 << 40) as f64);
        }
    }

    #[test]
    fn any_order_and_partitioning_gives_the_same_bytes() {
        let mut numbers = Numbers(2);
        for spread in [0, 3, 40, 300, 1000] {
            let mut values: Vec<f64> = (0..5000).map(|_| numbers.number(spread)).collect();
            let mut whole = ExactMoments::new();
            whole.add_slice(&values);
            for round in 1..8 {
                for i in (1..values.len()).rev() {
                    values.swap(i, (numbers.bits() % (i as u64 + 1)) as usize);
                }
                let mut parts: Vec<ExactMoments> = Vec::new();
                let mut rest = values.as_slice();
                while !rest.is_empty() {
                    let (part, after) = rest.split_at((numbers.bits() % (700 * round)).min(rest.len() as u64) as usize);
                    let mut moments = ExactMoments::new();
                    moments.add_slice(part);
                    // Through bytes, as between processes.
                    parts.push(ExactMoments::read(&mut moments.to_bytes().as_slice()).unwrap());
                    rest = after;
                }
                while parts.len() > 1 {
                    let at = (numbers.bits() % parts.len() as u64) as usize;
                    let part = parts.swap_remove(at);
                    let into = (numbers.bits() % parts.len() as u64) as usize;
                    parts[into].merge(&part);
                }
                assert_eq!(parts[0].to_bytes(), whole.to_bytes());
                assert_eq!(parts[0], whole);
            }
        }
    }

    #[test]
    fn many_terms_of_one_sign_move_their_carries() {
        let mut one_by_one = ExactSum::new();
        let x = f64::from_bits(0x3fff_ffff_ffff_ffff); // all bits set
        (0..100_000).for_each(|_| one_by_one.add(-x));
        assert_eq!(one_by_one.value(), -x * 100_000.0);
        assert_eq!(sum(&vec![-x; 100_000]), -x * 100_000.0);
        let mut doubled = one_by_one.clone();
        (0..40).for_each(|_| doubled.merge(&doubled.clone()));
        assert_eq!(doubled.value(), one_by_one.value() * (1u64 << 40) as f64);
    }

    #[test]
    fn squares_and_products_are_exact() {
        let mut numbers = Numbers(3);
        for _ in 0..10_000 {
            let (x, y) = (numbers.number(200), numbers.number(200));
            let (upper, lower) = square(x);
            assert_eq!((upper, lower), (x * x, x.mul_add(x, -(x * x))));
            let (upper, lower) = product(x, y);
            assert_eq!((upper, lower), (x * y, x.mul_add(y, -(x * y))));
        }
        let mut overflow = ExactSum::new();
        overflow.add_squares(&[1e200, 1.0]);
        assert_eq!(overflow.value(), f64::INFINITY);
    }

    #[test]
    fn variance_survives_a_large_mean() {
        let mut moments = ExactMoments::new();
        moments.add_slice(&[1e15 + 4.0, 1e15 + 7.0, 1e15 + 13.0, 1e15 + 16.0]);
        assert_eq!(moments.variance(), Some(22.5));
        assert_eq!(moments.mean(), Some(1e15 + 10.0));
        let mut constant = ExactMoments::new();
        constant.add_slice(&[0.1; 1000]);
        assert_eq!(constant.stddev(), Some(0.0));
        assert_eq!(ExactMoments::new().stddev(), None);
    }

    #[test]
    fn not_finite_values_are_counted_and_show() {
        let mut moments = ExactMoments::new();
        moments.add_slice(&[1.0, f64::NAN, -3.0]);
        moments.add_slice(&[f64::INFINITY]);
        assert_eq!((moments.count, moments.not_finite), (4, 2));
        assert_eq!((moments.min(), moments.max()), (Some(-3.0), Some(f64::INFINITY)));
        assert!(moments.mean().unwrap().is_nan() && moments.stddev().unwrap().is_nan());
    }

    #[test]
    fn a_damaged_state_is_refused() {
        let mut moments = ExactMoments::new();
        moments.add_slice(&[1.5, -2e30]);
        let bytes = moments.to_bytes();
        for length in 0..bytes.len() {
            assert!(ExactMoments::read(&mut &bytes[..length]).is_none());
        }
    }
}
