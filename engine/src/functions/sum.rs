//! `sum` of whole numbers and decimals that fits into its type or is an error. Its types are the query engine's: BIGINT of
//! whole numbers, ten digits more of decimals. Other values are added up by the query engine.

use std::sync::Arc;

use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Field, FieldRef, Int64Type,
    UInt64Type, i256,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::count::count;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Expr, GroupsAccumulator, Operator, ReversedUDAF,
    SetMonotonicity, Signature, cast,
};

use super::checked;
use super::totals::{DistinctTotal, GroupTotals, Number, Outcome, Summand, Total, travels_as};

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Sum {
    upstream: Arc<AggregateUDF>,
}

impl Default for Sum {
    fn default() -> Self {
        Sum { upstream: sum_udaf() }
    }
}

/// Calls `$function::<values, results>(args)` for the types of which we keep totals, `$else` for others.
macro_rules! of_summed_type {
    ($args:ident, $function:ident, $else:expr) => {
        match $args.return_field.data_type() {
            DataType::Int64 => $function::<Int64Type>(&$args),
            DataType::UInt64 => $function::<UInt64Type>(&$args),
            DataType::Decimal32(..) => $function::<Decimal32Type>(&$args),
            DataType::Decimal64(..) => $function::<Decimal64Type>(&$args),
            DataType::Decimal128(..) => $function::<Decimal128Type>(&$args),
            DataType::Decimal256(..) => $function::<Decimal256Type>(&$args),
            _ => $else,
        }
    };
}

/// Whether we keep the totals of such values.
pub(super) fn is_ours(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::UInt64) || data_type.is_decimal()
}

impl AggregateUDFImpl for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn signature(&self) -> &Signature {
        self.upstream.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.upstream.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            of_summed_type!(args, distinct, self.upstream.accumulator(args))
        } else {
            of_summed_type!(args, single, self.upstream.accumulator(args))
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        if !is_ours(args.return_type()) || args.is_distinct {
            return distinct_fields(&args).map_or_else(|| self.upstream.state_fields(args), Ok);
        }
        let name = format_state_name(args.name, "sum");
        Ok(vec![Arc::new(Field::new(name, travels_as(args.input_fields[0].data_type()), true))])
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.upstream.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        of_summed_type!(args, groups, self.upstream.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            of_summed_type!(args, distinct, self.upstream.create_sliding_accumulator(args))
        } else {
            of_summed_type!(args, single, self.upstream.create_sliding_accumulator(args))
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.upstream.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.upstream.inner().set_monotonicity(data_type)
    }

    fn simplify_expr_op_literal(
        &self,
        function: &AggregateFunction,
        argument: &Expr,
        operator: Operator,
        literal: &Expr,
        _argument_is_left: bool,
    ) -> Result<Option<Expr>> {
        // Only additions that cannot overflow are left as operators, but the product may. Of decimals the query engine's own
        // rewriting has the count in the literal's type, where it does not fit, and of floating-point numbers other digits.
        let (Expr::Literal(ScalarValue::Int64(Some(_)), _), Operator::Plus) = (literal, operator) else {
            return Ok(None);
        };
        let (Some(plus), Some(times)) = (checked::function_of(operator), checked::function_of(Operator::Multiply))
        else {
            return Ok(None);
        };
        let mut sum = function.clone();
        sum.params.args = vec![argument.clone()];
        let count = cast(count(argument.clone()), DataType::Int64);
        let product = times.call(vec![literal.clone(), count]);
        Ok(Some(plus.call(vec![Expr::AggregateFunction(sum), product])))
    }
}

/// The state of a sum of different values that we keep: a list of them in their own type.
pub(super) fn distinct_fields(args: &StateFieldsArgs) -> Option<Vec<FieldRef>> {
    let summed = args.input_fields[0].data_type();
    if !args.is_distinct || !is_ours(summed) {
        return None;
    }
    let list =
        Field::new_list(format_state_name(args.name, "distinct"), Field::new_list_field(summed.clone(), true), false);
    Some(vec![Arc::new(list)])
}

/// The sum itself, in the type of the result.
#[derive(Debug, Clone)]
struct Whole {
    data_type: DataType,
}

/// Whether a total fits into a type.
pub(super) trait Fitting: Summand {
    fn fitting(total: Number<Self>, data_type: &DataType) -> Option<Self::Native>;
}

impl Fitting for Int64Type {
    fn fitting(total: i128, _: &DataType) -> Option<i64> {
        total.try_into().ok()
    }
}

impl Fitting for UInt64Type {
    fn fitting(total: i128, _: &DataType) -> Option<u64> {
        total.try_into().ok()
    }
}

impl Fitting for Decimal32Type {
    fn fitting(total: i128, data_type: &DataType) -> Option<i32> {
        total.try_into().ok().filter(|total| Self::is_valid_decimal_precision(*total, precision(data_type)))
    }
}

impl Fitting for Decimal64Type {
    fn fitting(total: i128, data_type: &DataType) -> Option<i64> {
        total.try_into().ok().filter(|total| Self::is_valid_decimal_precision(*total, precision(data_type)))
    }
}

impl Fitting for Decimal128Type {
    fn fitting(total: i128, data_type: &DataType) -> Option<i128> {
        Some(total).filter(|total| Self::is_valid_decimal_precision(*total, precision(data_type)))
    }
}

impl Fitting for Decimal256Type {
    fn fitting(total: i256, data_type: &DataType) -> Option<i256> {
        Some(total).filter(|total| Self::is_valid_decimal_precision(*total, precision(data_type)))
    }
}

fn precision(data_type: &DataType) -> u8 {
    match data_type {
        DataType::Decimal32(precision, _)
        | DataType::Decimal64(precision, _)
        | DataType::Decimal128(precision, _)
        | DataType::Decimal256(precision, _) => *precision,
        _ => 0,
    }
}

impl<S: Fitting> Outcome<S> for Whole {
    type Result = S;

    const COUNTS: bool = false;

    fn result(&self, total: Number<S>, _count: u64) -> Option<S::Native> {
        S::fitting(total, &self.data_type)
    }

    fn data_type(&self) -> &DataType {
        &self.data_type
    }
}

fn whole(args: &AccumulatorArgs) -> Whole {
    Whole { data_type: args.return_type().clone() }
}

fn single<S: Fitting>(args: &AccumulatorArgs) -> Result<Box<dyn Accumulator>>
where
    S::Wide: Summand<Wide = S::Wide>,
{
    Ok(Box::new(Total::<S, Whole>::new(whole(args), args.name, args.expr_fields[0].data_type())))
}

fn groups<S: Fitting>(args: &AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(GroupTotals::<S, Whole>::new(whole(args), args.name, args.expr_fields[0].data_type())))
}

fn distinct<S: Fitting>(args: &AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(DistinctTotal::<S, Whole>::new(whole(args), args.name, args.expr_fields[0].data_type())))
}
