//! Rows in files for workers: what a statement prepares once and others read piece by piece.
//!
//! The query runs as every other does, on the executors where there are some, and its rows go through COPY's sink into
//! Arrow files, one directory for each value of a column. There is no commit: whoever spreads the rows is told names,
//! counts and hashes of the files, names them to the readers, and removes the place when the work is done. What a task
//! leaves that was repeated is in no list, so nobody reads it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use futures::{StreamExt, TryStreamExt};
use storage::{Location, WrittenFile};
use uuid::Uuid;

use crate::error::Result;
use crate::extension::JobContext;
use crate::runner::Gather;
use crate::script::run::watch;
use crate::session::Session;
use crate::sink::encoding::FileOptions;
use crate::sink::{SinkNode, SinkSpec, written_files};
use crate::source::format::Format;

impl Session {
    /// Writes the rows of a frame as Arrow files of about `file_bytes`, in a directory of `place` for each value of the column
    /// `by`, which the files do not hold. Gives every file with its directory (`by=value`), rows, size and SHA-256.
    ///
    /// # Errors
    /// Whatever running the query and writing its rows meet; cancellation.
    pub async fn spread(
        &self,
        frame: DataFrame,
        place: &Location,
        by: &str,
        file_bytes: u64,
        job: &JobContext,
    ) -> Result<Vec<WrittenFile>> {
        let state = self.context().state();
        let defaults = state.default_table_options();
        let mut options = FileOptions::parse(&defaults, &self.options(), Format::Arrow, &HashMap::new(), None)?;
        options.target_file_size = file_bytes.max(1);
        let id = Uuid::new_v4().simple().to_string();
        let spec = Arc::new(SinkSpec::in_place(place, &id, options, vec![by.to_string()]).sealed());
        let (_, plan) = frame.into_parts();
        let written = async {
            let plan = SinkNode::plan(plan, Arc::clone(&spec))?;
            let execution = self.runner().run(self, plan, Gather::One).await?;
            let gauge = Arc::clone(&execution.gauge);
            let rows = futures::stream::iter(execution.partitions).flatten();
            let collected = async { Ok(rows.try_collect::<Vec<_>>().await?) };
            written_files(&watch(&job.events, &job.cancel, gauge.as_ref(), collected).await?)
        };
        let written = written.await;
        if written.is_err() {
            // Tasks that are being stopped may still be writing: what they leave must be there to be removed.
            spec.all_stopped().await;
        }
        written
    }

    /// The rows of such files, of these columns.
    ///
    /// # Errors
    /// A location that the query engine does not take.
    pub fn read_spread<'a>(
        &self,
        files: impl IntoIterator<Item = &'a Location>,
        columns: SchemaRef,
    ) -> Result<DataFrame> {
        let state = self.context().state();
        let format = Format::Arrow.reader(&state, &HashMap::new(), None)?;
        let url = |file: &Location| ListingTableUrl::try_new(file.url().clone(), None);
        let urls = files.into_iter().map(url).collect::<datafusion::error::Result<Vec<_>>>()?;
        let config = ListingTableConfig::new_with_multi_paths(urls)
            .with_listing_options(ListingOptions::new(format).with_file_extension(""))
            .with_schema(columns);
        Ok(self.context().read_table(Arc::new(ListingTable::try_new(config)?))?)
    }
}
