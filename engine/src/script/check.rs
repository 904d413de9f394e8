//! `gristmill check`: every statement is parsed and planned, in order, and nothing is read but the schemas of files.
//! Tables, views and models that statements would make are known to those after them.

use super::{Kind, RunSettings, Script, parse, sql};
use crate::error::Result;
use crate::session::Session;

impl Session {
    /// Checks the script; the session then knows what its definitions define, so it should be one of its own.
    ///
    /// # Errors
    /// The first mistake, at its place.
    pub async fn check_script(&self, script: &Script, settings: &RunSettings) -> Result<()> {
        script.check_parameters(&settings.parameters)?;
        for range in script.ranges() {
            let text = &script.text()[range.clone()];
            self.check_statement(text, settings).await.map_err(|error| script.locate(error, range.start))?;
        }
        Ok(())
    }

    async fn check_statement(&self, text: &str, settings: &RunSettings) -> Result<()> {
        match parse(self, text)? {
            Kind::Declare(declare) => {
                let given = settings.given(&declare.name);
                self.set_parameter(declare.evaluate(self, text, given).await?);
            }
            Kind::Set(set) => set.apply(self)?,
            Kind::Assert(assert) => assert.check(self, text).await?,
            Kind::Copy(copy) => copy.check(self, text).await?,
            Kind::Extension(statement) => statement.check(self).await?,
            Kind::Sql(tokens) => match sql::execute(self, text, tokens, None).await? {
                sql::Outcome::Rows(frame) => {
                    frame.create_physical_plan().await.map_err(|error| self.explain(error, text))?;
                }
                sql::Outcome::Done(_) => {}
            },
        }
        Ok(())
    }
}
