//! What the query engine's plans lack to be right, as rules of logical plans that run before its optimizer. Types are
//! settled by then, by the first rules; one of ours after them keeps the type and the name of every column.

mod canonical_keys;
mod checked_arithmetic;
mod constant_groups;
mod constant_keys;
mod copies;
mod kept_names;
mod merged_keys;
mod mixed_numbers;
mod nested_values;
mod operators;
mod order_twice;
mod own_aggregates;
mod readings;
mod rounded_text;
mod sort_keys;
mod subqueries;
mod timestamps;
mod types;

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, RelationPlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::Analyzer;

use crate::syntax::sample::Samples;
use canonical_keys::CanonicalKeys;
use checked_arithmetic::CheckedArithmetic;
use constant_groups::ConstantGroups;
use constant_keys::ConstantKeys;
use copies::Copies;
use merged_keys::{MergedKeysResolved, UsingJoins};
use mixed_numbers::MixedNumbers;
use nested_values::NestedValues;
use operators::Operators;
use order_twice::OrderTwice;
use own_aggregates::OwnAggregates;
use readings::Readings;
use rounded_text::RoundedText;
use sort_keys::SortKeys;
use subqueries::Subqueries;
pub(crate) use subqueries::{SEVERAL_ROWS, gives_one_row_at_most, single_value};
use timestamps::Timestamps;
pub(crate) use types::Types;

/// The rules that run before a plan is optimized: those that settle the types, most of them the query engine's, then ours.
/// Joins and set operations are settled first, then subqueries: what becomes of them is to be right in every other way, too.
/// `in_tasks` says that every partition of a plan becomes a task elsewhere.
pub(crate) fn analyzer_rules(in_tasks: bool) -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(MixedNumbers)];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(MergedKeysResolved));
    rules.push(Arc::new(Copies));
    rules.push(Arc::new(OrderTwice));
    rules.push(Arc::new(Subqueries::new(in_tasks)));
    rules.push(Arc::new(ConstantKeys));
    rules.push(Arc::new(SortKeys));
    rules.push(Arc::new(NestedValues));
    rules.push(Arc::new(Readings));
    rules.push(Arc::new(RoundedText));
    rules.push(Arc::new(Timestamps));
    rules.push(Arc::new(OwnAggregates));
    rules.push(Arc::new(CheckedArithmetic));
    rules.push(Arc::new(CanonicalKeys));
    rules.push(Arc::new(ConstantGroups));
    rules
}

/// Planners of relations that are asked before the query engine plans one.
pub(crate) fn relation_planners() -> Vec<Arc<dyn RelationPlanner>> {
    vec![Arc::new(Samples), Arc::new(UsingJoins)]
}

/// Planners of expressions that are asked before the query engine plans one.
pub(crate) fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(Operators)]
}

/// Whether an operator compares its sides.
fn is_comparison(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// The columns that expressions of a node may name.
fn schema_of_inputs(plan: &LogicalPlan) -> Result<DFSchema> {
    let mut schema = merge_schema(&plan.inputs());
    match plan {
        LogicalPlan::TableScan(scan) => {
            let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
            schema.merge(&source);
        }
        LogicalPlan::Dml(dml) => {
            let target = DFSchema::try_from_qualified_schema(dml.table_name.clone(), &dml.target.schema())?;
            schema.merge(&target);
        }
        _ => {}
    }
    Ok(schema)
}
