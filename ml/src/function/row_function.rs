//! What the scalar functions have in common: names, constant arguments, errors of the query engine.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use engine::{Error, Result};

use super::catalogue::{Usage, named};

/// A function of one column with constant arguments after it.
pub(crate) trait RowFunction: Send + Sync + Copy + Eq + Hash + std::fmt::Debug + 'static {
    /// After `ML.`, upper case.
    const NAME: &'static str;
    /// The constant arguments, checked.
    type Constants;
    /// Checks the constants.
    fn constants(usage: &Usage, constants: &[ScalarValue]) -> Result<Self::Constants>;
    /// The type of the result for the type of the column. The constants are not known while a query is planned when they
    /// are more than literals (`[1, 2]` is a call of make_array until it is simplified).
    fn output_type(usage: &Usage, input: &DataType, constants: Option<&Self::Constants>) -> Result<DataType>;
    /// The result, row by row, of the type said.
    fn apply(usage: &Usage, values: &ArrayRef, constants: &Self::Constants) -> Result<ArrayRef>;
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Adapter<F> {
    function: F,
    name: String,
    aliases: Vec<String>,
    signature: Signature,
}

/// The function as the query engine knows it.
pub(crate) fn udf<F: RowFunction>(function: F) -> Arc<ScalarUDF> {
    let lower = F::NAME.to_lowercase();
    Arc::new(ScalarUDF::new_from_impl(Adapter {
        function,
        name: format!("ML.{}", F::NAME),
        aliases: vec![format!("ml.{lower}"), format!("ML.{lower}"), format!("ml_{lower}")],
        signature: Signature::variadic_any(Volatility::Immutable),
    }))
}

fn query_error(error: Error) -> DataFusionError {
    match error {
        Error::Query(error) => error,
        Error::Invalid { message, hint: Some(hint), .. } => DataFusionError::Plan(format!("{message} ({hint})")),
        other => DataFusionError::Plan(other.to_string()),
    }
}

fn output_type<F: RowFunction>(input: &DataType, constants: &[Option<&ScalarValue>]) -> Result<DataType> {
    let usage = named(F::NAME)?;
    let known = constants.iter().map(|value| value.cloned()).collect::<Option<Vec<_>>>();
    let constants = known.map(|known| F::constants(usage, &known)).transpose()?;
    F::output_type(usage, input, constants.as_ref())
}

impl<F: RowFunction> ScalarUDFImpl for Adapter<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Err(DataFusionError::Internal(format!("{}: the type depends on constant arguments", self.name)))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> QueryResult<FieldRef> {
        let Some(input) = args.arg_fields.first() else {
            return Err(query_error(named(F::NAME).map_or_else(|e| e, |usage| usage.wrong("it needs an argument"))));
        };
        let data_type = output_type::<F>(input.data_type(), &args.scalar_arguments[1..]).map_err(query_error)?;
        Ok(Arc::new(Field::new(&self.name, data_type, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let usage = named(F::NAME).map_err(query_error)?;
        let constant = |argument: &ColumnarValue| match argument {
            ColumnarValue::Scalar(value) => Ok(value.clone()),
            ColumnarValue::Array(_) => Err(usage.wrong("every argument after the first must be a constant")),
        };
        let constants = args.args[1..].iter().map(constant).collect::<Result<Vec<_>>>().map_err(query_error)?;
        let constants = F::constants(usage, &constants).map_err(query_error)?;
        let values = args.args[0].to_array(args.number_rows)?;
        Ok(ColumnarValue::Array(F::apply(usage, &values, &constants).map_err(query_error)?))
    }
}
