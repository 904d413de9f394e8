//! A frame as files: `session.write(frame, "out/").partitioned_by(["month"]).await?`.

use std::collections::HashMap;
use std::future::IntoFuture;

use datafusion::dataframe::DataFrame;
use futures::FutureExt;
use futures::future::BoxFuture;
use storage::CommitMode;

use crate::delta;
use crate::error::{Error, Result};
use crate::events::Outcome;
use crate::script::copy::Copy;
use crate::script::run::Job;
use crate::script::{RunSettings, Script};
use crate::session::Session;
use crate::source::format::Format;

/// Rows that are about to be written: made by [`Session::write`], written with `.await`.
#[must_use = "nothing is written before `.await`"]
pub struct Write<'a> {
    session: &'a Session,
    frame: DataFrame,
    target: String,
    format: Option<String>,
    options: HashMap<String, String>,
    partitioned_by: Vec<String>,
    mode: CommitMode,
    settings: RunSettings,
}

/// An output that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where it is.
    pub location: String,
    /// Files that were written.
    pub files: u64,
    /// Their rows.
    pub rows: u64,
    /// Their size.
    pub bytes: u64,
}

impl Session {
    /// Writes the rows of a frame: `COPY` for programs. A location that ends in `/` becomes a directory with a file or more
    /// per partition, any other a single file. The output appears whole or not at all; what is there already is an error
    /// unless [`Write::append`], [`Write::overwrite`] or [`Write::overwrite_partitions`] is said.
    ///
    /// ```
    /// # async fn example(session: &engine::Session) -> engine::Result<()> {
    /// let late = session.sql("SELECT * FROM 'flights.parquet' WHERE arr_delay > 15").await?;
    /// let written = session.write(late, "out/late/").partitioned_by(["month"]).overwrite().await?;
    /// println!("{} rows in {} files", written.rows, written.files);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An output that exists, a format that cannot be told or does not hold the frame's types, a column that does not
    /// exist, whatever running the query finds.
    pub fn write(&self, frame: DataFrame, target: impl Into<String>) -> Write<'_> {
        Write {
            session: self,
            frame,
            target: target.into(),
            format: None,
            options: HashMap::new(),
            partitioned_by: Vec::new(),
            mode: CommitMode::ErrorIfExists,
            settings: RunSettings::default(),
        }
    }
}

impl Write<'_> {
    /// `parquet`, `csv`, `tsv`, `json` (one object a line), `arrow` or `delta`. A directory is written as Parquet and a file as its
    /// name tells, when nothing is said.
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// An option of the format, as in `COPY ... OPTIONS`: `compression`, `target_file_size`, ...
    pub fn option(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.options.insert(key.into().to_lowercase(), value.to_string());
        self
    }

    /// Columns whose values become names of directories (`month=3/`).
    pub fn partitioned_by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.partitioned_by = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Adds the rows to those that are there.
    pub fn append(mut self) -> Self {
        self.mode = CommitMode::Append;
        self
    }

    /// Replaces the rows that are there, in one step.
    pub fn overwrite(mut self) -> Self {
        self.mode = CommitMode::Overwrite;
        self
    }

    /// Replaces the partitions that the frame has rows of, in one step; the others stay.
    pub fn overwrite_partitions(mut self) -> Self {
        self.mode = CommitMode::OverwritePartitions;
        self
    }

    /// Where events go, and what stops the writing.
    pub fn settings(mut self, settings: RunSettings) -> Self {
        self.settings = settings;
        self
    }

    async fn run(self) -> Result<Written> {
        let delta = self.format.as_deref().is_some_and(delta::is_named);
        let format = self.format.as_deref().filter(|_| !delta).map(Format::parse).transpose()?;
        let format = format.or_else(|| self.target.ends_with('/').then_some(Format::Parquet));
        let copy = Copy::of_program(self.target, format, delta, self.mode, self.partitioned_by, self.options);
        let script = Script::parse("write", String::new())?;
        let job = Job::new(self.session, &self.settings, &script, 1);
        let finished = copy.write(&job, self.frame, "").await?;
        let committed = finished.outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Committed { location, files, rows, bytes } => Some(Written { location, files, rows, bytes }),
            _ => None,
        });
        committed.ok_or_else(|| Error::invalid("the writer committed nothing"))
    }
}

impl<'a> IntoFuture for Write<'a> {
    type Output = Result<Written>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}
