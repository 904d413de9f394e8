//! Metrics of classifiers from class indices and probabilities.
//!
//! Shapes: R rows, C classes, W probabilities a row: 1 (of class 1, when C = 2) or C.

use engine::{Error, Result};

use crate::exact::{ExactSum, take};
use crate::tally::Tally;

/// Accumulates labels and probabilities.
///
/// Memory is bounded by the distinct probabilities: 16 bytes each, for two classes once, for C > 2 classes once per
/// class (the area under the curve of each class against the rest is exact).
#[derive(Debug, Clone, PartialEq)]
pub struct ClassificationMetrics {
    classes: usize,
    log_loss: ExactSum,
    /// [C x C] for C > 2: rows with label i and most probable class j. Empty for two classes, whose predictions depend
    /// on the threshold and are counted from `scores`.
    confusion: Vec<u64>,
    /// Scores of one class in rows of this class and in the others; of class 1 alone when C = 2, else of every class.
    scores: Vec<Scores>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Scores {
    positive: Tally,
    negative: Tally,
}

/// The columns of `ML.EVALUATE` for classifiers. For C > 2, precision, recall and F1 are means over the classes that
/// occur in labels or predictions, and `roc_auc` is the mean over one class against the rest, as scikit-learn's
/// `average="macro"` and `multi_class="ovr"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassificationReport {
    /// R.
    pub rows: u64,
    /// Of the rows predicted positive, the part that is; 0 when none is predicted so.
    pub precision: f64,
    /// Of the positive rows, the part that is predicted so; 0 when there are none.
    pub recall: f64,
    /// The part of the rows whose class is predicted.
    pub accuracy: f64,
    /// 2 TP / (2 TP + FP + FN); 0 when the denominator is.
    pub f1_score: f64,
    /// Mean of -ln p(label), p kept within \[ε, 1 - ε\], ε = 2^-52.
    pub log_loss: f64,
    /// Area under the ROC curve, ties counted half; `None` when no class has both rows of it and rows of others.
    pub roc_auc: Option<f64>,
}

/// One threshold of a ROC curve: a row is predicted positive when its score is at least `threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint {
    /// A score that occurs.
    pub threshold: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// FP / (FP + TN).
    pub false_positive_rate: f64,
    /// Positive rows predicted positive.
    pub true_positives: u64,
    /// Negative rows predicted positive.
    pub false_positives: u64,
    /// Negative rows predicted negative.
    pub true_negatives: u64,
    /// Positive rows predicted negative.
    pub false_negatives: u64,
}

impl RocPoint {
    /// From the rows that are predicted positive, of all positive and of all negative ones.
    fn new(threshold: f64, (tp, positives): (u64, u64), (fp, negatives): (u64, u64)) -> Self {
        RocPoint {
            threshold,
            recall: tp as f64 / positives as f64,
            false_positive_rate: fp as f64 / negatives as f64,
            true_positives: tp,
            false_positives: fp,
            true_negatives: negatives - fp,
            false_negatives: positives - tp,
        }
    }
}

/// The class that `probabilities` of one row predict: of two classes, class 1 when its probability (the last one) is at
/// least `threshold`; of more, the most probable, the first of equals.
pub fn predicted_class(probabilities: &[f64], threshold: f64) -> usize {
    match probabilities {
        [p] | [_, p] => usize::from(*p >= threshold),
        more => (0..more.len()).fold(0, |best, i| if more[i] > more[best] { i } else { best }),
    }
}

impl ClassificationMetrics {
    /// Of no rows yet, for C = `classes` >= 2.
    pub fn new(classes: usize) -> Self {
        assert!(classes >= 2, "a classifier has at least two classes");
        let binary = classes == 2;
        ClassificationMetrics {
            classes,
            log_loss: ExactSum::new(),
            confusion: vec![0; if binary { 0 } else { classes * classes }],
            scores: vec![Scores::default(); if binary { 1 } else { classes }],
        }
    }

