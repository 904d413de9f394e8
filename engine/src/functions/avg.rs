//! `avg` of whole numbers and decimals, from their exact total: the query engine adds whole numbers up as doubles, whose sum
//! depends on the order of the rows once it is beyond 2^53, and cuts averages of decimals off where they are to be rounded.
//! Averages of other values are the query engine's.

use std::sync::Arc;

use datafusion::arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef, Float64Type, Int64Type,
    UInt64Type, i256,
};
use datafusion::common::types::{
    NativeType, logical_float64, logical_int8, logical_int16, logical_int32, logical_int64, logical_uint8,
    logical_uint16, logical_uint32, logical_uint64,
};
use datafusion::error::Result;
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Coercion, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
    TypeSignature, TypeSignatureClass, Volatility,
};

use super::sum::{Fitting, distinct_fields, is_ours};
use super::totals::{DistinctTotal, GroupTotals, Number, Outcome, Summand, Total, Wide, Widened, travels_as};

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Avg {
    upstream: Arc<AggregateUDF>,
    signature: Signature,
}

impl Default for Avg {
    fn default() -> Self {
        let exact = |class| TypeSignature::Coercible(vec![Coercion::new_exact(class)]);
        let widened = |wide, from: Vec<_>, native| {
            let from = from.into_iter().map(TypeSignatureClass::Native).collect();
            TypeSignature::Coercible(vec![Coercion::new_implicit(TypeSignatureClass::Native(wide), from, native)])
        };
        let signed = vec![logical_int8(), logical_int16(), logical_int32()];
        let unsigned = vec![logical_uint8(), logical_uint16(), logical_uint32()];
        let floats = Coercion::new_implicit(
            TypeSignatureClass::Native(logical_float64()),
            vec![TypeSignatureClass::Float],
            NativeType::Float64,
        );
        let signatures = vec![
            exact(TypeSignatureClass::Decimal),
            exact(TypeSignatureClass::Duration),
            widened(logical_uint64(), unsigned, NativeType::UInt64),
            widened(logical_int64(), signed, NativeType::Int64),
            TypeSignature::Coercible(vec![floats]),
        ];
        Avg { upstream: avg_udaf(), signature: Signature::one_of(signatures, Volatility::Immutable) }
    }
}

