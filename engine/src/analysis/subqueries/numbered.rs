//! Subqueries beside rows that chance decides: of a LIMIT, of random(), of a window over equal rows. Such rows cannot be
//! computed twice, so they are not joined to what their values give, but numbered and joined to the subquery's rows
//! themselves, and grouped again by their number. That is done for subqueries that are filters and expressions over rows, and
//! for one aggregate over them.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{count, first_value};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, Window, lit, not,
};

use super::domain::{column_at, join, named, names_of};
use super::place::{Place, rows, three_valued};
use super::scope::{Scope, refused};
use super::single::of_several;
use super::told::{aggregate_below, computed};

impl Place<'_> {
    /// The value of an expression that is a subquery.
    pub(super) fn numbered(&mut self, expr: Expr) -> Result<Expr> {
        match expr {
            Expr::Exists(Exists { subquery, negated }) => {
                let counted = self.grouped(&subquery, |_| Ok(vec![rows()]))?;
                let counted = Expr::Column(counted[0].clone());
                Ok(if negated { counted.eq(lit(0_i64)) } else { counted.gt(lit(0_i64)) })
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let within = self.decided(*expr, &subquery, Operator::Eq, true)?;
                Ok(if negated { not(within) } else { within })
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => {
                let any = quantifier == SetQuantifier::Any;
                match if any { Some(op) } else { op.negate() } {
                    Some(deciding) => self.decided(*expr, &subquery, deciding, any),
                    None => Err(chance(&subquery)),
                }
            }
            Expr::ScalarSubquery(subquery) => self.one_value(&subquery),
            expr => Ok(expr),
        }
    }

    fn decided(&mut self, value: Expr, subquery: &Subquery, deciding: Operator, any: bool) -> Result<Expr> {
        let compared = value.clone();
        let counts = self.grouped(subquery, |inner| {
            let decides =
                Expr::BinaryExpr(BinaryExpr::new(Box::new(compared.clone()), deciding, Box::new(inner.clone())));
            Ok(vec![rows(), count(inner), rows().filter(decides).build()?])
        })?;
        let [all, filled, decides] = [0, 1, 2].map(|index| Expr::Column(counts[index].clone()));
        three_valued(all, filled, decides.gt(lit(0_i64)), any, value.is_null())
    }

    fn one_value(&mut self, subquery: &Subquery) -> Result<Expr> {
        let plan = subquery.subquery.as_ref();
        let Some(aggregate) = aggregate_below(plan) else {
            let folded = self.grouped(subquery, |inner| Ok(vec![first_value(inner, Vec::new()), rows()]))?;
            let [value, all] = [0, 1].map(|index| Expr::Column(folded[index].clone()));
            return Ok(of_several(value, all));
        };
        let scope = Scope::of(plan, self.around)?;
        let names = self.folded_over(&aggregate.input, subquery, |columns| {
            aggregate.aggr_expr.iter().map(|expr| self::over(expr.clone(), columns)).collect()
        })?;
        let original = LogicalPlan::Aggregate(aggregate.clone());
        let values = names.into_iter().enumerate();
        let values = values.map(|(index, name)| (column_at(&original, index), Expr::Column(name))).collect();
        computed(plan, None, values, &scope.here)?.value()
    }

    /// Aggregates of the subquery's first column for each row of the place.
    fn grouped(&mut self, subquery: &Subquery, folds: impl Fn(Expr) -> Result<Vec<Expr>>) -> Result<Vec<Column>> {
        let plan = Arc::clone(&subquery.subquery);
        self.folded_over(&plan, subquery, |columns| folds(columns[0].1.clone()))
    }

    fn folded_over(
        &mut self,
        plan: &LogicalPlan,
        subquery: &Subquery,
        folds: impl FnOnce(&[(Column, Expr)]) -> Result<Vec<Expr>>,
    ) -> Result<Vec<Column>> {
        let scope = Scope::of(&subquery.subquery, self.around)?;
        let below = independent_below(plan, &scope).ok_or_else(|| chance(subquery))?;
        let width = below.schema().fields().len();
        let names = names_of(&self.unnester.relation(), width + 1);
        let there = Expr::Column(names[width].clone()).is_not_null();
        let columns = names.iter().enumerate().map(|(index, name)| {
            let value = if index < width { Expr::Column(column_at(below, index)) } else { lit(true) };
            named(value, name.relation.as_ref(), &name.name)
        });
        let inner = LogicalPlanBuilder::from(below.clone()).project(columns.collect::<Vec<_>>())?.build()?;
        let known = (0..width).map(|index| (column_at(below, index), Expr::Column(names[index].clone()))).collect();
        let shape = computed(plan, Some(below), known, &scope.here)?;

        let own = self.rows.schema().columns();
        let counted = Window::try_new(vec![row_number()], Arc::new(self.rows.clone()))?;
        let counted = LogicalPlan::Window(counted);
        let groups: Vec<Expr> = counted.schema().columns().into_iter().map(Expr::Column).collect();
        let joined = join(counted, inner, JoinType::Left, Vec::new(), shape.having)?;
        let mut folded = Vec::new();
        for fold in folds(&shape.columns)? {
            folded.push(super::unnest::only_where(fold, &there)?);
        }
        let count = folded.len();
        let first = groups.len();
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(joined), groups, folded)?);
        let results = names_of(&self.unnester.relation(), count);
        let mut columns: Vec<Expr> = own.into_iter().map(Expr::Column).collect();
        for (index, name) in results.iter().enumerate() {
            let value = Expr::Column(column_at(&grouped, first + index));
            columns.push(named(value, name.relation.as_ref(), &name.name));
        }
        self.rows = LogicalPlanBuilder::from(grouped).project(columns)?.build()?;
        Ok(results)
    }
}

fn chance(subquery: &Subquery) -> datafusion::error::DataFusionError {
    let message = "a correlated subquery of this kind is not supported beside rows that chance decides";
    let hint = "keep the rows first, in a table of their own: CREATE TABLE ... AS SELECT ... LIMIT";
    refused(message, Some(hint), &subquery.subquery)
}

/// What is below filters and expressions, when it does not depend on outer rows.
fn independent_below<'a>(plan: &'a LogicalPlan, scope: &Scope) -> Option<&'a LogicalPlan> {
    let used = super::scope::outer_columns(plan).ok()?;
    if used.iter().all(|(_, column)| !scope.here.iter().any(|(_, known)| known == column)) {
        return Some(plan);
    }
    let plain = |expr: &Expr| !super::embedded::contains_subquery(expr) && !expr.is_volatile();
    match plan {
        LogicalPlan::Projection(projection) if projection.expr.iter().all(plain) => {
            independent_below(&projection.input, scope)
        }
        LogicalPlan::Filter(filter) if plain(&filter.predicate) => independent_below(&filter.input, scope),
        LogicalPlan::SubqueryAlias(alias) => independent_below(&alias.input, scope),
        _ => None,
    }
}

/// The expression with its columns as they are computed.
fn over(expr: Expr, columns: &[(Column, Expr)]) -> Result<Expr> {
    let done = expr.transform(|inner| match &inner {
        Expr::Column(column) => match columns.iter().find(|(known, _)| known == column) {
            Some((_, value)) => Ok(Transformed::new(value.clone(), true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(inner)),
        },
        _ => Ok(Transformed::no(inner)),
    })?;
    Ok(done.data)
}
