//! Operators that see one row at a time.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Union, Unnest,
    Values,
};

use super::super::domain::{Domain, Key, column_at, named};
use super::{Pushed, depends, push, renamed, replaced, replaced_by};

/// A filter right above rows that do not depend on the domain may tell its values: `inner = outer` for each of them.
pub(super) fn filter(domain: &Domain<'_>, filter: &Filter) -> Result<Pushed> {
    let conjuncts = split_conjunction(&filter.predicate);
    if !depends(domain, &filter.input)?
        && let Some(told) = told_by_rows(domain, &conjuncts, &filter.input)?
    {
        return Ok(told);
    }
    let Pushed { plan, keys } = push(domain, &filter.input)?;
    let predicate = replaced(domain, filter.predicate.clone(), &keys)?;
    let plan = LogicalPlanBuilder::from(plan).filter(predicate)?.build()?;
    Ok(Pushed { plan, keys })
}

/// The rows with the domain's columns read off them, when each equals something of a row.
fn told_by_rows(domain: &Domain<'_>, conjuncts: &[&Expr], input: &LogicalPlan) -> Result<Option<Pushed>> {
    let mut values = Vec::with_capacity(domain.columns.len());
    for index in 0..domain.columns.len() {
        match conjuncts.iter().find_map(|conjunct| equal_to(domain, index, conjunct, input)) {
            Some(value) => values.push(value),
            None => return Ok(None),
        }
    }
    let mut rest = Vec::new();
    for conjunct in conjuncts {
        if (0..values.len()).all(|index| equal_to(domain, index, conjunct, input).as_ref() != Some(&values[index])) {
            rest.push(replaced_by(domain, Expr::clone(conjunct), &|index| values[index].clone())?);
        }
    }
    for value in &values {
        if value.nullable(input.schema())? {
            rest.push(value.clone().is_not_null());
        }
    }
    let names = domain.names();
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    columns
        .extend(values.into_iter().zip(&names).map(|(value, name)| named(value, name.relation.as_ref(), &name.name)));
    let mut builder = LogicalPlanBuilder::from(input.clone());
    if let Some(rest) = conjunction(rest) {
        builder = builder.filter(rest)?;
    }
    let keys = names.into_iter().map(|column| Key { column, nullable: false }).collect();
    Ok(Some(Pushed { plan: builder.project(columns)?.build()?, keys }))
}

/// What of a row must equal a column of the domain for the condition to hold.
fn equal_to(domain: &Domain<'_>, index: usize, conjunct: &Expr, input: &LogicalPlan) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return None };
    let is_outer =
        |side: &Expr| matches!(side, Expr::OuterReferenceColumn(_, column) if domain.position(column) == Some(index));
    let value = match (is_outer(left), is_outer(right)) {
        (true, false) => right.as_ref(),
        (false, true) => left.as_ref(),
        _ => return None,
    };
    let kind = value.get_type(input.schema()).ok()?;
    let plain = !value.contains_outer() && !value.is_volatile() && !super::super::embedded::contains_subquery(value);
    let same = domain.field(index).is_ok_and(|field| *field.data_type() == kind);
    (plain && same && !value.column_refs().is_empty()).then(|| value.clone())
}

/// Expressions over rows that were pushed.
pub(super) fn projection(domain: &Domain<'_>, projection: &Projection, pushed: Pushed) -> Result<Pushed> {
    let Pushed { plan, keys } = pushed;
    let mut columns = Vec::with_capacity(projection.expr.len() + keys.len());
    for (index, expr) in projection.expr.iter().enumerate() {
        let (qualifier, field) = projection.schema.qualified_field(index);
        columns.push(named(replaced(domain, expr.clone(), &keys)?, qualifier, field.name()));
    }
    columns.extend(keys.iter().map(|key| Expr::Column(key.column.clone())));
    Ok(Pushed { plan: LogicalPlanBuilder::from(plan).project(columns)?.build()?, keys })
}

/// Every branch takes the domain along, under one name for all.
pub(super) fn union(domain: &Domain<'_>, union: &Union, plan: &LogicalPlan) -> Result<Pushed> {
    let width = union.schema.fields().len();
    let count = domain.columns.len();
    let mut branches = Vec::with_capacity(union.inputs.len());
    let mut nullable = vec![false; count];
    for input in &union.inputs {
        let Pushed { plan, keys } = push(domain, input)?;
        keys.iter().zip(&mut nullable).for_each(|(key, nullable)| *nullable |= key.nullable);
        let own = (0..width).map(|index| Expr::Column(column_at(&plan, index)).alias(format!("c{index}")));
        let of_domain = keys.iter().enumerate();
        let of_domain = of_domain.map(|(index, key)| Expr::Column(key.column.clone()).alias(format!("o{index}")));
        let columns: Vec<Expr> = own.chain(of_domain).collect();
        branches.push(Arc::new(LogicalPlanBuilder::from(plan).project(columns)?.build()?));
    }
    let branches = LogicalPlan::Union(Union::try_new_with_loose_types(branches)?);
    let names = domain.names();
    let mut columns = Vec::with_capacity(width + count);
    for index in 0..width + count {
        let column = Expr::Column(column_at(&branches, index));
        columns.push(match index.checked_sub(width) {
            None => {
                let (qualifier, field) = plan.schema().qualified_field(index);
                named(column, qualifier, field.name())
            }
            Some(index) => named(column, names[index].relation.as_ref(), &names[index].name),
        });
    }
    let plan = LogicalPlanBuilder::from(branches).project(columns)?.build()?;
    let keys = names.into_iter().zip(nullable).map(|(column, nullable)| Key { column, nullable }).collect();
    Ok(Pushed { plan, keys })
}

/// Rows that are written out, with outer values among them: one projection for each.
pub(super) fn values(domain: &Domain<'_>, values: &Values) -> Result<Pushed> {
    push(domain, &as_projections(values)?)
}

/// `VALUES` as expressions over one row without columns.
pub(in super::super) fn as_projections(values: &Values) -> Result<LogicalPlan> {
    let one_row = LogicalPlanBuilder::empty(true).build()?;
    let mut branches = Vec::with_capacity(values.values.len());
    for row in &values.values {
        let mut columns = Vec::with_capacity(row.len());
        for (expr, (qualifier, field)) in row.iter().zip(values.schema.iter()) {
            let expr = expr.clone().cast_to(field.data_type(), one_row.schema())?;
            columns.push(named(expr, qualifier, field.name()));
        }
        branches.push(Arc::new(LogicalPlanBuilder::from(one_row.clone()).project(columns)?.build()?));
    }
    if branches.len() == 1 {
        return Ok(branches.remove(0).as_ref().clone());
    }
    Ok(LogicalPlan::Union(Union { inputs: branches, schema: Arc::clone(&values.schema) }))
}

/// Lists and structs that are taken apart.
pub(super) fn unnest(domain: &Domain<'_>, unnest: &Unnest, plan: &LogicalPlan) -> Result<Pushed> {
    let Pushed { plan: input, keys } = push(domain, &unnest.input)?;
    let apart = Unnest::try_new(Arc::new(input), unnest.exec_columns.clone(), unnest.options.clone())?;
    renamed(Pushed { plan: LogicalPlan::Unnest(apart), keys }, plan)
}
