//! The place of a subquery: rows to which one column or more is joined for each subquery of an expression over them, and the
//! expression with these columns, three-valued as SQL has it.
//!
//! ```text
//! EXISTS (q)      there is a row of q                                    never NULL
//! x IN (q)        q is empty: false; x equals a value: true; x or a value is NULL: NULL; else false
//! x < ANY (q)     q is empty: false; x < max: true;          x or a value is NULL: NULL; else false
//! x < ALL (q)     q is empty: true;  x < min is false: false; x or a value is NULL: NULL; else true
//! (q)             q is empty: NULL; one row: its value; else an error
//! ```
//! What always holds: no row of the place is lost or repeated.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ExprSchema, JoinType, ScalarValue};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, first_value, max, min};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, not, when,
};

use super::domain::{Domain, Key, column_at, distinct, join, named, names_of, same};
use super::embedded::with_plan;
use super::repeatable::is_repeatable;
use super::scope::{Scope, has, refused};
use super::single::{gives_one_row_at_most, of_several, or_null};
use super::unnest::{Pushed, push};
use super::{Unnester, is_subquery};

/// See the module.
pub(super) struct Place<'a> {
    pub(super) unnester: &'a Unnester,
    /// The rows as they are without the subqueries.
    pub(super) around: &'a LogicalPlan,
    /// The same with a column more for each subquery.
    pub(super) rows: LogicalPlan,
}

impl<'a> Place<'a> {
    pub(super) fn new(unnester: &'a Unnester, around: &'a LogicalPlan) -> Self {
        Place { unnester, around, rows: around.clone() }
    }

    /// The rows with what the expressions need.
    pub(super) fn into_rows(self) -> LogicalPlan {
        self.rows
    }

    /// The expression with columns for its subqueries, whose own subqueries are done.
    pub(super) fn value(&mut self, expr: Expr) -> Result<Expr> {
        let done = expr.transform_up(|inner| {
            if !is_subquery(&inner) {
                return Ok(Transformed::no(inner));
            }
            let before = self.rows.clone();
            self.unnester.chance.set(false);
            let joined = self.joined(inner.clone());
            if joined.is_err() && self.unnester.chance.get() {
                self.rows = before;
                return Ok(Transformed::yes(self.numbered(inner)?));
            }
            Ok(Transformed::yes(joined?))
        })?;
        Ok(done.data)
    }

