//! Rows that statistics are asked of: a query, and who executes what is asked. A session asks where its plans are executed;
//! without one the query engine answers in this process.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::DataFrame;
use engine::{Error, Result, Session};

/// See the module.
#[derive(Clone)]
pub struct Rows {
    frame: DataFrame,
    session: Option<Session>,
}

impl From<&DataFrame> for Rows {
    fn from(frame: &DataFrame) -> Self {
        Rows { frame: frame.clone(), session: None }
    }
}

impl From<&Rows> for Rows {
    fn from(rows: &Rows) -> Self {
        rows.clone()
    }
}

impl Rows {
    /// Rows that are asked where plans of the session are executed.
    pub fn of(session: &Session, frame: DataFrame) -> Self {
        Rows { frame, session: Some(session.clone()) }
    }

    /// The query, to ask something of.
    pub(crate) fn frame(&self) -> DataFrame {
        self.frame.clone()
    }

    /// Whether those who answer are other processes: an answer must be small, since it travels.
    pub(crate) fn is_remote(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.runner().is_remote())
    }

    /// What is asked of them.
    pub(crate) async fn answer(&self, question: DataFrame) -> Result<Vec<RecordBatch>> {
        Ok(match &self.session {
            Some(session) => session.collect(question).await?,
            None => question.collect().await?,
        })
    }

    /// Those of which a condition holds.
    pub(crate) fn filtered(&self, condition: Expr) -> Result<Self> {
        Ok(Rows { frame: self.frame().filter(condition)?, session: self.session.clone() })
    }

    /// How many there are.
    pub(crate) async fn count(&self) -> Result<usize> {
        let counted = self.frame().aggregate(Vec::new(), vec![count(lit(1i64))])?;
        let batches = self.answer(counted).await?;
        let counted = batches.iter().find(|batch| batch.num_rows() > 0);
        let counted = counted.ok_or_else(|| Error::invalid("counting rows gave no answer"))?;
        Ok(counted.column(0).as_primitive::<Int64Type>().value(0) as usize)
    }
}
