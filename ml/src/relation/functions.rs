//! The scalar functions that predictions are made of. The first argument is the model's id, by which whoever runs the
//! plan finds the model; the others are the columns that the model reads, in its order.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::prelude::Column;

use super::invalid;
use crate::model::{ModelShape, Predictor};
use crate::registry;
use crate::transform::{InputColumn, LabelSource};

/// All of them, to register with a session.
pub(crate) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    [Answer::Prediction, Answer::Columns, Answer::Score, Answer::Transformed].map(function).to_vec()
}

fn function(answer: Answer) -> Arc<ScalarUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(ScalarUDF::from(ModelFunction { answer, signature }))
}

/// `ml_predict(id, threshold, columns...)`: a struct of `label` and, for classifiers, `probs`.
pub(super) fn predict(id: &str, threshold: f64, shape: &ModelShape) -> Expr {
    let columns = shape.inputs.iter().map(|input| column(&input.name));
    function(Answer::Prediction).call([lit(id), lit(threshold)].into_iter().chain(columns).collect())
}

/// `ml_predict_columns(id, threshold, columns...)`: a struct of `label` and of [`class_field`] for each class.
pub(super) fn predict_columns(id: &str, threshold: f64, shape: &ModelShape) -> Expr {
    let columns = shape.inputs.iter().map(|input| column(&input.name));
    function(Answer::Columns).call([lit(id), lit(threshold)].into_iter().chain(columns).collect())
}

/// The field with the probability of the class number `class`.
pub(super) fn class_field(class: usize) -> String {
    format!("prob_{class}")
}

/// `ml_score(id, columns of the label..., columns...)`: a struct of `label`, as the metrics count it, and `scores`.
pub(super) fn score(id: &str, shape: &ModelShape) -> Expr {
    let of_label = shape.label_columns().into_iter().map(column);
    let columns = of_label.chain(shape.inputs.iter().map(|input| column(&input.name)));
    function(Answer::Score).call(std::iter::once(lit(id)).chain(columns).collect())
}

/// `ml_transform(id, columns...)`: a struct of what the model sees.
pub(super) fn transform(id: &str, shape: &ModelShape) -> Expr {
    let columns = shape.inputs.iter().map(|input| column(&input.name));
    function(Answer::Transformed).call([lit(id)].into_iter().chain(columns).collect())
}

/// A column by exactly this name.
pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// Fields of `ml_score`: labels and scores as the metrics want them.
pub(crate) fn score_fields(shape: &ModelShape) -> Fields {
    let scores = match &shape.classes {
        Some(classes) if classes.len() > 2 => DataType::new_list(DataType::Float64, true),
        _ => DataType::Float64,
    };
    let label = if shape.model_type.is_classifier() { DataType::Int64 } else { DataType::Float64 };
    Fields::from(vec![Field::new("label", label, true), Field::new("scores", scores, true)])
}

/// Arrays for [`score_fields`]: labels as metrics count them and the scores of [`Predictor::scores`].
pub(crate) fn score_arrays(predictor: &Predictor, labels: &[f64], scores: Vec<f64>) -> Result<Vec<ArrayRef>> {
    let label: ArrayRef = if predictor.shape().model_type.is_classifier() {
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|class| *class as i64)))
    } else {
        Arc::new(Float64Array::from(labels.to_vec()))
    };
    Ok(vec![label, score_array(predictor, scores)?])
}

fn score_array(predictor: &Predictor, scores: Vec<f64>) -> Result<ArrayRef> {
    let width = predictor.score_width();
    let rows = scores.len() / width;
    let values: ArrayRef = Arc::new(Float64Array::from(scores));
    if width == 1 {
        return Ok(values);
    }
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, rows));
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None)?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Prediction,
    Columns,
    Score,
    Transformed,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ModelFunction {
    answer: Answer,
    signature: Signature,
}

impl ModelFunction {
    /// Arguments before the model's columns.
    fn leading(&self, shape: &ModelShape) -> usize {
        match self.answer {
            Answer::Prediction | Answer::Columns => 2,
            Answer::Score => 1 + shape.label_columns().len(),
            Answer::Transformed => 1,
        }
    }

    fn threshold(&self, args: &ScalarFunctionArgs) -> Result<f64> {
        match args.args.get(1) {
            Some(ColumnarValue::Scalar(ScalarValue::Float64(Some(threshold)))) => Ok(*threshold),
            _ => exec_err!("{}: the second argument is a threshold", self.name()),
        }
    }

