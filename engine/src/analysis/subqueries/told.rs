//! One aggregate over rows that tell the outer values themselves (`WHERE inner.k = outer.k`): it is computed for the keys that
//! there are and joined to the outer rows, which are then computed once only. Where no row has the key, the aggregate is what
//! it is over nothing, and what is computed with it, HAVING included, is computed above the join.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit, when};

use super::domain::{Domain, column_at, named, names_of};
use super::embedded::contains_subquery;
use super::place::Place;
use super::unnest::{Pushed, push};

impl Place<'_> {
    /// The value of the subquery; `None` when it is of another kind.
    pub(super) fn told(&mut self, here: &[(FieldRef, Column)], plan: &LogicalPlan) -> Result<Option<Expr>> {
        let Some(aggregate) = aggregate_below(plan) else { return Ok(None) };
        let Some(over_nothing) = aggregate.aggr_expr.iter().map(over_nothing).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        if aggregate.aggr_expr.iter().any(Expr::contains_outer) {
            return Ok(None);
        }
        let domain = Domain::new(self.unnester, here.to_vec(), self.around, plan);
        let Some(Pushed { plan: input, keys }) = domain.without_rows(|| push(&domain, &aggregate.input))? else {
            return Ok(None);
        };
        let groups: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).collect();
        let grouped = Aggregate::try_new(Arc::new(input), groups.clone(), aggregate.aggr_expr.clone())?;
        let grouped = LogicalPlan::Aggregate(grouped);
        let names = names_of(&self.unnester.relation(), over_nothing.len() + 1);
        let mut columns = groups.clone();
        for (index, name) in names.iter().enumerate() {
            let value = match index.checked_sub(1) {
                None => lit(true),
                Some(index) => Expr::Column(column_at(&grouped, groups.len() + index)),
            };
            columns.push(named(value, name.relation.as_ref(), &name.name));
        }
        let grouped = LogicalPlanBuilder::from(grouped).project(columns)?.build()?;
        self.attach(here, grouped, &keys, None)?;
        let there = Expr::Column(names[0].clone());
        let mut values = Vec::with_capacity(over_nothing.len());
        for ((index, column), nothing) in names[1..].iter().enumerate().zip(over_nothing) {
            let name = column_at(&LogicalPlan::Aggregate(aggregate.clone()), index);
            let column = Expr::Column(column.clone());
            let value = match nothing {
                None => column,
                Some(nothing) => when(there.clone().is_null(), lit(nothing)).otherwise(column)?,
            };
            values.push((name, value));
        }
        computed(plan, None, values, here)?.value().map(Some)
    }
}

/// The aggregate of a plan that gives one row of what was computed with it, or none.
pub(super) fn aggregate_below(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let plain = projection.expr.iter().all(|expr| !contains_subquery(expr) && !expr.is_volatile());
            plain.then(|| aggregate_below(&projection.input)).flatten()
        }
        LogicalPlan::Filter(filter) if !contains_subquery(&filter.predicate) => aggregate_below(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => aggregate_below(&alias.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty().then_some(aggregate),
        _ => None,
    }
}

/// What an aggregate is over no rows, when it is known: `None` inside for NULL.
fn over_nothing(expr: &Expr) -> Option<Option<ScalarValue>> {
    let Expr::AggregateFunction(function) = expr.clone().unalias() else { return None };
    match function.func.name() {
        "count" => Some(Some(ScalarValue::Int64(Some(0)))),
        "min" | "max" | "sum" | "avg" | "bool_and" | "bool_or" => Some(None),
        _ => None,
    }
}

/// The columns of a plan of expressions and filters, computed with those of what is below.
pub(super) struct Computed {
    pub(super) columns: Vec<(Column, Expr)>,
    /// What must hold of a row.
    pub(super) having: Option<Expr>,
}

impl Computed {
    /// The first column, NULL when there is no row.
    pub(super) fn value(self) -> Result<Expr> {
        let (_, value) = self.columns[0].clone();
        match self.having {
            None => Ok(value),
            Some(having) => when(having, value).end(),
        }
    }
}

pub(super) fn computed(
    plan: &LogicalPlan,
    bottom: Option<&LogicalPlan>,
    below: Vec<(Column, Expr)>,
    here: &[(FieldRef, Column)],
) -> Result<Computed> {
    if bottom.is_some_and(|bottom| std::ptr::eq(plan, bottom)) {
        return Ok(Computed { columns: below, having: None });
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let below = computed(&projection.input, bottom, below, here)?;
            let mut columns = Vec::with_capacity(projection.expr.len());
            for (index, expr) in projection.expr.iter().enumerate() {
                columns.push((column_at(plan, index), substituted(expr.clone().unalias(), &below.columns, here)?));
            }
            Ok(Computed { columns, having: below.having })
        }
        LogicalPlan::Filter(filter) => {
            let below = computed(&filter.input, bottom, below, here)?;
            let condition = substituted(filter.predicate.clone(), &below.columns, here)?;
            let having = Some(match below.having {
                Some(having) => having.and(condition),
                None => condition,
            });
            Ok(Computed { columns: below.columns, having })
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let below = computed(&alias.input, bottom, below, here)?;
            let columns = below.columns.into_iter().enumerate();
            let columns = columns.map(|(index, (_, value))| (column_at(plan, index), value)).collect();
            Ok(Computed { columns, having: below.having })
        }
        _ => Ok(Computed { columns: below, having: None }),
    }
}

/// The expression over the outer rows.
fn substituted(expr: Expr, columns: &[(Column, Expr)], here: &[(FieldRef, Column)]) -> Result<Expr> {
    let done = expr.transform_down(|inner| match &inner {
        Expr::Column(column) => match columns.iter().find(|(known, _)| known == column) {
            Some((_, value)) => Ok(Transformed::new(value.clone(), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(inner)),
        },
        Expr::OuterReferenceColumn(_, column) if here.iter().any(|(_, known)| known == column) => {
            Ok(Transformed::yes(Expr::Column(column.clone())))
        }
        _ => Ok(Transformed::no(inner)),
    })?;
    Ok(done.data)
}
