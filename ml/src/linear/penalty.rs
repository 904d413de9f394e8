//! The penalties l1 ‖w‖₁ + l2/2 ‖w‖² on coefficients; intercepts are free.

/// Weights of the penalties.
#[derive(Debug, Clone, Copy)]
pub(super) struct Penalty {
    pub(super) l1: f64,
    pub(super) l2: f64,
}

impl Penalty {
    pub(super) fn value(self, weights: &[f64]) -> f64 {
        let (mut absolute, mut squared) = (0.0, 0.0);
        for w in weights {
            absolute += w.abs();
            squared += w * w;
        }
        // A penalty of weight 0 on an infinite coefficient is 0, not NaN.
        let part = |weight: f64, sum: f64| if weight == 0.0 { 0.0 } else { weight * sum };
        part(self.l1, absolute) + part(0.5 * self.l2, squared)
    }

    /// argmin over u of (u - w)²/2 + t l1 |u|: soft thresholding.
    pub(super) fn shrink(self, w: f64, t: f64) -> f64 {
        soft_threshold(w, t * self.l1)
    }
}

/// Moves `x` towards 0 by `by`, and not past it.
pub(super) fn soft_threshold(x: f64, by: f64) -> f64 {
    if x > by {
        x - by
    } else if x < -by {
        x + by
    } else {
        0.0
    }
}
