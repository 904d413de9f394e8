//! What subqueries in its expressions make of a plan's node: the same node over rows with some columns more, which are left
//! away again above it.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr, Window,
};

use super::Unnester;
use super::domain::{column_at, named};
use super::embedded::{contains_subquery, subquery_of};
use super::place::Place;
use super::plain::{has_right_values, is_right, without_list};
use super::scope::{has, outer_columns, refused};
use super::single::or_null;
use super::unnest::as_projections;

impl Unnester {
    /// The node, which has subqueries in its expressions.
    pub(super) fn with_subqueries(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let node = match node {
            LogicalPlan::Filter(filter) => self.filter(filter)?,
            LogicalPlan::Projection(projection) => self.projection(projection)?,
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate)?,
            LogicalPlan::Sort(sort) => self.sort(sort)?,
            LogicalPlan::Window(window) => self.window(window)?,
            LogicalPlan::Join(join) => self.join(join)?,
            LogicalPlan::Values(values) => self.plan(as_projections(&values)?)?,
            node => self.elsewhere(node)?,
        };
        Ok(Transformed::yes(node))
    }

    /// Conditions that need no new columns come first: they leave fewer rows to the others.
    fn filter(&self, filter: Filter) -> Result<LogicalPlan> {
        let Filter { predicate, input, .. } = filter;
        let (mut first, mut others) = (Vec::new(), Vec::new());
        for condition in split_conjunction_owned(self.inside(predicate)?) {
            if !contains_subquery(&condition) || is_right(&condition, &input, self.in_tasks)? {
                first.push(nullable_values(without_list(condition)?)?);
            } else {
                others.push(condition);
            }
        }
        let mut builder = LogicalPlanBuilder::new_from_arc(input);
        if let Some(first) = conjunction(first) {
            builder = builder.filter(first)?;
        }
        let around = builder.build()?;
        if others.is_empty() {
            return Ok(around);
        }
        let columns = columns(&around);
        let mut place = Place::new(self, &around);
        let mut truths = Vec::with_capacity(others.len());
        for condition in others {
            truths.push(place.truth(condition)?);
        }
        let mut builder = LogicalPlanBuilder::from(place.into_rows());
        if let Some(truths) = conjunction(truths) {
            builder = builder.filter(truths)?;
        }
        builder.project(columns)?.build()
    }

    fn projection(&self, projection: Projection) -> Result<LogicalPlan> {
        let mut place = Place::new(self, &projection.input);
        let mut exprs = Vec::with_capacity(projection.expr.len());
        for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
            let expr = self.inside(expr.clone())?;
            let expr = self.kept_or(&mut place, expr, &projection.input)?;
            exprs.push(named(expr, qualifier, field.name()));
        }
        LogicalPlanBuilder::from(place.into_rows()).project(exprs)?.build()
    }

    /// One aggregate may stay as it is; anything else becomes columns of the place.
    fn kept_or(&self, place: &mut Place<'_>, expr: Expr, around: &LogicalPlan) -> Result<Expr> {
        if !contains_subquery(&expr) {
            return Ok(expr);
        }
        if has_right_values(&expr, around)? { nullable_values(expr) } else { place.value(expr) }
    }

    fn aggregate(&self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let mut place = Place::new(self, &aggregate.input);
        let groups = self.values(&mut place, &aggregate.group_expr)?;
        let folds = self.values(&mut place, &aggregate.aggr_expr)?;
        let done = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(place.into_rows()), groups, folds)?);
        let width = aggregate.schema.fields().len();
        under_names(done, &(0..width).collect::<Vec<_>>(), &LogicalPlan::Aggregate(aggregate))
    }

    fn values(&self, place: &mut Place<'_>, exprs: &[Expr]) -> Result<Vec<Expr>> {
        exprs.iter().map(|expr| place.value(self.inside(expr.clone())?)).collect()
    }

    fn window(&self, window: Window) -> Result<LogicalPlan> {
        let own = window.input.schema().fields().len();
        let mut place = Place::new(self, &window.input);
        let functions = self.values(&mut place, &window.window_expr)?;
        let rows = place.into_rows();
        let width = rows.schema().fields().len();
        let count = functions.len();
        let done = LogicalPlan::Window(Window::try_new(functions, Arc::new(rows))?);
        let positions: Vec<usize> = (0..own).chain(width..width + count).collect();
        under_names(done, &positions, &LogicalPlan::Window(window))
    }

    fn sort(&self, sort: Sort) -> Result<LogicalPlan> {
        let mut exprs = Vec::with_capacity(sort.expr.len());
        for key in sort.expr {
            exprs.push(SortExpr { expr: self.inside(key.expr)?, ..key });
        }
        let columns = columns(&sort.input);
        let around = with_columns_below(&sort.input, &exprs)?;
        let mut place = Place::new(self, &around);
        let mut keys = Vec::with_capacity(exprs.len());
        for key in exprs {
            keys.push(SortExpr { expr: place.value(key.expr)?, ..key });
        }
        let sorted = Sort { expr: keys, input: Arc::new(place.into_rows()), fetch: sort.fetch };
        LogicalPlanBuilder::from(LogicalPlan::Sort(sorted)).project(columns)?.build()
    }

    /// A condition of an inner join may as well be asked after it; one of an outer join is asked of the side that it is about.
    fn join(&self, join: Join) -> Result<LogicalPlan> {
        if join.on.iter().any(|(left, right)| contains_subquery(left) || contains_subquery(right)) {
            let conditions = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
            let filter = conjunction(conditions.chain(join.filter.clone()));
            return self.join(Join { on: Vec::new(), filter, ..join });
        }
        let Some(filter) = join.filter.clone() else { return Ok(LogicalPlan::Join(join)) };
        let conditions = split_conjunction_owned(self.inside(filter)?);
        let (with, without): (Vec<_>, Vec<_>) = conditions.into_iter().partition(contains_subquery);
        if join.join_type == JoinType::Inner {
            let joined =
                rejoined(&join, LogicalPlan::clone(&join.left), LogicalPlan::clone(&join.right), conjunction(without))?;
            let Some(predicate) = conjunction(with) else { return Ok(joined) };
            return self.filter(Filter::try_new(predicate, Arc::new(joined))?);
        }
        self.outer_join(&join, with, without)
    }

    fn outer_join(&self, join: &Join, with: Vec<Expr>, mut conditions: Vec<Expr>) -> Result<LogicalPlan> {
        let mut left = Place::new(self, &join.left);
        let mut right = Place::new(self, &join.right);
        for condition in with {
            // Subqueries are computed where their columns are; those of a comparison may be on either side.
            let done = condition.transform_down(|inner| {
                let Some(subquery) = subquery_of(&inner) else { return Ok(Transformed::no(inner)) };
                let needs = columns_needed(&inner)?;
                let is_in = |plan: &LogicalPlan| needs.iter().all(|column| has(plan.schema(), column));
                let value = match (is_in(&join.left), is_in(&join.right)) {
                    (true, _) => left.value(inner)?,
                    (_, true) => right.value(inner)?,
                    _ => {
                        let message = format!(
                            "a subquery over both sides is not supported in the ON of a {} JOIN",
                            join.join_type
                        );
                        return Err(refused(message, None, &subquery.subquery));
                    }
                };
                Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
            })?;
            conditions.push(done.data);
        }
        let widths = (join.left.schema().fields().len(), join.right.schema().fields().len());
        let (left, right) = (left.into_rows(), right.into_rows());
        let left_width = left.schema().fields().len();
        let done = rejoined(join, left, right, conjunction(conditions))?;
        let positions: Vec<usize> = match join.join_type {
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                (0..widths.0).chain(left_width..left_width + widths.1).collect()
            }
            JoinType::LeftMark => (0..widths.0).chain([left_width]).collect(),
            JoinType::RightMark => (0..widths.1).chain([done.schema().fields().len() - 1]).collect(),
            JoinType::LeftSemi | JoinType::LeftAnti => (0..widths.0).collect(),
            JoinType::RightSemi | JoinType::RightAnti => (0..widths.1).collect(),
        };
        under_names(done, &positions, &LogicalPlan::Join(join.clone()))
    }

    /// Nodes in which a subquery can only stand for one value that is the same for all rows.
    fn elsewhere(&self, node: LogicalPlan) -> Result<LogicalPlan> {
        let what = match &node {
            LogicalPlan::Limit(_) => "LIMIT and OFFSET",
            LogicalPlan::Dml(_) => "MERGE",
            LogicalPlan::Unnest(_) => "UNNEST",
            _ => "this place",
        };
        let done = node.map_expressions(|expr| {
            let expr = self.inside(expr)?;
            expr.transform_down(|inner| {
                let Some(subquery) = subquery_of(&inner) else { return Ok(Transformed::no(inner)) };
                let closed = outer_columns(&subquery.subquery)?.is_empty();
                if closed && matches!(inner, Expr::ScalarSubquery(_)) {
                    let plan = Arc::clone(&subquery.subquery);
                    return Ok(Transformed::new(or_null(inner, &plan), true, TreeNodeRecursion::Jump));
                }
                Err(refused(format!("a subquery is not supported in {what}"), None, &subquery.subquery))
            })
        })?;
        Ok(done.data)
    }
}

