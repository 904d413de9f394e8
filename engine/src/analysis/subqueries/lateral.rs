//! LATERAL: what is on the right of a join is computed for each row on its left.

use datafusion::common::{ExprSchema, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};

use super::Unnester;
use super::domain::{Domain, Key, column_at, join, named, same};
use super::embedded::contains_subquery;
use super::scope::{Scope, has, outer_columns, refused};
use super::unnest::{Pushed, push};

/// Whether the right side of a join is marked as LATERAL.
pub(super) fn is_marked(join: &Join) -> bool {
    let inner = match join.right.as_ref() {
        LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
        right => right,
    };
    matches!(inner, LogicalPlan::Subquery(_))
}

impl Unnester {
    /// Whether something on the right of a join is LATERAL and takes columns from the left: `a, b JOIN LATERAL (... a.x ...)`.
    pub(super) fn takes_from_left(&self, join: &Join) -> Result<bool> {
        let further = self.further.borrow();
        if further.is_empty() {
            return Ok(false);
        }
        let used = outer_columns(&join.right)?;
        Ok(used.iter().any(|(_, column)| further.contains(column) && has(join.left.schema(), column)))
    }

    pub(super) fn lateral(&self, lateral: &Join) -> Result<LogicalPlan> {
        let right = lateral.right.as_ref();
        if !matches!(lateral.join_type, JoinType::Inner | JoinType::Left) {
            let message = format!("LATERAL is not supported on the right of {} JOIN", lateral.join_type);
            return Err(refused(message, None, right));
        }
        if lateral.filter.as_ref().is_some_and(contains_subquery) {
            return Err(refused("a subquery is not supported in the ON of a LATERAL join", None, right));
        }
        let scope = Scope::of(right, &lateral.left)?;
        self.further.borrow_mut().extend(scope.beyond.iter().cloned());
        let Pushed { plan, keys } = if scope.here.is_empty() {
            Pushed { plan: opened(right)?, keys: Vec::new() }
        } else {
            push(&Domain::new(self, scope.here.clone(), &lateral.left, right), right)?
        };
        let schema = lateral.left.schema();
        let nullable = |column| schema.field_from_column(column).is_ok_and(|field| field.is_nullable());
        let outer = scope.here.iter().map(|(_, column)| Key { column: column.clone(), nullable: nullable(column) });
        let mut on = same(&outer.collect::<Vec<_>>(), &keys, &lateral.left)?;
        on.extend(lateral.on.iter().cloned());
        let joined = join(LogicalPlan::clone(&lateral.left), plan, lateral.join_type, on, lateral.filter.clone())?;
        let mut columns = Vec::with_capacity(lateral.schema.fields().len());
        for (index, (qualifier, field)) in lateral.schema.iter().enumerate() {
            columns.push(named(Expr::Column(column_at(&joined, index)), qualifier, field.name()));
        }
        LogicalPlanBuilder::from(joined).project(columns)?.build()
    }
}

/// The plan without the mark that it may use columns of its left.
fn opened(right: &LogicalPlan) -> Result<LogicalPlan> {
    match right {
        LogicalPlan::Subquery(subquery) => Ok(LogicalPlan::clone(&subquery.subquery)),
        LogicalPlan::SubqueryAlias(alias) => {
            LogicalPlanBuilder::from(opened(&alias.input)?).alias(alias.alias.clone())?.build()
        }
        plan => Ok(plan.clone()),
    }
}
