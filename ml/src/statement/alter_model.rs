//! `ALTER MODEL name SET ALIAS alias = version` and `ALTER MODEL name DROP ALIAS alias`.

use async_trait::async_trait;
use datafusion::sql::sqlparser::tokenizer::Token;
use engine::events::Outcome;
use engine::extension::{Finished, JobContext, Statement};
use engine::{Error, Result, Session};

use crate::name::{ModelName, check_name};
use crate::registry;
use crate::statement::cursor::Cursor;

struct AlterModel {
    name: ModelName,
    offset: usize,
    alias: String,
    /// None drops the alias.
    version: Option<u64>,
}

pub(super) fn parse(cursor: &mut Cursor) -> Result<impl Statement + 'static> {
    cursor.expect_words(&["ALTER", "MODEL"])?;
    let offset = cursor.offset();
    let name = cursor.name("a model's name")?;
    check_name(&name).map_err(|error| error.at_offset(offset))?;
    let drops = cursor.take_words(&["DROP", "ALIAS"]);
    if !drops {
        if !cursor.at_word("SET") {
            return Err(cursor.expected("SET ALIAS or DROP ALIAS"));
        }
        cursor.expect_words(&["SET", "ALIAS"])?;
    }
    let alias_at = cursor.offset();
    let alias = cursor.name("an alias")?;
    check_name(&alias).map_err(|error| error.at_offset(alias_at))?;
    let version = if drops {
        None
    } else {
        cursor.expect(&Token::Eq)?;
        let at = cursor.offset();
        match cursor.next() {
            Some(Token::Number(text, _)) => {
                Some(text.parse::<u64>().map_err(|_| Error::invalid(format!("`{text}` is no version")).at_offset(at))?)
            }
            _ => return Err(Error::invalid("expected a version, such as 3").at_offset(at)),
        }
    };
    cursor.expect_end()?;
    Ok(AlterModel { name: ModelName::latest(name), offset, alias, version })
}

#[async_trait]
impl Statement for AlterModel {
    fn title(&self) -> String {
        format!("ALTER MODEL {}", self.name)
    }

    async fn check(&self, session: &Session) -> Result<()> {
        registry::resolve(session, &self.name).await.map(drop).map_err(|error| error.at_offset(self.offset))
    }

    async fn run(&self, session: &Session, _job: &JobContext) -> Result<Finished> {
        registry::set_alias(session, &self.name.name, &self.alias, self.version)
            .await
            .map_err(|error| error.at_offset(self.offset))?;
        let value = match self.version {
            Some(version) => format!("{} = {}@{version}", self.alias, self.name),
            None => format!("{} dropped", self.alias),
        };
        Ok(Finished { outcomes: vec![Outcome::Fact { name: "alias".into(), value }], ..Finished::default() })
    }
}
