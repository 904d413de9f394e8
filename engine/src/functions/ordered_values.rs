//! `array_agg(x ORDER BY y)` and `string_agg(x, ', ' ORDER BY y)` in about the time that sorting takes. The query engine sorts
//! all rows by `y`, then keeps and merges every group's values one by one (DataFusion 55.2), which takes longer with every
//! value of a group. Here batches are kept as they come ([`gathered`]), rows are dealt out to their groups and sorted inside
//! them when the groups are asked for. Without ORDER BY, or with DISTINCT, the query engine's functions do the work.
//! What one process has gathered and another goes on with is laid out as the query engine would lay it out.

mod gathered;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion::physical_expr::expressions::Literal;

use gathered::{Form, Gathered};

/// The functions, in the place of the query engine's.
pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let functions = [(array_agg_udaf(), false), (string_agg_udaf(), true)];
    functions.into_iter().map(|(inner, text)| Arc::new(AggregateUDF::from(OrderedValues { inner, text }))).collect()
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OrderedValues {
    inner: Arc<AggregateUDF>,
    /// One text of all values rather than an array of them.
    text: bool,
}

/// Whether the work is done here.
fn is_ordered(arguments: &AccumulatorArgs) -> bool {
    !arguments.is_distinct && !arguments.order_bys.is_empty()
}

impl OrderedValues {
    fn gathered(&self, arguments: &AccumulatorArgs) -> Result<Gathered> {
        let field = &arguments.expr_fields[0];
        let form = if self.text { Form::Text(delimiter(arguments)?) } else { Form::Array };
        let keys = arguments.order_bys.iter();
        let keys =
            keys.map(|key| Ok((key.expr.data_type(arguments.schema)?, key.options))).collect::<Result<Vec<_>>>()?;
        let names = arguments.order_bys.iter().map(|key| key.expr.to_string()).collect();
        let ignore_nulls = (arguments.ignore_nulls || self.text) && field.is_nullable();
        Gathered::new(field.data_type().clone(), keys, names, ignore_nulls, arguments.exprs.len(), form)
    }
}

/// What stands between two texts.
fn delimiter(arguments: &AccumulatorArgs) -> Result<String> {
    let literal = arguments.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>());
    match literal.map(|literal| (literal.value().is_null(), literal.value().try_as_str())) {
        Some((true, _)) => Ok(String::new()),
        Some((false, Some(Some(text)))) => Ok(text.to_string()),
        _ => Err(DataFusionError::NotImplemented("the delimiter of string_agg must be a text in quotes".to_string())),
    }
}

impl AggregateUDFImpl for OrderedValues {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if is_ordered(&arguments) {
            return Ok(Box::new(OneGroup(self.gathered(&arguments)?)));
        }
        self.inner.accumulator(arguments)
    }

    fn groups_accumulator_supported(&self, arguments: AccumulatorArgs) -> bool {
        is_ordered(&arguments) || self.inner.groups_accumulator_supported(arguments)
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if is_ordered(&arguments) {
            return Ok(Box::new(self.gathered(&arguments)?));
        }
        self.inner.create_groups_accumulator(arguments)
    }

    /// Rows need not come in order, and nothing is won when they do.
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Beneficial
    }

    fn with_beneficial_ordering(self: Arc<Self>, _is_ordered: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arguments)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// The values of all rows.
#[derive(Debug)]
struct OneGroup(Gathered);

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |values| values.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |states| states.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.at_least_groups(1);
        ScalarValue::try_from_array(&self.0.evaluate(EmitTo::All)?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.at_least_groups(1);
        self.0.state(EmitTo::All)?.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
