//! Groups that a join will drop are not made.
//!
//! A join tells the other side, once it has read its own, which keys can find a partner; readers of Parquet skip row groups
//! and pages by that. A reader that also looks at every row, and reads the other columns of those only that pass, costs more
//! than it saves when most rows pass, so by default it does not. Between the join and the reader may be an aggregate by those
//! keys (a correlated subquery becomes one): then each row that is not skipped is hashed and folded into a group that is
//! thrown away afterwards. Below such aggregates, and where what the join has read is filtered, readers look at rows.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

/// See the module.
#[derive(Debug)]
pub(super) struct FilteredGroups;

impl PhysicalOptimizerRule for FilteredGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        rewritten(plan, Above { is_narrow: false, is_grouped: false })
    }

    fn name(&self) -> &'static str {
        "filtered_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What is above a node.
#[derive(Clone, Copy)]
struct Above {
    /// A join whose other side is filtered.
    is_narrow: bool,
    /// Below such a join, an aggregate by keys, and no other join since.
    is_grouped: bool,
}

fn rewritten(plan: Arc<dyn ExecutionPlan>, above: Above) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>() {
        let looks_at_rows = if above.is_grouped { looking_at_rows(scan) } else { None };
        return Ok(looks_at_rows.unwrap_or(plan));
    }
    let of_children: Vec<Above> = match plan.downcast_ref::<HashJoinExec>() {
        Some(join) => {
            let is_narrow = above.is_narrow || is_filtered(join.left())?;
            vec![Above { is_grouped: false, ..above }, Above { is_narrow, is_grouped: false }]
        }
        None => {
            let groups =
                plan.downcast_ref::<AggregateExec>().is_some_and(|aggregate| !aggregate.group_expr().is_empty());
            let is_grouped = above.is_grouped || above.is_narrow && groups;
            vec![Above { is_grouped, ..above }; plan.children().len()]
        }
    };
    let before: Vec<_> = plan.children().into_iter().cloned().collect();
    let after = before.iter().cloned().zip(of_children).map(|(child, above)| rewritten(child, above));
    let after = after.collect::<Result<Vec<_>>>()?;
    if before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)) {
        return Ok(plan);
    }
    // Readers give the same rows, or fewer, in the same order and number of partitions.
    plan.replace_children(after, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

/// Whether a side of a join has a filter of its own.
fn is_filtered(side: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    side.apply(|node| {
        found |= node.downcast_ref::<FilterExec>().is_some();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The same reader of Parquet, looking at every row; `None` when no join tells it anything, or when it does so already.
fn looking_at_rows(scan: &DataSourceExec) -> Option<Arc<dyn ExecutionPlan>> {
    let config = scan.data_source().downcast_ref::<FileScanConfig>()?;
    let source = config.file_source().downcast_ref::<ParquetSource>()?;
    let is_told = is_told(&FileSource::filter(source)?);
    if !is_told || source.table_parquet_options().global.pushdown_filters {
        return None;
    }
    let source = Arc::new(source.clone().with_pushdown_filters(true));
    let config = FileScanConfigBuilder::from(config.clone()).with_source(source).build();
    Some(DataSourceExec::from_data_source(config))
}

/// Whether part of a predicate is only known once a join has read its side.
fn is_told(predicate: &Arc<dyn PhysicalExpr>) -> bool {
    predicate.exists(|part| Ok(part.downcast_ref::<DynamicFilterPhysicalExpr>().is_some())).unwrap_or(false)
}