    /// What a subquery is, of values that are joined to the rows.
    fn joined(&mut self, subquery: Expr) -> Result<Expr> {
        match subquery {
            Expr::Exists(Exists { subquery, negated }) => self.exists(&subquery, negated),
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let within = self.within(*expr, &subquery)?;
                Ok(if negated { not(within) } else { within })
            }
            Expr::SetComparison(comparison) => self.compared(comparison),
            Expr::ScalarSubquery(subquery) => self.scalar(&subquery),
            expr => Ok(expr),
        }
    }

    /// As [`Place::value`], where NULL is as good as false.
    pub(super) fn truth(&mut self, expr: Expr) -> Result<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let (left, right) = (self.truth(*left)?, self.truth(*right)?);
                Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => {
                let value = self.value(*expr)?;
                if value.column_refs().is_empty() || self.is_by_chance(&subquery)? {
                    let within = InSubquery { expr: Box::new(value), subquery, negated: false };
                    return self.value(Expr::InSubquery(within));
                }
                self.found(value, &subquery)
            }
            expr => self.value(expr),
        }
    }

    /// Whether the subquery depends on rows that chance decides.
    fn is_by_chance(&self, subquery: &Subquery) -> Result<bool> {
        let scope = Scope::of(&subquery.subquery, self.around)?;
        Ok(!scope.here.is_empty() && !is_repeatable(self.around)?)
    }

    fn exists(&mut self, subquery: &Subquery, negated: bool) -> Result<Expr> {
        let plan = without_first_rows(&subquery.subquery);
        let scope = Scope::of(plan, self.around)?;
        if scope.is_closed() {
            let first = LogicalPlanBuilder::from(plan.clone()).limit(0, Some(1))?.build()?;
            let counted = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(first), Vec::new(), vec![rows()])?);
            let counted = Expr::ScalarSubquery(with_plan(subquery, counted));
            return Ok(if negated { counted.eq(lit(0_i64)) } else { counted.gt(lit(0_i64)) });
        }
        if scope.here.is_empty() {
            let counted = self.folded(scope.here, plan.clone(), Vec::new(), |_| vec![rows()])?;
            let counted = Expr::Column(counted[0].clone());
            return Ok(if negated { counted.eq(lit(0_i64)) } else { counted.gt(lit(0_i64)) });
        }
        let pushed = self.computed(&scope.here, plan)?;
        let there = self.marked(&scope.here, pushed, None)?;
        Ok(if negated { there.is_null() } else { there.is_not_null() })
    }

    /// Whether the value is there, where NULL is as good as false.
    fn found(&mut self, value: Expr, subquery: &Subquery) -> Result<Expr> {
        let plan = subquery.subquery.as_ref();
        let scope = Scope::of(plan, self.around)?;
        let pushed = self.computed(&scope.here, plan)?;
        Ok(self.marked(&scope.here, pushed, Some(value))?.is_not_null())
    }

    fn within(&mut self, value: Expr, subquery: &Subquery) -> Result<Expr> {
        let plan = subquery.subquery.as_ref();
        let scope = Scope::of(plan, self.around)?;
        let missing = value.clone().is_null();
        if value.column_refs().is_empty() || !is_repeatable(plan)? {
            // Everything is seen at once: rows that are asked for twice may not be the same ones.
            let equal = |inner: Expr, value: &Expr| value.clone().eq(inner);
            let [all, filled, equal] = self.counted(scope, plan, &value, equal)?;
            return three_valued(all, filled, equal.gt(lit(0_i64)), true, missing);
        }
        let pushed = self.computed(&scope.here, plan)?;
        let there = self.marked(&scope.here, pushed, Some(value))?.is_not_null();
        let counts = self.folded(scope.here, plan.clone(), Vec::new(), |inner| vec![rows(), count(inner)])?;
        let [all, filled] = [0, 1].map(|index| Expr::Column(counts[index].clone()));
        three_valued(all, filled, there, true, missing)
    }

    fn compared(&mut self, comparison: SetComparison) -> Result<Expr> {
        let SetComparison { expr: value, subquery, op, quantifier } = comparison;
        let any = quantifier == SetQuantifier::Any;
        if any && op == Operator::Eq {
            return self.within(*value, &subquery);
        }
        if !any && op == Operator::NotEq {
            return Ok(not(self.within(*value, &subquery)?));
        }
        let plan = subquery.subquery.as_ref();
        let scope = Scope::of(plan, self.around)?;
        let missing = value.clone().is_null();
        // ALL is decided by a value for which the comparison does not hold, ANY by one for which it does.
        let deciding = if any { Some(op) } else { op.negate() };
        let Some(deciding) = deciding else {
            return Err(refused(format!("ANY and ALL are not supported with the operator {op}"), None, plan));
        };
        let extreme: fn(Expr) -> Expr = match deciding {
            Operator::Lt | Operator::LtEq => max,
            Operator::Gt | Operator::GtEq => min,
            Operator::NotEq => {
                let fold = |inner: Expr| vec![rows(), count(inner.clone()), min(inner.clone()), max(inner)];
                let folded = self.folded(scope.here, plan.clone(), Vec::new(), fold)?;
                let [all, filled, least, greatest] = [0, 1, 2, 3].map(|index| Expr::Column(folded[index].clone()));
                let differs = value.clone().not_eq(least).or(value.not_eq(greatest));
                return three_valued(all, filled, differs, any, missing);
            }
            _ => return Err(refused(format!("ANY and ALL are not supported with the operator {op}"), None, plan)),
        };
        let fold = |inner: Expr| vec![rows(), count(inner.clone()), extreme(inner)];
        let folded = self.folded(scope.here, plan.clone(), Vec::new(), fold)?;
        let [all, filled, extreme] = [0, 1, 2].map(|index| Expr::Column(folded[index].clone()));
        let decides = Expr::BinaryExpr(BinaryExpr::new(value, deciding, Box::new(extreme)));
        three_valued(all, filled, decides, any, missing)
    }

    fn scalar(&mut self, subquery: &Subquery) -> Result<Expr> {
        let plan = subquery.subquery.as_ref();
        let scope = Scope::of(plan, self.around)?;
        if scope.is_closed() {
            return Ok(or_null(Expr::ScalarSubquery(subquery.clone()), plan));
        }
        if scope.here.is_empty() || !gives_one_row_at_most(plan) {
            let fold = |inner: Expr| vec![first_value(inner, Vec::new()), rows()];
            let folded = self.folded(scope.here, plan.clone(), Vec::new(), fold)?;
            let [value, all] = [0, 1].map(|index| Expr::Column(folded[index].clone()));
            return Ok(of_several(value, all));
        }
        if let Some(value) = self.told(&scope.here, plan)? {
            return Ok(value);
        }
        let Pushed { plan, keys } = self.computed(&scope.here, plan)?;
        let value = names_of(&self.unnester.relation(), 1).remove(0);
        let inner = named(Expr::Column(column_at(&plan, 0)), value.relation.as_ref(), &value.name);
        let columns: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).chain([inner]).collect();
        let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        self.attach(&scope.here, plan, &keys, None)?;
        Ok(Expr::Column(value))
    }

    /// The subquery for all outer values.
    fn computed(&self, here: &[(FieldRef, Column)], plan: &LogicalPlan) -> Result<Pushed> {
        if here.is_empty() {
            return Ok(Pushed { plan: plan.clone(), keys: Vec::new() });
        }
        let known = here.iter().all(|(_, column)| has(self.around.schema(), column));
        let around = if known { self.around } else { &self.rows };
        push(&Domain::new(self.unnester, here.to_vec(), around, plan), plan)
    }

    /// How many rows the subquery gives, how many of them have a value, and for how many the comparison holds, all three of
    /// the same rows.
    fn counted(
        &mut self,
        scope: Scope,
        plan: &LogicalPlan,
        value: &Expr,
        holds: impl Fn(Expr, &Expr) -> Expr,
    ) -> Result<[Expr; 3]> {
        let mut here = scope.here;
        let schema = Arc::clone(self.rows.schema());
        let outer = value.clone().transform(|inner| match inner {
            Expr::Column(column) => {
                let field = Arc::clone(schema.field_from_column(&column)?);
                if !here.iter().any(|(_, known)| *known == column) {
                    here.push((Arc::clone(&field), column.clone()));
                }
                Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
            }
            inner => Ok(Transformed::no(inner)),
        })?;
        let fold = |inner: Expr| -> Result<Vec<Expr>> {
            let equal = rows().filter(holds(inner.clone(), &outer.data)).build()?;
            Ok(vec![rows(), count(inner), equal])
        };
        let plan = self.valued(plan)?;
        let folds = fold(Expr::Column(column_at(&plan, 0)))?;
        let counts = if outer.transformed {
            let folded = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), Vec::new(), folds)?);
            self.one_row(&here, &folded)?
        } else {
            self.folded(here, plan, folds, |_| Vec::new())?
        };
        Ok([0, 1, 2].map(|index| Expr::Column(counts[index].clone())))
    }

    /// The subquery's first column alone, by a name that no aggregate is called.
    fn valued(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let name = names_of(&self.unnester.relation(), 1).remove(0);
        let value = named(Expr::Column(column_at(plan, 0)), name.relation.as_ref(), &name.name);
        LogicalPlanBuilder::from(plan.clone()).project([value])?.build()
    }

    /// The columns of a subquery that gives one row for each outer value.
    fn one_row(&mut self, here: &[(FieldRef, Column)], plan: &LogicalPlan) -> Result<Vec<Column>> {
        let width = plan.schema().fields().len();
        let Pushed { plan, keys } = self.computed(here, plan)?;
        let names = names_of(&self.unnester.relation(), width);
        let own = names.iter().enumerate();
        let own =
            own.map(|(index, name)| named(Expr::Column(column_at(&plan, index)), name.relation.as_ref(), &name.name));
        let columns: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).chain(own).collect();
        let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        self.attach(here, plan, &keys, None)?;
        Ok(names)
    }

    /// Aggregates of the subquery's first column for each outer value; NULL where it gives no rows, and there are outer
    /// values.
    fn folded(
        &mut self,
        here: Vec<(FieldRef, Column)>,
        plan: LogicalPlan,
        given: Vec<Expr>,
        folds: impl Fn(Expr) -> Vec<Expr>,
    ) -> Result<Vec<Column>> {
        let plan = if given.is_empty() { self.valued(&plan)? } else { plan };
        let Pushed { plan, keys } = self.computed(&here, &plan)?;
        let folds = if given.is_empty() { folds(Expr::Column(column_at(&plan, 0))) } else { given };
        let count = folds.len();
        let groups: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).collect();
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), groups.clone(), folds)?);
        let names = names_of(&self.unnester.relation(), count);
        let own = names.iter().enumerate().map(|(index, name)| {
            let column = Expr::Column(column_at(&plan, groups.len() + index));
            named(column, name.relation.as_ref(), &name.name)
        });
        let columns: Vec<Expr> = groups.iter().cloned().chain(own).collect();
        let plan = LogicalPlanBuilder::from(plan).project(columns)?.build()?;
        self.attach(&here, plan, &keys, None)?;
        Ok(names)
    }

    /// A column that is NULL where the subquery has no row, or none with the value.
    fn marked(&mut self, here: &[(FieldRef, Column)], pushed: Pushed, value: Option<Expr>) -> Result<Expr> {
        let Pushed { plan, keys } = pushed;
        let names = names_of(&self.unnester.relation(), 2);
        let mut columns: Vec<Expr> = keys.iter().map(|key| Expr::Column(key.column.clone())).collect();
        let mut builder = LogicalPlanBuilder::from(plan.clone());
        let equal = match value {
            None => None,
            Some(value) => {
                let inner = Expr::Column(column_at(&plan, 0));
                builder = builder.filter(inner.clone().is_not_null())?;
                columns.push(named(inner, names[1].relation.as_ref(), &names[1].name));
                Some((value, Expr::Column(names[1].clone())))
            }
        };
        let distinct = distinct(builder.project(columns)?.build()?)?;
        let mut columns: Vec<Expr> = distinct.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(named(lit(true), names[0].relation.as_ref(), &names[0].name));
        let plan = LogicalPlanBuilder::from(distinct).project(columns)?.build()?;
        self.attach(here, plan, &keys, equal)?;
        Ok(Expr::Column(names[0].clone()))
    }

    /// Joins what was computed, of which there is one row at most for an outer row.
    pub(super) fn attach(
        &mut self,
        here: &[(FieldRef, Column)],
        plan: LogicalPlan,
        keys: &[Key],
        equal: Option<(Expr, Expr)>,
    ) -> Result<()> {
        let schema = self.rows.schema();
        let nullable = |column: &Column| schema.field_from_column(column).is_ok_and(|field| field.is_nullable());
        let outer: Vec<Key> =
            here.iter().map(|(_, column)| Key { column: column.clone(), nullable: nullable(column) }).collect();
        let mut on = same(&outer, keys, &self.rows)?;
        on.extend(equal);
        // Without keys it is one row for all.
        let kind = if on.is_empty() { JoinType::Inner } else { JoinType::Left };
        self.rows = join(self.rows.clone(), plan, kind, on, None)?;
        Ok(())
    }
}

