//! The order of floating-point numbers and of intervals.

use datafusion::arrow::array::{ArrowNativeTypeOp, ArrowPrimitiveType};
use datafusion::arrow::datatypes::{
    Float16Type, Float32Type, Float64Type, IntervalDayTime, IntervalDayTimeType, IntervalMonthDayNano,
    IntervalMonthDayNanoType,
};

/// Values with an order of ours.
pub(super) trait Ranked: ArrowPrimitiveType + std::fmt::Debug + Send {
    /// Whether the first is the lesser one. Of values that are equal, neither is.
    fn is_less(one: Self::Native, other: Self::Native) -> bool;
    /// Nothing is less.
    fn least() -> Self::Native;
    /// It is less than nothing.
    fn greatest() -> Self::Native;
    /// The one of all values equal to this one that is shown, so that it does not depend on which came first.
    fn shown(value: Self::Native) -> Self::Native;
}

macro_rules! floats {
    ($($data_type:ty),*) => {$(
        impl Ranked for $data_type {
            #[allow(clippy::eq_op)]
            fn is_less(one: Self::Native, other: Self::Native) -> bool {
                one < other || (other != other && one == one)
            }

            fn least() -> Self::Native {
                -Self::greatest_number()
            }

            fn greatest() -> Self::Native {
                <$data_type as Number>::not_a_number()
            }

            #[allow(clippy::eq_op)]
            fn shown(value: Self::Native) -> Self::Native {
                if value == value { value.add_wrapping(Self::Native::default()) } else { Self::greatest() }
            }
        }

        impl Number for $data_type {}
    )*};
}

/// The two values of floating-point numbers that have no name that all of their types share.
trait Number: ArrowPrimitiveType {
    fn greatest_number() -> Self::Native {
        Self::Native::ONE.div_wrapping(Self::Native::ZERO)
    }

    /// Positive, as all systems print and order it.
    fn not_a_number() -> Self::Native {
        let zero = Self::Native::ZERO;
        let either = zero.div_wrapping(zero);
        // In the total order, a negative one is below all numbers.
        if either.is_lt(zero) { either.neg_wrapping() } else { either }
    }
}

floats!(Float16Type, Float32Type, Float64Type);

const NANOS_PER_MILLI: i128 = 1_000_000;
const NANOS_PER_DAY: i128 = 24 * 60 * 60 * 1000 * NANOS_PER_MILLI;
const DAYS_PER_MONTH: i128 = 30;

impl Ranked for IntervalMonthDayNanoType {
    fn is_less(one: IntervalMonthDayNano, other: IntervalMonthDayNano) -> bool {
        // Equally long ones by what they consist of: which of them is shown must not depend on the order of the rows.
        (length(one), one) < (length(other), other)
    }

    fn least() -> IntervalMonthDayNano {
        IntervalMonthDayNano::MIN
    }

    fn greatest() -> IntervalMonthDayNano {
        IntervalMonthDayNano::MAX
    }

    fn shown(value: IntervalMonthDayNano) -> IntervalMonthDayNano {
        value
    }
}

/// In nanoseconds; a month has 30 days, a day 24 hours.
fn length(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * DAYS_PER_MONTH + i128::from(interval.days);
    days * NANOS_PER_DAY + i128::from(interval.nanoseconds)
}

impl Ranked for IntervalDayTimeType {
    fn is_less(one: IntervalDayTime, other: IntervalDayTime) -> bool {
        let length = |interval: IntervalDayTime| {
            i128::from(interval.days) * NANOS_PER_DAY + i128::from(interval.milliseconds) * NANOS_PER_MILLI
        };
        (length(one), one) < (length(other), other)
    }

    fn least() -> IntervalDayTime {
        IntervalDayTime::MIN
    }

    fn greatest() -> IntervalDayTime {
        IntervalDayTime::MAX
    }

    fn shown(value: IntervalDayTime) -> IntervalDayTime {
        value
    }
}
