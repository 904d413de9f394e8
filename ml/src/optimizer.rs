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

    /// Works out what is the same for all parameters of a step.
    pub fn prepare(&self, rule: StepRule) -> PreparedStep {
        let rate = rule.rate as f32;
        let gradient = Gradient { scale: rule.scale as f32, l1: rule.l1 as f32, l2: rule.l2 as f32 };
        let formula = match *self {
            Optimizer::Sgd => Formula::Sgd { rate },
            Optimizer::Momentum { momentum } => Formula::Momentum { rate, momentum: momentum as f32 },
            Optimizer::Adam { beta1, beta2, epsilon } => {
                Formula::Adam(AdamRule::new(&rule, beta1, beta2, epsilon, 0.0))
            }
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay } => {
                let decay = if rule.decays { weight_decay } else { 0.0 };
                Formula::Adam(AdamRule::new(&rule, beta1, beta2, epsilon, decay))
            }
            Optimizer::Adagrad { epsilon, .. } => Formula::Adagrad { rate, epsilon: epsilon as f32 },
            Optimizer::RmsProp { decay, epsilon } => {
                Formula::RmsProp { rate, decay: decay as f32, rest: (1.0 - decay) as f32, epsilon: epsilon as f32 }
            }
            Optimizer::Ftrl { .. } => Formula::Ftrl { rate },
        };
        PreparedStep { gradient, formula }
    }
}

/// A step's constants in f32, as the loops use them.
#[derive(Debug, Clone, Copy)]
pub struct PreparedStep {
    gradient: Gradient,
    formula: Formula,
}

#[derive(Debug, Clone, Copy)]
enum Formula {
    Sgd { rate: f32 },
    Momentum { rate: f32, momentum: f32 },
    Adam(AdamRule),
    Adagrad { rate: f32, epsilon: f32 },
    RmsProp { rate: f32, decay: f32, rest: f32, epsilon: f32 },
    Ftrl { rate: f32 },
}

