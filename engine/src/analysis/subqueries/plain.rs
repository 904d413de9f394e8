//! Subqueries for which the query engine's own joins are right, and quick: conditions of WHERE that are one EXISTS or one IN,
//! and one value that an aggregate finds by equal keys. They keep their plans.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Projection, lit};

use super::embedded::contains_subquery;
use super::scope::{Scope, outer_columns};

/// Whether the query engine is right about a condition of WHERE over rows of the plan `around`. `in_tasks` says that every
/// partition of a plan becomes a task elsewhere.
pub(super) fn is_right(condition: &Expr, around: &LogicalPlan, in_tasks: bool) -> Result<bool> {
    match condition {
        Expr::Not(inner) => match inner.as_ref() {
            Expr::Exists(Exists { subquery, negated: false }) => is_right_exists(&subquery.subquery, around),
            Expr::InSubquery(within) => is_right_in(within, !within.negated, around, in_tasks),
            _ => has_right_values(condition, around),
        },
        Expr::Exists(Exists { subquery, .. }) => is_right_exists(&subquery.subquery, around),
        Expr::InSubquery(within) => is_right_in(within, within.negated, around, in_tasks),
        _ => has_right_values(condition, around),
    }
}

fn is_right_exists(plan: &LogicalPlan, around: &LogicalPlan) -> Result<bool> {
    let scope = Scope::of(plan, around)?;
    if scope.here.is_empty() || !scope.beyond.is_empty() {
        return Ok(false);
    }
    Ok(correlation(plan)?.is_some_and(|conditions| is_clear(&conditions, None)))
}

fn is_right_in(within: &InSubquery, negated: bool, around: &LogicalPlan, in_tasks: bool) -> Result<bool> {
    let plan = within.subquery.subquery.as_ref();
    // A literal on the left, and values that are no columns, end up in the wrong places.
    if contains_subquery(&within.expr) || within.expr.column_refs().is_empty() || within.expr.contains_outer() {
        return Ok(false);
    }
    let LogicalPlan::Projection(projection) = plan else { return Ok(false) };
    let [Expr::Column(value)] = projection.expr.as_slice() else { return Ok(false) };
    let scope = Scope::of(plan, around)?;
    if !scope.beyond.is_empty() {
        return Ok(false);
    }
    if scope.here.is_empty() {
        let never_null = !within.expr.nullable(around.schema())? && !plan.schema().field(0).is_nullable();
        // Every task would look for NULL in its own part only.
        return Ok(!negated || never_null || !in_tasks);
    }
    Ok(!negated && correlation(plan)?.is_some_and(|conditions| is_clear(&conditions, Some(value))))
}

/// The same condition, with EXISTS over rows of one number: what the query lists is nobody's business, but a column of the
/// list would be taken for one of the same name that a condition asks for.
pub(super) fn without_list(condition: Expr) -> Result<Expr> {
    match condition {
        Expr::Not(inner) => Ok(Expr::Not(Box::new(without_list(*inner)?))),
        Expr::Exists(Exists { mut subquery, negated }) => {
            if let LogicalPlan::Projection(list) = subquery.subquery.as_ref() {
                let rows = Projection::try_new(vec![lit(1_i64)], Arc::clone(&list.input))?;
                subquery.subquery = Arc::new(LogicalPlan::Projection(rows));
            }
            Ok(Expr::Exists(Exists { subquery, negated }))
        }
        condition => Ok(condition),
    }
}

/// The conditions that depend on outer rows, when nothing else of the plan does and they are right below its list.
fn correlation(plan: &LogicalPlan) -> Result<Option<Vec<Expr>>> {
    let mut conditions = Vec::new();
    let mut plan = plan;
    if let LogicalPlan::Projection(list) = plan {
        if list.expr.iter().any(|expr| expr.contains_outer() || contains_subquery(expr)) {
            return Ok(None);
        }
        plan = &list.input;
    }
    loop {
        match plan {
            LogicalPlan::Filter(filter) => {
                let outer = split_conjunction(&filter.predicate).into_iter().filter(|expr| expr.contains_outer());
                conditions.extend(outer.cloned());
                plan = &filter.input;
            }
            plan => return Ok(outer_columns(plan)?.is_empty().then_some(conditions)),
        }
    }
}

