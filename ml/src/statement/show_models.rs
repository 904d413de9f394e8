//! `SHOW MODELS`: every version of every model. `SHOW MODEL name`: every version of one.

use async_trait::async_trait;
use datafusion::prelude::{col, lit};
use engine::extension::{Finished, JobContext, Statement};
use engine::{Result, Session};

use crate::name::{ModelName, VersionChoice};
use crate::registry;
use crate::relation::models_table;
use crate::statement::cursor::Cursor;

struct ShowModels {
    /// The one to show, and where its name stands.
    only: Option<(ModelName, usize)>,
}

pub(super) fn parse(cursor: &mut Cursor) -> Result<impl Statement + 'static> {
    cursor.expect_words(&["SHOW"])?;
    let only = if cursor.take_words(&["MODELS"]) {
        None
    } else {
        cursor.expect_words(&["MODEL"])?;
        let offset = cursor.offset();
        let name = ModelName::parse(&cursor.name("a model's name")?).map_err(|error| error.at_offset(offset))?;
        Some((name, offset))
    };
    cursor.expect_end()?;
    Ok(ShowModels { only })
}

#[async_trait]
impl Statement for ShowModels {
    fn title(&self) -> String {
        match &self.only {
            Some((name, _)) => format!("SHOW MODEL {name}"),
            None => "SHOW MODELS".into(),
        }
    }

    async fn check(&self, session: &Session) -> Result<()> {
        if let Some((name, offset)) = &self.only {
            registry::resolve(session, name).await.map_err(|error| error.at_offset(*offset))?;
        }
        Ok(())
    }

    async fn run(&self, session: &Session, _job: &JobContext) -> Result<Finished> {
        let batch = models_table::batch(&registry::store(session)).await?;
        let mut result = session.context().read_batch(batch)?;
        if let Some((name, offset)) = &self.only {
            let found = registry::resolve(session, name).await.map_err(|error| error.at_offset(*offset))?;
            result = result.filter(col("model_name").eq(lit(name.name.as_str())))?;
            if let (Some(artifact), false) = (found, name.version == VersionChoice::Latest) {
                result = result.filter(col("version").eq(lit(artifact.version)))?;
            }
        }
        Ok(Finished { result: Some(result), ..Finished::default() })
    }
}
