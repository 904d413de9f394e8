//! An aggregate that is executed anew for each piece of its rows.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};

use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

use crate::rules::like_its_input::like_its_input;

/// Rows of the first piece.
const ROWS_FIRST: usize = 256 * 1024;
/// So few groups are no burden: pieces may have more rows.
const GROUPS_FEW: usize = 32 * 1024;
/// Pieces of twice as many rows are worth it when they have fewer groups for each row than this part of what it was.
const FEWER: f64 = 0.75;
/// When twice as many rows had hardly more groups, nearly all groups are in every piece.
const ALL_IN_EACH: f64 = 0.625;
/// From so many groups for each row on a piece makes nothing smaller, and the query engine leaves rows as they are.
const ALL_DIFFERENT: f64 = 0.8;

/// How many rows the next piece has.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    rows: usize,
    /// Groups for each row of the piece before.
    ratio: f64,
}

impl Size {
    const FIRST: Size = Size { rows: ROWS_FIRST, ratio: f64::INFINITY };

    /// After a piece of so many rows and groups.
    fn next(self, rows: usize, groups: usize) -> Size {
        let ratio = groups as f64 / rows.max(1) as f64;
        let times = match () {
            () if ratio > ALL_DIFFERENT || groups < GROUPS_FEW => 16,
            () if self.ratio.is_finite() && ratio < ALL_IN_EACH * self.ratio => 16,
            () if ratio < FEWER * self.ratio => 2,
            () => 1,
        };
        Size { rows: self.rows.saturating_mul(times), ratio }
    }
}

/// The aggregate's own input, from which one piece after the other takes its rows.
struct Source {
    schema: SchemaRef,
    state: Mutex<State>,
}

struct State {
    /// `None` once it has ended.
    rows: Option<SendableRecordBatchStream>,
    /// What the piece that is under way may still take, and what it has taken.
    left: usize,
    taken: usize,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a piece of the rows")
    }
}

impl Source {
    fn new(rows: SendableRecordBatchStream) -> Self {
        Source { schema: rows.schema(), state: Mutex::new(State { rows: Some(rows), left: 0, taken: 0 }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a piece take `rows`; `false` when there are none.
    fn begin(&self, rows: usize) -> bool {
        let mut state = self.state();
        (state.left, state.taken) = (rows, 0);
        state.rows.is_some()
    }
}

/// The rows of the piece that is under way.
#[derive(Debug, Clone)]
struct Piece(Arc<Source>);

impl PartitionStream for Piece {
    fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let source = Arc::clone(&self.0);
        let rows = stream::poll_fn(move |context| {
            let mut state = source.state();
            if state.left == 0 {
                return Poll::Ready(None);
            }
            let Some(rows) = state.rows.as_mut() else { return Poll::Ready(None) };
            let next = ready!(rows.poll_next_unpin(context));
            match &next {
                Some(Ok(batch)) => {
                    state.left = state.left.saturating_sub(batch.num_rows());
                    state.taken += batch.num_rows();
                }
                _ => state.rows = None,
            }
            Poll::Ready(next)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0.schema), rows))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct PiecesExec {
    aggregate: Arc<dyn ExecutionPlan>,
    /// The aggregates that are executed in its place, one for each partition.
    executed: Mutex<Vec<Arc<dyn ExecutionPlan>>>,
}

impl PiecesExec {
    /// `aggregate`, piece by piece.
    pub(super) fn new(aggregate: Arc<dyn ExecutionPlan>) -> Self {
        PiecesExec { aggregate, executed: Mutex::default() }
    }

    fn executed(&self) -> MutexGuard<'_, Vec<Arc<dyn ExecutionPlan>>> {
        self.executed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One partition under way.
struct Run {
    source: Arc<Source>,
    /// The aggregate over a piece instead of its input.
    aggregate: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    size: Size,
    /// Of the piece that is under way.
    groups: Arc<AtomicUsize>,
}

impl Run {
    /// The groups of the next piece; `None` when there are no more rows.
    fn next(&mut self) -> Result<Option<SendableRecordBatchStream>> {
        let taken = self.source.state().taken;
        if taken > 0 {
            self.size = self.size.next(taken, self.groups.swap(0, Ordering::Relaxed));
        }
        if !self.source.begin(self.size.rows) {
            return Ok(None);
        }
        let groups = self.aggregate.execute(0, Arc::clone(&self.context))?;
        let count = Arc::clone(&self.groups);
        let counted = groups.inspect_ok(move |batch| {
            count.fetch_add(batch.num_rows(), Ordering::Relaxed);
        });
        Ok(Some(Box::pin(RecordBatchStreamAdapter::new(self.aggregate.schema(), counted))))
    }
}

impl DisplayAs for PiecesExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PiecesExec")
    }
}

impl ExecutionPlan for PiecesExec {
    fn name(&self) -> &'static str {
        "PiecesExec"
    }

    like_its_input!(aggregate);

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(PiecesExec::new(children.swap_remove(0))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.aggregate.children()[0].execute(partition, Arc::clone(&context))?;
        let source = Arc::new(Source::new(rows));
        let piece: Arc<dyn PartitionStream> = Arc::new(Piece(Arc::clone(&source)));
        let piece = StreamingTableExec::try_new(Arc::clone(&source.schema), vec![piece], None, [], false, None)?;
        let keep = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        let aggregate = Arc::clone(&self.aggregate).replace_children(vec![Arc::new(piece)], keep)?;
        self.executed().push(Arc::clone(&aggregate));
        let run = Run { source, aggregate, context, size: Size::FIRST, groups: Arc::default() };
        let pieces =
            stream::try_unfold(run, async |mut run| run.next().map(|groups| groups.map(|groups| (groups, run))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), pieces.try_flatten())))
    }

    /// What all pieces took together.
    fn metrics(&self) -> Option<MetricsSet> {
        let mut all = MetricsSet::new();
        let executed = self.executed();
        let metrics = executed.iter().filter_map(|aggregate| aggregate.metrics());
        metrics.for_each(|metrics| metrics.iter().for_each(|metric| all.push(Arc::clone(metric))));
        Some(all)
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_while_that_makes_fewer_groups() {
        // Rows of a group lie together: groups for each row stay what they are.
        let clustered = Size::FIRST.next(ROWS_FIRST, ROWS_FIRST / 4);
        assert_eq!(clustered.rows, 2 * ROWS_FIRST);
        assert_eq!(clustered.next(clustered.rows, clustered.rows / 4).rows, 2 * ROWS_FIRST);
        // 100,000 groups, each everywhere.
        let scattered = Size::FIRST.next(ROWS_FIRST, 92_000).next(2 * ROWS_FIRST, 99_000);
        assert_eq!(scattered.rows, 32 * ROWS_FIRST);
        // 200,000 groups: pieces begin to have most of them.
        let scattered = Size::FIRST.next(ROWS_FIRST, 146_000).next(2 * ROWS_FIRST, 185_000);
        assert_eq!(scattered.rows, 4 * ROWS_FIRST);
        // A handful of groups, and rows that are all different.
        assert_eq!(Size::FIRST.next(ROWS_FIRST, 7).rows, 16 * ROWS_FIRST);
        assert_eq!(Size::FIRST.next(ROWS_FIRST, ROWS_FIRST).rows, 16 * ROWS_FIRST);
    }
}