/// The columns of a plan as expressions.
fn columns(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

/// The columns at some positions, under the names that those of the plan `original` have.
fn under_names(done: LogicalPlan, positions: &[usize], original: &LogicalPlan) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = positions
        .iter()
        .zip(original.schema().iter())
        .map(|(position, (qualifier, field))| named(Expr::Column(column_at(&done, *position)), qualifier, field.name()))
        .collect();
    LogicalPlanBuilder::from(done).project(columns)?.build()
}

fn rejoined(join: &Join, left: LogicalPlan, right: LogicalPlan, filter: Option<Expr>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Join(Join::try_new(
        Arc::new(left),
        Arc::new(right),
        join.on.clone(),
        filter,
        join.join_type,
        JoinConstraint::On,
        join.null_equality,
        join.null_aware,
    )?))
}

/// Subqueries that stay where they are, NULL when they have no row.
fn nullable_values(expr: Expr) -> Result<Expr> {
    let done = expr.transform_up(|inner| match &inner {
        Expr::ScalarSubquery(subquery) if outer_columns(&subquery.subquery)?.is_empty() => {
            let plan = Arc::clone(&subquery.subquery);
            Ok(Transformed::yes(or_null(inner, &plan)))
        }
        _ => Ok(Transformed::no(inner)),
    })?;
    Ok(done.data)
}

