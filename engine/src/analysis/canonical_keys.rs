//! Floating-point numbers and intervals are compared, grouped, joined and sorted by their canonical form
//! (`functions/canonical`), so that `-0.0 = 0.0`, NaN is one value above all others, and 24 hours are a day.
//!
//! Plans without such keys stay as they are. Where a column is to be less than a literal, or equal to it, the bare comparison
//! stands beside the other, so that files can still be pruned by it. Where NaN would do, too, files cannot be pruned: what
//! they tell of their least and greatest number says nothing of NaN.

use std::collections::HashSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, Case, InList, InSubquery, ScalarFunction, Sort as SortKey,
    WindowFunction,
};
use datafusion::logical_expr::{
    Aggregate, Between, BinaryExpr, Cast, Distinct, Expr, ExprSchemable, GroupingSet, Join, LogicalPlan, Operator,
    Projection, Sort, Subquery, WindowFrameUnits,
};
use datafusion::optimizer::AnalyzerRule;

use super::{is_comparison, kept_names, schema_of_inputs};
use crate::functions::canonical;

/// See the module.
#[derive(Debug)]
pub(super) struct CanonicalKeys;

impl AnalyzerRule for CanonicalKeys {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(with_keys).map(|done| done.data)
    }

    fn name(&self) -> &'static str {
        "canonical_keys"
    }
}

fn with_keys(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let inputs = plan.inputs();
    let concerned = inputs.iter().any(|input| has_forms(input.schema())) || has_expressions_with_forms(&plan)?;
    if !concerned {
        return Ok(Transformed::no(plan));
    }
    let schema = schema_of_inputs(&plan)?;
    let keys = Keys { schema: &schema, stored: stored_columns(&plan)? };
    let compared = kept_names::changed(plan, |expr| expr.transform_up(|expr| keys.expression(expr)))?;
    let transformed = compared.transformed;
    let keyed = keys.node(compared.data)?;
    Ok(Transformed::new_transformed(keyed.data, keyed.transformed || transformed))
}

fn has_forms(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|field| canonical::has_several_forms(field.data_type()))
}

/// Whether a node makes such values itself, of literals or by casts.
fn has_expressions_with_forms(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= match expr {
                Expr::Literal(value, _) => canonical::has_several_forms(&value.data_type()),
                Expr::Cast(Cast { field, .. }) => canonical::has_several_forms(field.data_type()),
                Expr::ScalarFunction(_) | Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) => true,
                Expr::InSubquery(_) => true,
                _ => false,
            };
            Ok(match found {
                true => TreeNodeRecursion::Stop,
                false => TreeNodeRecursion::Continue,
            })
        })
    })?;
    Ok(found)
}

/// Aggregates that sort their values, a NaN with a sign below all numbers.
const SORTING: [&str; 5] =
    ["median", "percentile_cont", "approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight"];

struct Keys<'a> {
    schema: &'a DFSchema,
    /// Columns that are compared with literals and come from a table as they are.
    stored: HashSet<Column>,
}

