//! Dropout: each output of a hidden layer is set to 0 with probability p, the others divided by 1 - p.
//!
//! The mask is a pure function of (seed, layer, epoch, row's place in the epoch, unit): any worker draws the same one.

use crate::random::Stream;

/// Which rows a tile holds, as far as chance is concerned: rows `first..first + R` of a leaf in an epoch.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The epoch.
    pub epoch: u32,
    /// The leaf of the gradient tree that the rows belong to.
    pub leaf: u32,
    /// The tile's first row in the leaf's order of this epoch.
    pub first_row: u64,
}

/// Draws the mask for a tile: 0 or 1 / (1 - rate), [R x `width`]. Units are drawn four at a time.
pub fn draw(stream: Stream, place: Place, rate: f32, width: usize, mask: &mut [f32]) {
    let keep = 1.0 / (1.0 - rate);
    // A unit is dropped when its 32 random bits, read as a number in [0, 1), are below the rate.
    let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
    draw_rows(stream, place, threshold, keep, width, mask);
}

vectorized! {
    fn draw_rows(stream: Stream, place: Place, threshold: u32, keep: f32, width: usize, mask: &mut [f32]) {
        for (row, mask) in mask.chunks_exact_mut(width).enumerate() {
            let row = place.first_row + row as u64;
            let middle = (row >> 32) as u32 ^ place.leaf.rotate_left(16);
            for (four, mask) in mask.chunks_mut(4).enumerate() {
                let words = stream.words([four as u32, row as u32, middle, place.epoch]);
                for (m, word) in mask.iter_mut().zip(words) {
                    *m = if word < threshold { 0.0 } else { keep };
                }
            }
        }
    }
}

vectorized! {
    /// out = values * mask.
    pub fn apply(values: &[f32], mask: &[f32], out: &mut [f32]) {
        for ((o, v), m) in out.iter_mut().zip(values).zip(mask) {
            *o = *v * *m;
        }
    }
}

vectorized! {
    /// delta *= mask.
    pub fn backward(delta: &mut [f32], mask: &[f32]) {
        for (d, m) in delta.iter_mut().zip(mask) {
            *d *= *m;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(place: Place) -> Vec<f32> {
        let mut mask = vec![0.0; 100 * 50];
        draw(Stream::new(1, 2), place, 0.25, 50, &mut mask);
        mask
    }

    #[test]
    fn the_share_of_dropped_units_is_the_rate() {
        let mask = mask(Place { epoch: 0, leaf: 0, first_row: 0 });
        let dropped = mask.iter().filter(|m| **m == 0.0).count() as f64 / mask.len() as f64;
        assert!((dropped - 0.25).abs() < 0.02, "{dropped}");
        assert!(mask.iter().all(|m| *m == 0.0 || *m == 1.0 / 0.75));
    }

    #[test]
    fn a_row_has_its_mask_wherever_its_tile_begins() {
        let whole = mask(Place { epoch: 3, leaf: 1, first_row: 0 });
        let later = mask(Place { epoch: 3, leaf: 1, first_row: 40 });
        assert_eq!(whole[40 * 50..], later[..60 * 50]);
        for other in [Place { epoch: 4, leaf: 1, first_row: 0 }, Place { epoch: 3, leaf: 2, first_row: 0 }] {
            assert_ne!(whole, mask(other));
        }
    }
}
