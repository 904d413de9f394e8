//! `+`, `-`, `*` and the sign that may overflow become functions that check (`functions/checked`).
//!
//! Whether they may is told by types alone: the operands of an operator are column values of some type, literals, casts that
//! widen, and other operators. `CAST(x AS BIGINT) + 1` of a SMALLINT stays the operator it is, and so do products of
//! decimals as narrow as money: those plans cost nothing. Every operator is looked at once, however deep it sits.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use super::{kept_names, schema_of_inputs};
use crate::functions::checked;

/// See the module.
#[derive(Debug)]
pub(super) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(checked_plan).map(|done| done.data)
    }

    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }
}

fn checked_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !has_arithmetic(&plan)? {
        return Ok(Transformed::no(plan));
    }
    let schema = schema_of_inputs(&plan)?;
    kept_names::changed(plan, |expr| expr.rewrite(&mut Rewriter { schema: &schema, open: vec![Vec::new()] }))
}

fn is_arithmetic(operator: Operator) -> bool {
    matches!(operator, Operator::Plus | Operator::Minus | Operator::Multiply)
}

fn has_arithmetic(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= matches!(expr, Expr::Negative(_))
                || matches!(expr, Expr::BinaryExpr(binary) if is_arithmetic(binary.op));
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// What is known of an expression whose operands were looked at.
#[derive(Debug, Clone)]
struct Known {
    data_type: DataType,
    /// The least and the greatest value that it may have, of whole numbers.
    range: Option<(i128, i128)>,
}

struct Rewriter<'a> {
    schema: &'a DFSchema,
    /// What is known of the operands looked at so far, for every expression that is not done yet.
    open: Vec<Vec<Option<Known>>>,
}

impl TreeNodeRewriter for Rewriter<'_> {
    type Node = Expr;

    fn f_down(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        self.open.push(Vec::new());
        Ok(Transformed::no(expr))
    }

    fn f_up(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let operands = self.open.pop().unwrap_or_default();
        let (expr, known) = match expr {
            Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => self.arithmetic(binary, operands)?,
            Expr::Negative(operand) => self.negative(*operand, operands),
            expr => {
                let known = self.leaf(&expr, &operands);
                (Transformed::no(expr), known)
            }
        };
        if let Some(around) = self.open.last_mut() {
            around.push(known);
        }
        Ok(expr)
    }
}

impl Rewriter<'_> {
    fn arithmetic(
        &self,
        binary: BinaryExpr,
        operands: Vec<Option<Known>>,
    ) -> Result<(Transformed<Expr>, Option<Known>)> {
        let mut operands = operands.into_iter();
        let mut known = |expr: &Expr| match operands.next().flatten() {
            Some(known) => Some(known),
            None => self.of_type(expr),
        };
        let (left, right) = (known(&binary.left), known(&binary.right));
        let unchanged = |binary| (Transformed::no(Expr::BinaryExpr(binary)), None);
        let (Some(left), Some(right)) = (left, right) else { return Ok(unchanged(binary)) };
        let Some(outcome) = outcome(binary.op, &left, &right) else { return Ok(unchanged(binary)) };
        let Outcome { known, may_overflow } = outcome;
        if !may_overflow {
            return Ok((Transformed::no(Expr::BinaryExpr(binary)), Some(known)));
        }
        let Some(function) = checked::function_of(binary.op) else { return Ok(unchanged(binary)) };
        let call = ScalarFunction::new_udf(function, vec![*binary.left, *binary.right]);
        Ok((Transformed::yes(Expr::ScalarFunction(call)), Some(known)))
    }

    /// The least number of a type has no counterpart.
    fn negative(&self, operand: Expr, operands: Vec<Option<Known>>) -> (Transformed<Expr>, Option<Known>) {
        let known = operands.into_iter().next().flatten().or_else(|| self.of_type(&operand));
        let negated = known.and_then(|known| Some((known.data_type, known.range?)));
        match (negated, checked::function_of(Operator::Minus)) {
            (Some((data_type, range)), Some(function)) if data_type.is_signed_integer() => {
                let bounds = range_of(&data_type);
                let negated = (-range.1, -range.0);
                if bounds.is_some_and(|bounds| is_within(negated, bounds)) {
                    let known = Known { data_type, range: Some(negated) };
                    return (Transformed::no(Expr::Negative(Box::new(operand))), Some(known));
                }
                let call = ScalarFunction::new_udf(function, vec![operand]);
                (Transformed::yes(Expr::ScalarFunction(call)), Some(Known { data_type, range: bounds }))
            }
            _ => (Transformed::no(Expr::Negative(Box::new(operand))), None),
        }
    }

    /// What is known of an expression that is no arithmetic; nothing of those that are seldom operands.
    fn leaf(&self, expr: &Expr, operands: &[Option<Known>]) -> Option<Known> {
        match expr {
            Expr::Literal(value, _) => {
                let range = whole_value(value).map(|value| (value, value));
                Some(Known { data_type: value.data_type(), range: range.or_else(|| range_of(&value.data_type())) })
            }
            Expr::Cast(Cast { field, .. }) => {
                let data_type = field.data_type().clone();
                let inner = operands.first().cloned().flatten().and_then(|known| known.range);
                let bounds = range_of(&data_type);
                let range = match (inner, bounds) {
                    (Some(inner), Some(bounds)) if is_within(inner, bounds) => Some(inner),
                    (_, bounds) => bounds,
                };
                Some(Known { data_type, range })
            }
            Expr::Column(_) | Expr::OuterReferenceColumn(..) => self.of_type(expr),
            _ => None,
        }
    }

    fn of_type(&self, expr: &Expr) -> Option<Known> {
        let data_type = expr.get_type(self.schema).ok()?;
        let range = range_of(&data_type);
        Some(Known { data_type, range })
    }
}

