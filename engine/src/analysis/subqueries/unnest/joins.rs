//! Joins inside a subquery. The side whose rows all stay must have the domain; the other side has it when it depends on it,
//! and then both must be of one value.

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder};
use std::sync::Arc;

use super::super::domain::{Domain, Key, column_at, named, same};
use super::{Pushed, depends, push, renamed_at, replaced, uses};

pub(super) fn join(domain: &Domain<'_>, join: &Join, plan: &LogicalPlan) -> Result<Pushed> {
    let (left, right) = (depends(domain, &join.left)?, depends(domain, &join.right)?);
    let (left, right) = match join.join_type {
        JoinType::Inner => (left || !right, right),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (true, right),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (left, true),
        JoinType::Full => (true, true),
    };
    let left = side(domain, &join.left, left)?;
    let right = side(domain, &join.right, right)?;
    joined(domain, join, plan, left, right)
}

fn side(domain: &Domain<'_>, plan: &LogicalPlan, with_domain: bool) -> Result<Pushed> {
    if with_domain { push(domain, plan) } else { Ok(Pushed { plan: plan.clone(), keys: Vec::new() }) }
}

fn joined(domain: &Domain<'_>, join: &Join, plan: &LogicalPlan, left: Pushed, right: Pushed) -> Result<Pushed> {
    let widths = (join.left.schema().fields().len(), join.right.schema().fields().len());
    let keys = if left.keys.is_empty() { &right.keys } else { &left.keys };
    let mut on = Vec::new();
    if !left.keys.is_empty() && !right.keys.is_empty() {
        on = same(&left.keys, &right.keys, &left.plan)?;
    }
    let mut filter = join.filter.clone();
    for (one, other) in &join.on {
        if uses(domain, one) || uses(domain, other) {
            let equal = one.clone().eq(other.clone());
            filter = Some(filter.map_or(equal.clone(), |filter| filter.and(equal)));
        } else {
            on.push((one.clone(), other.clone()));
        }
    }
    let filter = filter.map(|filter| replaced(domain, filter, keys)).transpose()?;
    let left_width = left.plan.schema().fields().len();
    let done = LogicalPlan::Join(Join::try_new(
        Arc::new(left.plan),
        Arc::new(right.plan),
        on,
        filter,
        join.join_type,
        JoinConstraint::On,
        join.null_equality,
        join.null_aware,
    )?);
    let positions: Vec<usize> = match join.join_type {
        JoinType::LeftSemi | JoinType::LeftAnti => (0..widths.0).collect(),
        JoinType::RightSemi | JoinType::RightAnti => (0..widths.1).collect(),
        JoinType::LeftMark => (0..widths.0).chain([left_width]).collect(),
        JoinType::RightMark => (0..widths.1).chain([done.schema().fields().len() - 1]).collect(),
        _ => (0..widths.0).chain(left_width..left_width + widths.1).collect(),
    };
    match join.join_type {
        JoinType::Full => both(domain, done, &positions, plan, &left.keys, &right.keys),
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            renamed_at(Pushed { plan: done, keys: right.keys }, &positions, plan)
        }
        JoinType::Inner if left.keys.is_empty() => {
            renamed_at(Pushed { plan: done, keys: right.keys }, &positions, plan)
        }
        _ => renamed_at(Pushed { plan: done, keys: left.keys }, &positions, plan),
    }
}

/// Of a FULL JOIN the value is on the side that has the row.
fn both(
    domain: &Domain<'_>,
    done: LogicalPlan,
    positions: &[usize],
    plan: &LogicalPlan,
    left: &[Key],
    right: &[Key],
) -> Result<Pushed> {
    let names = domain.names();
    let mut columns = Vec::with_capacity(positions.len() + names.len());
    for (index, position) in positions.iter().enumerate() {
        let (qualifier, field) = plan.schema().qualified_field(index);
        columns.push(named(Expr::Column(column_at(&done, *position)), qualifier, field.name()));
    }
    let mut keys = Vec::with_capacity(names.len());
    for (name, (left, right)) in names.into_iter().zip(left.iter().zip(right)) {
        let value = coalesce(vec![Expr::Column(left.column.clone()), Expr::Column(right.column.clone())]);
        columns.push(named(value, name.relation.as_ref(), &name.name));
        keys.push(Key { column: name, nullable: left.nullable || right.nullable });
    }
    Ok(Pushed { plan: LogicalPlanBuilder::from(done).project(columns)?.build()?, keys })
}
