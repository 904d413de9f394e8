//! Aggregates that a program, or another rule, has taken from the query engine are ours of the same name: their states travel
//! in other types, and an executor finds functions by their names.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion::optimizer::AnalyzerRule;

use crate::functions;

/// See the module.
#[derive(Debug)]
pub(super) struct OwnAggregates;

impl AnalyzerRule for OwnAggregates {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(replaced).map(|done| done.data)
    }

    fn name(&self) -> &'static str {
        "own_aggregates"
    }
}

/// Names and types of columns stay: both functions have them alike.
fn replaced(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= function_of(expr).and_then(functions::own).is_some();
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    if !found {
        return Ok(Transformed::no(plan));
    }
    plan.map_expressions(|expr| {
        expr.transform_up(|expr| match function_of(&expr).and_then(functions::own) {
            Some(own) => Ok(Transformed::yes(with_function(expr, own))),
            None => Ok(Transformed::no(expr)),
        })
    })
}

fn function_of(expr: &Expr) -> Option<&Arc<AggregateUDF>> {
    match expr {
        Expr::AggregateFunction(call) => Some(&call.func),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => Some(function),
            WindowFunctionDefinition::WindowUDF(_) => None,
        },
        _ => None,
    }
}

fn with_function(expr: Expr, function: Arc<AggregateUDF>) -> Expr {
    match expr {
        Expr::AggregateFunction(mut call) => {
            call.func = function;
            Expr::AggregateFunction(call)
        }
        Expr::WindowFunction(mut call) => {
            call.fun = WindowFunctionDefinition::AggregateUDF(function);
            Expr::WindowFunction(call)
        }
        expr => expr,
    }
}
