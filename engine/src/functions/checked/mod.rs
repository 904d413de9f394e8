//! `+`, `-`, `*` and the sign of whole numbers and decimals that say so when the result does not fit.
//!
//! The query engine's operators wrap around (apache/datafusion#16406), and its way of asking for checked ones is lost when a
//! plan is encoded. So [`CheckedArithmetic`](crate::analysis) puts these functions in the place of the operators wherever
//! the types of the operands do not rule an overflow out. Columns are called as the operators call them.

mod kernels;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, FieldRef, i256};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::binary::BinaryTypeCoercer;
use datafusion::logical_expr::interval_arithmetic::{Interval, apply_operator};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::sql_type;

/// The functions, one for each operator.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    FUNCTIONS.to_vec()
}

/// The function that stands in the place of an operator, if there is one.
pub(crate) fn function_of(operator: Operator) -> Option<Arc<ScalarUDF>> {
    let at = OPERATORS.iter().position(|known| *known == operator)?;
    Some(Arc::clone(&FUNCTIONS[at]))
}

const OPERATORS: [Operator; 3] = [Operator::Plus, Operator::Minus, Operator::Multiply];

static FUNCTIONS: LazyLock<[Arc<ScalarUDF>; 3]> =
    LazyLock::new(|| OPERATORS.map(|operator| Arc::new(ScalarUDF::from(Checked::new(operator)))));

/// See the module.
#[derive(Debug, PartialEq, Eq)]
struct Checked {
    operator: Operator,
    signature: Signature,
}

impl Hash for Checked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operator.hash(state);
    }
}

