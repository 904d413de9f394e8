//! Chance without state: every random number is a pure function of a key and a counter, every shuffle a permutation
//! that can be asked for its i-th element. So any worker can compute any part of an epoch, in any order.

/// Philox4x32-10: ten rounds of multiply and exchange.
///
/// Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let product0 = u64::from(c0) * 0xD251_1F53;
        let product1 = u64::from(c2) * 0xCD9E_8D57;
        (c0, c1, c2, c3) =
            ((product1 >> 32) as u32 ^ c1 ^ k0, product1 as u32, (product0 >> 32) as u32 ^ c3 ^ k1, product0 as u32);
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [c0, c1, c2, c3]
}

/// A stream of random numbers: (seed, stream) is the key, the caller's counter the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream numbered `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let key = mix(mix(seed) ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Stream { key: [key as u32, (key >> 32) as u32] }
    }

    /// Four random words at a place of the stream.
    #[inline(always)]
    pub fn words(&self, counter: [u32; 4]) -> [u32; 4] {
        philox4x32(counter, self.key)
    }

    /// Element `index` of the stream as a number in [0, 1), a multiple of 2^-24.
    pub fn uniform(&self, index: u64) -> f32 {
        self.uniforms(index / 4)[(index % 4) as usize]
    }

    /// Elements `4 * place` to `4 * place + 3`, which cost as much as one.
    #[inline]
    pub fn uniforms(&self, place: u64) -> [f32; 4] {
        self.words([place as u32, (place >> 32) as u32, 0, 0]).map(|word| (word >> 8) as f32 * (1.0 / 16_777_216.0))
    }

    /// A 64-bit number at place `index`, apart from the places of [`Stream::uniform`].
    pub fn word64(&self, index: u64) -> u64 {
        let words = self.words([index as u32, (index >> 32) as u32, 0, 1]);
        u64::from(words[0]) | u64::from(words[1]) << 32
    }
}

/// The finalizer of SplitMix64: a bijection of 64 bits that leaves no pattern.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A permutation of `0..n` that needs no table: a Feistel network over Z_a x Z_b with a * b just above n, walked until
/// it lands below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u32,
    a: u32,
    b: u32,
    keys: [u32; Permutation::ROUNDS],
}

impl Permutation {
    const ROUNDS: usize = 6;

    /// The permutation of `0..n` that `key` selects. n is at most 2^31.
    pub fn new(n: usize, key: u64) -> Self {
        assert!(n <= 1 << 31, "a permutation of at most 2^31 elements, got {n}");
        let n = n as u32;
        let a = (f64::from(n).sqrt().ceil() as u32).max(1);
        let b = n.div_ceil(a).max(1);
        let stream = Stream::new(key, 0);
        let keys = std::array::from_fn(|round| stream.words([round as u32, 0, 0, 2])[0]);
        Permutation { n, a, b, keys }
    }

    /// How many elements it permutes.
    pub fn len(&self) -> usize {
        self.n as usize
    }

    /// Whether it permutes nothing.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Where element `index` goes; `index` is below n.
    pub fn get(&self, index: usize) -> usize {
        debug_assert!(index < self.len());
        let mut place = index as u32;
        loop {
            place = self.once(place);
            if place < self.n {
                return place as usize;
            }
        }
    }

    /// One pass over the whole domain a * b.
    fn once(&self, place: u32) -> u32 {
        let (mut left, mut right) = (place / self.b, place % self.b);
        for pair in self.keys.chunks_exact(2) {
            left = add_modulo(left, scatter(right, pair[0], self.a), self.a);
            right = add_modulo(right, scatter(left, pair[1], self.b), self.b);
        }
        left * self.b + right
    }
}

/// A number below `range` that depends on `half` and `key`.
fn scatter(half: u32, key: u32, range: u32) -> u32 {
    let mut z = half ^ key;
    z = (z ^ (z >> 16)).wrapping_mul(0x7FEB_352D);
    z = (z ^ (z >> 15)).wrapping_mul(0x846C_A68B);
    z ^= z >> 16;
    ((u64::from(z) * u64::from(range)) >> 32) as u32
}

fn add_modulo(x: u32, y: u32, range: u32) -> u32 {
    let sum = x + y;
    if sum >= range { sum - range } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123's `kat_vectors` for philox4x32-10.
    #[test]
    fn philox_gives_the_published_vectors() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn a_permutation_meets_every_element_once() {
        for n in [0, 1, 2, 3, 5, 16, 17, 100, 1000, 4096, 65_537] {
            for key in [0, 1, 99] {
                let permutation = Permutation::new(n, key);
                let mut seen = vec![false; n];
                for i in 0..n {
                    let place = permutation.get(i);
                    assert!(!std::mem::replace(&mut seen[place], true), "n {n} key {key}: {place} twice");
                }
            }
        }
    }

    #[test]
    fn permutations_of_neighbouring_keys_differ_and_mix() {
        let n = 10_000;
        let (first, second) = (Permutation::new(n, 7), Permutation::new(n, 8));
        let same = (0..n).filter(|i| first.get(*i) == second.get(*i)).count();
        assert!(same < 10, "{same} places in common");
        let ascending = (1..n).filter(|i| first.get(*i) > first.get(*i - 1)).count() as f64;
        assert!((ascending / n as f64 - 0.5).abs() < 0.02, "{ascending} ascents of {n}");
    }

    #[test]
    fn uniform_numbers_fill_the_interval() {
        let stream = Stream::new(42, 3);
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|i| f64::from(stream.uniform(i))).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.003 && (variance - 1.0 / 12.0).abs() < 0.001, "{mean} {variance}");
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        assert_ne!(stream.uniform(0), Stream::new(43, 3).uniform(0));
        assert_ne!(stream.uniform(0), Stream::new(42, 4).uniform(0));
    }
}