/// The columns of the rows around that an expression with subqueries uses, also inside them.
fn columns_needed(expr: &Expr) -> Result<Vec<Column>> {
    let mut needed: Vec<Column> = expr.column_refs().into_iter().cloned().collect();
    expr.apply(|inner| {
        if let Some(subquery) = subquery_of(inner) {
            needed.extend(outer_columns(&subquery.subquery)?.into_iter().map(|(_, column)| column));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(needed)
}

/// ORDER BY may use columns that the select list does not have.
fn with_columns_below(input: &LogicalPlan, keys: &[SortExpr]) -> Result<LogicalPlan> {
    let mut missing = Vec::new();
    for key in keys {
        for column in columns_needed(&key.expr)? {
            if !has(input.schema(), &column) && !missing.contains(&column) {
                missing.push(column);
            }
        }
    }
    let LogicalPlan::Projection(projection) = input else { return Ok(input.clone()) };
    missing.retain(|column| has(projection.input.schema(), column));
    if missing.is_empty() {
        return Ok(input.clone());
    }
    let columns = projection.expr.iter().cloned().chain(missing.into_iter().map(Expr::Column));
    LogicalPlanBuilder::new_from_arc(Arc::clone(&projection.input)).project(columns.collect::<Vec<_>>())?.build()
}
