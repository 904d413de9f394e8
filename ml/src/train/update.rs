//! The optimizer at work on the slice of the parameters that a rank owns.

use std::ops::Range;

use super::TrainPlan;
use crate::optimizer::{PreparedStep, StepRule};

/// A step's rules: for parameters that penalties do not apply to, and for those that they do.
pub(super) fn prepare(plan: &TrainPlan, rule: StepRule) -> [PreparedStep; 2] {
    let penalised = StepRule { l1: plan.l1, l2: plan.l2, decays: true, ..rule };
    [plan.optimizer.prepare(rule), plan.optimizer.prepare(penalised)]
}

/// The optimizer at the own slice.
pub(super) struct Update<'u> {
    /// Where the own slice begins.
    pub(super) first: usize,
    pub(super) segments: &'u [(Range<usize>, bool)],
    pub(super) parameters: &'u mut [f32],
    pub(super) slots: &'u mut [Vec<f32>],
}

impl Update<'_> {
    /// Applies the summed gradient of `range` of the own slice.
    pub(super) fn apply(&mut self, prepared: &[PreparedStep; 2], range: Range<usize>, sum: &[f32]) {
        let global = range.start + self.first..range.end + self.first;
        for (segment, penalised) in self.segments {
            let part = segment.start.max(global.start)..segment.end.min(global.end);
            if part.is_empty() {
                continue;
            }
            let local = part.start - self.first..part.end - self.first;
            let slots: [&mut [f32]; 2] = match self.slots {
                [] => [&mut [], &mut []],
                [first] => [&mut first[local], &mut []],
                [first, second, ..] => [&mut first[local.clone()], &mut second[local]],
            };
            let sum = &sum[part.start - global.start..part.end - global.start];
            prepared[usize::from(*penalised)].apply(&mut self.parameters[part], sum, slots);
        }
    }
}
