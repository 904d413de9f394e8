//! Rows in, predictions out: the frozen transform, then the trained model. There is no other way to predict, neither in
//! SQL nor elsewhere.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, ListArray, RecordBatch, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::Field;
use engine::{Error, Result};

use super::estimator::Trained;
use super::files::{self, ModelRecord};
use super::{ModelShape, golden};
use crate::kernel::Kernel;
use crate::metric::predicted_class;
use crate::shards::Block;
use crate::transform::{FrozenTransform, LabelEncoding, LabelSource};

/// A model, ready to predict.
pub struct Predictor {
    pub(crate) shape: Arc<ModelShape>,
    pub(crate) record: ModelRecord,
    pub(crate) transform: FrozenTransform,
    pub(crate) labels: LabelEncoding,
    pub(crate) trained: Trained,
    kernel: Kernel,
}

impl std::fmt::Debug for Predictor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Predictor({})", self.shape.name)
    }
}

/// Predictions for some rows.
#[derive(Debug, Clone)]
pub struct Predictions {
    /// The predicted label, of the label's type; DOUBLE for regressors.
    pub labels: ArrayRef,
    /// Classifiers: for each row its classes with their probabilities, the most probable first.
    pub probabilities: Option<ArrayRef>,
}

impl Predictor {
    /// Puts a model together from its files and checks its golden rows.
    ///
    /// # Errors
    /// Files that this build cannot read, or that do not compute what they computed when the model was made.
    pub(crate) fn open(read: &dyn Fn(&str) -> Result<bytes::Bytes>, kernel: Kernel) -> Result<Self> {
        let record: ModelRecord = files::from_json(files::MODEL, &read(files::MODEL)?)?;
        if record.format > files::FORMAT {
            return Err(Error::invalid(format!(
                "{} has format {}, this build reads up to {}",
                files::MODEL,
                record.format,
                files::FORMAT
            )));
        }
        let transform = read(files::TRANSFORM)?;
        let transform = std::str::from_utf8(&transform)
            .map_err(|e| Error::invalid(format!("{} is no text: {e}", files::TRANSFORM)))?;
        let features = FrozenTransform::from_json(transform)?;
        let trained = Trained::from_safetensors(&record.trained, &read(files::WEIGHTS)?)?;
        let predictor = Predictor::new(record, features, trained, kernel)?;
        golden::check(&predictor, &read(files::GOLDEN)?)?;
        Ok(predictor)
    }

    /// Puts a model together that has just been trained.
    pub(crate) fn new(
        record: ModelRecord,
        transform: FrozenTransform,
        trained: Trained,
        kernel: Kernel,
    ) -> Result<Self> {
        let labels = record.label.clone();
        let shape = Arc::new(ModelShape {
            name: record.spec.name.clone(),
            model_type: record.spec.model_type,
            label: record.spec.label.clone(),
            label_source: transform.label_source().unwrap_or_else(|| LabelSource::Column(record.spec.label.clone())),
            label_type: record.label.data_type.clone(),
            inputs: record.inputs.clone(),
            classes: labels.classes().map(<[String]>::to_vec),
        });
        Ok(Predictor { shape, record, transform, labels, trained, kernel })
    }

    /// Names and types.
    pub fn shape(&self) -> &Arc<ModelShape> {
        &self.shape
    }

    /// What the model sees of rows: its frozen transform applied.
    ///
    /// # Errors
    /// As [`Predictor::scores`].
    pub fn inputs(&self, rows: &RecordBatch) -> Result<Block> {
        self.transform.apply(rows)
    }

    /// Raw scores, [R x W] row-major: W = 1 for regressors (the value) and two classes (the probability of the second),
    /// otherwise one probability for each class.
    ///
    /// # Errors
    /// A feature that is missing, of another type, or not a number; which column and row.
    pub fn scores(&self, rows: &RecordBatch) -> Result<Vec<f64>> {
        let (at_once, mut scores) = (self.transform.rows_at_once(), Vec::new());
        for first in (0..rows.num_rows()).step_by(at_once) {
            let tile = rows.slice(first, at_once.min(rows.num_rows() - first));
            scores.extend(self.block_scores(&self.inputs(&tile)?));
        }
        Ok(scores)
    }

