//! Subqueries in expressions, and LATERAL joins, as joins that are right wherever they stand and however they depend on the
//! rows around them. The query engine's own way is kept where it is right and quick ([`plain`]): EXISTS and IN as a
//! condition of WHERE, and one aggregate found by an equal key. Everything else goes the way of Neumann and Kemper,
//! "Unnesting Arbitrary Queries" (BTW 2015): the [`domain`] of a subquery is the set of outer values that it uses, the
//! subquery is computed for all of them at once ([`unnest`]), and its rows are joined to the outer rows by these values
//! ([`place`]).
//!
//! What always holds: a plan that leaves here has no column of an outer query but inside the subqueries that are kept; what
//! cannot be done is refused in one sentence with the place of the subquery.

mod domain;
mod embedded;
mod lateral;
mod nodes;
mod numbered;
mod place;
mod plain;
mod repeatable;
mod scope;
mod single;
mod told;
mod unnest;

use std::cell::{Cell, RefCell};

use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

pub(crate) use single::{SEVERAL_ROWS, gives_one_row_at_most, single_value};

/// See the module.
#[derive(Debug)]
pub(super) struct Subqueries {
    in_tasks: bool,
}

impl Subqueries {
    /// `in_tasks` says that every partition of a plan becomes a task elsewhere.
    pub(super) fn new(in_tasks: bool) -> Self {
        Subqueries { in_tasks }
    }
}

impl AnalyzerRule for Subqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_any(&plan)? {
            return Ok(plan);
        }
        let unnester = Unnester {
            in_tasks: self.in_tasks,
            number: Cell::new(last_number(&plan)?),
            chance: Cell::new(false),
            further: RefCell::default(),
        };
        let plan = unnester.plan(plan)?;
        scope::nothing_left(&plan)?;
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "subqueries"
    }
}

/// Turns the subqueries of one statement into joins.
pub(super) struct Unnester {
    in_tasks: bool,
    /// Of the last relation that was made.
    number: Cell<usize>,
    /// Whether the last refusal was for outer rows that chance decides.
    chance: Cell<bool>,
    /// Columns that LATERAL relations take from further to the left than their own join.
    further: RefCell<Vec<Column>>,
}

/// What the relations are called that are made here, before their number.
const PREFIX: &str = "__sq";

impl Unnester {
    /// A relation that no other is called.
    fn relation(&self) -> String {
        self.number.set(self.number.get() + 1);
        format!("{PREFIX}{}", self.number.get())
    }

    /// The plan with all of its subqueries in their new shape; columns of queries further out may be left in it.
    fn plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let changed = Cell::new(false);
        let plan = plan.transform_up(|node| {
            // What is below may have columns that can be NULL now.
            let node = if changed.get() { node.recompute_schema()? } else { node };
            let done = self.node(node)?;
            changed.set(changed.get() || done.transformed);
            Ok(done)
        })?;
        Ok(plan.data)
    }

    fn node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Join(join) = &node
            && (lateral::is_marked(join) || self.takes_from_left(join)?)
        {
            return Ok(Transformed::yes(self.lateral(join)?));
        }
        if embedded::holds_subquery(&node)? { self.with_subqueries(node) } else { Ok(Transformed::no(node)) }
    }
}

/// Whether there is anything to do: most plans are done with after this walk.
fn has_any(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply(|node| {
        found = matches!(node, LogicalPlan::Subquery(_)) || embedded::holds_subquery(node)?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// The highest number of a relation that an earlier analysis of the same plan has made.
fn last_number(plan: &LogicalPlan) -> Result<usize> {
    let mut last = 0;
    plan.apply_with_subqueries(|node| {
        for (qualifier, _) in node.schema().iter() {
            let number = qualifier.and_then(|name| name.table().strip_prefix(PREFIX)?.parse::<usize>().ok());
            last = last.max(number.unwrap_or(0));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(last)
}

/// Whether the expression is a subquery.
fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_))
}

#[cfg(test)]
mod tests;
