//! One of several places of a plan that read the same rows.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ReplaceChildrenOptions};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};

use crate::rules::like_its_input::like_its_input;

/// Rows of a partition, and their place in the memory that is counted.
struct Rows {
    batches: Vec<RecordBatch>,
    _counted: MemoryReservation,
}

type Making = Shared<BoxFuture<'static, Result<Arc<Rows>, Arc<DataFusionError>>>>;

/// What several readers of the same rows have in common. Whoever comes first to a partition begins it, as a task that
/// nobody's end stops but that of all.
#[derive(Default)]
pub(super) struct Kept {
    /// Of the readers' equal inputs the one that is executed: another partition of another input would read everything again.
    input: OnceLock<Arc<dyn ExecutionPlan>>,
    partitions: Mutex<HashMap<usize, Making>>,
    readers: AtomicUsize,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rows for {} readers", self.readers.load(Ordering::Relaxed))
    }
}

impl Kept {
    fn partition(
        &self,
        input: &Arc<dyn ExecutionPlan>,
        partition: usize,
        context: &Arc<TaskContext>,
    ) -> Result<Making> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(making) = partitions.get(&partition) {
            return Ok(making.clone());
        }
        let rows = self.input.get_or_init(|| Arc::clone(input)).execute(partition, Arc::clone(context))?;
        let counted = MemoryConsumer::new("SharedExec").register(context.memory_pool());
        let task = SpawnedTask::spawn(collected(rows, counted));
        let made = task.join_unwind().map_err(|gone| DataFusionError::External(Box::new(gone)));
        let making = made.map(|made| made.and_then(|rows| rows).map(Arc::new).map_err(Arc::new)).boxed().shared();
        partitions.insert(partition, making.clone());
        Ok(making)
    }
}

async fn collected(mut rows: SendableRecordBatchStream, counted: MemoryReservation) -> Result<Rows> {
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        counted.try_grow(batch.get_array_memory_size())?;
        batches.push(batch);
    }
    Ok(Rows { batches, _counted: counted })
}

/// See the module.
#[derive(Debug)]
pub(super) struct SharedExec {
    input: Arc<dyn ExecutionPlan>,
    kept: Arc<Kept>,
    /// Which of the readers this is, from 1.
    number: usize,
}

impl SharedExec {
    /// Another reader of the rows that `input` gives. All readers' inputs give the same.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, kept: Arc<Kept>) -> Self {
        let number = kept.readers.fetch_add(1, Ordering::Relaxed) + 1;
        SharedExec { input, kept, number }
    }
}

/// Whether a node reads what another node of its plan makes, so that nothing below it is executed.
pub(crate) fn is_repeated(node: &dyn ExecutionPlan) -> bool {
    node.downcast_ref::<SharedExec>().is_some_and(|shared| shared.number > 1)
}

impl DisplayAs for SharedExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedExec: reader {} of {}", self.number, self.kept.readers.load(Ordering::Relaxed))
    }
}

impl ExecutionPlan for SharedExec {
    fn name(&self) -> &'static str {
        "SharedExec"
    }

    like_its_input!(input);

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
        let input = children.swap_remove(0);
        Ok(Arc::new(SharedExec { input, kept: Arc::clone(&self.kept), number: self.number }))
    }

    /// A plan that is executed again makes its rows again, each reader its own.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(SharedExec::new(Arc::clone(&self.input), Arc::default())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let making = self.kept.partition(&self.input, partition, &context)?;
        let rows = making.map(|made| match made {
            Ok(rows) => stream::iter((0..rows.batches.len()).map(move |place| Ok(rows.batches[place].clone()))).boxed(),
            Err(error) => stream::iter([Err(DataFusionError::Shared(error))]).boxed(),
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.flatten_stream())))
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }
}
