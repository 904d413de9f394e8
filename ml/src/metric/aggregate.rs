//! The metrics as aggregate functions of SQL.
//!
//! Labels come as class indices, probabilities as one number (of class 1) or an array with one per class. A row whose
//! label or prediction is NULL does not count. The threshold is optional, a constant, 0.5 by default.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::common::scalar::ScalarStructBuilder;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::{ClassificationMetrics, RegressionMetrics};
use crate::function::constants::numbers;
use crate::statistics::{binary_state, constant, states, unreadable_state};

/// All aggregate functions of this module, to register with a session.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let classifier = |answer| Arc::new(AggregateUDF::new_from_impl(ClassifierAggregate::new(answer)));
    vec![
        classifier(Answer::Evaluation),
        classifier(Answer::Confusion),
        classifier(Answer::RocCurve),
        Arc::new(AggregateUDF::new_from_impl(RegressorAggregate::default())),
    ]
}

/// * `gm_evaluate_classifier(label, probabilities [, threshold])` gives `STRUCT<precision, recall, accuracy, f1_score,
///   log_loss, roc_auc DOUBLE>`, NULL of no rows;
/// * `gm_confusion(label, probabilities [, threshold])` gives `ARRAY<ARRAY<BIGINT>>`: a row per label, in it the counts
///   of each predicted class;
/// * `gm_roc_curve(label, probabilities [, thresholds])` gives `ARRAY<STRUCT<threshold, recall, false_positive_rate DOUBLE,
///   true_positives, false_positives, true_negatives, false_negatives BIGINT>>` by falling threshold, of class 1;
///   without thresholds a point for each probability that occurs.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClassifierAggregate {
    answer: Answer,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Evaluation,
    Confusion,
    RocCurve,
}

impl Answer {
    fn name(self) -> &'static str {
        match self {
            Answer::Evaluation => "gm_evaluate_classifier",
            Answer::Confusion => "gm_confusion",
            Answer::RocCurve => "gm_roc_curve",
        }
    }

    fn data_type(self) -> DataType {
        let list = |element: DataType| DataType::List(Arc::new(Field::new_list_field(element, true)));
        match self {
            Answer::Evaluation => DataType::Struct(doubles(&EVALUATION)),
            Answer::Confusion => list(list(DataType::Int64)),
            Answer::RocCurve => list(DataType::Struct(roc_fields())),
        }
    }
}

/// The columns of ML.EVALUATE for classifiers.
pub(crate) const EVALUATION: [&str; 6] = ["precision", "recall", "accuracy", "f1_score", "log_loss", "roc_auc"];
/// The same for regressors.
pub(crate) const REGRESSION: [&str; 6] = [
    "mean_absolute_error",
    "mean_squared_error",
    "mean_squared_log_error",
    "median_absolute_error",
    "r2_score",
    "explained_variance",
];

fn doubles(names: &[&str]) -> Fields {
    names.iter().map(|name| Field::new(*name, DataType::Float64, true)).collect()
}

fn roc_fields() -> Fields {
    let rates = ["threshold", "recall", "false_positive_rate"].map(|name| Field::new(name, DataType::Float64, true));
    let counts = ["true_positives", "false_positives", "true_negatives", "false_negatives"]
        .map(|name| Field::new(name, DataType::Int64, true));
    rates.into_iter().chain(counts).collect()
}

fn structure(fields: Fields, values: impl IntoIterator<Item = ScalarValue>) -> Result<ScalarValue> {
    let pairs = fields.iter().zip(values);
    pairs.fold(ScalarStructBuilder::new(), |built, (field, value)| built.with_scalar(field.clone(), value)).build()
}

