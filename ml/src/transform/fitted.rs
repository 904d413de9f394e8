//! Fitted functions: what a function of a TRANSFORM has become once its statistics are known, and how it is applied.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StringBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::categories::{Categories, Lookup, as_text};
use super::exact_float;
use super::spec::{BucketFormat, engine_error};
use super::target::TargetEncodings;
use crate::function::buckets::Buckets;

/// A function of one column, frozen. The variant says what it computes; NULL stays NULL where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "function", rename_all = "snake_case")]
pub enum Fitted {
    /// `(x - offset) / scale`, then capped. On an array: of each element.
    Scale {
        /// Subtracted.
        #[serde(with = "exact_float")]
        offset: f64,
        /// Divides; never 0.
        #[serde(with = "exact_float")]
        scale: f64,
        /// Smallest value given.
        #[serde(with = "exact_float::option", default, skip_serializing_if = "Option::is_none")]
        low: Option<f64>,
        /// Largest value given.
        #[serde(with = "exact_float::option", default, skip_serializing_if = "Option::is_none")]
        high: Option<f64>,
        /// What the model sees for NULL: the scaled mean.
        #[serde(with = "exact_float")]
        missing: f64,
        /// The length of each array, for a column of arrays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<usize>,
    },
    /// NULL becomes `missing`. On an array: in each element.
    FillNumber {
        /// Stands for NULL.
        #[serde(with = "exact_float")]
        missing: f64,
        /// The length of each array, for a column of arrays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        length: Option<usize>,
    },
    /// NULL becomes this text.
    FillText {
        /// Stands for NULL.
        missing: String,
    },
    /// NULL becomes this truth value.
    FillBoolean {
        /// Stands for NULL.
        missing: bool,
    },
    /// The name of the bucket between split points.
    Bucketize {
        /// Ascending; a value on a split point belongs to the bucket above.
        #[serde(with = "exact_float::list")]
        splits: Vec<f64>,
        /// How a bucket is named.
        format: BucketFormat,
    },
    /// Index + 1 of the category, 0 for other and NULL.
    LabelEncoder(Categories),
    /// Index of the category, NULL for none.
    OneHot(Categories),
    /// Indices of the categories of an array's elements, ascending, each once.
    MultiHot(Categories),
    /// The mean label of the category's rows.
    Target(TargetEncodings),
}

impl Fitted {
    /// Number of elements where the column holds arrays.
    pub(crate) fn length(&self) -> Option<usize> {
        match self {
            Fitted::Scale { length, .. } | Fitted::FillNumber { length, .. } => *length,
            Fitted::Target(target) if target.width() > 1 => Some(target.width()),
            _ => None,
        }
    }

    /// What the model sees for NULL.
    pub(crate) fn missing(&self) -> f64 {
        match self {
            Fitted::Scale { missing, .. } | Fitted::FillNumber { missing, .. } => *missing,
            _ => 0.0,
        }
    }

    /// The categories of an encoder.
    pub(crate) fn categories(&self) -> Option<&Categories> {
        match self {
            Fitted::LabelEncoder(categories) | Fitted::OneHot(categories) | Fitted::MultiHot(categories) => {
                Some(categories)
            }
            Fitted::Target(target) => Some(&target.categories),
            _ => None,
        }
    }

    /// The type it gives for an argument's type.
    pub(crate) fn output_type(&self, input: &DataType) -> DataType {
        match self {
            Fitted::Scale { .. } | Fitted::FillNumber { .. } if input.is_list() => {
                DataType::new_list(DataType::Float64, true)
            }
            Fitted::Scale { .. } | Fitted::FillNumber { .. } => DataType::Float64,
            Fitted::FillText { .. } | Fitted::Bucketize { .. } => DataType::Utf8,
            Fitted::FillBoolean { .. } => DataType::Boolean,
            Fitted::LabelEncoder(_) | Fitted::OneHot(_) => DataType::Int64,
            Fitted::MultiHot(_) => DataType::new_list(DataType::Int64, true),
            Fitted::Target(target) => target.output_type(),
        }
    }
}

/// A fitted function with its tables made, ready to be applied.
#[derive(Debug)]
pub(crate) struct Applier {
    function: Fitted,
    lookup: Option<Lookup>,
    buckets: Option<Buckets>,
}

