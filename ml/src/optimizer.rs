//! Optimizers: how a gradient changes parameters. Plain loops over slices, the same for any cut of the vector, so that
//! each worker can own a part of it.
//!
//! Formulas follow PyTorch where it has the optimizer (golden numbers in the tests), FTRL follows McMahan et al.,
//! "Ad Click Prediction: a View from the Trenches" (KDD 2013).

use serde::{Deserialize, Serialize};

/// Which optimizer, with its own constants. The learning rate comes from the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Optimizer {
    /// w -= rate * g
    Sgd,
    /// v = momentum * v + g; w -= rate * v
    Momentum {
        /// Usually 0.9.
        momentum: f64,
    },
    /// Kingma and Ba, "Adam" (2015), with bias correction.
    Adam {
        /// Usually 0.9.
        beta1: f64,
        /// Usually 0.999.
        beta2: f64,
        /// Usually 1e-8.
        epsilon: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov and Hutter, 2019): first w *= 1 - rate * weight_decay.
    AdamW {
        /// Usually 0.9.
        beta1: f64,
        /// Usually 0.999.
        beta2: f64,
        /// Usually 1e-8.
        epsilon: f64,
        /// Usually 0.01; applies to weights, not to biases.
        weight_decay: f64,
    },
    /// n += g^2; w -= rate * g / (sqrt(n) + epsilon)
    Adagrad {
        /// What n starts from.
        initial: f64,
        /// Usually 1e-10.
        epsilon: f64,
    },
    /// v = decay * v + (1 - decay) * g^2; w -= rate * g / (sqrt(v) + epsilon)
    RmsProp {
        /// Usually 0.99.
        decay: f64,
        /// Usually 1e-8.
        epsilon: f64,
    },
    /// Follow the regularised leader, per coordinate; L1 and L2 act inside its formula and give true zeros. Its linear
    /// state starts so that a coordinate without gradients keeps its initial weight.
    Ftrl {
        /// What n, the sum of squared gradients, starts from; above 0.
        initial: f64,
    },
}

impl Optimizer {
    /// Adam with its usual constants.
    pub const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    /// AdamW with its usual constants.
    pub const ADAMW: Optimizer = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    /// Momentum with its usual constant.
    pub const MOMENTUM: Optimizer = Optimizer::Momentum { momentum: 0.9 };
    /// Adagrad with its usual constants.
    pub const ADAGRAD: Optimizer = Optimizer::Adagrad { initial: 0.0, epsilon: 1e-10 };
    /// RMSProp with its usual constants.
    pub const RMSPROP: Optimizer = Optimizer::RmsProp { decay: 0.99, epsilon: 1e-8 };
    /// FTRL with its usual constant.
    pub const FTRL: Optimizer = Optimizer::Ftrl { initial: 0.1 };

    /// Names of the SQL option `OPTIMIZER`.
    pub const NAMES: [&str; 7] = ["SGD", "MOMENTUM", "ADAM", "ADAMW", "ADAGRAD", "RMSPROP", "FTRL"];

