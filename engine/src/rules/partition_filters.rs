//! Conditions on partition columns keep the files for which they are true. The query engine decides that from the value of
//! the condition without looking at whether it is NULL (DataFusion 55.2): `p NOT IN (1, NULL)` keeps all other files, and a
//! partition that is NULL is kept by `p <> 1`. Nobody asks again, as such a condition is taken to be settled by the scan. So
//! each is said twice, as it is, for the sake of listings, and as `... IS TRUE`, which is never NULL.

use datafusion::common::tree_node::Transformed;
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// See the module. It runs when filters are where they stay.
#[derive(Debug)]
pub(super) struct PartitionFilters;

impl OptimizerRule for PartitionFilters {
    fn name(&self) -> &'static str {
        "partition_filters"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::TableScan(scan) = plan else { return Ok(Transformed::no(plan)) };
        let wanted: Vec<Expr> = missing(&scan);
        if wanted.is_empty() {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        }
        let filters = scan.filters.iter().cloned().chain(wanted).collect();
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { filters, ..scan })))
    }
}

/// What the conditions on partition columns alone are not said as yet.
fn missing(scan: &TableScan) -> Vec<Expr> {
    if scan.filters.is_empty() {
        return Vec::new();
    }
    let Ok(provider) = source_as_provider(&scan.source) else { return Vec::new() };
    let Some(table) = provider.downcast_ref::<ListingTable>() else { return Vec::new() };
    let partitions = &table.options().table_partition_cols;
    let of_partitions = |filter: &&Expr| {
        let columns = filter.column_refs();
        !columns.is_empty() && columns.iter().all(|column| partitions.iter().any(|(name, _)| *name == column.name))
    };
    let is_settled =
        |filter: &Expr| matches!(filter, Expr::IsTrue(_) | Expr::IsNotTrue(_) | Expr::IsNull(_) | Expr::IsNotNull(_));
    let filters = scan.filters.iter().filter(of_partitions).filter(|filter| !is_settled(filter));
    let settled = filters.map(|filter| Expr::IsTrue(Box::new(filter.clone())));
    settled.filter(|filter| !scan.filters.contains(filter)).collect()
}