    /// C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Takes in R rows: `labels` [R] are class indices, `probabilities` [R x W] row-major, W = 1 (probability of class
    /// 1, when C = 2) or C. Fails on other lengths, on a label that is no class, on a probability that is not in 0..=1.
    pub fn update(&mut self, labels: &[usize], probabilities: &[f64]) -> Result<()> {
        let width = if self.classes == 2 && probabilities.len() == labels.len() { 1 } else { self.classes };
        if probabilities.len() != labels.len() * width {
            return Err(Error::invalid(format!(
                "{} probabilities for {} rows of {} classes",
                probabilities.len(),
                labels.len(),
                self.classes
            )));
        }
        if let Some(label) = labels.iter().find(|label| **label >= self.classes) {
            return Err(Error::invalid(format!("a label of class {label}, expected one of {} classes", self.classes)));
        }
        if let Some(p) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(Error::invalid(format!("a probability of {p}, expected 0 to 1")));
        }
        let loss = |p: f64| -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln();
        let rows = labels.iter().zip(probabilities.chunks_exact(width));
        let losses: Vec<f64> = if width == 1 {
            rows.clone().map(|(label, p)| loss(if *label == 1 { p[0] } else { 1.0 - p[0] })).collect()
        } else {
            rows.clone().map(|(label, p)| loss(p[*label])).collect()
        };
        self.log_loss.add_slice(&losses);
        if self.classes == 2 {
            rows.for_each(|(label, p)| self.scores[0].add(p[width - 1], *label == 1));
            return Ok(());
        }
        for (label, p) in rows {
            self.confusion[label * self.classes + predicted_class(p, 0.5)] += 1;
            self.scores.iter_mut().zip(p).enumerate().for_each(|(class, (scores, p))| scores.add(*p, class == *label));
        }
        Ok(())
    }

    /// Takes in the rows another one has seen; fails when that one has another number of classes.
    pub fn merge(&mut self, other: &ClassificationMetrics) -> Result<()> {
        if self.classes != other.classes {
            let (a, b) = (self.classes, other.classes);
            return Err(Error::invalid(format!("rows of {a} classes cannot be evaluated with rows of {b} classes")));
        }
        self.log_loss.merge(&other.log_loss);
        self.confusion.iter_mut().zip(&other.confusion).for_each(|(count, more)| *count += more);
        for (scores, more) in self.scores.iter_mut().zip(&other.scores) {
            scores.positive.merge(&more.positive);
            scores.negative.merge(&more.negative);
        }
        Ok(())
    }

    /// R.
    pub fn rows(&self) -> u64 {
        self.scores[0].positive.total() + self.scores[0].negative.total()
    }

    /// All metrics; `None` of no rows. `threshold` matters for two classes alone.
    pub fn finish(&mut self, threshold: f64) -> Option<ClassificationReport> {
        let rows = self.rows();
        if rows == 0 {
            return None;
        }
        let confusion = self.confusion(threshold);
        let correct: u64 = (0..self.classes).map(|class| confusion[class * self.classes + class]).sum();
        let (precision, recall, f1_score) = self.macro_means(&confusion);
        Some(ClassificationReport {
            rows,
            precision,
            recall,
            accuracy: correct as f64 / rows as f64,
            f1_score,
            log_loss: self.log_loss.value() / rows as f64,
            roc_auc: self.roc_auc(),
        })
    }

    /// [C x C] row-major: rows with label i that are predicted as class j.
    pub fn confusion(&mut self, threshold: f64) -> Vec<u64> {
        if self.classes > 2 {
            return self.confusion.clone();
        }
        let at_least =
            |tally: &mut Tally| -> u64 { tally.runs().filter(|(p, _)| *p >= threshold).map(|(_, n)| n).sum() };
        let Scores { positive, negative } = &mut self.scores[0];
        let (tp, fp) = (at_least(positive), at_least(negative));
        vec![negative.total() - fp, fp, positive.total() - tp, tp]
    }

    /// The ROC curve of class 1 against the rest, by falling threshold: one point for each score that occurs.
    pub fn roc_curve(&mut self) -> Vec<RocPoint> {
        let at = usize::from(self.classes > 2);
        self.scores[at].roc_curve()
    }

    /// The ROC curve of class 1 against the rest at `thresholds`, by falling threshold.
    pub fn roc_curve_at(&mut self, thresholds: &[f64]) -> Vec<RocPoint> {
        let mut thresholds = thresholds.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let scores = &mut self.scores[usize::from(self.classes > 2)];
        let (positives, negatives) = (scores.positive.total(), scores.negative.total());
        let curve = scores.roc_curve();
        let at = |threshold: f64| {
            // The last point whose threshold is not below: it has the same rows above it.
            let (tp, fp) = match curve.partition_point(|point| point.threshold >= threshold) {
                0 => (0, 0),
                points => (curve[points - 1].true_positives, curve[points - 1].false_positives),
            };
            RocPoint::new(threshold, (tp, positives), (fp, negatives))
        };
        thresholds.into_iter().map(at).collect()
    }

    /// Heap bytes.
    pub fn size(&self) -> usize {
        8 * self.confusion.len() + self.scores.iter().map(|s| s.positive.size() + s.negative.size()).sum::<usize>()
    }

    /// Precision, recall and F1: of class 1 when C = 2, else means over the classes that occur.
    fn macro_means(&self, confusion: &[u64]) -> (f64, f64, f64) {
        let of_class = |class: usize| {
            let tp = confusion[class * self.classes + class];
            let labelled: u64 = confusion[class * self.classes..][..self.classes].iter().sum();
            let predicted: u64 = confusion[class..].iter().step_by(self.classes).sum();
            let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
            let occurs = labelled + predicted > 0;
            occurs.then(|| (ratio(tp, predicted), ratio(tp, labelled), ratio(2 * tp, labelled + predicted)))
        };
        if self.classes == 2 {
            return of_class(1).unwrap_or_default();
        }
        let each: Vec<_> = (0..self.classes).filter_map(of_class).collect();
        let sum = each.iter().fold((0.0, 0.0, 0.0), |sum, c| (sum.0 + c.0, sum.1 + c.1, sum.2 + c.2));
        let n = each.len() as f64;
        (sum.0 / n, sum.1 / n, sum.2 / n)
    }

    fn roc_auc(&mut self) -> Option<f64> {
        let areas: Vec<f64> = self.scores.iter_mut().filter_map(Scores::area).collect();
        (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
    }

    /// The state, equal for equal rows however partitioned.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.classes as u64).to_le_bytes().to_vec();
        bytes.extend(self.log_loss.to_bytes());
        self.confusion.iter().for_each(|count| bytes.extend_from_slice(&count.to_le_bytes()));
        for scores in &self.scores {
            bytes.extend(scores.positive.to_bytes());
            bytes.extend(scores.negative.to_bytes());
        }
        bytes
    }

    /// Reads what [`ClassificationMetrics::to_bytes`] wrote from the front of `bytes` and moves past it.
    pub fn read(bytes: &mut &[u8]) -> Option<Self> {
        let classes = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
        // Every class takes 16 bytes of scores at least: a damaged number must not make us allocate for it.
        if classes < 2 || (classes > 2 && classes > bytes.len() / 16) {
            return None;
        }
        let mut metrics = ClassificationMetrics { log_loss: ExactSum::read(bytes)?, ..Self::new(classes) };
        for count in &mut metrics.confusion {
            *count = u64::from_le_bytes(take(bytes)?);
        }
        for scores in &mut metrics.scores {
            *scores = Scores { positive: Tally::read(bytes)?, negative: Tally::read(bytes)? };
        }
        Some(metrics)
    }
}

