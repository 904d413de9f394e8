//! How often each distinct number occurs: the state behind exact quantiles and exact ROC curves.
//!
//! Always holds: the content depends on the multiset of numbers alone, not on their order or on how tallies were
//! merged; memory is bounded by the number of distinct values (16 bytes each, three times that while compacting), not
//! by the rows.

use crate::exact::take;

/// Numbers that wait before they are sorted in: large enough to sort in bulk, small enough to stay in a cache.
const WAITING_MIN: usize = 1 << 16;

/// Distinct numbers with their counts. -0 counts as 0; every NaN is the same, greatest value.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Ascending, distinct.
    values: Vec<f64>,
    /// One per value, at least 1.
    counts: Vec<u64>,
    /// Not sorted in yet.
    waiting: Vec<f64>,
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Tally {
    /// Of nothing.
    pub fn new() -> Self {
        Tally::default()
    }

    /// Counts one number.
    #[inline]
    pub fn add(&mut self, x: f64) {
        self.waiting.push(canonical(x));
        if self.waiting.len() >= WAITING_MIN.max(self.values.len()) {
            self.settle();
        }
    }

    /// Counts every number of `values`.
    pub fn add_slice(&mut self, values: &[f64]) {
        values.iter().for_each(|x| self.add(*x));
    }

    /// Adds another tally's counts.
    pub fn merge(&mut self, other: &Tally) {
        other.waiting.iter().for_each(|x| self.add(*x));
        self.settle();
        (self.values, self.counts) = merge_runs((&self.values, &self.counts), (&other.values, &other.counts));
    }

    /// The distinct values ascending (NaN last), each with its count.
    pub fn runs(&mut self) -> impl DoubleEndedIterator<Item = (f64, u64)> + '_ {
        self.settle();
        self.values.iter().copied().zip(self.counts.iter().copied())
    }

    /// How many numbers were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.waiting.len() as u64
    }

    /// Bytes held on the heap.
    pub fn size(&self) -> usize {
        8 * (self.values.capacity() + self.counts.capacity() + self.waiting.capacity())
    }

    /// The quantiles at `probabilities` (each in 0..=1), with linear interpolation between neighbours as NumPy's
    /// default (type 7 of Hyndman and Fan, 1996), to the same bits. `None` of no values; NaN when one was counted.
    pub fn quantiles(&mut self, probabilities: &[f64]) -> Option<Vec<f64>> {
        self.settle();
        let greatest = *self.values.last()?;
        if greatest.is_nan() {
            return Some(vec![f64::NAN; probabilities.len()]);
        }
        // ends[i] = how many numbers are <= values[i]
        let ends: Vec<u64> = self
            .counts
            .iter()
            .scan(0, |end, count| {
                *end += count;
                Some(*end)
            })
            .collect();
        let n = *ends.last()?;
        let at = |rank: u64| self.values[ends.partition_point(|end| *end <= rank)];
        Some(interpolated(n, probabilities, at))
    }

    /// The state as bytes, equal for equal content: number of runs, values, counts in LEB128.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut settled = std::borrow::Cow::Borrowed(self);
        if !self.waiting.is_empty() {
            settled.to_mut().settle();
        }
        let mut bytes = Vec::with_capacity(8 + 9 * settled.values.len());
        bytes.extend_from_slice(&(settled.values.len() as u64).to_le_bytes());
        settled.values.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        settled.counts.iter().for_each(|count| write_varint(&mut bytes, *count));
        bytes
    }

    /// Reads what [`Tally::to_bytes`] wrote from the front of `bytes` and moves past it; `None` when it is not that.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let runs = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
        if runs > bytes.len() / 9 {
            return None;
        }
        let values = (0..runs).map(|_| take(bytes).map(f64::from_le_bytes)).collect::<Option<Vec<_>>>()?;
        let counts = (0..runs).map(|_| read_varint(bytes)).collect::<Option<Vec<_>>>()?;
        let ascending = values.windows(2).all(|pair| pair[0].total_cmp(&pair[1]).is_lt());
        ascending.then_some(Tally { values, counts, waiting: Vec::new() })
    }

    /// Sorts the waiting numbers in.
    fn settle(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.sort_unstable_by(f64::total_cmp);
        let (mut values, mut counts) = (Vec::new(), Vec::<u64>::new());
        for run in self.waiting.chunk_by(|a, b| a.to_bits() == b.to_bits()) {
            values.push(run[0]);
            counts.push(run.len() as u64);
        }
        self.waiting.clear();
        (self.values, self.counts) = merge_runs((&self.values, &self.counts), (&values, &counts));
    }
}

/// Where the quantile at probability `p` of `n` sorted values lies: between a rank and the next, and how far.
fn place(n: u64, p: f64) -> (u64, u64, f64) {
    let position = (n - 1) as f64 * p.clamp(0.0, 1.0);
    let rank = position.floor();
    (rank as u64, (rank as u64 + 1).min(n - 1), position - rank)
}