impl PreparedStep {
    /// Changes `weights` by the gradient `sum * scale` plus the penalties' own. All slices are of one length; slots that
    /// the optimizer does not keep may be empty.
    pub fn apply(&self, weights: &mut [f32], sum: &[f32], slots: [&mut [f32]; 2]) {
        let [first, second] = slots;
        let gradient = self.gradient;
        match self.formula {
            Formula::Sgd { rate } => sgd(gradient, rate, weights, sum),
            Formula::Momentum { rate, momentum } => momentum_step(gradient, rate, momentum, weights, sum, first),
            Formula::Adam(rule) => adam(gradient, rule, weights, sum, first, second),
            Formula::Adagrad { rate, epsilon } => adagrad(gradient, rate, epsilon, weights, sum, first),
            Formula::RmsProp { rate, decay, rest, epsilon } => {
                rms_prop(gradient, rate, decay, rest, epsilon, weights, sum, first);
            }
            Formula::Ftrl { rate } => ftrl(gradient, rate, weights, sum, first, second),
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

/// From the summed gradient to the one that counts.
#[derive(Debug, Clone, Copy)]
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

/// Adam's constants of one step.
#[derive(Debug, Clone, Copy)]
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
    let mean = rule.beta1 * *m + rule.rest1 * g;
    let square = rule.beta2 * *v + rule.rest2 * (g * g);
    // A parameter without gradients decays its state; below this it would be subnormal, which is slow, and matters not.
    *m = if mean.abs() < 1e-30 { 0.0 } else { mean };
    *v = if square < 1e-36 { 0.0 } else { square };
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
    fn ftrl(gradient: Gradient, rate: f32, weights: &mut [f32], sum: &[f32], squares: &mut [f32], linear: &mut [f32]) {
        let Gradient { scale, l1, l2 } = gradient;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;
    use crate::layer::Activation;
    use crate::layer::dropout::Place;
    use crate::loss::Loss;
    use crate::network::{Architecture, Branch, Leaf, NetworkSpec, Tape, Target, Tile};
    use crate::shards::FeatureLayout;
    use std::collections::BTreeMap;

    /// 50 steps of PyTorch, written by `tests/golden/optimizers.py`.
    #[derive(Deserialize)]
    struct Golden {
        elements: usize,
        cases: Vec<Case>,
        network: NetworkCase,
    }

    #[derive(Deserialize)]
    struct Case {
        optimizer: Optimizer,
        rate: f64,
        l1: f64,
        l2: f64,
        /// After so many steps.
        weights: BTreeMap<u64, Vec<f64>>,
    }

    #[derive(Deserialize)]
    struct NetworkCase {
        dense: usize,
        hidden: Vec<usize>,
        classes: usize,
        x: Vec<f32>,
        labels: Vec<f32>,
        initial: Vec<f32>,
        r#final: Vec<f64>,
        losses: Vec<f64>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/optimizers.json")).unwrap()
    }

    fn push(i: usize, t: u64) -> f64 {
        if i == 3 && t < 20 { 0.0 } else { (0.7 * i as f64 + 0.3 * t as f64).sin() * (1.0 + (i % 4) as f64) }
    }

    #[test]
    fn fifty_steps_of_every_optimizer_equal_pytorchs() {
        let golden = golden();
        assert_eq!(golden.cases.len(), 11);
        for case in &golden.cases {
            let mut weights: Vec<f32> = (0..golden.elements).map(|i| (1.0 + 3.0 * i as f64).sin() as f32).collect();
            let mut slots = vec![Vec::new(); case.optimizer.slots()];
            case.optimizer.start(&weights, case.rate, &mut slots);
            slots.resize(2, vec![0.0; weights.len()]);
            for t in 0..50 {
                // The sum of four rows' gradients; the rule divides by their weight.
                let gradient = |(i, w): (usize, &f32)| 4.0 * (push(i, t) as f32 + 0.5 * w);
                let sum: Vec<f32> = weights.iter().enumerate().map(gradient).collect();
                let rule =
                    StepRule { count: t + 1, rate: case.rate, scale: 0.25, l1: case.l1, l2: case.l2, decays: true };
                let [first, second] = slots.get_disjoint_mut([0, 1]).unwrap();
                case.optimizer.prepare(rule).apply(&mut weights, &sum, [first, second]);
                let Some(expected) = case.weights.get(&(t + 1)) else { continue };
                for (i, (got, expected)) in weights.iter().zip(expected).enumerate() {
                    let error = (f64::from(*got) - expected).abs();
                    assert!(
                        error < 1e-5,
                        "{:?} step {} element {i}: {got}, expected {expected}",
                        case.optimizer,
                        t + 1
                    );
                }
            }
        }
    }

    #[test]
    fn fifty_steps_of_a_network_with_adam_equal_pytorchs() {
        let case = golden().network;
        let spec = NetworkSpec {
            inputs: FeatureLayout::of_dense(case.dense),
            hidden: case.hidden,
            activation: Activation::Relu,
            dropout: 0.0,
            layer_norm: false,
            outputs: case.classes,
            loss: Loss::SoftmaxCrossEntropy,
        };
        let architecture = Architecture::new(&spec).unwrap();
        let rows = case.labels.len();
        let row_weights = vec![1.0; rows];
        let tile = Tile {
            rows,
            dense: &case.x,
            indices: &[],
            bags: Default::default(),
            labels: &case.labels,
            weights: &row_weights,
        };
        // PyTorch's vectors begin with the first layer, ours with the last.
        let order: Vec<usize> = architecture.views().iter().flat_map(|view| view.range.clone()).collect();
        let mut weights = vec![0.0; architecture.parameters()];
        order.iter().zip(case.initial).for_each(|(place, weight)| weights[*place] = weight);
        let mut slots = vec![Vec::new(); 2];
        Optimizer::ADAM.start(&weights, 0.01, &mut slots);
        let (mut tape, mut gradient) = (Tape::new(&architecture, rows, 1), vec![0.0; architecture.parameters()]);
        let leaves = [Leaf { place: Place { epoch: 0, leaf: 0, first_row: 0 }, is_empty: false }];
        let branch = Branch { leaves: &leaves, seed: 0 };
        for (t, expected) in case.losses.iter().enumerate() {
            let mut loss = [0.0];
            let mut target = Target { numbers: &mut gradient, first: 0, layer_done: None };
            architecture.gradient(Kernel::Native, &weights, tile, branch, &mut tape, &mut loss, &mut target);
            let [loss] = loss;
            assert!((loss / rows as f64 - expected).abs() < 1e-5, "loss at step {t}: {loss}, expected {expected}");
            let scale = 1.0 / rows as f64;
            let rule = StepRule { count: t as u64 + 1, rate: 0.01, scale, l1: 0.0, l2: 0.0, decays: true };
            let [first, second] = slots.get_disjoint_mut([0, 1]).unwrap();
            Optimizer::ADAM.prepare(rule).apply(&mut weights, &gradient, [first, second]);
        }
        for (place, expected) in order.into_iter().zip(case.r#final) {
            let got = weights[place];
            assert!((f64::from(got) - expected).abs() < 1e-5, "parameter {place}: {got}, expected {expected}");
        }
    }

    #[test]
    fn l1_pulls_towards_zero_and_ftrl_reaches_it() {
        for (optimizer, reaches) in [(Optimizer::Sgd, false), (Optimizer::FTRL, true)] {
            let mut weights = vec![0.05, -0.05];
            let mut slots = vec![Vec::new(); optimizer.slots()];
            optimizer.start(&weights, 0.1, &mut slots);
            slots.resize(2, vec![0.0; 2]);
            let rule = StepRule { count: 1, rate: 0.1, scale: 1.0, l1: 0.2, l2: 0.0, decays: true };
            let [first, second] = slots.get_disjoint_mut([0, 1]).unwrap();
            optimizer.prepare(rule).apply(&mut weights, &[0.0, 0.0], [first, second]);
            assert!(weights[0] < 0.05 && weights[1] > -0.05, "{optimizer:?} {weights:?}");
            assert_eq!(weights == [0.0, 0.0], reaches, "{optimizer:?} {weights:?}");
        }
    }
}
