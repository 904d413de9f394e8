//! `gm_named(value, text)`: the value, in an expression of a name of its own. It goes away once the statement is planned.
//! `gm_kept(value, other)`: the value, in an expression that depends on another column for whoever looks at it.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub(crate) const NAME: &str = "gm_named";

/// Both functions.
pub(crate) fn functions() -> [Arc<ScalarUDF>; 2] {
    let named = NamedValue { signature: Signature::any(2, Volatility::Immutable) };
    [Arc::new(ScalarUDF::from(named)), Arc::clone(&KEPT)]
}

/// The value as one that may change with the other.
pub(crate) fn kept(value: Expr, other: Expr) -> Expr {
    KEPT.call(vec![value, other])
}

static KEPT: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let kept = KeptValue { signature: Signature::any(2, Volatility::Immutable) };
    Arc::new(ScalarUDF::from(kept))
});

#[derive(Debug, PartialEq, Eq, Hash)]
struct NamedValue {
    signature: Signature,
}

impl ScalarUDFImpl for NamedValue {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("{NAME} takes a value and a text"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let [value, _] = args.arg_fields else { return plan_err!("{NAME} takes a value and a text") };
        Ok(Arc::new(Field::new(NAME, value.data_type().clone(), value.is_nullable())))
    }

    fn simplify(&self, mut args: Vec<Expr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if args.len() == 2 {
            return Ok(ExprSimplifyResult::Simplified(args.swap_remove(0)));
        }
        Ok(ExprSimplifyResult::Original(args))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct KeptValue {
    signature: Signature,
}

impl ScalarUDFImpl for KeptValue {
    fn name(&self) -> &str {
        "gm_kept"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("gm_kept takes a value and another"),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args.swap_remove(0))
    }
}
