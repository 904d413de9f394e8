//! Which query a column of an outer query belongs to. A plan names such a column and does not say how far out it is; as in
//! SQL, it is the nearest query that has it.

use arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Diagnostic, Span};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Exists, InSubquery, SetComparison};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::is_subquery;
use crate::error::Error;

/// Columns of outer queries that a subquery uses.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Those of the rows around it.
    pub(super) here: Vec<(FieldRef, Column)>,
    /// Those of queries further out.
    pub(super) beyond: Vec<Column>,
}

impl Scope {
    /// Of a subquery whose own subqueries are done, beside rows of the plan `around`.
    pub(super) fn of(subquery: &LogicalPlan, around: &LogicalPlan) -> Result<Scope> {
        let mut scope = Scope::default();
        for (field, column) in outer_columns(subquery)? {
            if has(around.schema(), &column) {
                scope.here.push((field, column));
            } else if is_hidden_in(around, &column) {
                let message = format!("a correlated subquery cannot use column `{}` here", column.flat_name());
                let hint = "after GROUP BY or DISTINCT there are only the columns that these leave";
                return Err(refused(message, Some(hint), subquery));
            } else {
                scope.beyond.push(column);
            }
        }
        Ok(scope)
    }

    /// Whether the subquery is the same for all rows everywhere.
    pub(super) fn is_closed(&self) -> bool {
        self.here.is_empty() && self.beyond.is_empty()
    }
}

/// Whether a schema has exactly this column.
pub(super) fn has(schema: &DFSchema, column: &Column) -> bool {
    schema.iter().any(|(qualifier, field)| qualifier == column.relation.as_ref() && *field.name() == column.name)
}

/// Whether the query has the column further down, in its own FROM.
fn is_hidden_in(plan: &LogicalPlan, column: &Column) -> bool {
    if matches!(plan, LogicalPlan::SubqueryAlias(_) | LogicalPlan::Subquery(_)) {
        return false;
    }
    plan.inputs().into_iter().any(|input| has(input.schema(), column) || is_hidden_in(input, column))
}

/// The columns of outer queries in a plan, each once; those in subqueries that stay as they are belong to the plan itself.
pub(super) fn outer_columns(plan: &LogicalPlan) -> Result<Vec<(FieldRef, Column)>> {
    let mut found: Vec<(FieldRef, Column)> = Vec::new();
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            found_in(expr, &mut found)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn found_in(expr: &Expr, found: &mut Vec<(FieldRef, Column)>) -> Result<()> {
    expr.apply(|inner| {
        if let Expr::OuterReferenceColumn(field, column) = inner
            && !found.iter().any(|(_, known)| known == column)
        {
            found.push((field.clone(), column.clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Refuses what has found no home: neither a row around it nor a way to compute it.
pub(super) fn nothing_left(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Err(refused("LATERAL is not supported here", None, node));
        }
        node.apply_expressions(|expr| {
            let mut found = Vec::new();
            found_in(expr, &mut found)?;
            match found.first() {
                Some((_, column)) => {
                    let message = format!("a correlated subquery cannot use column `{}` here", column.flat_name());
                    Err(refused(message, None, node))
                }
                None => Ok(TreeNodeRecursion::Continue),
            }
        })
    })?;
    Ok(())
}

/// What the user is told about a subquery that cannot be done, with its place.
pub(super) fn refused(message: impl Into<String>, hint: Option<&str>, subquery: &LogicalPlan) -> DataFusionError {
    let message = message.into();
    let mut error = Error::invalid(message.clone());
    if let Some(hint) = hint {
        error = error.with_hint(hint);
    }
    let error = DataFusionError::External(Box::new(error));
    match place(subquery) {
        Some(span) => error.with_diagnostic(Diagnostic::new_error(message, Some(span))),
        None => error,
    }
}

/// The first place of the text that is known of a plan: of all that is in it only columns know theirs.
fn place(plan: &LogicalPlan) -> Option<Span> {
    let mut first: Option<Span> = None;
    let mut look = |span: Span| {
        let before =
            first.is_none_or(|known| (span.start.line, span.start.column) < (known.start.line, known.start.column));
        if before {
            first = Some(span);
        }
    };
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = inner {
                    column.spans.iter().copied().for_each(&mut look);
                }
                if let Expr::ScalarSubquery(subquery)
                | Expr::Exists(Exists { subquery, .. })
                | Expr::InSubquery(InSubquery { subquery, .. })
                | Expr::SetComparison(SetComparison { subquery, .. }) = inner
                {
                    debug_assert!(is_subquery(inner), "these are the subqueries");
                    subquery.spans.iter().copied().for_each(&mut look);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.ok().and(first)
}