/// The ranks, from 0, whose values the quantiles at `probabilities` of `n` values are made of.
pub(crate) fn quantile_ranks(n: u64, probabilities: &[f64]) -> Vec<u64> {
    probabilities.iter().flat_map(|p| [place(n, *p).0, place(n, *p).1]).collect()
}

/// The quantiles of `n` sorted values, of which `at` gives those at [`quantile_ranks`].
pub(crate) fn interpolated(n: u64, probabilities: &[f64], at: impl Fn(u64) -> f64) -> Vec<f64> {
    let quantile = |p: &f64| {
        let (rank, next, t) = place(n, *p);
        let (a, b) = (at(rank), at(next));
        if t >= 0.5 { b - (b - a) * (1.0 - t) } else { a + (b - a) * t }
    };
    probabilities.iter().map(quantile).collect()
}

fn canonical(x: f64) -> f64 {
    if x.is_nan() { f64::NAN } else { x + 0.0 }
}

type Runs<'a> = (&'a [f64], &'a [u64]);

fn merge_runs(a: Runs<'_>, b: Runs<'_>) -> (Vec<f64>, Vec<u64>) {
    if a.0.is_empty() {
        return (b.0.to_vec(), b.1.to_vec());
    }
    let length = a.0.len() + b.0.len();
    let (mut values, mut counts) = (Vec::with_capacity(length), Vec::with_capacity(length));
    let (mut i, mut j) = (0, 0);
    while i < a.0.len() || j < b.0.len() {
        let order = match (a.0.get(i), b.0.get(j)) {
            (Some(x), Some(y)) => x.total_cmp(y),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        let (from_a, from_b) = (order.is_le(), order.is_ge());
        values.push(if from_a { a.0[i] } else { b.0[j] });
        counts.push(if from_a { a.1[i] } else { 0 } + if from_b { b.1[j] } else { 0 });
        i += usize::from(from_a);
        j += usize::from(from_b);
    }
    // Few distinct values leave most of the room unused.
    values.shrink_to_fit();
    counts.shrink_to_fit();
    (values, counts)
}

/// Appends `n` in LEB128: seven bits a byte, lowest first.
pub(crate) fn write_varint(bytes: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

/// Reads what [`write_varint`] wrote and moves past it.
pub(crate) fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_as_numpy() {
        // numpy.quantile([...], [0, .1, .25, .5, .77, 1])
        let cases: &[(&[f64], [f64; 6])] = &[
            (&[3.0], [3.0; 6]),
            (&[4.0, 1.0], [1.0, 1.3, 1.75, 2.5, 3.31, 4.0]),
            (&[1.0, 1.0, 1.0, 7.5, -2.0], [-2.0, -0.7999999999999998, 1.0, 1.0, 1.5200000000000005, 7.5]),
        ];
        for (values, expected) in cases {
            let mut tally = Tally::new();
            tally.add_slice(values);
            assert_eq!(tally.quantiles(&[0.0, 0.1, 0.25, 0.5, 0.77, 1.0]).unwrap(), expected, "{values:?}");
        }
        assert_eq!(Tally::new().quantiles(&[0.5]), None);
        let mut tally = Tally::new();
        tally.add_slice(&[1.0, f64::NAN]);
        assert!(tally.quantiles(&[0.5]).unwrap()[0].is_nan());
    }

    #[test]
    fn agrees_with_sorting_everything_for_any_partitioning() {
        let all: Vec<f64> =
            (0..300_000u64).map(|i| ((i * 7919) % 80_021) as f64 * if i % 3 == 0 { -0.5 } else { 0.25 }).collect();
        let mut sorted: Vec<f64> = all.iter().map(|x| x + 0.0).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut whole = Tally::new();
        whole.add_slice(&all);
        for parts in [1, 2, 7] {
            let tallies = all.chunks(all.len() / parts + 1).map(|part| {
                let mut tally = Tally::new();
                tally.add_slice(part);
                Tally::read(&mut tally.to_bytes().as_slice()).unwrap()
            });
            let mut merged = Tally::new();
            tallies.collect::<Vec<_>>().iter().rev().for_each(|tally| merged.merge(tally));
            assert_eq!(merged.to_bytes(), whole.to_bytes());
            let expanded: Vec<f64> = merged.runs().flat_map(|(x, n)| vec![x; n as usize]).collect();
            assert!(expanded == sorted);
        }
        assert_eq!(whole.total(), 300_000);
    }

    #[test]
    fn a_damaged_state_is_refused() {
        let mut tally = Tally::new();
        tally.add_slice(&[3.0, 1.0, 3.0]);
        let bytes = tally.to_bytes();
        for length in 0..bytes.len() {
            assert!(Tally::read(&mut &bytes[..length]).is_none());
        }
    }
}
