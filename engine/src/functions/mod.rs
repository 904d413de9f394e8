//! Functions of ours, and those that stand in the place of the query engine's of the same name because its answers are wrong
//! or depend on the order of the rows. Session, scheduler and executors get them from [`register`], so a plan that names one
//! finds it wherever it runs.

mod avg;
pub(crate) mod canonical;
pub(crate) mod checked;
mod extremes;
pub(crate) mod instants;
mod length;
pub(crate) mod named_value;
pub(crate) mod nested_order;
mod ordered_values;
pub(crate) mod quotient;
mod round;
pub(crate) mod sample_key;
pub(crate) mod series;
pub(crate) mod similar;
mod sum;
mod totals;
mod unordered;

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Makes the functions known to whoever plans or decodes plans.
///
/// # Errors
/// A registry that takes none.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for function in aggregates() {
        registry.register_udaf(function)?;
    }
    for function in scalars() {
        registry.register_udf(function)?;
    }
    Ok(())
}

fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let mut functions = OWN.to_vec();
    functions.extend(ordered_values::functions());
    functions
}

/// Those of our aggregates whose states travel otherwise than the query engine's.
static OWN: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    let mut functions =
        vec![Arc::new(AggregateUDF::from(avg::Avg::default())), Arc::new(AggregateUDF::from(sum::Sum::default()))];
    functions.extend(extremes::functions());
    functions
});

/// Our aggregate of the name of another.
pub(crate) fn own(function: &Arc<AggregateUDF>) -> Option<Arc<AggregateUDF>> {
    let own = OWN.iter().find(|own| own.name() == function.name())?;
    (!Arc::ptr_eq(own, function)).then(|| Arc::clone(own))
}

fn scalars() -> Vec<Arc<ScalarUDF>> {
    let mut functions = checked::functions();
    functions.push(canonical::function());
    functions.extend(named_value::functions());
    functions.push(nested_order::function());
    functions.push(quotient::function());
    functions.extend(instants::functions());
    functions.extend(unordered::functions());
    functions.push(sample_key::function());
    functions.push(Arc::new(ScalarUDF::from(length::Length::default())));
    functions.push(Arc::new(ScalarUDF::from(round::Round::default())));
    functions.push(Arc::new(ScalarUDF::from(similar::SimilarToRegex::default())));
    functions.extend(crate::analysis::single_value());
    functions
}

/// The type as SQL calls it.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => return format!("DECIMAL({precision}, {scale})"),
        other => return other.to_string(),
    };
    name.to_string()
}
