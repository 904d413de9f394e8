//! Which sorts may keep just the first rows in memory. `ORDER BY ... LIMIT n` does, and cannot spill (DataFusion 55.2): with
//! the n-th page of a result, or the best 400,000 customers, n rows need not fit. Under a memory limit, where they may
//! hold more than a share of it, all rows are sorted, which spills, and the first ones taken from that. Without a limit
//! nothing changes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::memory::FairPool;

/// The rule after which no sort gets or loses a number of rows.
pub(super) const SETTLES_TOPS: &str = "TopKRepartition";

/// The part of the limit that first rows may fill together.
const TOPS_PART: usize = 8;
/// Bytes that a text or another value without fixed width is taken to have: many have less, and those that have more would
/// end the query.
const LONG_VALUE_BYTES: usize = 128;
/// Bytes of a row's sort key and its place.
const ROW_BYTES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct SpillingTops {
    memory: Arc<FairPool>,
}

impl SpillingTops {
    pub(super) fn new(memory: Arc<FairPool>) -> Self {
        SpillingTops { memory }
    }
}

impl PhysicalOptimizerRule for SpillingTops {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(limit) = self.memory.limit() else { return Ok(plan) };
        plan.transform_up(|node| {
            let Some(sort) = node.downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
            let Some(rows) = sort.fetch() else { return Ok(Transformed::no(node)) };
            let partitions = sort.properties().output_partitioning().partition_count();
            let bytes = rows.saturating_mul(row_bytes(&sort.schema())).saturating_mul(partitions);
            if bytes <= limit / TOPS_PART {
                return Ok(Transformed::no(node));
            }
            let all: Arc<dyn ExecutionPlan> = Arc::new(sort.with_fetch(None));
            Ok(Transformed::yes(Arc::new(LocalLimitExec::new(all, rows)) as Arc<dyn ExecutionPlan>))
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "spilling_tops"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn row_bytes(schema: &Schema) -> usize {
    let width = |kind: &DataType| kind.primitive_width().unwrap_or(LONG_VALUE_BYTES);
    ROW_BYTES + schema.fields().iter().map(|field| width(field.data_type())).sum::<usize>()
}
