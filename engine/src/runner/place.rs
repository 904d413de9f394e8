//! Where a cluster's session runs a plan, told to the user: a plan that executors would not answer rightly, or at all, runs in
//! the driver, and EXPLAIN says so.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::display::{PlanType, StringifiedPlan};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;

/// What is said before the reason.
pub(crate) const IN_DRIVER: &str = "runs in the driver";

/// EXPLAIN's plan with a line more where it is not for executors.
pub(super) fn with_place(plan: Arc<dyn ExecutionPlan>, reason: Option<String>) -> Arc<dyn ExecutionPlan> {
    let (Some(explain), Some(reason)) = (plan.downcast_ref::<ExplainExec>(), reason) else { return plan };
    let mut plans = explain.stringified_plans().to_vec();
    let Some(last) = plans.iter_mut().rfind(|plan| plan.plan_type == PlanType::FinalPhysicalPlan) else { return plan };
    let text = format!("{}\n{IN_DRIVER}: {reason}\n", last.plan.trim_end());
    *last = StringifiedPlan::new(PlanType::FinalPhysicalPlan, text);
    Arc::new(ExplainExec::new(explain.schema(), plans, explain.verbose()))
}

/// EXPLAIN ANALYZE's rows with one more.
pub(super) fn told(rows: SendableRecordBatchStream, reason: &str) -> SendableRecordBatchStream {
    let schema = rows.schema();
    if schema.fields().len() != 2 || schema.fields().iter().any(|field| *field.data_type() != DataType::Utf8) {
        return rows;
    }
    let cell = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let row = RecordBatch::try_new(Arc::clone(&schema), vec![cell("Place"), cell(&format!("{IN_DRIVER}: {reason}"))]);
    let last = futures::stream::once(async move { Ok(row?) });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows.chain(last)))
}
