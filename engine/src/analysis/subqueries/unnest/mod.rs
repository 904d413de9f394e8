//! A subquery for all values of its domain at once: its operators, from the top down, take the domain's columns along, until
//! what is below does not depend on them; there the domain is put beside the rows, or, better, read off them.
//!
//! What always holds of what is pushed: the columns of the plan first, under their names, then one column for each of the
//! domain; the rows with these values are the rows that the subquery gives for them. There may be rows for values that are
//! not in the domain. A column of the domain that was read off the rows is never NULL.

mod groups;
mod joins;
mod limits;
mod rows;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ExprSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder};

use super::domain::{Domain, Key, column_at, join, named};
use super::scope::refused;

pub(super) use groups::only_where;
pub(super) use rows::as_projections;

/// See the module.
pub(super) struct Pushed {
    pub(super) plan: LogicalPlan,
    pub(super) keys: Vec<Key>,
}

/// The subquery's plan for all values of the domain, which has at least one column.
pub(super) fn push(domain: &Domain<'_>, plan: &LogicalPlan) -> Result<Pushed> {
    if !depends(domain, plan)? {
        return beside(domain, plan);
    }
    match plan {
        LogicalPlan::Filter(filter) => rows::filter(domain, filter),
        LogicalPlan::Projection(projection) => rows::projection(domain, projection, push(domain, &projection.input)?),
        LogicalPlan::SubqueryAlias(alias) => renamed(push(domain, &alias.input)?, plan),
        LogicalPlan::Subquery(subquery) => push(domain, &subquery.subquery),
        LogicalPlan::Aggregate(aggregate) => groups::aggregate(domain, aggregate),
        LogicalPlan::Distinct(distinct) => groups::distinct(domain, distinct),
        LogicalPlan::Window(window) => groups::window(domain, window),
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => push(domain, &sort.input),
        LogicalPlan::Sort(_) => limits::limit(domain, 0, None, plan),
        LogicalPlan::Limit(limit) => limits::of(domain, limit, plan),
        LogicalPlan::Union(union) => rows::union(domain, union, plan),
        LogicalPlan::Values(values) => rows::values(domain, values),
        LogicalPlan::Unnest(unnest) => rows::unnest(domain, unnest, plan),
        LogicalPlan::Join(join) => joins::join(domain, join, plan),
        LogicalPlan::RecursiveQuery(_) => {
            Err(refused("a correlated subquery is not supported in WITH RECURSIVE", None, plan))
        }
        _ => Err(domain.refused("a correlated subquery of this kind is not supported")),
    }
}

/// Whether the plan uses a column of the domain.
fn depends(domain: &Domain<'_>, plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found |= uses(domain, expr);
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

fn uses(domain: &Domain<'_>, expr: &Expr) -> bool {
    let of_domain =
        |inner: &Expr| matches!(inner, Expr::OuterReferenceColumn(_, column) if domain.position(column).is_some());
    expr.exists(|inner| Ok(of_domain(inner))).unwrap_or(false)
}

/// Rows that do not depend on the domain, beside each of its values.
fn beside(domain: &Domain<'_>, plan: &LogicalPlan) -> Result<Pushed> {
    let (values, names) = domain.rows()?;
    let keys = keys(&values, names);
    let one_row =
        matches!(plan, LogicalPlan::EmptyRelation(empty) if empty.produce_one_row && empty.schema.fields().is_empty());
    let plan = if one_row { values } else { join(plan.clone(), values, JoinType::Inner, Vec::new(), None)? };
    Ok(Pushed { plan, keys })
}

/// Columns of a plan as keys.
pub(super) fn keys(plan: &LogicalPlan, columns: Vec<Column>) -> Vec<Key> {
    let nullable = |column: &Column| plan.schema().field_from_column(column).is_ok_and(|field| field.is_nullable());
    columns.into_iter().map(|column| Key { nullable: nullable(&column), column }).collect()
}

/// The expression with the domain's columns where it has outer ones.
fn replaced(domain: &Domain<'_>, expr: Expr, keys: &[Key]) -> Result<Expr> {
    replaced_by(domain, expr, &|index| Expr::Column(keys[index].column.clone()))
}

fn replaced_by(domain: &Domain<'_>, expr: Expr, value: &dyn Fn(usize) -> Expr) -> Result<Expr> {
    let done = expr.transform(|inner| match &inner {
        Expr::OuterReferenceColumn(_, column) => match domain.position(column) {
            Some(index) => Ok(Transformed::yes(value(index))),
            None => Ok(Transformed::no(inner)),
        },
        _ => Ok(Transformed::no(inner)),
    })?;
    Ok(done.data)
}

/// The first columns of what was pushed under the names that the plan's own have, then the domain's.
fn renamed(pushed: Pushed, plan: &LogicalPlan) -> Result<Pushed> {
    let positions: Vec<usize> = (0..plan.schema().fields().len()).collect();
    renamed_at(pushed, &positions, plan)
}

/// As [`renamed`], with the positions at which the plan's columns are.
fn renamed_at(pushed: Pushed, positions: &[usize], plan: &LogicalPlan) -> Result<Pushed> {
    let mut columns = Vec::with_capacity(positions.len() + pushed.keys.len());
    for (index, position) in positions.iter().enumerate() {
        let (qualifier, field) = plan.schema().qualified_field(index);
        columns.push(named(Expr::Column(column_at(&pushed.plan, *position)), qualifier, field.name()));
    }
    columns.extend(pushed.keys.iter().map(|key| Expr::Column(key.column.clone())));
    let plan = LogicalPlanBuilder::from(pushed.plan).project(columns)?.build()?;
    Ok(Pushed { plan, keys: pushed.keys })
}
