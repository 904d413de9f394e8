//! Floating-point numbers beside decimals. Where both meet in a comparison, a CASE, a set operation or a function's arguments,
//! the query engine makes DECIMAL(30,15) of both: 1e-16 becomes zero and 1e300 an error (DataFusion 55.2). Here the decimals
//! become DOUBLE, as in arithmetic, before the query engine settles the types.
//!
//! An average of numbers that are written out (`avg(CASE WHEN late THEN 1.0 ELSE 0.0 END)`) is DOUBLE, too, as their quotient
//! is: five digits, which DECIMAL would have, are too few for a share.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Case, Cast, InList, ScalarFunction, TryCast};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, Projection, Union, cast};
use datafusion::optimizer::AnalyzerRule;

use super::{is_comparison, kept_names, schema_of_inputs};

/// See the module.
#[derive(Debug)]
pub(super) struct MixedNumbers;

impl AnalyzerRule for MixedNumbers {
    fn name(&self) -> &str {
        "mixed_numbers"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if !may_mix(&plan)? {
            return Ok(plan);
        }
        let any = Cell::new(false);
        plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Union(union) => united(union)?,
                LogicalPlan::Join(join) => keys(join)?,
                node => Transformed::no(node),
            };
            let node = node.transform_data(settle)?;
            any.set(any.get() || node.transformed);
            if any.get() { node.map_data(LogicalPlan::recompute_schema) } else { Ok(node) }
        })
        .data()
    }
}

/// Whether there are both kinds of numbers anywhere.
fn may_mix(plan: &LogicalPlan) -> Result<bool> {
    let (mut floats, mut decimals) = (false, false);
    plan.apply_with_subqueries(|node| {
        for field in node.schema().fields() {
            floats |= innermost(field.data_type()).is_floating();
            decimals |= has_decimals(field.data_type());
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let data_type = match expr {
                    Expr::Literal(value, _) => &value.data_type(),
                    Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => field.data_type(),
                    // What comes out may be a floating-point number, or has to be.
                    Expr::ScalarFunction(_) | Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                        floats = true;
                        return Ok(TreeNodeRecursion::Continue);
                    }
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                floats |= innermost(data_type).is_floating();
                decimals |= has_decimals(data_type);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(floats && decimals)
}

/// The same node over expressions whose operands are of one kind.
fn settle(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = schema_of_inputs(&node)?;
    kept_names::changed(node, |expr| expr.transform_up(|expr| one_kind(expr, &schema)))
}

/// The expression with DOUBLE in the place of decimals that floating-point numbers meet.
fn one_kind(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let kind = |expr: &Expr| expr.get_type(schema).ok();
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let mixed = is_mixed([kind(&left), kind(&right)]);
            let [left, right] = [*left, *right].map(|side| Box::new(if mixed { floated(side, schema) } else { side }));
            changed(Expr::BinaryExpr(BinaryExpr { left, op, right }), mixed)
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let mixed = is_mixed([kind(&expr), kind(&low), kind(&high)]);
            let [expr, low, high] =
                [*expr, *low, *high].map(|side| Box::new(if mixed { floated(side, schema) } else { side }));
            changed(Expr::Between(Between { expr, negated, low, high }), mixed)
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mixed = is_mixed(std::iter::once(kind(&expr)).chain(list.iter().map(kind)));
            let (expr, list) =
                if mixed { (Box::new(floated(*expr, schema)), all_floated(list, schema)) } else { (expr, list) };
            changed(Expr::InList(InList { expr, list, negated }), mixed)
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let mixed = is_mixed(args.iter().map(kind));
            let args = if mixed { all_floated(args, schema) } else { args };
            changed(Expr::ScalarFunction(ScalarFunction { func, args }), mixed)
        }
        Expr::AggregateFunction(mut call) if call.func.name() == "avg" => {
            let written = float_written(&mut call.params.args, schema);
            changed(Expr::AggregateFunction(call), written)
        }
        Expr::WindowFunction(mut call) if call.fun.name() == "avg" => {
            let written = float_written(&mut call.params.args, schema);
            changed(Expr::WindowFunction(call), written)
        }
        Expr::InSubquery(mut inside) => {
            let mixed = compare(&mut inside.expr, &mut inside.subquery.subquery, schema)?;
            changed(Expr::InSubquery(inside), mixed)
        }
        Expr::SetComparison(mut compared) => {
            let mixed = compare(&mut compared.expr, &mut compared.subquery.subquery, schema)?;
            changed(Expr::SetComparison(compared), mixed)
        }
        Expr::Case(case) => cases(case, schema),
        other => Transformed::no(other),
    })
}

/// A value that is compared with the rows of a query: whether it was mixed, and is no longer.
fn compare(value: &mut Box<Expr>, query: &mut Arc<LogicalPlan>, schema: &DFSchema) -> Result<bool> {
    let column = query.schema().fields().first().map(|field| field.data_type().clone());
    let mixed = is_mixed([value.get_type(schema).ok(), column]);
    if mixed {
        **value = floated(std::mem::take(value.as_mut()), schema);
        *query = Arc::new(with_floats(LogicalPlan::clone(query), |_| true)?);
    }
    Ok(mixed)
}

/// Makes arguments DOUBLE that are DECIMAL only as they are written; false when there is another one.
fn float_written(args: &mut Vec<Expr>, schema: &DFSchema) -> bool {
    let written = args.iter().all(|arg| is_written_out(arg, schema));
    if written {
        *args = all_floated(std::mem::take(args), schema);
    }
    written
}