impl Scores {
    fn add(&mut self, score: f64, positive: bool) {
        if positive { self.positive.add(score) } else { self.negative.add(score) }
    }

    /// The probability that a positive row scores above a negative one, ties counted half (Mann and Whitney, 1947).
    /// Counted in integers, so exact to the last division.
    fn area(&mut self) -> Option<f64> {
        let pairs = u128::from(self.positive.total()) * u128::from(self.negative.total());
        if pairs == 0 {
            return None;
        }
        let mut negatives = self.negative.runs().peekable();
        let (mut below, mut half_wins) = (0u64, 0u128);
        for (score, count) in self.positive.runs() {
            while let Some((_, n)) = negatives.next_if(|(s, _)| *s < score) {
                below += n;
            }
            let equal = negatives.peek().filter(|(s, _)| *s == score).map_or(0, |(_, n)| *n);
            half_wins += u128::from(count) * (2 * u128::from(below) + u128::from(equal));
        }
        Some(half_wins as f64 / (2 * pairs) as f64)
    }

    fn roc_curve(&mut self) -> Vec<RocPoint> {
        let (p, n) = (self.positive.total(), self.negative.total());
        let mut positives = self.positive.runs().rev().peekable();
        let mut negatives = self.negative.runs().rev().peekable();
        let (mut tp, mut fp) = (0, 0);
        let mut curve = Vec::new();
        loop {
            let next = [positives.peek(), negatives.peek()].into_iter().flatten().map(|(s, _)| *s);
            let Some(threshold) = next.max_by(f64::total_cmp) else { return curve };
            tp += positives.next_if(|(s, _)| *s == threshold).map_or(0, |(_, count)| count);
            fp += negatives.next_if(|(s, _)| *s == threshold).map_or(0, |(_, count)| count);
            curve.push(RocPoint::new(threshold, (tp, p), (fp, n)));
        }
    }
}
