//! Partitions one after the other, in one stream. Those whose turn has not come are read ahead, each so far that it has some
//! batches waiting: all cores work, and what waits is counted. Whoever wants no more rows drops the stream, and with it all
//! readers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::Readers;

/// See the module.
#[derive(Debug)]
pub(super) struct OrderedGather {
    input: Arc<dyn ExecutionPlan>,
    /// So many rows are enough.
    fetch: Option<usize>,
    readers: Readers,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl OrderedGather {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, fetch: Option<usize>, readers: Readers) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        OrderedGather { input, fetch, readers, properties: Arc::new(properties), metrics }
    }
}

impl DisplayAs for OrderedGather {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrderedGather")?;
        self.fetch.map_or(Ok(()), |fetch| write!(f, ": fetch={fetch}"))
    }
}

impl ExecutionPlan for OrderedGather {
    fn name(&self) -> &'static str {
        "OrderedGather"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("a gathering has one input");
        Ok(Arc::new(OrderedGather::new(input, self.fetch, self.readers)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let consumer = MemoryConsumer::new("OrderedGather");
        let turns = Turns {
            input: Arc::clone(&self.input),
            waiting: self.readers.waiting,
            memory: Arc::new(consumer.register(context.memory_pool())),
            context,
            next: 0,
            ahead: VecDeque::new(),
            at_once: self.readers.at_once,
            left: self.fetch.unwrap_or(usize::MAX),
        };
        let metrics = BaselineMetrics::new(&self.metrics, 0);
        let rows = stream::try_unfold((turns, metrics), |(mut turns, metrics)| async move {
            let batch = turns.batch().await?;
            if let Some(batch) = &batch {
                metrics.record_output(batch.num_rows());
            }
            Ok(batch.map(|batch| (batch, (turns, metrics))))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// A partition that is being read.
struct Reader {
    batches: mpsc::Receiver<Result<RecordBatch>>,
    task: SpawnedTask<()>,
}

/// The partitions, from the one whose turn it is.
struct Turns {
    input: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    memory: Arc<MemoryReservation>,
    next: usize,
    ahead: VecDeque<Reader>,
    at_once: usize,
    waiting: usize,
    /// Rows that are still wanted.
    left: usize,
}

impl Turns {
    async fn batch(&mut self) -> Result<Option<RecordBatch>> {
        while self.left > 0 {
            self.begin()?;
            let Some(reader) = self.ahead.front_mut() else { return Ok(None) };
            match reader.batches.recv().await {
                Some(batch) => {
                    let batch = batch?;
                    self.memory.shrink(batch.get_array_memory_size().min(self.memory.size()));
                    let batch = if batch.num_rows() > self.left { batch.slice(0, self.left) } else { batch };
                    self.left -= batch.num_rows();
                    return Ok(Some(batch));
                }
                None => {
                    if let Some(ended) = self.ahead.pop_front() {
                        // A task that panicked has closed its channel as well.
                        ended
                            .task
                            .join_unwind()
                            .await
                            .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?;
                    }
                }
            }
        }
        self.ahead.clear();
        Ok(None)
    }

    /// Has as many partitions read as may be.
    fn begin(&mut self) -> Result<()> {
        while self.ahead.len() < self.at_once && self.next < self.input.output_partitioning().partition_count() {
            let mut rows = self.input.execute(self.next, Arc::clone(&self.context))?;
            self.next += 1;
            let (sender, batches) = mpsc::channel(self.waiting);
            let memory = Arc::clone(&self.memory);
            let task = SpawnedTask::spawn(async move {
                while let Some(batch) = rows.next().await {
                    if let Ok(batch) = &batch {
                        memory.grow(batch.get_array_memory_size());
                    }
                    if sender.send(batch).await.is_err() {
                        return;
                    }
                }
            });
            self.ahead.push_back(Reader { batches, task });
        }
        Ok(())
    }
}