    /// The labels of rows as metrics compare them: the index of the class, or the number. `None` where a row has none.
    ///
    /// # Errors
    /// A column that the label is made of is missing or of another type; a class that training did not show.
    pub(crate) fn made_labels(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let label = self.transform.apply_labels(rows)?.into_iter().next();
        label.ok_or_else(|| Error::invalid(format!("the model {} has no label", self.shape.name)))
    }

    /// The scores of rows that are transformed already.
    pub(crate) fn block_scores(&self, block: &Block) -> Vec<f64> {
        self.trained.scores(block, self.kernel, self.labels.scale())
    }

    /// What was trained.
    pub(crate) fn trained(&self) -> &Trained {
        &self.trained
    }

    /// The kernel that it is scored with.
    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// W of [`Predictor::scores`].
    pub fn score_width(&self) -> usize {
        self.trained.outputs()
    }

    /// Predicts rows. `threshold` decides between two classes.
    ///
    /// # Errors
    /// As [`Predictor::scores`].
    pub fn predict(&self, rows: &RecordBatch, threshold: f64) -> Result<Predictions> {
        let scores = self.scores(rows)?;
        if !self.shape.model_type.is_classifier() {
            return Ok(Predictions { labels: Arc::new(Float64Array::from(scores)), probabilities: None });
        }
        let labels = self.predicted_labels(&scores, threshold)?;
        let classes = self.labels.class_values()?;
        Ok(Predictions { labels, probabilities: Some(self.probabilities(&scores, self.score_width(), &classes)?) })
    }

    /// The predicted labels of rows, then for each class, in the order of the classes, its probabilities.
    ///
    /// # Errors
    /// As [`Predictor::scores`].
    pub(crate) fn predict_columns(&self, rows: &RecordBatch, threshold: f64) -> Result<Vec<ArrayRef>> {
        let scores = self.scores(rows)?;
        let width = self.score_width();
        let column = |of: &dyn Fn(&[f64]) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(scores.chunks_exact(width).map(of)))
        };
        let mut columns = vec![self.predicted_labels(&scores, threshold)?];
        match self.labels.classes().map_or(0, <[String]>::len) {
            2 if width == 1 => columns.extend([column(&|p| 1.0 - p[0]), column(&|p| p[0])]),
            classes => columns.extend((0..classes).map(|class| column(&|p| p[class]))),
        }
        Ok(columns)
    }

    fn predicted_labels(&self, scores: &[f64], threshold: f64) -> Result<ArrayRef> {
        let predicted = scores.chunks_exact(self.score_width()).map(|row| predicted_class(row, threshold) as u32);
        take(&self.labels.class_values()?, &UInt32Array::from_iter_values(predicted), None).map_err(arrow_error)
    }

    /// For each row its classes, the most probable first, equals in the order of the classes.
    fn probabilities(&self, scores: &[f64], width: usize, classes: &ArrayRef) -> Result<ArrayRef> {
        let count = classes.len();
        let rows = scores.len() / width;
        let mut order: Vec<u32> = Vec::with_capacity(rows * count);
        let mut values: Vec<f64> = Vec::with_capacity(rows * count);
        let mut row_values = vec![0.0; count];
        let mut row_order: Vec<u32> = Vec::new();
        for row in scores.chunks_exact(width) {
            match row {
                [p] if count == 2 => row_values.copy_from_slice(&[1.0 - p, *p]),
                row => row_values.copy_from_slice(row),
            }
            row_order.clear();
            row_order.extend(0..count as u32);
            row_order.sort_by(|a, b| row_values[*b as usize].total_cmp(&row_values[*a as usize]));
            values.extend(row_order.iter().map(|class| row_values[*class as usize]));
            order.extend(&row_order);
        }
        let labels = take(classes, &UInt32Array::from(order), None).map_err(arrow_error)?;
        let fields = self.shape.probability_fields();
        let structs = StructArray::try_new(fields, vec![labels, Arc::new(Float64Array::from(values))], None)
            .map_err(arrow_error)?;
        let item = Arc::new(Field::new_list_field(structs.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(count, rows));
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(structs), None).map_err(arrow_error)?))
    }
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::Query(error.into())
}
