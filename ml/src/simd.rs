//! One source, three machine codes: elementwise loops compiled for the baseline, AVX2 and AVX-512, chosen at run time.
//!
//! All three give the same bits. A plain loop is vectorised lane by lane, rustc never contracts `a * b + c` into a fused
//! multiply-add, and never reorders a floating-point sum; so code inside [`vectorized!`] must not call `mul_add`, and
//! sums must name their lanes themselves.

use std::sync::OnceLock;

/// What the processor's vector unit can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the build was made for (SSE2 on x86-64).
    Baseline,
    /// 8 lanes of f32.
    Avx2,
    /// 16 lanes of f32.
    Avx512,
}

/// The level of this machine.
#[inline]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    let level = *LEVEL.get_or_init(detect);
    #[cfg(test)]
    let level = level.min(*tests::HIGHEST.read().expect("no test panics while it holds the lock"));
    level
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    if avx512 {
        Level::Avx512
    } else if is_x86_feature_detected!("avx2") {
        Level::Avx2
    } else {
        Level::Baseline
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Level {
    Level::Baseline
}

/// Compiles a function for every [`Level`] and calls the one that fits. One generic parameter with a bound is allowed.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$generic:ident : $bound:path>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2")]
                fn avx512 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$generic>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$generic: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$generic>)? ($($arg),*)
                }
                match crate::simd::level() {
                    // SAFETY: `level` has seen these features on this machine.
                    crate::simd::Level::Avx512 => return unsafe { avx512 $(::<$generic>)? ($($arg),*) },
                    // SAFETY: as above.
                    crate::simd::Level::Avx2 => return unsafe { avx2 $(::<$generic>)? ($($arg),*) },
                    crate::simd::Level::Baseline => {}
                }
            }
            body $(::<$generic>)? ($($arg),*)
        }
    };
}

/// Sum of squares in f64, folded over 16 lanes and then pairwise: the same bits on every machine.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    lanes_of_squares(values)
}

vectorized! {
    fn lanes_of_squares(values: &[f32]) -> f64 {
        let mut lanes = [0.0f64; 16];
        let (chunks, rest) = values.as_chunks::<16>();
        for chunk in chunks {
            for i in 0..16 {
                lanes[i] += f64::from(chunk[i]) * f64::from(chunk[i]);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += f64::from(*value) * f64::from(*value);
        }
        let mut width = 8;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

vectorized! {
    /// `target += source`, elementwise.
    pub fn add_assign(target: &mut [f32], source: &[f32]) {
        for (t, s) in target.iter_mut().zip(source) {
            *t += *s;
        }
    }
}

vectorized! {
    /// `target = left + right`, elementwise.
    pub fn add(target: &mut [f32], left: &[f32], right: &[f32]) {
        for ((t, l), r) in target.iter_mut().zip(left).zip(right) {
            *t = *l + *r;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::RwLock;

    /// Tests lower it to see that every level gives the same bits; others may run meanwhile, for the same reason.
    pub(super) static HIGHEST: RwLock<Level> = RwLock::new(Level::Avx512);

    /// Runs `work` at every level that this machine has, lowest first.
    pub(crate) fn at_every_level<T>(mut work: impl FnMut(Level) -> T) -> Vec<T> {
        [Level::Baseline, Level::Avx2, Level::Avx512]
            .into_iter()
            .filter(|level| *level <= detect())
            .map(|level| {
                *HIGHEST.write().unwrap() = level;
                let result = work(level);
                *HIGHEST.write().unwrap() = Level::Avx512;
                result
            })
            .collect()
    }

    #[test]
    fn sum_of_squares_is_near_the_plain_sum() {
        for n in [0usize, 1, 15, 16, 17, 1000] {
            let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let plain: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            assert!((sum_of_squares(&values) - plain).abs() <= 1e-12 * plain.max(1.0));
        }
    }
}
