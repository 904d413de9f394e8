//! The domain of a subquery: the outer values that it uses, each combination once.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{Column, ExprSchema, NullEquality, ScalarValue, TableReference};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Aggregate, Expr, Join, JoinConstraint, JoinType, LogicalPlan, LogicalPlanBuilder, lit};

use super::Unnester;
use super::repeatable::is_repeatable;
use super::scope::refused;

/// See the module.
pub(super) struct Domain<'a> {
    unnester: &'a Unnester,
    /// The outer columns, as the subquery names them.
    pub(super) columns: Vec<(FieldRef, Column)>,
    /// Where they come from.
    around: &'a LogicalPlan,
    /// The subquery, for its place.
    subquery: &'a LogicalPlan,
    /// Whether its rows may not be computed, and whether they would have been.
    forbidden: Cell<bool>,
    wanted: Cell<bool>,
}

impl<'a> Domain<'a> {
    pub(super) fn new(
        unnester: &'a Unnester,
        columns: Vec<(FieldRef, Column)>,
        around: &'a LogicalPlan,
        subquery: &'a LogicalPlan,
    ) -> Self {
        Domain { unnester, columns, around, subquery, forbidden: Cell::new(false), wanted: Cell::new(false) }
    }

    pub(super) fn position(&self, column: &Column) -> Option<usize> {
        self.columns.iter().position(|(_, known)| known == column)
    }

    /// The field of a column of the domain, as the outer rows have it.
    pub(super) fn field(&self, index: usize) -> Result<&FieldRef> {
        let (_, column) = &self.columns[index];
        self.around.schema().field_from_column(column)
    }

    /// A relation that no other is called.
    pub(super) fn relation(&self) -> String {
        self.unnester.relation()
    }

    /// The domain as a relation of its own, and its columns. The outer rows are computed once more for it, so they must be
    /// the same when they are.
    pub(super) fn rows(&self) -> Result<(LogicalPlan, Vec<Column>)> {
        if self.forbidden.get() {
            self.wanted.set(true);
            return Err(self.refused("a correlated subquery of this kind is not supported"));
        }
        if !is_repeatable(self.around)? {
            self.unnester.chance.set(true);
            let message = "a correlated subquery is not supported beside rows that chance decides";
            let hint =
                "keep them first: CREATE TABLE ... AS with the LIMIT, random() or window over rows without an order";
            return Err(self.refused_with(message, hint));
        }
        let names = self.names();
        let values = self.columns.iter().zip(&names);
        let values = values.map(|((_, column), name)| {
            Expr::Column(column.clone()).alias_qualified(name.relation.clone(), name.name.clone())
        });
        let rows = LogicalPlanBuilder::from(self.around.clone()).project(values.collect::<Vec<_>>())?.build()?;
        Ok((distinct(rows)?, names))
    }

    /// What is computed without the rows of the domain, when that can be done.
    pub(super) fn without_rows<T>(&self, compute: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        self.forbidden.set(true);
        self.wanted.set(false);
        let computed = compute();
        self.forbidden.set(false);
        if self.wanted.get() { Ok(None) } else { computed.map(Some) }
    }

    /// Names for the columns of the domain that nothing else has.
    pub(super) fn names(&self) -> Vec<Column> {
        names_of(&self.relation(), self.columns.len())
    }

    pub(super) fn refused(&self, message: impl Into<String>) -> datafusion::error::DataFusionError {
        refused(message, None, self.subquery)
    }

    fn refused_with(&self, message: &str, hint: &str) -> datafusion::error::DataFusionError {
        refused(message, Some(hint), self.subquery)
    }
}

/// Columns of a relation that was made, by names that nothing else has: not even a column without a relation.
pub(super) fn names_of(relation: &str, count: usize) -> Vec<Column> {
    let name = |index| Column::new(Some(TableReference::bare(relation)), format!("{relation}_{index}"));
    (0..count).map(name).collect()
}

/// A column of one side of a join by the domain.
pub(super) struct Key {
    pub(super) column: Column,
    pub(super) nullable: bool,
}

/// Pairs that are equal when both values are equal, or both are NULL. Join keys that are never NULL themselves, rather than
/// a join that takes NULL for equal: such a join would take it so for keys, too, that later rules add to it (see the issues of
/// null-safe joins in DESIGN.md).
pub(super) fn same(left: &[Key], right: &[Key], plan: &LogicalPlan) -> Result<Vec<(Expr, Expr)>> {
    let mut pairs = Vec::with_capacity(left.len());
    for (left, right) in left.iter().zip(right) {
        let (one, other) = (Expr::Column(left.column.clone()), Expr::Column(right.column.clone()));
        if !left.nullable || !right.nullable {
            pairs.push((one, other));
            continue;
        }
        let kind = plan.schema().field_from_column(&left.column)?.data_type().clone();
        let instead = lit(ScalarValue::new_default(&kind)?);
        pairs.push((one.clone().is_null(), other.clone().is_null()));
        pairs.push((coalesce(vec![one, instead.clone()]), coalesce(vec![other, instead])));
    }
    Ok(pairs)
}

/// A join by pairs of keys and a condition.
pub(super) fn join(
    left: LogicalPlan,
    right: LogicalPlan,
    kind: JoinType,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
) -> Result<LogicalPlan> {
    // A join without any condition is known by the query engine as a product only when it is an inner one.
    let filter = if on.is_empty() && filter.is_none() && kind != JoinType::Inner { Some(lit(true)) } else { filter };
    let (left, right) = (Arc::new(left), Arc::new(right));
    let join =
        Join::try_new(left, right, on, filter, kind, JoinConstraint::On, NullEquality::NullEqualsNothing, false)?;
    Ok(LogicalPlan::Join(join))
}

/// Each row once. As groups: a DISTINCT above another one is dropped by the query engine when their first columns are the same
/// (DataFusion 55.2).
pub(super) fn distinct(plan: LogicalPlan) -> Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(plan), columns, Vec::new())?))
}

/// The columns of a plan by position.
pub(super) fn column_at(plan: &LogicalPlan, index: usize) -> Column {
    Column::from(plan.schema().qualified_field(index))
}

/// The expression under the name of a field.
pub(super) fn named(expr: Expr, qualifier: Option<&TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation.as_ref() == qualifier && column.name == name => expr,
        _ => expr.unalias().alias_qualified(qualifier.cloned(), name),
    }
}
