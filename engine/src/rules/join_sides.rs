//! Which side of a join is hashed, where the query engine's rule went by bytes. Its estimate of a join's bytes takes whole
//! columns of the inputs, however few rows the join leaves (DataFusion 55.2), so that millions of rows pass for more than
//! tens of millions. This rule counts the rows, each as wide as its schema says, and hashes the side that is clearly
//! smaller.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

/// So many times the bytes of the other side must a hashed side have to lose its place.
const CLEARLY_LARGER: f64 = 2.0;
/// Bytes of a hash table for each row: its place in a chain, and its part of the table.
const TABLE_BYTES: f64 = 24.0;
/// Bytes of a value without fixed width.
const TEXT_BYTES: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct JoinSides;

impl PhysicalOptimizerRule for JoinSides {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(Transformed::no(node)) };
            // A side that all partitions share is small, and what is not in a list depends on NULLs of a certain side.
            if *join.partition_mode() != PartitionMode::Partitioned || join.null_aware {
                return Ok(Transformed::no(node));
            }
            Ok(match (hashed_bytes(join.left())?, hashed_bytes(join.right())?) {
                (Some(left), Some(right)) if left > CLEARLY_LARGER * right => {
                    Transformed::yes(join.swap_inputs(PartitionMode::Partitioned)?)
                }
                _ => Transformed::no(node),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "join_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Bytes of a table of a plan's rows; `None` when nobody knows how many there are.
fn hashed_bytes(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<f64>> {
    let told = StatisticsContext::default().compute(plan.as_ref(), &StatisticsArgs::default())?;
    let schema = plan.schema();
    let width: usize =
        schema.fields().iter().map(|field| field.data_type().primitive_width().unwrap_or(TEXT_BYTES)).sum();
    Ok(told.num_rows.get_value().map(|rows| *rows as f64 * (TABLE_BYTES + width as f64)))
}
