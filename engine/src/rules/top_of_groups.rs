//! The first rows of each group, `row_number() OVER (PARTITION BY ... ORDER BY ...) <= k`, are found without sorting the
//! others. Where a query numbers or ranks the rows of groups and keeps only the first, this rule lets no row into the sort
//! that has k rows of its group before it by the first column of the order. What is left is sorted and numbered as before,
//! so nothing depends on it but time.

mod best;
mod exec;

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::split_conjunction;
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, PhysicalExpr, ReplaceChildrenOptions};

use exec::TopOfGroupsExec;

/// With more rows of a group than that kept for comparison, sorting is as good.
const ROWS_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct TopOfGroups;

impl PhysicalOptimizerRule for TopOfGroups {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
            let mut limits = split_conjunction(filter.predicate()).into_iter().filter_map(limit);
            match limits.find_map(|(column, rows)| without_others(filter.input(), column, rows).transpose()) {
                Some(input) => replace(&node, input?).map(Transformed::yes),
                None => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "top_of_groups"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// `column <= rows`, however it is written.
fn limit(condition: &Arc<dyn PhysicalExpr>) -> Option<(usize, usize)> {
    let comparison = condition.downcast_ref::<BinaryExpr>()?;
    let (left, right) = (comparison.left(), comparison.right());
    let (column, literal, operator) = match (left.downcast_ref::<Column>(), right.downcast_ref::<Column>()) {
        (Some(column), None) => (column, right, *comparison.op()),
        (None, Some(column)) => (column, left, comparison.op().swap()?),
        _ => return None,
    };
    let number = literal.downcast_ref::<Literal>()?.value();
    let ScalarValue::UInt64(Some(number)) = number.cast_to(&arrow::datatypes::DataType::UInt64).ok()? else {
        return None;
    };
    let rows = match operator {
        Operator::LtEq | Operator::Eq => number,
        Operator::Lt => number.checked_sub(1)?,
        _ => return None,
    };
    (1..=ROWS_MAX as u64).contains(&rows).then_some((column.index(), rows as usize))
}

/// The plan without the rows that the first `rows` by its `column`, a number in a group, will not be among; `None` when
/// that column is something else.
fn without_others(plan: &Arc<dyn ExecutionPlan>, column: usize, rows: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let Some(below) = projection.expr()[column].expr.downcast_ref::<Column>().map(Column::index) else {
            return Ok(None);
        };
        let input = without_others(projection.input(), below, rows)?;
        return input.map(|input| replace(plan, input)).transpose();
    }
    let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() else { return Ok(None) };
    let place = column.checked_sub(window.input().schema().fields().len());
    let Some(number) = place.and_then(|place| window.window_expr().get(place)) else { return Ok(None) };
    if !is_first_of_all(number, window.window_expr()) {
        return Ok(None);
    }
    // Without a sort the rows are in order, and nothing is saved.
    let Some(sort) = window.input().downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none()) else {
        return Ok(None);
    };
    let dealt = sort.input().downcast_ref::<RepartitionExec>();
    let source = dealt.map_or(sort.input(), RepartitionExec::input);
    let Some(top) = TopOfGroupsExec::try_new(source, number.partition_by(), &number.order_by()[0], rows)? else {
        return Ok(None);
    };
    let mut input: Arc<dyn ExecutionPlan> = Arc::new(top);
    if dealt.is_some() {
        input = replace(sort.input(), input)?;
    }
    replace(plan, replace(window.input(), input)?).map(Some)
}

/// Whether a row's number says how many rows are before it, and all numbers beside it say things of the same order.
fn is_first_of_all(number: &Arc<dyn WindowExpr>, all: &[Arc<dyn WindowExpr>]) -> bool {
    let same = |other: &Arc<dyn WindowExpr>| {
        let exprs = |them: &[Arc<dyn PhysicalExpr>]| them.iter().map(ToString::to_string).collect::<Vec<_>>();
        exprs(other.partition_by()) == exprs(number.partition_by()) && other.order_by() == number.order_by()
    };
    let named = |other: &Arc<dyn WindowExpr>, names: &[&str]| function(other).is_some_and(|name| names.contains(&name));
    named(number, &["row_number", "rank"])
        && !number.partition_by().is_empty()
        && !number.order_by().is_empty()
        && all.iter().all(|other| same(other) && named(other, &["row_number", "rank", "dense_rank"]))
}

fn function(expression: &Arc<dyn WindowExpr>) -> Option<&str> {
    let standard = expression.as_any().downcast_ref::<StandardWindowExpr>()?;
    let function = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>()?;
    Some(function.fun().name())
}

fn replace(node: &Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    Arc::clone(node).replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
