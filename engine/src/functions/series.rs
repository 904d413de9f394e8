//! `generate_series` and `range` in FROM, over timestamps. A TIMESTAMP holds microseconds here (`analysis/types.rs`), and the
//! query engine's functions take timestamps in nanoseconds only (DataFusion 55.2), so that is what they get.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Expr;

const NAMES: [&str; 2] = ["generate_series", "range"];

/// Puts the functions in the place of the query engine's.
pub(crate) fn register(state: &mut SessionState) {
    for name in NAMES {
        let upstream = state.table_functions().get(name).map(|function| Arc::clone(function.function()));
        if let Some(upstream) = upstream {
            state.register_udtf(name, Arc::new(Series(upstream)));
        }
    }
}

#[derive(Debug)]
struct Series(Arc<dyn TableFunctionImpl>);

impl TableFunctionImpl for Series {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = args.exprs().iter().map(in_nanoseconds).collect::<Result<Vec<Expr>>>()?;
        self.0.call_with_args(TableFunctionArgs::new(&arguments, args.session()))
    }
}

/// The argument, a timestamp in nanoseconds.
///
/// # Errors
/// One that is before 1677 or after 2262.
fn in_nanoseconds(argument: &Expr) -> Result<Expr> {
    match argument {
        Expr::Literal(value, metadata) => match value.data_type() {
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let value = value.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, zone))?;
                Ok(Expr::Literal(value, metadata.clone()))
            }
            _ => Ok(argument.clone()),
        },
        other => Ok(other.clone()),
    }
}