/// Whether an expression is a DECIMAL only because of numbers that are written out: no column, cast or query makes it one.
fn is_written_out(expr: &Expr, schema: &DFSchema) -> bool {
    let is_decimal = |expr: &Expr| expr.get_type(schema).is_ok_and(|data_type| data_type.is_decimal());
    let declares = expr.exists(|expr| {
        let is_declaration =
            !matches!(expr, Expr::Literal(..) | Expr::Case(_) | Expr::BinaryExpr(_) | Expr::Negative(_));
        Ok(is_declaration && is_decimal(expr))
    });
    is_decimal(expr) && !declares.unwrap_or(true)
}

/// CASE: its results are of one type, and so are the value that it begins with and the WHENs.
fn cases(case: Case, schema: &DFSchema) -> Transformed<Expr> {
    let kind = |expr: &Expr| expr.get_type(schema).ok();
    let Case { expr, when_then_expr, else_expr } = case;
    let (whens, thens): (Vec<_>, Vec<_>) = when_then_expr.into_iter().unzip();
    let mixed_results = is_mixed(thens.iter().chain(&else_expr).map(|expr| kind(expr)));
    let mixed_values = expr.is_some() && is_mixed(whens.iter().chain(&expr).map(|expr| kind(expr)));
    let settle = |mixed: bool, expr: Box<Expr>| if mixed { Box::new(floated(*expr, schema)) } else { expr };
    let when_then_expr = whens.into_iter().zip(thens);
    let when_then_expr =
        when_then_expr.map(|(when, then)| (settle(mixed_values, when), settle(mixed_results, then))).collect();
    let case = Case {
        expr: expr.map(|expr| settle(mixed_values, expr)),
        when_then_expr,
        else_expr: else_expr.map(|expr| settle(mixed_results, expr)),
    };
    changed(Expr::Case(case), mixed_results || mixed_values)
}

/// UNION: a column that is a decimal on one side and a floating-point number on another.
fn united(union: Union) -> Result<Transformed<LogicalPlan>> {
    let column =
        |plan: &LogicalPlan, index: usize| plan.schema().fields().get(index).map(|field| field.data_type().clone());
    let width = union.inputs.iter().map(|input| input.schema().fields().len()).min().unwrap_or(0);
    let mixed: Vec<bool> =
        (0..width).map(|index| is_mixed(union.inputs.iter().map(|input| column(input, index)))).collect();
    if !mixed.contains(&true) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.into_iter().map(|input| {
        Ok(Arc::new(with_floats(Arc::unwrap_or_clone(input), |index| mixed.get(index).copied().unwrap_or(false))?))
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let fields = union.schema.iter().enumerate().map(|(index, (qualifier, field))| {
        let kept = !mixed.get(index).copied().unwrap_or(false);
        let field = if kept { Arc::clone(field) } else { with_type(field, in_double(field.data_type())) };
        (qualifier.cloned(), field)
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), union.schema.metadata().clone())?;
    Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) })))
}

/// The pairs of columns that a join compares.
fn keys(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut mixed = false;
    for (left, right) in &mut join.on {
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        if is_mixed([left.get_type(left_schema).ok(), right.get_type(right_schema).ok()]) {
            *left = floated(left.clone(), left_schema);
            *right = floated(right.clone(), right_schema);
            mixed = true;
        }
    }
    Ok(if mixed { Transformed::yes(LogicalPlan::Join(join)) } else { Transformed::no(LogicalPlan::Join(join)) })
}

/// The same rows, with DOUBLE in the place of the decimals of these columns, under the same names.
fn with_floats(plan: LogicalPlan, is_meant: impl Fn(usize) -> bool) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let columns = schema.iter().enumerate().map(|(index, (qualifier, field))| {
        let column = Expr::Column((qualifier, field).into());
        if !is_meant(index) || !has_decimals(field.data_type()) {
            return column;
        }
        floated(column, &schema).alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(plan))?))
}

fn changed(expr: Expr, is_changed: bool) -> Transformed<Expr> {
    if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

fn all_floated(list: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    list.into_iter().map(|item| floated(item, schema)).collect()
}

/// DOUBLE in the place of decimals; the nearest one to a number that is written out.
fn floated(expr: Expr, schema: &DFSchema) -> Expr {
    let Some(data_type) = expr.get_type(schema).ok().filter(has_decimals) else { return expr };
    match &expr {
        Expr::Literal(value @ ScalarValue::Decimal128(Some(_), ..), metadata) => match value.to_string().parse::<f64>()
        {
            Ok(number) => Expr::Literal(ScalarValue::from(number), metadata.clone()),
            Err(_) => cast(expr, DataType::Float64),
        },
        _ => cast(expr, in_double(&data_type)),
    }
}

/// Whether both floating-point numbers and decimals are among the types.
fn is_mixed(types: impl IntoIterator<Item = Option<DataType>>) -> bool {
    let (mut floats, mut decimals) = (false, false);
    for data_type in types.into_iter().flatten() {
        floats |= innermost(&data_type).is_floating();
        decimals |= has_decimals(&data_type);
    }
    floats && decimals
}

fn has_decimals(data_type: &DataType) -> bool {
    innermost(data_type).is_decimal()
}

/// The type of what a list holds, or the type itself.
fn innermost(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            innermost(item.data_type())
        }
        DataType::Dictionary(_, value) => innermost(value),
        other => other,
    }
}

/// The same type over DOUBLE instead of a decimal.
fn in_double(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) => DataType::List(with_type(item, in_double(item.data_type()))),
        DataType::LargeList(item) => DataType::LargeList(with_type(item, in_double(item.data_type()))),
        DataType::FixedSizeList(item, length) => {
            DataType::FixedSizeList(with_type(item, in_double(item.data_type())), *length)
        }
        other if innermost(other).is_decimal() => DataType::Float64,
        other => other.clone(),
    }
}

fn with_type(field: &Arc<Field>, data_type: DataType) -> Arc<Field> {
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}