/// The number of rows.
pub(super) fn rows() -> Expr {
    count(lit(1_i64))
}

/// EXISTS does not ask how many rows there are, nor in which order.
fn without_first_rows(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Limit(limit) => {
            let skips = !matches!(limit.get_skip_type(), Ok(datafusion::logical_expr::SkipType::Literal(0)));
            let none = !matches!(
                limit.get_fetch_type(),
                Ok(datafusion::logical_expr::FetchType::Literal(most)) if most.is_none_or(|most| most > 0)
            );
            if skips || none { plan } else { without_first_rows(&limit.input) }
        }
        LogicalPlan::Sort(sort) if sort.fetch.is_none_or(|most| most > 0) => without_first_rows(&sort.input),
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => without_first_rows(&projection.input),
            _ => plan,
        },
        plan => plan,
    }
}

/// What a quantified comparison is: see the module. `decides` makes it `decided` when it holds.
pub(super) fn three_valued(all: Expr, filled: Expr, decides: Expr, any: bool, missing: Expr) -> Result<Expr> {
    let none = coalesce(vec![all.clone(), lit(0_i64)]).eq(lit(0_i64));
    let unknown = missing.or(filled.lt(all));
    when(none, lit(!any)).when(decides, lit(any)).when(unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(!any))
}