    /// The optimizer of a name from [`Optimizer::NAMES`], with usual constants; letters' case does not matter.
    pub fn by_name(name: &str) -> Option<Optimizer> {
        let of = [
            Optimizer::Sgd,
            Optimizer::MOMENTUM,
            Optimizer::ADAM,
            Optimizer::ADAMW,
            Optimizer::ADAGRAD,
            Optimizer::RMSPROP,
            Optimizer::FTRL,
        ];
        Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|index| of[index])
    }

    /// State vectors as long as the parameters that it keeps: 0, 1 or 2.
    pub fn slots(&self) -> usize {
        match self {
            Optimizer::Sgd => 0,
            Optimizer::Momentum { .. } | Optimizer::Adagrad { .. } | Optimizer::RmsProp { .. } => 1,
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } | Optimizer::Ftrl { .. } => 2,
        }
    }

    /// Fills fresh state for `weights`; `rate` is the learning rate of the first step.
    pub fn start(&self, weights: &[f32], rate: f64, slots: &mut [Vec<f32>]) {
        for slot in slots.iter_mut() {
            slot.clear();
            slot.resize(weights.len(), 0.0);
        }
        match self {
            Optimizer::Adagrad { initial, .. } => slots[0].fill(*initial as f32),
            Optimizer::Ftrl { initial } => {
                slots[0].fill(*initial as f32);
                // With z = -w sqrt(n) / rate the formula gives back w while the gradient is 0.
                let root = (*initial as f32).sqrt();
                for (z, w) in slots[1].iter_mut().zip(weights) {
                    *z = -w * root / rate as f32;
                }
            }
            _ => {}
        }
    }

    /// Changes `weights` by the gradient `sum * scale` plus the penalties' own. All slices are of one length.
    pub fn apply(&self, step: &StepRule, weights: &mut [f32], sum: &[f32], slots: [&mut [f32]; 2]) {
        let [first, second] = slots;
        let rate = step.rate as f32;
        match *self {
            Optimizer::Sgd => sgd(step.gradient(), rate, weights, sum),
            Optimizer::Momentum { momentum } => {
                momentum_step(step.gradient(), rate, momentum as f32, weights, sum, first)
            }
            Optimizer::Adam { beta1, beta2, epsilon } => {
                adam(step.gradient(), AdamRule::new(step, beta1, beta2, epsilon, 0.0), weights, sum, first, second);
            }
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let decay = if step.decays { weight_decay } else { 0.0 };
                adam(step.gradient(), AdamRule::new(step, beta1, beta2, epsilon, decay), weights, sum, first, second);
            }
            Optimizer::Adagrad { epsilon, .. } => adagrad(step.gradient(), rate, epsilon as f32, weights, sum, first),
            Optimizer::RmsProp { decay, epsilon } => {
                rms_prop(
                    step.gradient(),
                    rate,
                    decay as f32,
                    (1.0 - decay) as f32,
                    epsilon as f32,
                    weights,
                    sum,
                    first,
                );
            }
            Optimizer::Ftrl { .. } => {
                ftrl(step.scale as f32, rate, step.l1 as f32, step.l2 as f32, weights, sum, first, second);
            }
        }
    }
}

/// What one step tells the optimizer.
#[derive(Debug, Clone, Copy)]
pub struct StepRule {
    /// Steps done with this one: 1 for the first.
    pub count: u64,
    /// Learning rate.
    pub rate: f64,
    /// What the summed gradient is multiplied by: 1 / global weight, times the clipping factor.
    pub scale: f64,
    /// Adds l1 * sign(w) to the gradient.
    pub l1: f64,
    /// Adds l2 * w to the gradient.
    pub l2: f64,
    /// Whether decoupled weight decay applies to these parameters.
    pub decays: bool,
}

impl StepRule {
    fn gradient(&self) -> Gradient {
        Gradient { scale: self.scale as f32, l1: self.l1 as f32, l2: self.l2 as f32 }
    }
}

/// From the summed gradient to the one that counts.
#[derive(Clone, Copy)]
struct Gradient {
    scale: f32,
    l1: f32,
    l2: f32,
}

impl Gradient {
    #[inline(always)]
    fn of(&self, sum: f32, w: f32) -> f32 {
        let sign = if w > 0.0 {
            self.l1
        } else if w < 0.0 {
            -self.l1
        } else {
            0.0
        };
        sum * self.scale + self.l2 * w + sign
    }
}

vectorized! {
    fn sgd(gradient: Gradient, rate: f32, weights: &mut [f32], sum: &[f32]) {
        for (w, s) in weights.iter_mut().zip(sum) {
            *w -= rate * gradient.of(*s, *w);
        }
    }
}

vectorized! {
    fn momentum_step(gradient: Gradient, rate: f32, momentum: f32, weights: &mut [f32], sum: &[f32], velocity: &mut [f32]) {
        for ((w, s), v) in weights.iter_mut().zip(sum).zip(velocity) {
            *v = momentum * *v + gradient.of(*s, *w);
            *w -= rate * *v;
        }
    }
}

