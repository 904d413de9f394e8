//! EXPLAIN ANALYZE of a plan that a cluster has executed: every stage, with what its operators did in all of its tasks
//! together.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::{JobStageMetrics, OperatorMetricsSet, OperatorWithMetrics, PartitionLocation};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::metrics::MetricsSet;

/// What EXPLAIN ANALYZE answers, in the shape of `schema`: two columns of text.
pub(super) fn explained(
    schema: &SchemaRef,
    verbose: bool,
    stages: &[JobStageMetrics],
    places: &[PartitionLocation],
) -> Result<RecordBatch> {
    let mut rows = vec![("Plan with Metrics", text(stages, true)?)];
    if verbose {
        rows.push(("Plan with Full Metrics", text(stages, false)?));
        let given = places.iter().filter_map(|place| place.partition_stats.as_ref());
        let count: i64 = given.map(|statistics| statistics.num_rows.max(0)).sum();
        rows.push(("Output Rows", count.to_string()));
    }
    let kinds = StringArray::from_iter_values(rows.iter().map(|(kind, _)| *kind));
    let texts = StringArray::from_iter_values(rows.iter().map(|(_, text)| text));
    Ok(RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(kinds), Arc::new(texts)])?)
}

/// The stage that gives the result comes first, as the operator that gives it does.
fn text(stages: &[JobStageMetrics], merged: bool) -> Result<String> {
    let mut text = String::new();
    for stage in stages.iter().rev() {
        let tasks = if stage.partitions == 1 { "partition" } else { "partitions" };
        writeln!(text, "stage {}, {} {tasks}", stage.stage_id, stage.partitions).map_err(unwritable)?;
        for operator in &stage.operators {
            let indent = "  ".repeat(operator.depth as usize + 1);
            let metrics = metrics(operator, merged)?;
            writeln!(text, "{indent}{}, metrics=[{metrics}]", operator.operator_desc).map_err(unwritable)?;
        }
    }
    Ok(text)
}

fn unwritable(error: std::fmt::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn metrics(operator: &OperatorWithMetrics, merged: bool) -> Result<String> {
    let metrics: MetricsSet = OperatorMetricsSet { metrics: operator.metrics.clone() }
        .try_into()
        .map_err(|error: BallistaError| DataFusionError::External(Box::new(error)))?;
    let metrics = if merged { metrics.aggregate_by_name() } else { metrics };
    Ok(metrics.sorted_for_display().timestamps_removed().to_string())
}
