//! LIMIT and OFFSET: the first rows for each value of the domain, by their number in its order.

use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, FetchType, Limit, LogicalPlan, LogicalPlanBuilder, SkipType, SortExpr, Window, lit,
};
use std::sync::Arc;

use super::super::domain::{Domain, column_at};
use super::{Pushed, push, renamed, replaced, rows};

/// The rows of a LIMIT.
pub(super) fn of(domain: &Domain<'_>, limit: &Limit, plan: &LogicalPlan) -> Result<Pushed> {
    let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(fetch))) = (limit.get_skip_type(), limit.get_fetch_type())
    else {
        return Err(domain.refused("LIMIT and OFFSET of a correlated subquery must be numbers"));
    };
    let pushed = self::limit(domain, skip, fetch, &limit.input)?;
    renamed(pushed, plan)
}

/// The rows of a plan from `skip` on, at most `fetch`, in the order of the sort that is right below, if there is one.
pub(super) fn limit(domain: &Domain<'_>, skip: usize, fetch: Option<usize>, plan: &LogicalPlan) -> Result<Pushed> {
    match plan {
        LogicalPlan::Projection(projection) if !projection.expr.iter().any(Expr::is_volatile) => {
            rows::projection(domain, projection, limit(domain, skip, fetch, &projection.input)?)
        }
        LogicalPlan::SubqueryAlias(alias) => renamed(limit(domain, skip, fetch, &alias.input)?, plan),
        LogicalPlan::Sort(sort) => {
            let first = sort.fetch.map(|most| most.saturating_sub(skip));
            let fetch = match (fetch, first) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            numbered(domain, skip, fetch, &sort.expr, &sort.input)
        }
        plan => numbered(domain, skip, fetch, &[], plan),
    }
}

fn numbered(
    domain: &Domain<'_>,
    skip: usize,
    fetch: Option<usize>,
    order: &[SortExpr],
    input: &LogicalPlan,
) -> Result<Pushed> {
    let Pushed { plan, keys } = push(domain, input)?;
    let mut sorted = Vec::with_capacity(order.len());
    for sort in order {
        sorted.push(SortExpr { expr: replaced(domain, sort.expr.clone(), &keys)?, ..sort.clone() });
    }
    let of_domain: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).collect();
    let mut number = row_number().partition_by(of_domain);
    if !sorted.is_empty() {
        number = number.order_by(sorted);
    }
    let columns: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let counted = LogicalPlan::Window(Window::try_new(vec![number.build()?], Arc::new(plan))?);
    let number = Expr::Column(column_at(&counted, columns.len()));
    let mut taken = number.clone().gt(lit(skip as u64));
    if let Some(fetch) = fetch {
        taken = taken.and(number.lt_eq(lit((skip as u64).saturating_add(fetch as u64))));
    }
    let plan = LogicalPlanBuilder::from(counted).filter(taken)?.project(columns)?.build()?;
    Ok(Pushed { plan, keys })
}
