//! INTERSECT ALL and EXCEPT ALL, which count: of a row that one side has `m` times and the other `n` times they give
//! `min(m, n)` and `m - n` copies. The query engine plans them as the semi and the anti join that their siblings without ALL
//! are, only without DISTINCT (DataFusion 55.2): every copy stays, or none. Here the copies of a row are numbered on both
//! sides, and the number is one column more that must be the same.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

/// Names of the numbers, which no user can see.
const ON_THE_LEFT: &str = " copy on the left";
const ON_THE_RIGHT: &str = " copy on the right";

/// See the module.
#[derive(Debug)]
pub(super) struct Copies;

impl AnalyzerRule for Copies {
    fn name(&self) -> &'static str {
        "copies_of_set_operations"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Join(join) if counts(&join) => Ok(Transformed::yes(counted(join)?)),
            node => Ok(Transformed::no(node)),
        })
        .data()
    }
}

/// Before a plan is optimized, only set operations compare rows so that NULL equals NULL. Where the rows of the left side are
/// distinct, at most one copy is asked for.
fn counts(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
}

fn counted(join: Join) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let left = numbered(&join.left, ON_THE_LEFT)?;
    let right = numbered(&join.right, ON_THE_RIGHT)?;
    let number = |name: &str| Expr::Column(Column::from_name(name));
    let mut on = join.on;
    on.push((number(ON_THE_LEFT), number(ON_THE_RIGHT)));
    let (kind, constraint, nulls) = (join.join_type, join.join_constraint, join.null_equality);
    let joined = Join::try_new(Arc::new(left), Arc::new(right), on, None, kind, constraint, nulls, join.null_aware)?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
}

/// The rows with the number of each among those that are equal to it.
fn numbered(rows: &Arc<LogicalPlan>, name: &str) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = rows.schema().columns().into_iter().map(Expr::Column).collect();
    let number = row_number().partition_by(columns.clone()).build()?;
    let numbers = Expr::Column(Column::from_name(number.schema_name().to_string())).alias(name);
    let plan = LogicalPlanBuilder::from(LogicalPlan::clone(rows)).window([number])?;
    plan.project(columns.into_iter().chain([numbers]))?.build()
}
