//! One statement: `session.sql("...").await?`.

use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::LogicalPlanBuilder;

use crate::error::{Error, Result};
use crate::script::run::Job;
use crate::script::{Kind, RunSettings, Script, parse, sql};
use crate::session::Session;

impl Session {
    /// Any one statement that a script may hold. A query becomes a frame that is run when its rows are wanted; anything else
    /// (a table, a view, COPY, a model, an assertion) is done before this returns and gives an empty frame, or the rows
    /// that the statement shows. Scripts of several statements run with [`Session::run_script`].
    ///
    /// # Errors
    /// The statement's error, at its place in `text`.
    pub async fn sql(&self, text: &str) -> Result<DataFrame> {
        let script = Script::parse("sql", text)?;
        let [range] = script.ranges() else {
            let several = format!("expected one statement, got {}", script.len());
            return Err(Error::invalid(several).with_hint("run_script runs a whole script"));
        };
        let settings = RunSettings::default();
        let job = Job::new(self, &settings, &script, 1);
        let done = one(&job, &script.text()[range.clone()]).await;
        done.map_err(|error| script.locate(error, range.start))
    }
}

async fn one(job: &Job<'_>, text: &str) -> Result<DataFrame> {
    let session = job.session;
    let shown = match parse(session, text)? {
        Kind::Sql(tokens) => match sql::execute(session, text, tokens, Some(job)).await? {
            sql::Outcome::Rows(frame) => Some(frame),
            sql::Outcome::Done(_) => None,
        },
        Kind::Extension(statement) => statement.run(session, &job.context(text)).await?.result,
        kind => job.run(kind, 1, text).await?.result,
    };
    match shown {
        Some(frame) => Ok(frame),
        None => Ok(session.data_frame(LogicalPlanBuilder::empty(false).build()?)),
    }
}