/// Calls `$function::<values>(args)` for the types of which we keep totals, `$else` for others.
macro_rules! of_averaged_type {
    ($args:ident, $function:ident, $else:expr) => {
        match $args.expr_fields[0].data_type() {
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

impl AggregateUDFImpl for Avg {
    fn name(&self) -> &'static str {
        "avg"
    }

    fn aliases(&self) -> &[String] {
        self.upstream.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.upstream.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            of_averaged_type!(args, distinct, self.upstream.accumulator(args))
        } else {
            of_averaged_type!(args, single, self.upstream.accumulator(args))
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let averaged = args.input_fields[0].data_type();
        match (is_ours(averaged), args.is_distinct) {
            (false, _) => self.upstream.state_fields(args),
            (true, true) => distinct_fields(&args).map_or_else(|| self.upstream.state_fields(args), Ok),
            (true, false) => Ok(vec![
                Arc::new(Field::new(format_state_name(args.name, "sum"), travels_as(&added_as(averaged)), true)),
                Arc::new(Field::new(format_state_name(args.name, "count"), DataType::UInt64, true)),
            ]),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.upstream.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        of_averaged_type!(args, groups, self.upstream.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            of_averaged_type!(args, distinct, self.upstream.create_sliding_accumulator(args))
        } else {
            of_averaged_type!(args, single, self.upstream.create_sliding_accumulator(args))
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.upstream.documentation()
    }
}

/// The average of whole numbers, as a double.
#[derive(Debug, Clone, Copy)]
struct Mean;

impl<S: Summand> Outcome<S> for Mean {
    type Result = Float64Type;

    const COUNTS: bool = true;

    fn result(&self, total: Number<S>, count: u64) -> Option<f64> {
        Some(total.to_f64() / count as f64)
    }

    fn data_type(&self) -> &DataType {
        &DataType::Float64
    }
}

/// The average of decimals, rounded to the digits of the result, half away from zero.
#[derive(Debug, Clone)]
struct RoundedMean {
    /// Digits behind the point that the result has and the values have not.
    digits: u32,
    data_type: DataType,
}

impl<S: Fitting> Outcome<S> for RoundedMean {
    type Result = S;

    const COUNTS: bool = true;

    fn result(&self, total: Number<S>, count: u64) -> Option<S::Native> {
        S::fitting(total.quotient(count, self.digits)?, &self.data_type)
    }

    fn data_type(&self) -> &DataType {
        &self.data_type
    }
}

impl RoundedMean {
    fn of(args: &AccumulatorArgs) -> Self {
        let more = scale(args.return_type()) - scale(args.expr_fields[0].data_type());
        RoundedMean { digits: u32::try_from(more).unwrap_or(0), data_type: args.return_type().clone() }
    }
}

/// The average of what was added up in 256 bits, in 128.
#[derive(Debug, Clone)]
struct Narrowed(RoundedMean);

impl Outcome<Decimal256Type> for Narrowed {
    type Result = Decimal128Type;

    const COUNTS: bool = true;

    fn result(&self, total: i256, count: u64) -> Option<i128> {
        let mean = total.quotient(count, self.0.digits)?.to_i128()?;
        Decimal128Type::fitting(mean, &self.0.data_type)
    }

    fn data_type(&self) -> &DataType {
        &self.0.data_type
    }
}

/// What an average of values of a kind is.
trait Averaged: Summand + Sized {
    type Mean: Outcome<Self>;

    fn mean(args: &AccumulatorArgs) -> Self::Mean;
}

impl Averaged for Int64Type {
    type Mean = Mean;

    fn mean(_: &AccumulatorArgs) -> Mean {
        Mean
    }
}

impl Averaged for UInt64Type {
    type Mean = Mean;

    fn mean(_: &AccumulatorArgs) -> Mean {
        Mean
    }
}

macro_rules! averaged_decimals {
    ($($decimal:ty),*) => {
        $(impl Averaged for $decimal {
            type Mean = RoundedMean;

            fn mean(args: &AccumulatorArgs) -> RoundedMean {
                RoundedMean::of(args)
            }
        })*
    };
}

averaged_decimals!(Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type);

/// The type in which values are added up: 10^9 of the widest DECIMAL(25) fit into 128 bits.
fn added_as(averaged: &DataType) -> DataType {
    match averaged {
        DataType::Decimal128(precision, scale) if *precision > 25 => DataType::Decimal256(76, *scale),
        other => other.clone(),
    }
}

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    }
}

fn single<S: Averaged>(args: &AccumulatorArgs) -> Result<Box<dyn Accumulator>>
where
    S::Wide: Summand<Wide = S::Wide>,
{
    let averaged = args.expr_fields[0].data_type();
    let wide = added_as(averaged);
    if wide != *averaged {
        let total = Total::<Decimal256Type, Narrowed>::new(Narrowed(RoundedMean::of(args)), args.name, &wide);
        return Ok(Box::new(Widened::new(total, wide)));
    }
    Ok(Box::new(Total::<S, S::Mean>::new(S::mean(args), args.name, args.expr_fields[0].data_type())))
}

fn groups<S: Averaged>(args: &AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
    let averaged = args.expr_fields[0].data_type();
    let wide = added_as(averaged);
    if wide != *averaged {
        let totals = GroupTotals::<Decimal256Type, Narrowed>::new(Narrowed(RoundedMean::of(args)), args.name, &wide);
        return Ok(Box::new(Widened::new(totals, wide)));
    }
    Ok(Box::new(GroupTotals::<S, S::Mean>::new(S::mean(args), args.name, args.expr_fields[0].data_type())))
}

fn distinct<S: Averaged>(args: &AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(DistinctTotal::<S, S::Mean>::new(S::mean(args), args.name, args.expr_fields[0].data_type())))
}
