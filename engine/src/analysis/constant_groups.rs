//! Constants among the columns of grouping sets. Where a set leaves such a column out it is NULL; the query engine takes it for
//! the constant all the same, and drops a sort by it (DataFusion 55.2). So its values go through a function that depends on the
//! number of the set.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection};
use datafusion::optimizer::AnalyzerRule;

use crate::functions::named_value;

/// See the module.
#[derive(Debug)]
pub(super) struct ConstantGroups;

impl AnalyzerRule for ConstantGroups {
    fn name(&self) -> &str {
        "constant_groups"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Aggregate(aggregate) => opaque(aggregate),
            node => Ok(Transformed::no(node)),
        })
        .map(|done| done.data)
    }
}

/// The aggregate, below a projection of its columns where one of them is such a constant.
fn opaque(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let constants = constants(&aggregate);
    if !constants.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let set = Expr::Column(Column::from_name(Aggregate::INTERNAL_GROUPING_ID));
    let columns = aggregate.schema.iter().enumerate().map(|(index, (table, field))| {
        let column = Expr::Column((table, field).into());
        match constants.get(index) {
            Some(true) => named_value::kept(column, set.clone()).alias_qualified(table.cloned(), field.name()),
            _ => column,
        }
    });
    let columns = columns.collect();
    let projection = Projection::try_new(columns, Arc::new(LogicalPlan::Aggregate(aggregate)))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}

/// Which of the grouping sets' columns have one value wherever they have one.
fn constants(aggregate: &Aggregate) -> Vec<bool> {
    let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() else { return Vec::new() };
    set.distinct_expr().into_iter().map(|expr| expr.column_refs().is_empty() && !expr.is_volatile()).collect()
}
