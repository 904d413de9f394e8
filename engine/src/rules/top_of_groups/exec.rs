//! Lets those rows pass that may be among the first of their group.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ReplaceChildrenOptions};
use futures::StreamExt;

use crate::rules::like_its_input::like_its_input;

use super::best::{Best, Order};

/// After so many times the rows that groups keep it is seen whether enough were held back.
const ROUNDS: usize = 4;
/// Of which this part must be.
const HELD_BACK: f64 = 0.25;
/// After so many rows groups must have more than two each.
const ROWS_TRIED: usize = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct TopOfGroupsExec {
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    value: Arc<dyn PhysicalExpr>,
    order: Order,
    rows: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl TopOfGroupsExec {
    /// The input without rows that have `rows` of their group, by `keys`, before them in the `order`. `None` for an order
    /// that is not by numbers, and for keys that one operator may take for equal and another for different (the two zeros
    /// of floating point).
    pub(super) fn try_new(
        input: &Arc<dyn ExecutionPlan>,
        keys: &[Arc<dyn PhysicalExpr>],
        order: &PhysicalSortExpr,
        rows: usize,
    ) -> Result<Option<Self>> {
        let schema = input.schema();
        for key in keys {
            let key = key.data_type(&schema)?;
            if key.is_floating() || key.is_nested() {
                return Ok(None);
            }
        }
        let Some(by) = Order::new(&order.expr.data_type(&schema)?, order.options) else { return Ok(None) };
        let (value, metrics) = (Arc::clone(&order.expr), ExecutionPlanMetricsSet::new());
        Ok(Some(TopOfGroupsExec { input: Arc::clone(input), keys: keys.to_vec(), value, order: by, rows, metrics }))
    }
}

/// One partition under way.
struct Run {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    value: Arc<dyn PhysicalExpr>,
    order: Order,
    /// `None` once it was found to be of no use, or to be too large: all rows pass.
    best: Option<Best>,
    counted: MemoryReservation,
    seen: usize,
    passed: usize,
}

impl Run {
    fn pass(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let Some(best) = &mut self.best else { return Ok(batch) };
        let column = |expression: &Arc<dyn PhysicalExpr>| expression.evaluate(&batch)?.into_array(batch.num_rows());
        let keys = self.keys.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
        let numbers = self.order.numbers(&column(&self.value)?)?;
        let passed = filter_record_batch(&batch, &best.may_be_first(&keys, &numbers)?)?;
        self.seen += batch.num_rows();
        self.passed += passed.num_rows();
        let is_useless = is_useless(self.seen, self.passed, best.groups(), best.rows());
        if is_useless || self.counted.try_resize(best.size()).is_err() {
            self.best = None;
            self.counted.free();
        }
        Ok(passed)
    }
}

/// Whether rows that are looked at are not worth the look: of those seen, so many passed, and groups keep `rows` each.
fn is_useless(seen: usize, passed: usize, groups: usize, rows: usize) -> bool {
    let should_hold_back = seen > ROUNDS * groups * rows;
    (should_hold_back && passed as f64 > (1.0 - HELD_BACK) * seen as f64) || (seen > ROWS_TRIED && groups > seen / 2)
}

impl DisplayAs for TopOfGroupsExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "TopOfGroupsExec: rows={}, keys=[{}], order={}", self.rows, keys.join(", "), self.value)
    }
}

impl ExecutionPlan for TopOfGroupsExec {
    fn name(&self) -> &'static str {
        "TopOfGroupsExec"
    }

    like_its_input!(input);

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.keys.iter().chain([&self.value]).try_fold(TreeNodeRecursion::Continue, |next, expression| match next {
            TreeNodeRecursion::Continue => f(expression),
            other => Ok(other),
        })
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(TopOfGroupsExec {
            input: children.swap_remove(0),
            keys: self.keys.clone(),
            value: Arc::clone(&self.value),
            order: self.order,
            rows: self.rows,
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let types = self.keys.iter().map(|key| key.data_type(&schema)).collect::<Result<Vec<_>>>()?;
        let mut run = Run {
            keys: self.keys.clone(),
            value: Arc::clone(&self.value),
            order: self.order,
            best: Some(Best::new(&types, self.rows)?),
            counted: MemoryConsumer::new("TopOfGroupsExec").register(context.memory_pool()),
            seen: 0,
            passed: 0,
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let _timed = metrics.elapsed_compute().timer();
            run.pass(batch?).record_output(&metrics)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::new(Statistics::clone(&inputs[0]).to_inexact()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_rows_back_is_given_up() {
        for (seen, passed, groups, rows, useless) in [
            // All groups are new; they have filled up; rows come in ascending order.
            (100_000, 100_000, 90_000, 2, false),
            (900_000, 540_000, 100_000, 2, false),
            (900_000, 900_000, 100_000, 2, true),
            // Groups of a row each.
            (900_000, 900_000, 890_000, 2, false),
            (1_100_000, 1_100_000, 1_000_000, 2, true),
        ] {
            assert_eq!(is_useless(seen, passed, groups, rows), useless, "{seen} {passed} {groups} {rows}");
        }
    }
}
