//! The files of a model, ML_SQL's "a model on disk":
//!
//! ```text
//! model.safetensors   weights                        transform.json     the frozen transform and the classes
//! model.json          what it is and came from       metrics.json       of the held-out rows
//! training.parquet    the loss curve                 golden.arrow       rows that loading must reproduce
//! held_out.arrow      labels and scores of the held-out rows           MLmodel   for MLflow
//! ```
//!
//! The artifact store adds `manifest.json` with the SHA-256 of each.

use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use engine::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use super::estimator::TrainedShape;
use crate::history::EpochRecord;
use crate::lineage::Lineage;
use crate::spec::CheckedSpec;
use crate::transform::{InputColumn, LabelEncoding};

/// Weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// What the model is, and where it comes from.
pub(crate) const MODEL: &str = "model.json";
/// The frozen transform.
pub(crate) const TRANSFORM: &str = "transform.json";
/// Metrics of the held-out rows.
pub(crate) const METRICS: &str = "metrics.json";
/// The loss curve.
pub(crate) const TRAINING: &str = "training.parquet";
/// Rows that loading must reproduce.
pub(crate) const GOLDEN: &str = "golden.arrow";
/// Labels and scores of the held-out rows.
pub(crate) const HELD_OUT: &str = "held_out.arrow";
/// MLflow's descriptor.
pub(crate) const MLMODEL: &str = "MLmodel";

/// The layout that this build writes; a newer one is refused.
pub(crate) const FORMAT: u32 = 1;

/// `model.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ModelRecord {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The specification that was trained.
    pub(crate) spec: CheckedSpec,
    /// The label: its type, and its classes or statistics.
    pub(crate) label: LabelEncoding,
    /// Columns that a prediction reads.
    pub(crate) inputs: Vec<InputColumn>,
    /// What the weights belong to.
    pub(crate) trained: TrainedShape,
    /// Rows that trained, evaluated, tested, and those left out for want of a label.
    pub(crate) rows: RowCounts,
    /// The matrix kernel's name.
    pub(crate) kernel: String,
    /// The hash of its answers to some fixed products.
    pub(crate) kernel_fingerprint: String,
    /// Where the model comes from.
    pub(crate) lineage: Lineage,
}

/// How many rows did what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Trained.
    pub train: usize,
    /// Evaluated.
    pub eval: usize,
    /// Tested.
    pub test: usize,
    /// Left out, because their label is NULL.
    pub without_label: usize,
}

/// JSON with a newline at its end.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|e| Error::invalid(format!("cannot write the model: {e}")))?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a JSON file of a model.
pub(crate) fn from_json<T: for<'a> Deserialize<'a>>(file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::invalid(format!("{file} was not written by this version of gristmill: {e}")))
}

/// An Arrow IPC file of one schema.
pub(crate) fn to_arrow(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, schema).map_err(arrow_error)?;
    for batch in batches {
        writer.write(batch).map_err(arrow_error)?;
    }
    writer.finish().map_err(arrow_error)?;
    drop(writer);
    Ok(bytes)
}

/// Reads it back.
pub(crate) fn from_arrow(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let reader = FileReader::try_new(std::io::Cursor::new(bytes), None).map_err(arrow_error)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<_, _>>().map_err(arrow_error)?;
    Ok((schema, batches))
}

/// The columns of ML.TRAINING_INFO.
pub(crate) fn training_schema() -> SchemaRef {
    let field = |name: &str, kind: DataType, nullable: bool| Field::new(name, kind, nullable);
    Arc::new(Schema::new(vec![
        field("training_run", DataType::UInt64, false),
        field("iteration", DataType::UInt64, false),
        field("loss", DataType::Float64, false),
        field("eval_loss", DataType::Float64, true),
        field("learning_rate", DataType::Float64, true),
        field("duration_ms", DataType::Float64, false),
    ]))
}

/// The loss curve as a batch.
pub(crate) fn training_batch(history: &[EpochRecord]) -> Result<RecordBatch> {
    let floats =
        |value: &dyn Fn(&EpochRecord) -> Option<f64>| Arc::new(history.iter().map(value).collect::<Float64Array>());
    let iterations = history.iter().map(|r| r.iteration as u64).collect::<UInt64Array>();
    RecordBatch::try_new(
        training_schema(),
        vec![
            Arc::new(UInt64Array::from(vec![0; history.len()])),
            Arc::new(iterations),
            floats(&|r| Some(r.loss)),
            floats(&|r| r.eval_loss),
            floats(&|r| r.learning_rate),
            floats(&|r| Some(r.duration_ms)),
        ],
    )
    .map_err(arrow_error)
}

/// `training.parquet`.
pub(crate) fn to_parquet(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).map_err(parquet_error)?;
    writer.write(batch).map_err(parquet_error)?;
    writer.close().map_err(parquet_error)?;
    Ok(bytes)
}

/// Reads it back.
pub(crate) fn from_parquet(bytes: bytes::Bytes) -> Result<Vec<RecordBatch>> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(parquet_error)?.build().map_err(parquet_error)?;
    reader.collect::<Result<_, _>>().map_err(arrow_error)
}

/// Wall time of all iterations of a loss curve.
pub(crate) fn curve_ms(curve: &[RecordBatch]) -> u64 {
    let durations = curve.iter().filter_map(|batch| batch.column_by_name("duration_ms"));
    let sums = durations.filter_map(|column| arrow::compute::sum(column.as_primitive::<Float64Type>()));
    sums.sum::<f64>().round() as u64
}

/// MLflow's descriptor: enough for its tools to list the model and its signature.
pub(crate) fn mlmodel(record: &ModelRecord) -> String {
    use std::fmt::Write;
    let mut text = String::from("flavors:\n  gristmill:\n");
    let _ = writeln!(text, "    model_type: {}", record.spec.model_type.name());
    let _ = writeln!(text, "    data: model.safetensors");
    let _ = writeln!(text, "    format: {FORMAT}");
    let _ = writeln!(text, "    gristmill_version: {}", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "utc_time_created: '{}'", record.lineage.created);
    let columns: Vec<serde_json::Value> = record
        .inputs
        .iter()
        .map(|input| {
            let kind = mlflow_type(&input.data_type);
            serde_json::json!({ "type": kind, "name": input.name, "required": false })
        })
        .collect();
    let output = serde_json::json!([{ "type": mlflow_type(&record.label.data_type), "name": format!("predicted_{}", record.spec.label) }]);
    // A JSON text is a YAML scalar once its single quotes are doubled.
    let quoted = |json: serde_json::Value| json.to_string().replace('\'', "''");
    let _ = writeln!(text, "signature:\n  inputs: '{}'\n  outputs: '{}'", quoted(columns.into()), quoted(output));
    text
}

fn mlflow_type(kind: &DataType) -> &'static str {
    match kind {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "long",
        DataType::Float16 | DataType::Float32 => "float",
        kind if kind.is_numeric() => "double",
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => "datetime",
        DataType::Binary | DataType::LargeBinary => "binary",
        _ => "string",
    }
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::Query(error.into())
}

fn parquet_error(error: parquet::errors::ParquetError) -> Error {
    Error::Query(error.into())
}