impl Keys<'_> {
    /// The node's own keys.
    fn node(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Aggregate(aggregate) => self.groups(aggregate),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Sort(sort) => {
                let keys = self.sort_keys(sort.expr);
                Ok(keys.update_data(|expr| LogicalPlan::Sort(Sort { expr, ..sort })))
            }
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = canonical_columns(std::sync::Arc::unwrap_or_clone(input))?;
                Ok(input.update_data(|input| LogicalPlan::Distinct(Distinct::All(input.into()))))
            }
            LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
                let on = self.each(distinct.on_expr);
                distinct.on_expr = on.data;
                let sort = distinct.sort_expr.map(|keys| self.sort_keys(keys));
                let transformed = on.transformed || sort.as_ref().is_some_and(|sort| sort.transformed);
                distinct.sort_expr = sort.map(|sort| sort.data);
                Ok(Transformed::new_transformed(LogicalPlan::Distinct(Distinct::On(distinct)), transformed))
            }
            plan => Ok(Transformed::no(plan)),
        }
    }

    fn groups(&self, aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
        let mut transformed = false;
        let mut named = |expr: Expr| {
            let (relation, name) = expr.qualified_name();
            let key = self.key(expr);
            transformed |= key.transformed;
            if key.transformed { key.data.alias_qualified(relation, name) } else { key.data }
        };
        let group_expr = aggregate.group_expr.into_iter();
        let group_expr = group_expr.map(|expr| match expr {
            Expr::GroupingSet(GroupingSet::Rollup(exprs)) => {
                Expr::GroupingSet(GroupingSet::Rollup(exprs.into_iter().map(&mut named).collect()))
            }
            Expr::GroupingSet(GroupingSet::Cube(exprs)) => {
                Expr::GroupingSet(GroupingSet::Cube(exprs.into_iter().map(&mut named).collect()))
            }
            Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
                let sets = sets.into_iter().map(|set| set.into_iter().map(&mut named).collect());
                Expr::GroupingSet(GroupingSet::GroupingSets(sets.collect()))
            }
            expr => named(expr),
        });
        let group_expr = group_expr.collect();
        let Aggregate { input, aggr_expr, schema, .. } = aggregate;
        let aggregate = Aggregate::try_new_with_schema(input, group_expr, aggr_expr, schema)?;
        Ok(Transformed::new_transformed(LogicalPlan::Aggregate(aggregate), transformed))
    }

    fn join(&self, mut join: Join) -> Result<Transformed<LogicalPlan>> {
        let mut transformed = false;
        for (left, right) in &mut join.on {
            for side in [left, right] {
                let key = self.key(std::mem::take(side));
                transformed |= key.transformed;
                *side = key.data;
            }
        }
        Ok(Transformed::new_transformed(LogicalPlan::Join(join), transformed))
    }

    /// An expression whose operands are done.
    fn expression(&self, expr: Expr) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(binary) if is_comparison(binary.op) => self.comparison(binary)?,
            Expr::Between(between) => self.between(between),
            Expr::InList(list) => self.in_list(list),
            Expr::InSubquery(within) => self.in_subquery(within)?,
            Expr::Case(Case { expr: Some(base), when_then_expr, else_expr }) => {
                let base = self.key(*base);
                let transformed = base.transformed;
                let whens = when_then_expr.into_iter().map(|(when, then)| match transformed {
                    true => (Box::new(self.key(*when).data), then),
                    false => (when, then),
                });
                let case = Case { expr: Some(Box::new(base.data)), when_then_expr: whens.collect(), else_expr };
                Transformed::new_transformed(Expr::Case(case), transformed)
            }
            Expr::AggregateFunction(function) => self.aggregate(function),
            Expr::WindowFunction(function) => self.window(*function),
            expr => Transformed::no(expr),
        })
    }

    fn aggregate(&self, function: AggregateFunction) -> Transformed<Expr> {
        let AggregateFunction { func, params } = function;
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
        // What finds the best groups compares by bits.
        let is_extreme = matches!(func.name(), "min" | "max") && args.iter().any(|expr| self.is_computed_float(expr));
        let args = if distinct || is_extreme || SORTING.contains(&func.name()) {
            self.each(args)
        } else {
            Transformed::no(args)
        };
        let order_by = self.sort_keys(order_by);
        let transformed = args.transformed || order_by.transformed;
        let (args, order_by) = (args.data, order_by.data);
        let params = AggregateFunctionParams { args, distinct, filter, order_by, null_treatment };
        Transformed::new_transformed(Expr::AggregateFunction(AggregateFunction { func, params }), transformed)
    }

    fn window(&self, mut function: WindowFunction) -> Transformed<Expr> {
        let params = &mut function.params;
        let partition_by = self.each(std::mem::take(&mut params.partition_by));
        params.partition_by = partition_by.data;
        let mut transformed = partition_by.transformed;
        // Limits of a frame in RANGE are counted from the key itself.
        let frame = &params.window_frame;
        let by_value = frame.units == WindowFrameUnits::Range
            && !(frame.start_bound.is_unbounded() || frame.end_bound.is_unbounded());
        let keys = std::mem::take(&mut params.order_by);
        let is_plain = |key: &SortKey| self.data_type(&key.expr).is_some_and(|data_type| data_type.is_floating());
        if by_value && !keys.iter().all(is_plain) {
            params.order_by = keys;
        } else {
            let keys = self.sort_keys(keys);
            transformed |= keys.transformed;
            params.order_by = keys.data;
        }
        if params.distinct || SORTING.contains(&function.fun.name()) {
            let args = self.each(std::mem::take(&mut params.args));
            transformed |= args.transformed;
            params.args = args.data;
        }
        Transformed::new_transformed(Expr::WindowFunction(Box::new(function)), transformed)
    }

    fn comparison(&self, binary: BinaryExpr) -> Result<Transformed<Expr>> {
        let BinaryExpr { left, op, right } = binary;
        let unchanged = |left, right| Expr::BinaryExpr(BinaryExpr { left, op, right });
        match (left.as_ref(), right.as_ref()) {
            (Expr::Column(column), Expr::Literal(value, _)) if self.prunes(column, op, value) => {
                Ok(with_literal(*left, op, value)?)
            }
            (Expr::Literal(value, _), Expr::Column(column))
                if op.swap().is_some_and(|op| self.prunes(column, op, value)) =>
            {
                Ok(with_literal(*right, op.swap().unwrap_or(op), value)?)
            }
            _ => {
                let (left, right) = (self.key(*left), self.key(*right));
                let transformed = left.transformed || right.transformed;
                Ok(Transformed::new_transformed(unchanged(Box::new(left.data), Box::new(right.data)), transformed))
            }
        }
    }

    fn between(&self, between: Between) -> Transformed<Expr> {
        let Between { expr, negated, low, high } = between;
        let (expr, low, high) = match (expr.as_ref(), low.as_ref(), high.as_ref()) {
            // The lower limit with the lower zero, the upper one with the upper.
            (Expr::Column(column), Expr::Literal(from, _), Expr::Literal(to, _))
                if !negated && self.prunes(column, Operator::LtEq, from) && self.prunes(column, Operator::LtEq, to) =>
            {
                let exact = Between {
                    expr: Box::new(called(expr.as_ref().clone())),
                    negated,
                    low: Box::new(self.key(*low.clone()).data),
                    high: Box::new(self.key(*high.clone()).data),
                };
                let (from, to) = (signed_zero(from, true), signed_zero(to, false));
                let bare = Between { expr, negated, low: Box::new(literal(from)), high: Box::new(literal(to)) };
                return Transformed::yes(Expr::Between(bare).and(Expr::Between(exact)));
            }
            _ => (self.key(*expr), self.key(*low), self.key(*high)),
        };
        let transformed = expr.transformed || low.transformed || high.transformed;
        let (expr, low, high) = (Box::new(expr.data), Box::new(low.data), Box::new(high.data));
        Transformed::new_transformed(Expr::Between(Between { expr, negated, low, high }), transformed)
    }

    fn in_list(&self, within: InList) -> Transformed<Expr> {
        let InList { expr, list, negated } = within;
        if !self.has_forms(&expr) {
            return Transformed::no(Expr::InList(InList { expr, list, negated }));
        }
        let list = list.into_iter().map(|item| self.key(item).data).collect();
        let expr = Box::new(self.key(*expr).data);
        Transformed::yes(Expr::InList(InList { expr, list, negated }))
    }

    fn in_subquery(&self, within: InSubquery) -> Result<Transformed<Expr>> {
        let InSubquery { expr, subquery, negated } = within;
        let key = self.key(*expr);
        let Subquery { subquery: plan, outer_ref_columns, spans } = subquery;
        let plan = canonical_columns(std::sync::Arc::unwrap_or_clone(plan))?;
        let transformed = key.transformed || plan.transformed;
        let subquery = Subquery { subquery: plan.data.into(), outer_ref_columns, spans };
        let within = InSubquery { expr: Box::new(key.data), subquery, negated };
        Ok(Transformed::new_transformed(Expr::InSubquery(within), transformed))
    }

    fn sort_keys(&self, keys: Vec<SortKey>) -> Transformed<Vec<SortKey>> {
        let mut transformed = false;
        let keys = keys.into_iter().map(|key| {
            let expr = self.key(key.expr);
            transformed |= expr.transformed;
            SortKey { expr: expr.data, ..key }
        });
        let keys = keys.collect();
        Transformed::new_transformed(keys, transformed)
    }

    fn each(&self, exprs: Vec<Expr>) -> Transformed<Vec<Expr>> {
        let mut transformed = false;
        let exprs = exprs.into_iter().map(|expr| {
            let key = self.key(expr);
            transformed |= key.transformed;
            key.data
        });
        let exprs = exprs.collect();
        Transformed::new_transformed(exprs, transformed)
    }

    /// The canonical form of an expression, if it has several.
    fn key(&self, expr: Expr) -> Transformed<Expr> {
        if is_canonical(&expr) || !self.has_forms(&expr) {
            return Transformed::no(expr);
        }
        match expr {
            Expr::Literal(value, metadata) => match canonical::canonical_value(&value) {
                Ok(value) => Transformed::yes(Expr::Literal(value, metadata)),
                Err(_) => Transformed::no(Expr::Literal(value, metadata)),
            },
            expr => Transformed::yes(called(expr)),
        }
    }

    /// Whether files can be pruned by such a comparison, of which NaN is no part.
    fn prunes(&self, column: &Column, op: Operator, value: &ScalarValue) -> bool {
        let without_nan = matches!(op, Operator::Lt | Operator::LtEq | Operator::Eq);
        without_nan && is_finite(value) && self.stored.contains(column)
    }

    fn data_type(&self, expr: &Expr) -> Option<DataType> {
        expr.get_type(self.schema).ok()
    }

    fn is_computed_float(&self, expr: &Expr) -> bool {
        !matches!(expr, Expr::Column(_)) && self.data_type(expr).is_some_and(|data_type| data_type.is_floating())
    }

    fn has_forms(&self, expr: &Expr) -> bool {
        self.data_type(expr).is_some_and(|data_type| canonical::has_several_forms(&data_type))
    }
}

