//! `ALTER MODEL name SET ALIAS alias = version`, `ALTER MODEL name DROP ALIAS alias` and
//! `ALTER MODEL name SET OPTIONS (description = 'text')`.

use async_trait::async_trait;
use datafusion::sql::sqlparser::tokenizer::Token;
use engine::events::Outcome;
use engine::extension::{Finished, JobContext, Statement};
use engine::{Error, Result, Session, near};

use crate::name::{ModelName, check_name};
use crate::registry;
use crate::spec::OptionValue;
use crate::statement::cursor::Cursor;
use crate::statement::value::parse_value;

struct AlterModel {
    name: ModelName,
    offset: usize,
    change: Change,
}

enum Change {
    /// None drops the alias.
    Alias { alias: String, version: Option<u64> },
    /// None takes back what was said.
    Sayings(Vec<(String, Option<String>)>),
}

pub(super) fn parse(cursor: &mut Cursor) -> Result<impl Statement + 'static> {
    cursor.expect_words(&["ALTER", "MODEL"])?;
    let offset = cursor.offset();
    let name = cursor.name("a model's name")?;
    check_name(&name).map_err(|error| error.at_offset(offset))?;
    let change = if cursor.take_words(&["DROP", "ALIAS"]) {
        Change::Alias { alias: alias(cursor)?, version: None }
    } else if cursor.take_words(&["SET", "ALIAS"]) {
        let alias = alias(cursor)?;
        cursor.expect(&Token::Eq)?;
        Change::Alias { alias, version: Some(version(cursor)?) }
    } else if cursor.take_words(&["SET", "OPTIONS"]) {
        Change::Sayings(sayings(cursor)?)
    } else {
        return Err(cursor.expected("SET ALIAS, DROP ALIAS or SET OPTIONS"));
    };
    cursor.expect_end()?;
    Ok(AlterModel { name: ModelName::latest(name), offset, change })
}

fn alias(cursor: &mut Cursor) -> Result<String> {
    let at = cursor.offset();
    let alias = cursor.name("an alias")?;
    check_name(&alias).map_err(|error| error.at_offset(at))?;
    Ok(alias)
}

fn version(cursor: &mut Cursor) -> Result<u64> {
    let at = cursor.offset();
    match cursor.next() {
        Some(Token::Number(text, _)) => {
            text.parse::<u64>().map_err(|_| Error::invalid(format!("`{text}` is no version")).at_offset(at))
        }
        _ => Err(Error::invalid("expected a version, such as 3").at_offset(at)),
    }
}

/// `(description = 'text')`; NULL takes it back.
fn sayings(cursor: &mut Cursor) -> Result<Vec<(String, Option<String>)>> {
    const KNOWN: [&str; 2] = [registry::DESCRIPTION, "friendly_name"];
    cursor.expect(&Token::LParen)?;
    let mut sayings = Vec::new();
    while !cursor.take(&Token::RParen) {
        let at = cursor.offset();
        let name = cursor.name("an option's name")?.to_lowercase();
        if !KNOWN.contains(&name.as_str()) {
            let error = Error::invalid(format!("ALTER MODEL sets no option {name}")).at_offset(at);
            return Err(match near(&name, KNOWN) {
                Some(known) => error.with_hint(format!("did you mean {known}?")),
                None => error.with_hint(format!(
                    "it sets {}; how a model is trained is said by CREATE OR REPLACE MODEL",
                    KNOWN.join(" and ")
                )),
            });
        }
        cursor.expect(&Token::Eq)?;
        let value_at = cursor.offset();
        let text = match cursor.take_words(&["NULL"]) {
            true => None,
            false => match parse_value(cursor)? {
                OptionValue::Text(text) => Some(text),
                other => {
                    let error = Error::invalid(format!("option {name}: expected a text, got {other}"));
                    return Err(error.at_offset(value_at));
                }
            },
        };
        sayings.push((name, text));
        if !cursor.take(&Token::Comma) {
            cursor.expect(&Token::RParen).map_err(|_| cursor.expected("`,` or `)`"))?;
            break;
        }
    }
    Ok(sayings)
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
        let name = &self.name.name;
        let done = match &self.change {
            Change::Alias { alias, version } => registry::set_alias(session, name, alias, *version).await,
            Change::Sayings(sayings) => registry::say(session, name, sayings).await,
        };
        done.map_err(|error| error.at_offset(self.offset))?;
        let fact = |name: &str, value: String| Outcome::Fact { name: name.into(), value };
        let outcomes = match &self.change {
            Change::Alias { alias, version: Some(version) } => {
                vec![fact("alias", format!("{alias} = {}@{version}", self.name))]
            }
            Change::Alias { alias, version: None } => vec![fact("alias", format!("{alias} dropped"))],
            Change::Sayings(sayings) => {
                sayings.iter().map(|(what, text)| fact(what, text.clone().unwrap_or_else(|| "none".into()))).collect()
            }
        };
        Ok(Finished { outcomes, ..Finished::default() })
    }
}