impl Applier {
    /// Makes the tables.
    pub(crate) fn new(function: &Fitted) -> Self {
        let buckets = match function {
            Fitted::Bucketize { splits, format } => Some(Buckets::new(splits, *format)),
            _ => None,
        };
        Applier { function: function.clone(), lookup: function.categories().map(Lookup::new), buckets }
    }

    /// Whether it makes doubles of what it is given before anything else.
    pub(crate) fn takes_any_number(&self) -> bool {
        matches!(self.function, Fitted::Scale { length: None, .. } | Fitted::FillNumber { length: None, .. })
    }

    /// Whether it puts `number` for NULL and does nothing else.
    pub(crate) fn only_fills(&self, number: f64) -> bool {
        matches!(self.function, Fitted::FillNumber { missing, .. } if missing.to_bits() == number.to_bits())
    }

    /// The function's values.
    pub(crate) fn apply(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let lookup = || self.lookup.as_ref().expect("an encoder has its table");
        match &self.function {
            Fitted::Scale { .. } | Fitted::FillNumber { .. } if values.data_type().is_list() => {
                let list = as_list(values)?;
                let elements = self.numbers(list.values())?;
                let field = Arc::new(Field::new_list_field(DataType::Float64, true));
                Ok(Arc::new(ListArray::new(field, list.offsets().clone(), Arc::new(elements), list.nulls().cloned())))
            }
            Fitted::Scale { .. } | Fitted::FillNumber { .. } => Ok(Arc::new(self.numbers(values)?)),
            Fitted::FillText { missing } => {
                let values = as_text(values)?;
                let filled = values.as_string::<i32>().iter().map(|text| Some(text.unwrap_or(missing)));
                Ok(Arc::new(filled.collect::<StringArray>()))
            }
            Fitted::FillBoolean { missing } => {
                let filled = values.as_boolean().iter().map(|x| Some(x.unwrap_or(*missing)));
                Ok(Arc::new(filled.collect::<BooleanArray>()))
            }
            Fitted::Bucketize { .. } => {
                let buckets = self.buckets.as_ref().expect("a bucketizer has its names");
                let values = as_numbers(values)?;
                let mut names = StringBuilder::with_capacity(values.len(), 8 * values.len());
                values.iter().for_each(|x| names.append_option(x.map(|x| buckets.name_of(x))));
                Ok(Arc::new(names.finish()))
            }
            Fitted::LabelEncoder(categories) => {
                let kept = categories.values.len() as i64;
                let number = |index: i64| if (0..kept).contains(&index) { index + 1 } else { 0 };
                Ok(Arc::new(lookup().indices(values)?.unary::<_, arrow::datatypes::Int64Type>(number)))
            }
            Fitted::OneHot(_) => {
                let indices = lookup().indices(values)?;
                let known = indices.values().iter().map(|index| (*index >= 0).then_some(*index));
                Ok(Arc::new(known.collect::<Int64Array>()))
            }
            Fitted::Target(target) => target.apply(lookup(), values),
            Fitted::MultiHot(_) => {
                let list = as_list(values)?;
                let indices = lookup().indices(list.values())?;
                let (mut offsets, mut kept) = (vec![0i32], Vec::new());
                for row in 0..list.len() {
                    if list.is_valid(row) {
                        let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                        let mut row: Vec<i64> =
                            indices.values()[from..to].iter().copied().filter(|i| *i >= 0).collect();
                        row.sort_unstable();
                        row.dedup();
                        kept.extend(row);
                    }
                    offsets.push(
                        i32::try_from(kept.len())
                            .map_err(|_| Error::invalid("a batch with too many array elements"))?,
                    );
                }
                let field = Arc::new(Field::new_list_field(DataType::Int64, true));
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Ok(Arc::new(ListArray::new(field, offsets, Arc::new(Int64Array::from(kept)), None)))
            }
        }
    }

