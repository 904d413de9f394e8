//! Rows that a semi join will drop are dropped before they are joined with others.
//!
//! `WHERE key IN (SELECT ...)` becomes a semi join above all joins of its query. When its condition only asks for columns
//! of one of their sides it can be made on that side alone, with the same answer: an inner join keeps the columns of a row
//! as they are, and whether a row passes depends on nothing else. That is no more work when the other side drops no rows:
//! then the join gives at least as many rows as the side has. Where the other side has a filter of its own, which may drop
//! nearly all, plans stay as they are.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// See the module.
#[derive(Debug)]
pub(super) struct EarlySemiJoins;

impl OptimizerRule for EarlySemiJoins {
    fn name(&self) -> &'static str {
        "early_semi_joins"
    }

    /// A semi join that has moved to a side may move on inside it.
    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Join(semi) = &plan else { return Ok(Transformed::no(plan)) };
        Ok(match moved(semi)? {
            Some(moved) => Transformed::yes(moved),
            None => Transformed::no(plan),
        })
    }
}

/// The same plan with the semi join inside the join that it was above; `None` when it stays.
fn moved(semi: &Join) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Join(below) = semi.left.as_ref() else { return Ok(None) };
    if semi.join_type != JoinType::LeftSemi || is_volatile(semi) {
        return Ok(None);
    }
    let asked = asked_columns(semi);
    let asks_only = |side: &LogicalPlan| asked.iter().all(|column| side.schema().has_column(column));
    let (left, right) = if asks_only(&below.left) && keeps_left(below) {
        (on_side(semi, &below.left)?, Arc::clone(&below.right))
    } else if asks_only(&below.right) && keeps_right(below) {
        (Arc::clone(&below.left), on_side(semi, &below.right)?)
    } else {
        return Ok(None);
    };
    Ok(Some(LogicalPlan::Join(Join { left, right, ..below.clone() })))
}

/// The semi join of one side alone.
fn on_side(semi: &Join, side: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
    let join = Join::try_new(
        Arc::clone(side),
        Arc::clone(&semi.right),
        semi.on.clone(),
        semi.filter.clone(),
        semi.join_type,
        semi.join_constraint,
        semi.null_equality,
        semi.null_aware,
    )?;
    Ok(Arc::new(LogicalPlan::Join(join)))
}

fn is_volatile(join: &Join) -> bool {
    join.on.iter().any(|(left, right)| left.is_volatile() || right.is_volatile())
        || join.filter.as_ref().is_some_and(Expr::is_volatile)
}

/// Columns of its left side that a semi join looks at.
fn asked_columns(semi: &Join) -> Vec<&Column> {
    let keys = semi.on.iter().flat_map(|(left, _)| left.column_refs());
    let filter = semi.filter.iter().flat_map(|filter| filter.column_refs());
    keys.chain(filter.filter(|column| !semi.right.schema().has_column(column))).collect()
}

/// Whether a join has a row, or more, for every row of one of its sides: `outer` is the kind of join that keeps them all
/// whatever the other side has.
fn keeps_side(join: &Join, outer: JoinType, other: &LogicalPlan) -> bool {
    join.join_type == outer || join.join_type == JoinType::Inner && has_only_keys(join) && keeps_rows(other)
}

fn keeps_left(join: &Join) -> bool {
    keeps_side(join, JoinType::Left, &join.right)
}

fn keeps_right(join: &Join) -> bool {
    keeps_side(join, JoinType::Right, &join.left)
}

/// Whether nothing but equal keys is asked; those of a comma join are still among its filters when this rule runs.
fn has_only_keys(join: &Join) -> bool {
    let is_key = |part: &Expr| matches!(part, Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }));
    join.filter.as_ref().is_none_or(|filter| split_conjunction(filter).into_iter().all(is_key))
}

/// Whether these are all rows of their tables, as far as can be seen.
fn keeps_rows(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.filters.is_empty() && scan.fetch.is_none(),
        LogicalPlan::SubqueryAlias(alias) => keeps_rows(&alias.input),
        LogicalPlan::Projection(projection) => keeps_rows(&projection.input),
        LogicalPlan::Join(join) => {
            (keeps_left(join) && keeps_rows(&join.left)) || (keeps_right(join) && keeps_rows(&join.right))
        }
        _ => false,
    }
}
