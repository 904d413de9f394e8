//! The sink in a logical plan, and its way into a physical one.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session as CatalogSession;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use storage::Stores;

use super::exec::SinkExec;
use super::spec::{FILES, SinkSpec};

/// Writes its input.
#[derive(Debug, Clone)]
pub(crate) struct SinkNode {
    input: LogicalPlan,
    spec: Arc<SinkSpec>,
    schema: DFSchemaRef,
    /// The input ends with an ORDER BY, which the files keep.
    ordered: bool,
}

impl SinkNode {
    /// A plan that writes the rows of `input` and gives back one row for each file.
    pub(crate) fn plan(input: LogicalPlan, spec: Arc<SinkSpec>) -> Result<LogicalPlan> {
        let schema = Arc::new(DFSchema::try_from(Arc::clone(&FILES))?);
        let ordered = ends_ordered(&input);
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(SinkNode { input, spec, schema, ordered }) }))
    }
}

fn ends_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Limit(_) => {
            plan.inputs().first().is_some_and(|input| ends_ordered(input))
        }
        _ => false,
    }
}

// Two sinks are the same only when they are one: they write into one commit.
impl PartialEq for SinkNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.spec, &other.spec) && self.input == other.input
    }
}

impl Eq for SinkNode {}

impl PartialOrd for SinkNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl Hash for SinkNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.spec).hash(state);
        self.input.hash(state);
    }
}

impl UserDefinedLogicalNodeCore for SinkNode {
    fn name(&self) -> &'static str {
        "Sink"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink: {}", self.spec.encoding.ending())
    }

    fn with_exprs_and_inputs(&self, _expressions: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs.pop().expect("a sink has one input");
        Ok(SinkNode { input, ..self.clone() })
    }
}

/// The query engine's planner, which also knows sinks.
#[derive(Debug)]
pub(crate) struct SinkPlanner {
    stores: Stores,
}

impl SinkPlanner {
    pub(crate) fn new(stores: Stores) -> Self {
        SinkPlanner { stores }
    }
}

#[async_trait]
impl QueryPlanner for SinkPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn CatalogSession,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let sinks = Arc::new(Sinks { stores: self.stores.clone() });
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![sinks]);
        planner.create_physical_plan(plan, session).await
    }
}

struct Sinks {
    stores: Stores,
}

#[async_trait]
impl ExtensionPlanner for Sinks {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn CatalogSession,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(sink) = node.as_any().downcast_ref::<SinkNode>() else { return Ok(None) };
        let input = Arc::clone(&physical_inputs[0]);
        let order = if sink.ordered { input.properties().output_ordering().cloned() } else { None };
        let ordered = order.is_some();
        let exec = SinkExec::new(input, Arc::clone(&sink.spec), self.stores.clone(), order)?;
        // Many open files need memory, and a sort that spills does not.
        let limited = matches!(session.runtime_env().memory_pool.memory_limit(), MemoryLimit::Finite(_));
        Ok(Some(Arc::new(exec.with_rows_by_directory(limited && !ordered))))
    }
}