/// Those columns that expressions of a node compare with floating-point literals, and that no expression below it makes:
/// a NaN that was computed may be one that the query engine has below all numbers.
fn stored_columns(plan: &LogicalPlan) -> Result<HashSet<Column>> {
    let mut columns = HashSet::new();
    let is_number = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.data_type().is_floating());
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            let (one, other) = match expr {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => (left, right),
                Expr::Between(Between { expr, low, .. }) => (expr, low),
                _ => return Ok(TreeNodeRecursion::Continue),
            };
            match (one.as_ref(), other.as_ref()) {
                (Expr::Column(column), literal) | (literal, Expr::Column(column)) if is_number(literal) => {
                    columns.insert(column.clone());
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    let is_scan = matches!(plan, LogicalPlan::TableScan(_));
    columns.retain(|column| is_scan || plan.inputs().iter().any(|input| is_stored_in(input, column)));
    Ok(columns)
}

fn is_stored_in(plan: &LogicalPlan, column: &Column) -> bool {
    plan.schema().maybe_index_of_column(column).is_some_and(|index| is_stored(plan, index))
}

/// Whether a column of a plan is a table's.
fn is_stored(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().is_some_and(|input| is_stored(input, index))
        }
        LogicalPlan::Projection(projection) => match projection.expr.get(index).map(unaliased) {
            Some(Expr::Column(column)) => is_stored_in(&projection.input, column),
            _ => false,
        },
        LogicalPlan::Join(join) => {
            let (relation, field) = join.schema.qualified_field(index);
            let column = Column::from((relation, field));
            is_stored_in(&join.left, &column) || is_stored_in(&join.right, &column)
        }
        _ => false,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        expr => expr,
    }
}