    fn fields(&self, id: &str) -> Result<Fields> {
        let known = registry::find(id).map_err(invalid)?;
        let shape = known.shape();
        Ok(match self.answer {
            Answer::Prediction => {
                let mut fields = vec![Field::new("label", shape.predicted_type(), true)];
                if shape.model_type.is_classifier() {
                    fields.push(Field::new("probs", shape.probabilities_type(), true));
                }
                Fields::from(fields)
            }
            Answer::Columns => {
                let probability = |class| Field::new(class_field(class), DataType::Float64, true);
                let label = Field::new("label", shape.predicted_type(), true);
                [label].into_iter().chain((0..shape.column_classes().len()).map(probability)).collect()
            }
            Answer::Score => score_fields(shape),
            Answer::Transformed => match known.predictor() {
                Some(predictor) => predictor.transform.output_schema().fields().clone(),
                None => return plan_err!("ML.TRANSFORM needs a model that has been trained"),
            },
        })
    }
}

impl ScalarUDFImpl for ModelFunction {
    fn name(&self) -> &str {
        match self.answer {
            Answer::Prediction => "ml_predict",
            Answer::Columns => "ml_predict_columns",
            Answer::Score => "ml_score",
            Answer::Transformed => "ml_transform",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{}: the type depends on the model", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let Some(Some(ScalarValue::Utf8(Some(id)))) = args.scalar_arguments.first() else {
            return plan_err!("{}: the first argument is a model's id", self.name());
        };
        Ok(Arc::new(Field::new(self.name(), DataType::Struct(self.fields(id)?), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(id)))) = args.args.first() else {
            return exec_err!("{}: the first argument is a model's id", self.name());
        };
        let known = registry::find(id).map_err(invalid)?;
        let Some(predictor) = known.predictor() else {
            return exec_err!("model {} has not been trained yet", known.shape().name);
        };
        let rows = args.number_rows;
        let batch = batch_of(&predictor.shape().inputs, &args.args[self.leading(predictor.shape())..], rows)?;
        let columns = match self.answer {
            Answer::Prediction => {
                let predictions = predictor.predict(&batch, self.threshold(&args)?).map_err(invalid)?;
                [Some(predictions.labels), predictions.probabilities].into_iter().flatten().collect()
            }
            Answer::Columns => predictor.predict_columns(&batch, self.threshold(&args)?).map_err(invalid)?,
            Answer::Score => {
                let labels = match &predictor.shape().label_source {
                    LabelSource::Column(_) => args.args[1].to_array(rows)?,
                    LabelSource::Made(inputs) => {
                        let made_of = batch_of(inputs, &args.args[1..=inputs.len()], rows)?;
                        predictor.made_labels(&made_of).map_err(invalid)?
                    }
                };
                scores(predictor, &labels, &batch)?
            }
            Answer::Transformed => predictor.transform.apply_to_batch(&batch).map_err(invalid)?.columns().to_vec(),
        };
        let result = StructArray::try_new_with_length(self.fields(id)?, columns, None, rows)?;
        Ok(ColumnarValue::Array(Arc::new(result)))
    }
}

/// Rows without a label get no label and no scores: the metrics leave them out.
fn scores(predictor: &Predictor, labels: &ArrayRef, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    use arrow::compute::{filter, is_not_null};

    let scores = score_array(predictor, predictor.scores(batch).map_err(invalid)?)?;
    let fields = score_fields(predictor.shape());
    if labels.null_count() == 0 {
        let values = predictor.labels.values(labels).map_err(invalid)?;
        let label = score_arrays(predictor, &values, Vec::new())?.swap_remove(0);
        return Ok(vec![label, scores]);
    }
    let present = is_not_null(labels)?;
    let values = predictor.labels.values(&filter(labels, &present)?).map_err(invalid)?;
    let mut next = values.into_iter();
    let spread: Float64Array =
        present.values().iter().map(|is_there| if is_there { next.next() } else { None }).collect();
    Ok(vec![arrow::compute::cast(&spread, fields[0].data_type())?, scores])
}

/// The model's columns as a batch.
fn batch_of(inputs: &[InputColumn], values: &[ColumnarValue], rows: usize) -> Result<RecordBatch> {
    let arrays: Vec<ArrayRef> = values.iter().map(|value| value.to_array(rows)).collect::<Result<_>>()?;
    let fields: Vec<Field> = inputs
        .iter()
        .zip(&arrays)
        .map(|(input, array)| Field::new(&input.name, array.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}
