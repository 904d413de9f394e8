//! A UNION of which one branch is left. When the other branches have no rows, the query engine asks the one that is left for
//! the union's columns by their names (DataFusion 55.2); its own may be called otherwise, or in another order. Here they are
//! taken by their places.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The query engine's rule that takes out what has no rows.
pub(super) const TAKES_OUT_EMPTY: &str = "propagate_empty_relation";

/// See the module.
#[derive(Debug)]
pub(super) struct LoneBranches(pub(super) Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for LoneBranches {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Union(union) = &plan else { return self.0.rewrite(plan, config) };
        let has_rows = |input: &&Arc<LogicalPlan>| match input.as_ref() {
            LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
            _ => true,
        };
        let mut left = union.inputs.iter().filter(has_rows);
        let (Some(branch), None) = (left.next(), left.next()) else { return self.0.rewrite(plan, config) };
        if union.inputs.len() == 1 {
            return Ok(Transformed::no(plan));
        }
        let columns = branch.schema().iter().zip(union.schema.iter()).map(|(own, (table, field))| {
            let own_name = Column::from(own);
            let same = own_name.relation.as_ref() == table && own_name.name == *field.name();
            let column = Expr::Column(own_name);
            if same { column } else { column.alias_qualified(table.cloned(), field.name()) }
        });
        let columns = columns.collect();
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(branch))?)))
    }
}
