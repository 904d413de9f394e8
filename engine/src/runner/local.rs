//! Execution in this process: the query engine's own, one task per partition.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::stats::Precision;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, execute_stream, execute_stream_partitioned};

use super::{Execution, Gather, Gauge, Reading, Runner};
use crate::error::Result;
use crate::fault::kept_rows;
use crate::rules::{RowOrder, gathered_in_order, is_repeated};
use crate::session::Session;
use crate::sink::{NODE_NAME, ROWS_WRITTEN};

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalRunner;

#[async_trait]
impl Runner for LocalRunner {
    fn name(&self) -> &'static str {
        "local"
    }

    async fn run(&self, session: &Session, plan: LogicalPlan, gather: Gather) -> Result<Execution> {
        let mut state = session.context().state();
        let kept = gather != Gather::Partitions;
        state.config_mut().options_mut().extensions.insert(RowOrder { kept });
        let physical = Box::pin(state.create_physical_plan(&plan)).await?;
        let partitions = state.config().target_partitions();
        let gathered = match gather {
            Gather::One => gathered_in_order(&physical, partitions, session.memory_limit().is_some())?,
            Gather::Partitions | Gather::PartitionsInOrder => None,
        };
        execute(&state, gathered.unwrap_or(physical), gather)
    }
}

/// Begins a physical plan in this process.
pub(super) fn execute(state: &SessionState, physical: Arc<dyn ExecutionPlan>, gather: Gather) -> Result<Execution> {
    let partitions = match gather {
        Gather::One => vec![execute_stream(Arc::clone(&physical), state.task_ctx())?],
        Gather::Partitions | Gather::PartitionsInOrder => {
            execute_stream_partitioned(Arc::clone(&physical), state.task_ctx())?
        }
    };
    let partitions = partitions.into_iter().map(kept_rows).collect();
    let rows_to_scan = rows_to_scan(&physical);
    Ok(Execution { partitions, gauge: Arc::new(PlanGauge { plan: physical, rows_to_scan }) })
}

/// Reads the metrics that the plan's nodes keep.
struct PlanGauge {
    plan: Arc<dyn ExecutionPlan>,
    rows_to_scan: Option<u64>,
}

impl Gauge for PlanGauge {
    fn read(&self) -> Reading {
        let mut reading = Reading { rows_to_scan: self.rows_to_scan, ..Reading::default() };
        visit(&self.plan, &mut reading);
        reading
    }
}

fn visit(node: &Arc<dyn ExecutionPlan>, reading: &mut Reading) {
    let metrics = node.metrics();
    let children = node.children();
    if let Some(metrics) = &metrics {
        reading.bytes_spilled += metrics.spilled_bytes().unwrap_or(0) as u64;
        if children.is_empty() {
            reading.rows_scanned += metrics.output_rows().unwrap_or(0) as u64;
        }
        if node.name() == NODE_NAME {
            reading.rows_written += metrics.sum_by_name(ROWS_WRITTEN).map_or(0, |rows| rows.as_usize() as u64);
        }
    }
    for child in children {
        visit(child, reading);
    }
}

/// Rows of all scans, when every one of them knows.
pub(super) fn rows_to_scan(node: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    if is_repeated(node.as_ref()) {
        return Some(0);
    }
    let children = node.children();
    if children.is_empty() {
        let statistics = StatisticsContext::default().compute(node.as_ref(), &StatisticsArgs::default()).ok()?;
        return match statistics.num_rows {
            Precision::Exact(rows) | Precision::Inexact(rows) => Some(rows as u64),
            Precision::Absent => None,
        };
    }
    children.into_iter().map(rows_to_scan).sum()
}
