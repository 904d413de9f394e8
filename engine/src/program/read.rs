//! Files as a frame: `session.read("flights.parquet").await?`.

use std::collections::HashMap;
use std::future::IntoFuture;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::LogicalPlanBuilder;
use futures::FutureExt;
use futures::future::BoxFuture;
use storage::Location;

use crate::delta;
use crate::error::Result;
use crate::session::Session;
use crate::source::format::{Compression, Format};
use crate::source::{TableSource, open};

/// Files that are about to be opened: made by [`Session::read`], opened with `.await`.
#[must_use = "nothing is opened before `.await`"]
#[derive(Clone)]
pub struct Read<'a> {
    session: &'a Session,
    location: String,
    format: Option<String>,
    options: HashMap<String, String>,
    columns: Option<SchemaRef>,
    told: HashMap<String, DataType>,
    partitioned_by: Vec<String>,
}

impl Session {
    /// Files as a frame: a file, a directory (that COPY wrote, or with Hive partitions) or a glob. Format and compression
    /// follow the names unless they are told; columns are inferred unless they are given. The columns are qualified with
    /// the file's name without its endings, so that frames of several files can be joined without aliases.
    ///
    /// ```
    /// # async fn example(session: &engine::Session) -> engine::Result<()> {
    /// let flights = session.read("flights.parquet").await?;
    /// let weather = session.read("weather/*.csv.gz").option("null_value", "NA").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Nothing there (names the near file), a file that cannot be read as its format, an option that the format does not
    /// have.
    pub fn read(&self, location: impl Into<String>) -> Read<'_> {
        Read {
            session: self,
            location: location.into(),
            format: None,
            options: HashMap::new(),
            columns: None,
            told: HashMap::new(),
            partitioned_by: Vec::new(),
        }
    }
}

impl Read<'_> {
    /// `parquet`, `csv`, `tsv`, `json` (one object a line), `arrow`, `avro` or `delta`, when the names do not tell.
    pub fn format(mut self, name: impl Into<String>) -> Self {
        self.format = Some(name.into());
        self
    }

    /// An option of the format, as in `CREATE EXTERNAL TABLE ... OPTIONS`: `null_value`, `has_header`, `delimiter`, ...
    pub fn option(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.options.insert(key.into(), value.to_string());
        self
    }

    /// The columns, those of partitions included, instead of what the files tell.
    pub fn columns(mut self, schema: SchemaRef) -> Self {
        self.columns = Some(schema);
        self
    }

    /// Types of some columns, where the format's rows are text (CSV, JSON) and do not say them: codes of digits are text. A
    /// value that is none of its type is an error with its row.
    pub fn types(mut self, types: HashMap<String, DataType>) -> Self {
        self.told = types;
        self
    }

    /// Columns that the names of directories hold (`month=3/`); found without being told in directories and globs.
    pub fn partitioned_by(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.partitioned_by = columns.into_iter().map(Into::into).collect();
        self
    }

    async fn open(self) -> Result<DataFrame> {
        let location = self.session.options().place(&self.location)?;
        let name = qualifier(&location);
        let delta = self.format.as_deref().is_some_and(delta::is_named);
        let source = TableSource {
            locations: vec![location],
            format: self.format.as_deref().filter(|_| !delta).map(Format::parse).transpose()?,
            delta,
            options: self.options,
            columns: self.columns,
            told: self.told,
            partition_columns: self.partitioned_by,
            ..TableSource::default()
        };
        let session = self.session;
        let table = open(&session.context().state(), session.stores(), session.planned(), source).await?;
        let plan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?.build()?;
        Ok(session.data_frame(plan))
    }
}

impl<'a> IntoFuture for Read<'a> {
    type Output = Result<DataFrame>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.open().boxed()
    }
}

/// `data/flights.csv.gz` → `flights`, `out/scored/` → `scored`; a glob has the name of its directory.
fn qualifier(location: &Location) -> String {
    let (base, pattern) = crate::source::split_glob(location);
    let name = if pattern.is_empty() { location } else { &base }.file_name().unwrap_or_default();
    let (stem, _) = Compression::strip(name);
    stem.split('.').next().filter(|name| !name.is_empty()).unwrap_or("files").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_qualified_by_the_files_name() {
        for (location, name) in [
            ("data/flights.csv.gz", "flights"),
            ("Flights.2013.parquet", "flights"),
            ("out/scored/", "scored"),
            ("weather/*.csv", "weather"),
        ] {
            assert_eq!(qualifier(&Location::parse(location).unwrap()), name, "{location}");
        }
    }
}
