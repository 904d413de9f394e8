//! `min` and `max` of floating-point numbers and intervals, by the order that ORDER BY has for them.
//!
//! NaN, of either sign, is the greatest number, and the two zeros are one: the query engine's grouped `min` and `max` take
//! whatever comes first when there is a NaN (apache/datafusion#16254 is of this kind), and statistics of files leave NaN out.
//! Intervals are compared by their length. Other values are the query engine's matter.

mod groups;
mod ranked;
mod single;

use std::sync::Arc;

use datafusion::arrow::datatypes::{
    DataType, Float16Type, Float32Type, Float64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature, StatisticsArgs,
};

use groups::Extremes;
use ranked::Ranked;
use single::{Extreme, MovingExtreme};

/// `min` and `max`.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let least = MinOrMax { upstream: min_udaf(), end: End::Least };
    let greatest = MinOrMax { upstream: max_udaf(), end: End::Greatest };
    [least, greatest].into_iter().map(|function| Arc::new(AggregateUDF::from(function))).collect()
}

/// Which end of the order is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Least,
    Greatest,
}

impl End {
    /// Whether `value` is nearer to this end than `other`.
    fn is_nearer<T: Ranked>(self, value: T::Native, other: T::Native) -> bool {
        match self {
            End::Least => T::is_less(value, other),
            End::Greatest => T::is_less(other, value),
        }
    }

    /// The value that every other is at least as near as.
    fn farthest<T: Ranked>(self) -> T::Native {
        match self {
            End::Least => T::greatest(),
            End::Greatest => T::least(),
        }
    }
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MinOrMax {
    upstream: Arc<AggregateUDF>,
    end: End,
}

/// Calls `$function::<values>(args, end)` for the types that we compare, `$else` for others.
macro_rules! of_ranked_type {
    ($self:ident, $args:ident, $function:ident, $else:expr) => {
        match $args.return_field.data_type() {
            DataType::Float16 => $function::<Float16Type>(&$args, $self.end),
            DataType::Float32 => $function::<Float32Type>(&$args, $self.end),
            DataType::Float64 => $function::<Float64Type>(&$args, $self.end),
            DataType::Interval(IntervalUnit::DayTime) => $function::<IntervalDayTimeType>(&$args, $self.end),
            DataType::Interval(IntervalUnit::MonthDayNano) => $function::<IntervalMonthDayNanoType>(&$args, $self.end),
            _ => $else,
        }
    };
}

fn is_ours(data_type: &DataType) -> bool {
    data_type.is_floating()
        || matches!(data_type, DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano))
}

impl AggregateUDFImpl for MinOrMax {
    fn name(&self) -> &str {
        self.upstream.name()
    }

    fn signature(&self) -> &Signature {
        self.upstream.signature()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.upstream.coerce_types(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.upstream.return_type(arg_types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        of_ranked_type!(self, args, single, self.upstream.accumulator(args))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<datafusion::arrow::datatypes::FieldRef>> {
        self.upstream.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        is_ours(args.return_type()) || self.upstream.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        of_ranked_type!(self, args, groups, self.upstream.create_groups_accumulator(args))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        of_ranked_type!(self, args, moving, self.upstream.create_sliding_accumulator(args))
    }

    fn is_descending(&self) -> Option<bool> {
        self.upstream.is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        // Statistics leave NaN out.
        if is_ours(args.return_type) { None } else { self.upstream.value_from_stats(args) }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.upstream.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.upstream.inner().set_monotonicity(data_type)
    }
}

fn single<T: Ranked>(args: &AccumulatorArgs, end: End) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(Extreme::<T>::new(end, args.return_type())))
}

fn moving<T: Ranked>(args: &AccumulatorArgs, end: End) -> Result<Box<dyn Accumulator>> {
    Ok(Box::new(MovingExtreme::<T>::new(end, args.return_type())))
}

fn groups<T: Ranked>(_args: &AccumulatorArgs, end: End) -> Result<Box<dyn GroupsAccumulator>> {
    Ok(Box::new(Extremes::<T>::new(end)))
}
