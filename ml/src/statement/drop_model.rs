//! `DROP MODEL [IF EXISTS] name`.

use async_trait::async_trait;
use engine::events::Outcome;
use engine::extension::{Finished, JobContext, Statement};
use engine::{Result, Session};

use crate::name::ModelName;
use crate::registry;
use crate::statement::cursor::Cursor;

struct DropModel {
    name: ModelName,
    offset: usize,
    if_exists: bool,
}

pub(super) fn parse(cursor: &mut Cursor) -> Result<impl Statement + 'static> {
    cursor.expect_words(&["DROP", "MODEL"])?;
    let if_exists = cursor.take_words(&["IF", "EXISTS"]);
    let offset = cursor.offset();
    let name = ModelName::parse(&cursor.name("a model's name")?).map_err(|error| error.at_offset(offset))?;
    cursor.expect_end()?;
    Ok(DropModel { name, offset, if_exists })
}

#[async_trait]
impl Statement for DropModel {
    fn title(&self) -> String {
        format!("DROP MODEL {}", self.name)
    }

    async fn check(&self, session: &Session) -> Result<()> {
        if !self.if_exists {
            registry::resolve(session, &self.name).await.map_err(|error| error.at_offset(self.offset))?;
        }
        registry::forget_planned(session, &self.name);
        Ok(())
    }

    async fn run(&self, session: &Session, _job: &JobContext) -> Result<Finished> {
        let removed = registry::remove(session, &self.name, self.if_exists)
            .await
            .map_err(|error| error.at_offset(self.offset))?;
        let value = format!("{removed} version{} of {}", if removed == 1 { "" } else { "s" }, self.name);
        Ok(Finished { outcomes: vec![Outcome::Fact { name: "removed".into(), value }], ..Finished::default() })
    }
}