/// Whether the conditions have an equal key and each of them a column of the subquery, and no two of its columns would be
/// taken for each other when they are all under one relation.
fn is_clear(conditions: &[Expr], value: Option<&Column>) -> bool {
    let mut columns: Vec<&Column> = value.into_iter().collect();
    for condition in conditions {
        let own = condition.column_refs();
        if own.is_empty() || contains_subquery(condition) {
            return false;
        }
        for column in own {
            if columns.iter().any(|known| known.name == column.name && *known != column) {
                return false;
            }
            columns.push(column);
        }
    }
    conditions.iter().any(is_equal_key)
}

/// `inner = outer`, both plain columns, of a type whose values are equal when their bits are: an equality of others is
/// wrapped ([`super::super::canonical_keys`]) before the query engine looks for keys.
fn is_equal_key(condition: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return false };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(_), Expr::OuterReferenceColumn(outer, _))
        | (Expr::OuterReferenceColumn(outer, _), Expr::Column(_)) => {
            !outer.data_type().is_floating() && !matches!(outer.data_type(), DataType::Interval(_))
        }
        _ => false,
    }
}

/// Whether all subqueries of the expression stand for one value, and the query engine is right about each.
pub(super) fn has_right_values(expr: &Expr, around: &LogicalPlan) -> Result<bool> {
    let mut right = true;
    expr.apply(|inner| {
        right &= match inner {
            Expr::ScalarSubquery(subquery) => {
                let plan = subquery.subquery.as_ref();
                let scope = Scope::of(plan, around)?;
                scope.is_closed() || (scope.beyond.is_empty() && is_right_value(plan)?)
            }
            inner => !super::is_subquery(inner),
        };
        Ok(if right { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(right)
}

/// An aggregate that is NULL over nothing, computed with, over rows that equal keys find.
fn is_right_value(plan: &LogicalPlan) -> Result<bool> {
    is_right_column(plan, plan.schema().field(0).name())
}

/// The same of a plan whose value is called so in the end: no key may be called so, too.
fn is_right_column(plan: &LogicalPlan, name: &str) -> Result<bool> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let [expr] = projection.expr.as_slice() else { return Ok(false) };
            Ok(is_null_of_null(expr) && !expr.column_refs().is_empty() && is_right_column(&projection.input, name)?)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let folds = aggregate.aggr_expr.iter().all(|expr| match expr.clone().unalias() {
                Expr::AggregateFunction(function) => {
                    let known = ["min", "max", "sum", "avg"].contains(&function.func.name());
                    let params = function.params;
                    known && params.filter.is_none() && !params.args.iter().any(Expr::contains_outer)
                }
                _ => false,
            });
            if !folds || aggregate.aggr_expr.is_empty() || !aggregate.group_expr.is_empty() {
                return Ok(false);
            }
            Ok(correlation(&aggregate.input)?.is_some_and(|conditions| {
                let is_called_so = |expr: &Expr| expr.column_refs().iter().any(|column| column.name == name);
                !conditions.is_empty()
                    && conditions.iter().all(|expr| is_equal_key(expr) && !is_called_so(expr))
                    && is_clear(&conditions, None)
            }))
        }
        _ => Ok(false),
    }
}

/// Whether the expression is NULL when its columns are.
fn is_null_of_null(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => is_null_of_null(&alias.expr),
        Expr::Cast(cast) => is_null_of_null(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let computes = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide);
            computes && is_null_of_null(left) && is_null_of_null(right)
        }
        _ => false,
    }
}
