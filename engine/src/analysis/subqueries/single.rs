//! Subqueries that stand for one value: when it is known that they are one, and what finds out while a plan runs.

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Distinct, Expr, FetchType, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;

/// What is said of a subquery that gives several rows where one value is wanted.
pub(crate) const SEVERAL_ROWS: &str = "a subquery that stands for one value gave several rows";

/// Whether the plan gives one row or none whatever the data is. The query engine's own count of rows believes keys that
/// nobody checks, and takes `SELECT 1` for no row at all.
pub(crate) fn gives_one_row_at_most(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty() || gives_one_row_at_most(&aggregate.input),
        LogicalPlan::Limit(limit) => {
            matches!(limit.get_fetch_type(), Ok(FetchType::Literal(Some(0 | 1)))) || gives_one_row_at_most(&limit.input)
        }
        LogicalPlan::Sort(sort) => matches!(sort.fetch, Some(0 | 1)) || gives_one_row_at_most(&sort.input),
        LogicalPlan::Projection(projection) => gives_one_row_at_most(&projection.input),
        LogicalPlan::Filter(filter) => gives_one_row_at_most(&filter.input),
        LogicalPlan::Window(window) => gives_one_row_at_most(&window.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row_at_most(&alias.input),
        LogicalPlan::Distinct(Distinct::All(input)) => gives_one_row_at_most(input),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        _ => false,
    }
}

/// Whether the plan gives one row whatever the data is.
fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(projection) => gives_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => gives_one_row(&alias.input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

/// A subquery that stands for one value, as an expression that is NULL when it has no row.
pub(super) fn or_null(expr: Expr, plan: &LogicalPlan) -> Expr {
    // Whether the plan's column is nullable is not asked: the optimizer may find out that it is not.
    if gives_one_row(plan) { expr } else { ScalarUDF::from(Value::or_null()).call(vec![expr]) }
}

/// The value, unless the number of rows that it was taken from is greater than one.
pub(super) fn of_several(value: Expr, rows: Expr) -> Expr {
    ScalarUDF::from(Value::single()).call(vec![value, rows])
}

/// The functions that plans with subqueries are given, for whoever decodes such a plan.
pub(crate) fn single_value() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(Value::single())), Arc::new(ScalarUDF::from(Value::or_null()))]
}

/// Gives its first argument on.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Value {
    /// Looks at the second one, too.
    counts: bool,
    signature: Signature,
}

impl Value {
    fn single() -> Self {
        Value { counts: true, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn or_null() -> Self {
        Value { counts: false, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Value {
    fn name(&self) -> &str {
        if self.counts { "__single_value" } else { "__value_or_null" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::clone(&args.arg_fields[0]).with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.counts {
            let counts = args.args[1].to_array(args.number_rows)?;
            let counts = counts.as_any().downcast_ref::<Int64Array>().expect("rows are counted in 64 bits");
            if (0..counts.len()).any(|row| counts.is_valid(row) && counts.value(row) > 1) {
                return Err(DataFusionError::External(Box::new(Error::invalid(SEVERAL_ROWS))));
            }
        }
        Ok(args.args[0].clone())
    }
}