/// Adam's constants of one step, in f32 as the loop uses them.
#[derive(Clone, Copy)]
struct AdamRule {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    /// rate / (1 - beta1^t)
    rate: f32,
    /// 1 / sqrt(1 - beta2^t)
    root: f32,
    epsilon: f32,
    /// 1 - rate * weight_decay
    keep: f32,
}

impl AdamRule {
    fn new(step: &StepRule, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64) -> Self {
        let power = |beta: f64| beta.powi(i32::try_from(step.count).unwrap_or(i32::MAX));
        AdamRule {
            beta1: beta1 as f32,
            rest1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rest2: (1.0 - beta2) as f32,
            rate: (step.rate / (1.0 - power(beta1))) as f32,
            root: (1.0 / (1.0 - power(beta2)).sqrt()) as f32,
            epsilon: epsilon as f32,
            keep: (1.0 - step.rate * weight_decay) as f32,
        }
    }
}

fn adam(gradient: Gradient, rule: AdamRule, weights: &mut [f32], sum: &[f32], m: &mut [f32], v: &mut [f32]) {
    if gradient.l1 == 0.0 && gradient.l2 == 0.0 {
        adam_plain(gradient.scale, rule, weights, sum, m, v);
    } else {
        adam_penalised(gradient, rule, weights, sum, m, v);
    }
}

#[inline(always)]
fn adam_one(rule: &AdamRule, g: f32, w: &mut f32, m: &mut f32, v: &mut f32) {
    *m = rule.beta1 * *m + rule.rest1 * g;
    *v = rule.beta2 * *v + rule.rest2 * (g * g);
    *w = *w * rule.keep - rule.rate * *m / (v.sqrt() * rule.root + rule.epsilon);
}

vectorized! {
    fn adam_plain(scale: f32, rule: AdamRule, weights: &mut [f32], sum: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((w, s), m), v) in weights.iter_mut().zip(sum).zip(m).zip(v) {
            adam_one(&rule, *s * scale, w, m, v);
        }
    }
}

vectorized! {
    fn adam_penalised(gradient: Gradient, rule: AdamRule, weights: &mut [f32], sum: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((w, s), m), v) in weights.iter_mut().zip(sum).zip(m).zip(v) {
            adam_one(&rule, gradient.of(*s, *w), w, m, v);
        }
    }
}

vectorized! {
    fn adagrad(gradient: Gradient, rate: f32, epsilon: f32, weights: &mut [f32], sum: &[f32], squares: &mut [f32]) {
        for ((w, s), n) in weights.iter_mut().zip(sum).zip(squares) {
            let g = gradient.of(*s, *w);
            *n += g * g;
            *w -= rate * g / (n.sqrt() + epsilon);
        }
    }
}

vectorized! {
    fn rms_prop(gradient: Gradient, rate: f32, decay: f32, rest: f32, epsilon: f32, weights: &mut [f32], sum: &[f32], mean: &mut [f32]) {
        for ((w, s), v) in weights.iter_mut().zip(sum).zip(mean) {
            let g = gradient.of(*s, *w);
            *v = decay * *v + rest * (g * g);
            *w -= rate * g / (v.sqrt() + epsilon);
        }
    }
}

vectorized! {
    fn ftrl(scale: f32, rate: f32, l1: f32, l2: f32, weights: &mut [f32], sum: &[f32], squares: &mut [f32], linear: &mut [f32]) {
        for (((w, s), n), z) in weights.iter_mut().zip(sum).zip(squares).zip(linear) {
            let g = *s * scale;
            let root = n.sqrt();
            *n += g * g;
            let new_root = n.sqrt();
            *z += g - (new_root - root) / rate * *w;
            let pull = if *z > 0.0 { *z - l1 } else { *z + l1 };
            let inside = z.abs() <= l1;
            let next = -pull / (new_root / rate + l2);
            *w = if inside { 0.0 } else { next };
        }
    }
}