impl ClassifierAggregate {
    fn new(answer: Answer) -> Self {
        ClassifierAggregate { answer, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ClassifierAggregate {
    fn name(&self) -> &str {
        self.answer.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let (probabilities, threshold) = match arguments {
            [_, probabilities] => (probabilities, None),
            [_, probabilities, thresholds] if self.answer == Answer::RocCurve && thresholds.is_list() => {
                (probabilities, Some(DataType::new_list(DataType::Float64, true)))
            }
            [_, probabilities, _] if self.answer != Answer::RocCurve => (probabilities, Some(DataType::Float64)),
            _ => {
                return Err(DataFusionError::Plan(format!(
                    "{} takes a label, probabilities and {}, got {} arguments",
                    self.name(),
                    if self.answer == Answer::RocCurve { "an array of thresholds" } else { "a threshold" },
                    arguments.len()
                )));
            }
        };
        let probabilities = match probabilities {
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => probabilities.clone(),
            number if number.is_numeric() || number.is_null() => DataType::Float64,
            other => {
                return Err(DataFusionError::Plan(format!(
                    "{} takes a probability or an array of them, got a column of type {other}",
                    self.name()
                )));
            }
        };
        Ok([DataType::Int64, probabilities].into_iter().chain(threshold).collect())
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.answer.data_type())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        binary_state(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let given = match args.exprs.len() {
            0..=2 => None,
            _ => Some(constant(&args, 2, self.name(), "the threshold")?),
        };
        let mut accumulator =
            ClassifierAccumulator { answer: self.answer, threshold: 0.5, thresholds: None, metrics: None };
        let null = || DataFusionError::Plan(format!("{}: a threshold is NULL", self.name()));
        match (self.answer, given) {
            (_, None) => {}
            (Answer::RocCurve, Some(list)) => accumulator.thresholds = Some(numbers(&list).ok_or_else(null)?),
            (_, Some(number)) => match number.cast_to(&DataType::Float64)? {
                ScalarValue::Float64(Some(threshold)) => accumulator.threshold = threshold,
                _ => return Err(null()),
            },
        }
        Ok(Box::new(accumulator))
    }
}

#[derive(Debug)]
struct ClassifierAccumulator {
    answer: Answer,
    threshold: f64,
    /// Of the ROC curve; `None` takes all that make a difference.
    thresholds: Option<Vec<f64>>,
    /// From the first row on, which tells the number of classes.
    metrics: Option<ClassificationMetrics>,
}

impl ClassifierAccumulator {
    fn failed(&self, error: impl std::fmt::Display) -> DataFusionError {
        DataFusionError::Execution(format!("{}: {error}", self.answer.name()))
    }
}

/// The array of each row: its values as `f64` for row `i`, from the one child array.
struct Probabilities {
    values: ArrayRef,
    /// Start of each row in `values`, and the end of the last.
    offsets: Vec<usize>,
}

impl Probabilities {
    fn of(column: &ArrayRef) -> Result<Self> {
        let (values, offsets) = match column.data_type() {
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                (list.values().clone(), list.offsets().iter().map(|o| *o as usize).collect())
            }
            DataType::LargeList(_) => {
                let list = column.as_list::<i64>();
                (list.values().clone(), list.offsets().iter().map(|o| *o as usize).collect())
            }
            DataType::FixedSizeList(_, width) => {
                let list = column.as_fixed_size_list();
                (list.values().clone(), (0..=list.len()).map(|i| i * *width as usize).collect())
            }
            _ => (column.clone(), (0..=column.len()).collect()),
        };
        Ok(Probabilities { values: cast(&values, &DataType::Float64)?, offsets })
    }
}

impl Accumulator for ClassifierAccumulator {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let labels = columns[0].as_primitive::<Int64Type>();
        let probabilities = Probabilities::of(&columns[1])?;
        let values = probabilities.values.as_primitive::<Float64Type>();
        let (mut classes, mut flat) = (Vec::with_capacity(labels.len()), Vec::with_capacity(values.len()));
        let mut width = None;
        for row in (0..labels.len()).filter(|row| labels.is_valid(*row) && columns[1].is_valid(*row)) {
            let (start, end) = (probabilities.offsets[row], probabilities.offsets[row + 1]);
            let expected = *width.get_or_insert(end - start);
            if expected != end - start || expected == 0 {
                return Err(self.failed(format!("a row of {} probabilities after one of {expected}", end - start)));
            }
            if values.slice(start, end - start).null_count() > 0 {
                return Err(self.failed("NULL among the probabilities of a row"));
            }
            flat.extend_from_slice(&values.values()[start..end]);
            classes.push(
                usize::try_from(labels.value(row)).map_err(|_| {
                    self.failed(format!("a label of class {}, expected one from 0 on", labels.value(row)))
                })?,
            );
        }
        let Some(width) = width else { return Ok(()) };
        let metrics = self.metrics.get_or_insert_with(|| ClassificationMetrics::new(width.max(2)));
        let updated = if metrics.classes() == width.max(2) {
            metrics.update(&classes, &flat).map_err(|e| e.to_string())
        } else {
            Err(format!("a row of {width} probabilities after one of {}", metrics.classes()))
        };
        updated.map_err(|e| self.failed(e))
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for mut state in states(&columns[0]).filter(|state| !state.is_empty()) {
            let other = ClassificationMetrics::read(&mut state).ok_or_else(|| unreadable_state(self.answer.name()))?;
            match &mut self.metrics {
                Some(metrics) => metrics.merge(&other).map_err(|e| e.to_string()).map_err(|e| self.failed(e))?,
                None => self.metrics = Some(other),
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let bytes = self.metrics.as_ref().map(ClassificationMetrics::to_bytes).unwrap_or_default();
        Ok(vec![ScalarValue::LargeBinary(Some(bytes))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let null = ScalarValue::try_from(&self.answer.data_type());
        let Some(metrics) = &mut self.metrics else { return null };
        match self.answer {
            Answer::Evaluation => {
                let Some(report) = metrics.finish(self.threshold) else { return null };
                let numbers = [report.precision, report.recall, report.accuracy, report.f1_score, report.log_loss];
                let values = numbers.into_iter().map(Some).chain([report.roc_auc]).map(ScalarValue::Float64);
                structure(doubles(&EVALUATION), values)
            }
            Answer::Confusion => {
                let counts = metrics.confusion(self.threshold);
                let row = |row: &[u64]| {
                    let counts: Vec<_> = row.iter().map(|n| ScalarValue::Int64(Some(*n as i64))).collect();
                    ScalarValue::List(ScalarValue::new_list_nullable(&counts, &DataType::Int64))
                };
                let rows: Vec<_> = counts.chunks_exact(metrics.classes()).map(row).collect();
                let row_type = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
                Ok(ScalarValue::List(ScalarValue::new_list_nullable(&rows, &row_type)))
            }
            Answer::RocCurve => {
                let points = match &self.thresholds {
                    Some(thresholds) => metrics.roc_curve_at(thresholds),
                    None => metrics.roc_curve(),
                };
                let points = points.into_iter().map(|point| {
                    let rates = [point.threshold, point.recall, point.false_positive_rate];
                    let (positives, negatives) =
                        ([point.true_positives, point.false_positives], [point.true_negatives, point.false_negatives]);
                    let counts = positives.into_iter().chain(negatives).map(|n| ScalarValue::Int64(Some(n as i64)));
                    // A rate of no rows is none.
                    let rates = rates.map(|x| ScalarValue::Float64(Some(x).filter(|x| !x.is_nan())));
                    structure(roc_fields(), rates.into_iter().chain(counts))
                });
                let points = points.collect::<Result<Vec<_>>>()?;
                Ok(ScalarValue::List(ScalarValue::new_list_nullable(&points, &DataType::Struct(roc_fields()))))
            }
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.metrics.as_ref().map_or(0, ClassificationMetrics::size)
    }
}

/// `gm_evaluate_regressor(label, prediction)` gives `STRUCT<mean_absolute_error, mean_squared_error,
/// mean_squared_log_error, median_absolute_error, r2_score, explained_variance DOUBLE>`, NULL of no rows.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RegressorAggregate {
    signature: Signature,
}

impl Default for RegressorAggregate {
    fn default() -> Self {
        let double = vec![DataType::Float64; 2];
        RegressorAggregate { signature: Signature::exact(double, Volatility::Immutable) }
    }
}

const REGRESSOR: &str = "gm_evaluate_regressor";

impl AggregateUDFImpl for RegressorAggregate {
    fn name(&self) -> &str {
        REGRESSOR
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(doubles(&REGRESSION)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        binary_state(&args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(RegressorAccumulator::default()))
    }
}

#[derive(Debug, Default)]
struct RegressorAccumulator {
    metrics: RegressionMetrics,
}

impl Accumulator for RegressorAccumulator {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let (labels, predictions) =
            (columns[0].as_primitive::<Float64Type>(), columns[1].as_primitive::<Float64Type>());
        let rows = labels.iter().zip(predictions).filter_map(|(label, prediction)| label.zip(prediction));
        let (labels, predictions): (Vec<f64>, Vec<f64>) = rows.unzip();
        let updated = self.metrics.update(&labels, &predictions);
        updated.map_err(|e| DataFusionError::Execution(format!("{REGRESSOR}: {e}")))
    }

    fn merge_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for mut state in states(&columns[0]) {
            self.metrics.merge(&RegressionMetrics::read(&mut state).ok_or_else(|| unreadable_state(REGRESSOR))?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::LargeBinary(Some(self.metrics.to_bytes()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Some(report) = self.metrics.finish() else {
            return ScalarValue::try_from(&DataType::Struct(doubles(&REGRESSION)));
        };
        let values = [
            Some(report.mean_absolute_error),
            Some(report.mean_squared_error),
            report.mean_squared_log_error,
            Some(report.median_absolute_error),
            report.r2_score,
            report.explained_variance,
        ];
        structure(doubles(&REGRESSION), values.map(ScalarValue::Float64))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.metrics.size()
    }
}