fn called(expr: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(canonical::function(), vec![expr]))
}

fn literal(value: ScalarValue) -> Expr {
    Expr::Literal(value, None)
}

/// What cannot be another form: the function itself.
fn is_canonical(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(call) => call.func == canonical::function(),
        Expr::Alias(alias) => is_canonical(&alias.expr),
        _ => false,
    }
}

/// A projection that gives all columns of a plan in their canonical form, under their names.
fn canonical_columns(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_forms(plan.schema()) {
        return Ok(Transformed::no(plan));
    }
    let columns = plan.schema().iter().map(|(relation, field)| {
        let column = Expr::Column((relation, field).into());
        match canonical::has_several_forms(field.data_type()) {
            true => called(column).alias_qualified(relation.cloned(), field.name()),
            false => column,
        }
    });
    let columns = columns.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, plan.into())?)))
}

/// A column less than a number, or equal to it: the comparison that prunes, and the one that is right for every number. The
/// query engine has `-0.0` right below `0.0`, nothing between them, and a NaN with a sign below all numbers.
fn with_literal(column: Expr, op: Operator, value: &ScalarValue) -> Result<Transformed<Expr>> {
    let value = canonical::canonical_value(value)?;
    let against = |column: Expr, value| {
        Expr::BinaryExpr(BinaryExpr { left: Box::new(column), op, right: Box::new(literal(value)) })
    };
    let exact = against(called(column.clone()), value.clone());
    let below = signed_zero(&value, true);
    let bare = match op {
        Operator::Lt => against(column, below),
        Operator::Eq if is_zero(&value) => against(column.clone(), value).or(against(column, below)),
        _ => against(column, value),
    };
    Ok(Transformed::yes(bare.and(exact)))
}

fn is_finite(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float16(Some(value)) => f64::from(*value).is_finite(),
        ScalarValue::Float32(Some(value)) => value.is_finite(),
        ScalarValue::Float64(Some(value)) => value.is_finite(),
        _ => false,
    }
}

fn is_zero(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float16(Some(value)) => f64::from(*value) == 0.0,
        ScalarValue::Float32(Some(value)) => *value == 0.0,
        ScalarValue::Float64(Some(value)) => *value == 0.0,
        _ => false,
    }
}

/// The lower or the upper zero if the number is zero; the number otherwise.
fn signed_zero(value: &ScalarValue, lower: bool) -> ScalarValue {
    let Ok(value) = canonical::canonical_value(value) else { return value.clone() };
    match value {
        value if !is_zero(&value) || !lower => value,
        value => value.arithmetic_negate().unwrap_or(value),
    }
}