struct Outcome {
    known: Known,
    may_overflow: bool,
}

/// What an operator makes of its operands; `None` when they are neither whole numbers nor decimals.
fn outcome(operator: Operator, left: &Known, right: &Known) -> Option<Outcome> {
    if left.data_type.is_decimal() && right.data_type.is_decimal() {
        let (data_type, may_overflow) = decimals(operator, &left.data_type, &right.data_type)?;
        return Some(Outcome { known: Known { data_type, range: None }, may_overflow });
    }
    if left.data_type != right.data_type {
        return None;
    }
    let (left_range, right_range) = (left.range?, right.range?);
    let bounds = range_of(&left.data_type)?;
    let range = combined(operator, left_range, right_range);
    let may_overflow = !is_within(range, bounds);
    let range = if may_overflow { bounds } else { range };
    Some(Outcome { known: Known { data_type: left.data_type.clone(), range: Some(range) }, may_overflow })
}

/// The type of the result, and whether it would need more digits than it may have.
fn decimals(operator: Operator, left: &DataType, right: &DataType) -> Option<(DataType, bool)> {
    let (left_digits, left_scale) = digits(left)?;
    let (right_digits, right_scale) = digits(right)?;
    let needed = match operator {
        Operator::Multiply => left_digits + right_digits + 1,
        _ => {
            let whole = (left_digits - left_scale).max(right_digits - right_scale);
            whole + left_scale.max(right_scale) + 1
        }
    };
    let data_type =
        datafusion::logical_expr::binary::BinaryTypeCoercer::new(left, &operator, right).get_result_type().ok()?;
    let (granted, _) = digits(&data_type)?;
    Some((data_type, needed > granted))
}

fn digits(data_type: &DataType) -> Option<(i16, i16)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((i16::from(*precision), i16::from(*scale))),
        _ => None,
    }
}

fn is_within(inner: (i128, i128), outer: (i128, i128)) -> bool {
    outer.0 <= inner.0 && inner.1 <= outer.1
}

/// All results; they are at most the square of 2^64, which has its place in 128 bits.
fn combined(operator: Operator, left: (i128, i128), right: (i128, i128)) -> (i128, i128) {
    match operator {
        Operator::Plus => (left.0 + right.0, left.1 + right.1),
        Operator::Minus => (left.0 - right.1, left.1 - right.0),
        _ => {
            let products = [(left.0, right.0), (left.0, right.1), (left.1, right.0), (left.1, right.1)]
                .map(|(one, other)| one.saturating_mul(other));
            let least = products.into_iter().fold(i128::MAX, i128::min);
            (least, products.into_iter().fold(i128::MIN, i128::max))
        }
    }
}

fn range_of(data_type: &DataType) -> Option<(i128, i128)> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

fn whole_value(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Int8(value) => (*value)?.into(),
        ScalarValue::Int16(value) => (*value)?.into(),
        ScalarValue::Int32(value) => (*value)?.into(),
        ScalarValue::Int64(value) => (*value)?.into(),
        ScalarValue::UInt8(value) => (*value)?.into(),
        ScalarValue::UInt16(value) => (*value)?.into(),
        ScalarValue::UInt32(value) => (*value)?.into(),
        ScalarValue::UInt64(value) => (*value)?.into(),
        _ => return None,
    })
}
