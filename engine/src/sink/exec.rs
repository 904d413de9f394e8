//! The sink in a physical plan: unary, one task for each partition of its input.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::TableOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use serde::{Deserialize, Serialize};
use storage::Stores;

use super::room::{Files, Room};
use super::spec::{FILES, SinkSpec, WrittenSpec, file_rows};
use super::write::write;

/// The node's name in plans.
pub(crate) const NODE_NAME: &str = "SinkExec";
/// The metric that counts rows as they are written.
pub(crate) const ROWS_WRITTEN: &str = "rows_written";

/// See the module.
#[derive(Debug)]
pub(crate) struct SinkExec {
    input: Arc<dyn ExecutionPlan>,
    spec: Arc<SinkSpec>,
    stores: Stores,
    /// The order that files keep.
    order: Option<LexOrdering>,
    /// All rows come from one partition: for the sake of their order, or because there is one file.
    gathered: bool,
    /// Whether the rows of a directory come one after the other, so that one file is open at a time.
    by_directory: bool,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// A sink on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WrittenSink {
    spec: WrittenSpec,
    gathered: bool,
    by_directory: bool,
}

impl SinkExec {
    pub(super) fn new(
        input: Arc<dyn ExecutionPlan>,
        spec: Arc<SinkSpec>,
        stores: Stores,
        order: Option<LexOrdering>,
    ) -> Result<Self> {
        let gathered = spec.single_file || order.is_some();
        Self::build(input, spec, stores, order, gathered)
    }

    /// A sink that comes from another process: its input is in order already when it should be.
    pub(crate) fn read(
        input: Arc<dyn ExecutionPlan>,
        written: WrittenSink,
        stores: Stores,
        defaults: &TableOptions,
    ) -> crate::Result<Self> {
        let spec = Arc::new(SinkSpec::read(written.spec, defaults)?);
        let sink = Self::build(input, spec, stores, None, written.gathered)?;
        Ok(sink.with_rows_by_directory(written.by_directory))
    }

    /// The sink as plain data, without its input.
    pub(crate) fn written(&self) -> WrittenSink {
        WrittenSink { spec: self.spec.written(), gathered: self.gathered, by_directory: self.by_directory }
    }

    fn build(
        input: Arc<dyn ExecutionPlan>,
        spec: Arc<SinkSpec>,
        stores: Stores,
        order: Option<LexOrdering>,
        gathered: bool,
    ) -> Result<Self> {
        let partitions = input.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&FILES)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        let properties = Arc::new(properties);
        Ok(SinkExec { input, spec, stores, order, gathered, by_directory: false, properties, metrics })
    }

    /// The same sink, for rows that are sorted by their directories when `by_directory`.
    pub(super) fn with_rows_by_directory(self, by_directory: bool) -> Self {
        SinkExec { by_directory, ..self }
    }

    /// Whether all rows go into one file, in no order of their own: then in the order in which they come.
    pub(crate) fn keeps_order_of_input(&self) -> bool {
        self.gathered && self.order.is_none()
    }

    /// The columns that name directories.
    fn directory_columns(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let schema = self.input.schema();
        (self.spec.partition_by.iter())
            .filter_map(|name| Column::new_with_schema(name, &schema).ok())
            .map(|column| Arc::new(column) as Arc<dyn PhysicalExpr>)
            .collect()
    }

    /// How rows should reach the tasks: in one partition when their order or the single file asks for it; those of one
    /// directory together, so that each directory gets few files; else as they come.
    fn distribution(&self) -> Distribution {
        if self.gathered {
            return Distribution::SinglePartition;
        }
        let columns = self.directory_columns();
        if columns.is_empty() { Distribution::UnspecifiedDistribution } else { Distribution::KeyPartitioned(columns) }
    }
}

impl DisplayAs for SinkExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NODE_NAME}: format={}", self.spec.encoding.ending())?;
        if !self.spec.partition_by.is_empty() {
            write!(f, ", partition_by=[{}]", self.spec.partition_by.join(", "))?;
        }
        Ok(())
    }
}

impl ExecutionPlan for SinkExec {
    fn name(&self) -> &'static str {
        NODE_NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![self.distribution()])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let by_directory = || LexOrdering::new(self.directory_columns().into_iter().map(PhysicalSortExpr::new_default));
        let order = match &self.order {
            None if self.by_directory => by_directory(),
            order => order.clone(),
        };
        vec![order.map(OrderingRequirements::from)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![!self.gathered]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().expect("a sink has one input");
        let (spec, order) = (Arc::clone(&self.spec), self.order.clone());
        let sink = SinkExec::build(input, spec, self.stores.clone(), order, self.gathered)?;
        Ok(Arc::new(sink.with_rows_by_directory(self.by_directory)))
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let tasks = self.input.output_partitioning().partition_count();
        let mixed = !self.spec.partition_by.is_empty() && !self.by_directory;
        let files = if mixed { Files::Many } else { Files::One };
        let room = Room::new(context.memory_pool().memory_limit(), tasks, self.spec.is_local(), files);
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let spec = Arc::clone(&self.spec);
        let stores = self.stores.clone();
        let rows_written: Count = MetricBuilder::new(&self.metrics).counter(ROWS_WRITTEN, partition);
        // Held for as long as the task lives, whether it ends or is dropped.
        let token = self.spec.tasks.token();
        let work = async move {
            let _token = token;
            let written = write(&spec, &stores, (partition, room), input, &context, &rows_written).await?;
            file_rows(&written)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&FILES), futures::stream::once(work))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
