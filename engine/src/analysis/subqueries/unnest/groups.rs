//! Operators that see rows together: groups, distinct rows, windows. Each sees those of one value of the domain together.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, JoinType, LogicalPlan, LogicalPlanBuilder, SortExpr, Window, lit,
};

use super::super::domain::{Domain, join, named, names_of, same};
use super::{Pushed, keys, push, renamed_at, replaced, uses};

/// Groups, each of one value of the domain.
pub(super) fn aggregate(domain: &Domain<'_>, aggregate: &Aggregate) -> Result<Pushed> {
    if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        return Err(domain.refused("a correlated subquery is not supported with GROUPING SETS, ROLLUP or CUBE"));
    }
    for expr in &aggregate.aggr_expr {
        if uses(domain, expr) && expr.column_refs().is_empty() {
            let message = "an aggregate in a subquery needs a column of the subquery itself";
            return Err(domain.refused(message));
        }
    }
    if aggregate.group_expr.is_empty() {
        return whole(domain, aggregate);
    }
    let Pushed { plan, keys } = push(domain, &aggregate.input)?;
    let mut groups = replaced_all(domain, &aggregate.group_expr, &keys)?;
    let (own, width) = (groups.len(), groups.len() + keys.len());
    groups.extend(keys.iter().map(|key| Expr::Column(key.column.clone())));
    let folded = replaced_all(domain, &aggregate.aggr_expr, &keys)?;
    let count = folded.len();
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), groups, folded)?);
    let positions: Vec<usize> = (0..own).chain(width..width + count).collect();
    renamed_at(Pushed { plan: grouped, keys }, &positions, &LogicalPlan::Aggregate(aggregate.clone()))
}

/// One row whatever there is, also for a value of the domain without rows: the domain is on the left of a join, and the
/// aggregates leave out the rows that the join made up.
fn whole(domain: &Domain<'_>, aggregate: &Aggregate) -> Result<Pushed> {
    let Pushed { plan, keys: inner } = push(domain, &aggregate.input)?;
    let there = names_of(&domain.relation(), 1).remove(0);
    let mut columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(named(lit(true), there.relation.as_ref(), &there.name));
    let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
    let there = Expr::Column(there).is_not_null();

    let (values, names) = domain.rows()?;
    let keys = keys(&values, names);
    let on = same(&keys, &inner, &values)?;
    let joined = join(values, plan, JoinType::Left, on, None)?;

    let mut folded = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in replaced_all(domain, &aggregate.aggr_expr, &keys)? {
        folded.push(only_where(expr, &there)?);
    }
    let groups: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).collect();
    let positions: Vec<usize> = (groups.len()..groups.len() + folded.len()).collect();
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(joined), groups, folded)?);
    renamed_at(Pushed { plan: grouped, keys }, &positions, &LogicalPlan::Aggregate(aggregate.clone()))
}

/// The aggregate over rows of which the condition holds.
pub(in super::super) fn only_where(expr: Expr, condition: &Expr) -> Result<Expr> {
    let done = expr.transform(|inner| match inner {
        Expr::AggregateFunction(mut function) => {
            let filter = match function.params.filter.take() {
                Some(filter) => condition.clone().and(*filter),
                None => condition.clone(),
            };
            function.params.filter = Some(Box::new(filter));
            Ok(Transformed::yes(Expr::AggregateFunction(function)))
        }
        inner => Ok(Transformed::no(inner)),
    })?;
    Ok(done.data)
}

fn replaced_all(domain: &Domain<'_>, exprs: &[Expr], keys: &[super::Key]) -> Result<Vec<Expr>> {
    exprs.iter().map(|expr| replaced(domain, expr.clone(), keys)).collect()
}

/// Rows that are distinct beside each value.
pub(super) fn distinct(domain: &Domain<'_>, distinct: &Distinct) -> Result<Pushed> {
    match distinct {
        Distinct::All(input) => {
            let Pushed { plan, keys } = push(domain, input)?;
            Ok(Pushed { plan: super::super::domain::distinct(plan)?, keys })
        }
        Distinct::On(on) => distinct_on(domain, on),
    }
}

fn distinct_on(domain: &Domain<'_>, on: &DistinctOn) -> Result<Pushed> {
    let Pushed { plan, keys } = push(domain, &on.input)?;
    let of_domain: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).collect();
    let mut by = of_domain.clone();
    by.extend(replaced_all(domain, &on.on_expr, &keys)?);
    let mut selected = replaced_all(domain, &on.select_expr, &keys)?;
    selected.extend(of_domain.iter().cloned());
    let order = match &on.sort_expr {
        None => None,
        Some(order) => {
            let mut sorted: Vec<SortExpr> = of_domain.into_iter().map(|expr| expr.sort(true, false)).collect();
            for sort in order {
                sorted.push(SortExpr { expr: replaced(domain, sort.expr.clone(), &keys)?, ..sort.clone() });
            }
            Some(sorted)
        }
    };
    let taken = DistinctOn::try_new(by, selected, order, Arc::new(plan))?;
    let original = LogicalPlan::Distinct(Distinct::On(on.clone()));
    let positions: Vec<usize> = (0..on.select_expr.len()).collect();
    renamed_at(Pushed { plan: LogicalPlan::Distinct(Distinct::On(taken)), keys }, &positions, &original)
}

/// Windows over the rows of one value.
pub(super) fn window(domain: &Domain<'_>, window: &Window) -> Result<Pushed> {
    let Pushed { plan, keys } = push(domain, &window.input)?;
    let own = window.input.schema().fields().len();
    let mut functions = Vec::with_capacity(window.window_expr.len());
    for expr in replaced_all(domain, &window.window_expr, &keys)? {
        let apart = expr.transform(|inner| match inner {
            Expr::WindowFunction(mut function) => {
                let of_domain = keys.iter().map(|key| Expr::Column(key.column.clone()));
                function.params.partition_by.extend(of_domain);
                Ok(Transformed::yes(Expr::WindowFunction(function)))
            }
            inner => Ok(Transformed::no(inner)),
        })?;
        functions.push(apart.data);
    }
    let width = plan.schema().fields().len();
    let count = functions.len();
    let plan = LogicalPlan::Window(Window::try_new(functions, Arc::new(plan))?);
    let positions: Vec<usize> = (0..own).chain(width..width + count).collect();
    renamed_at(Pushed { plan, keys }, &positions, &LogicalPlan::Window(window.clone()))
}