impl Checked {
    fn new(operator: Operator) -> Self {
        Checked { operator, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// The arguments as the operator shows them; an argument that is itself such a function binds by its place.
    fn written(&self, left: &str, right: &str) -> String {
        format!("{left} {} {right}", self.operator)
    }

    fn arrays(&self, left: &ArrayRef, right: &ArrayRef) -> Result<Option<ArrayRef>> {
        if let Some(result) = kernels::whole(self.operator, left, right) {
            return Ok(result);
        }
        let result = match self.operator {
            Operator::Plus => numeric::add(left, right),
            Operator::Minus => numeric::sub(left, right),
            _ => numeric::mul(left, right),
        };
        match result {
            Ok(result) => Ok(Some(result).filter(fits)),
            Err(datafusion::arrow::error::ArrowError::ArithmeticOverflow(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says which values of the operands do not go together.
    fn overflow(&self, args: &ScalarFunctionArgs, left: &ArrayRef, right: &ArrayRef) -> DataFusionError {
        let name = |at: usize| match (&args.args[at], args.arg_fields[at].name()) {
            (ColumnarValue::Scalar(value), _) => value.to_string(),
            (ColumnarValue::Array(_), name) => operand(name),
        };
        let expression = self.written(&name(0), &name(1));
        let target = sql_type(args.return_field.data_type());
        match self.first_overflow(left, right) {
            Some(values) if values == expression => overflow(&expression, &target),
            Some(values) => overflow(&format!("{expression} ({values})"), &target),
            None => overflow(&expression, &target),
        }
    }

    fn first_overflow(&self, left: &ArrayRef, right: &ArrayRef) -> Option<String> {
        let row = |array: &ArrayRef, at: usize| if array.len() == 1 { array.slice(0, 1) } else { array.slice(at, 1) };
        let rows = left.len().max(right.len());
        let at = (0..rows).find(|at| matches!(self.arrays(&row(left, *at), &row(right, *at)), Ok(None)))?;
        let value = |array: &ArrayRef| {
            let array = row(array, at);
            let formatter = ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).ok()?;
            Some(formatter.value(0).to_string())
        };
        Some(self.written(&value(left)?, &value(right)?))
    }
}

/// The name of an operand, in brackets when it is an expression itself.
fn operand(name: &str) -> String {
    if name.contains(' ') { format!("({name})") } else { name.to_string() }
}

/// What is said when a result is beyond its type.
pub(super) fn overflow(expression: &str, target: &str) -> DataFusionError {
    DataFusionError::Execution(format!("overflow in {expression}: the result does not fit into {target}"))
}

/// Whether all values have as many digits as the type allows; other types than the widest always have.
fn fits(result: &ArrayRef) -> bool {
    match result.data_type() {
        DataType::Decimal128(38, _) => {
            let array = result.as_primitive::<Decimal128Type>();
            let bound = 10_i128.pow(38);
            let outside = |value: i128| value <= -bound || value >= bound;
            !array.values().iter().fold(false, |found, value| found | outside(*value))
                || !array.iter().flatten().any(outside)
        }
        DataType::Decimal256(76, _) => {
            let bound = i256::from_i128(10).wrapping_pow(76);
            let outside = |value: i256| value <= bound.wrapping_neg() || value >= bound;
            !result.as_primitive::<Decimal256Type>().iter().flatten().any(outside)
        }
        _ => true,
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operator {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            _ => "checked_multiply",
        }
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [left, right] => self.written(&left.schema_name().to_string(), &right.schema_name().to_string()),
            [operand] => format!("(- {})", operand.schema_name()),
            _ => self.name().to_string(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        if let ([operand], Operator::Minus) = (arg_types, self.operator)
            && operand.is_signed_integer()
        {
            return Ok(arg_types.to_vec());
        }
        let [left, right] = arg_types else {
            return Err(DataFusionError::Plan(format!("{} takes two numbers", self.name())));
        };
        let (left, right) = BinaryTypeCoercer::new(left, &self.operator, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [operand] => Ok(operand.clone()),
            [left, right] if left == right && left.is_integer() => Ok(left.clone()),
            [left, right] => BinaryTypeCoercer::new(left, &self.operator, right).get_result_type(),
            _ => Err(DataFusionError::Plan(format!("{} takes two numbers", self.name()))),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        // The name is for messages only, which would rather be short than whole.
        let name = |at: usize| match args.scalar_arguments.get(at).copied().flatten() {
            Some(value) => value.to_string(),
            None => operand(args.arg_fields[at].name()),
        };
        let written = match types.len() {
            1 => format!("-{}", name(0)),
            _ => self.written(&name(0), &name(1)),
        };
        let written = if written.len() > NAME_BYTES_MAX { "..." } else { written.as_str() };
        Ok(Arc::new(Field::new(written, self.return_type(&types)?, nullable)))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let args = if args.args.len() == 1 { negation(args)? } else { args };
        if args.args.iter().any(|value| matches!(value, ColumnarValue::Scalar(value) if value.is_null())) {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(args.return_field.data_type())?));
        }
        if let Some(result) = self.with_scalar(&args) {
            return Ok(ColumnarValue::Array(result));
        }
        let is_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        match self.arrays(&arrays[0], &arrays[1])? {
            Some(result) if is_scalar => ScalarValue::try_from_array(&result, 0).map(ColumnarValue::Scalar),
            Some(result) => Ok(ColumnarValue::Array(result)),
            None => Err(self.overflow(&args, &arrays[0], &arrays[1])),
        }
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        match input {
            [left, right] if left.data_type() == right.data_type() => apply_operator(&self.operator, left, right),
            _ => Interval::make_unbounded(&DataType::Null),
        }
    }
}

/// The sign as a subtraction from zero.
fn negation(args: ScalarFunctionArgs) -> Result<ScalarFunctionArgs> {
    let zero = ScalarValue::new_zero(args.return_field.data_type())?;
    let field = Arc::new(Field::new("0", zero.data_type(), false));
    let (operand, operand_field) = (args.args[0].clone(), Arc::clone(&args.arg_fields[0]));
    let values = vec![ColumnarValue::Scalar(zero), operand];
    Ok(ScalarFunctionArgs { args: values, arg_fields: vec![field, operand_field], ..args })
}

/// Of an expression's text in a message.
const NAME_BYTES_MAX: usize = 120;

impl Checked {
    /// A whole number against a column, the usual case, without an array of equal numbers; `None` where it is another case
    /// or overflows.
    fn with_scalar(&self, args: &ScalarFunctionArgs) -> Option<ArrayRef> {
        match (&args.args[0], &args.args[1]) {
            (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
                kernels::whole_and_number(self.operator, left, right, false)
            }
            (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
                kernels::whole_and_number(self.operator, right, left, true)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
