//! `SHOW MODELS`: the newest version of every model.

use async_trait::async_trait;
use engine::extension::{Finished, JobContext, Statement};
use engine::{Result, Session};

use crate::registry;
use crate::relation::models_table;
use crate::statement::cursor::Cursor;

struct ShowModels;

pub(super) fn parse(cursor: &mut Cursor) -> Result<impl Statement + 'static> {
    cursor.expect_words(&["SHOW", "MODELS"])?;
    cursor.expect_end()?;
    Ok(ShowModels)
}

#[async_trait]
impl Statement for ShowModels {
    fn title(&self) -> String {
        "SHOW MODELS".into()
    }

    async fn check(&self, _session: &Session) -> Result<()> {
        Ok(())
    }

    async fn run(&self, session: &Session, _job: &JobContext) -> Result<Finished> {
        let batch = models_table::batch(&registry::store(session)).await?;
        let result = session.context().read_batch(batch)?;
        Ok(Finished { result: Some(result), ..Finished::default() })
    }
}