    fn numbers(&self, values: &ArrayRef) -> Result<Float64Array> {
        let numbers = as_numbers(values)?;
        Ok(match self.function {
            Fitted::Scale { offset, scale, low: None, high: None, .. } => {
                numbers.unary::<_, Float64Type>(|x| (x - offset) / scale)
            }
            Fitted::Scale { offset, scale, low, high, .. } => {
                let (low, high) = (low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY));
                // An infinity is a fault of the data and must not hide behind the cap.
                let cap = |x: f64| if x.is_finite() { ((x - offset) / scale).clamp(low, high) } else { x };
                numbers.unary::<_, Float64Type>(cap)
            }
            Fitted::FillNumber { missing, .. } if numbers.null_count() > 0 => {
                numbers.iter().map(|x| Some(x.unwrap_or(missing))).collect()
            }
            _ => numbers,
        })
    }
}

/// Any numeric column as doubles; true counts as 1.
pub(crate) fn as_numbers(values: &ArrayRef) -> Result<Float64Array> {
    if let Some(numbers) = values.as_primitive_opt::<Float64Type>() {
        return Ok(numbers.clone());
    }
    Ok(cast(values, &DataType::Float64).map_err(engine_error)?.as_primitive::<Float64Type>().clone())
}

/// Any array column as a list with 32-bit offsets.
pub(crate) fn as_list(values: &ArrayRef) -> Result<ListArray> {
    if let Some(list) = values.as_list_opt::<i32>() {
        return Ok(list.clone());
    }
    if let DataType::FixedSizeList(field, _) = values.data_type() {
        let list = values.as_fixed_size_list();
        let length = list.value_length() as usize;
        let field = Arc::new(field.as_ref().clone().with_name("item").with_nullable(true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, list.len()));
        return Ok(ListArray::new(field, offsets, Arc::clone(list.values()), list.nulls().cloned()));
    }
    let element = values.data_type();
    let DataType::LargeList(field) = element else {
        return Err(Error::invalid(format!("expected an array column, got type {element}")));
    };
    let list = cast(values, &DataType::List(Arc::clone(field))).map_err(engine_error)?;
    Ok(list.as_list::<i32>().clone())
}

/// `gm_fitted('<function as JSON>', x)`: a fitted function inside a query. Used where statistics are fitted on the
/// results of other fitted functions; only its name and its JSON travel with a plan.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FittedCall {
    signature: Signature,
}

static FITTED_CALL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    Arc::new(ScalarUDF::new_from_impl(FittedCall { signature: Signature::any(2, Volatility::Immutable) }))
});

/// The scalar function `gm_fitted`, to register with a session.
pub(crate) fn fitted_function() -> Arc<ScalarUDF> {
    Arc::clone(&FITTED_CALL)
}

/// `function` applied to `argument`, as an expression.
pub(crate) fn fitted_call(function: &Fitted, argument: Expr) -> Result<Expr> {
    let json =
        serde_json::to_string(function).map_err(|error| Error::invalid(format!("a fitted function: {error}")))?;
    Ok(FITTED_CALL.call(vec![lit(json), argument]))
}

impl FittedCall {
    fn function(json: Option<&ScalarValue>) -> QueryResult<Fitted> {
        let unreadable = || DataFusionError::Plan("gm_fitted: the first argument is no fitted function".to_owned());
        let text = json.and_then(|json| json.try_as_str().flatten()).ok_or_else(unreadable)?;
        serde_json::from_str(text).map_err(|_| unreadable())
    }
}

impl ScalarUDFImpl for FittedCall {
    fn name(&self) -> &str {
        "gm_fitted"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> QueryResult<DataType> {
        Err(DataFusionError::Internal("gm_fitted: the type depends on the first argument".to_owned()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> QueryResult<FieldRef> {
        let function = FittedCall::function(args.scalar_arguments.first().copied().flatten())?;
        let input = args.arg_fields[1].data_type();
        Ok(Arc::new(Field::new(self.name(), function.output_type(input), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> QueryResult<ColumnarValue> {
        let json = match &args.args[0] {
            ColumnarValue::Scalar(json) => Some(json.clone()),
            ColumnarValue::Array(_) => None,
        };
        let function = FittedCall::function(json.as_ref())?;
        let values = args.args[1].to_array(args.number_rows)?;
        let result = Applier::new(&function).apply(&values).map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(ColumnarValue::Array(result))
    }
}
