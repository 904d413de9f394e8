//! `FROM 'file.parquet'`: a table's name that no table has, and that looks like a place of files, is opened as such.

use std::sync::{OnceLock, Weak};

use async_trait::async_trait;
use datafusion::catalog::{TableProvider, UrlTableFactory};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::SessionState;
use datafusion::prelude::SessionContext;
use std::sync::Arc;
use storage::{Location, Stores};

use super::format::{Compression, Format};
use super::{Planned, TableSource, open};
use crate::syntax::versions::Versions;

/// See the module.
pub(crate) struct FileTables {
    stores: Stores,
    planned: Planned,
    versions: Versions,
    /// What relative paths are relative to.
    directory: Option<String>,
    /// The context holds the catalogs that hold this, so the way back is weak.
    context: OnceLock<Box<dyn Fn() -> Option<SessionState> + Send + Sync>>,
}

impl FileTables {
    pub(crate) fn new(stores: Stores, planned: Planned, versions: Versions, directory: Option<String>) -> Self {
        FileTables { stores, planned, versions, directory, context: OnceLock::new() }
    }

    /// Tells whose formats and options to open files with.
    pub(crate) fn attach(&self, context: &SessionContext) {
        let weak = context.state_weak_ref();
        let state = move || Weak::upgrade(&weak).map(|state| state.read().clone());
        // Attached once, by the builder of the session.
        let _ = self.context.set(Box::new(state));
    }
}

impl std::fmt::Debug for FileTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileTables")
    }
}

#[async_trait]
impl UrlTableFactory for FileTables {
    async fn try_new(&self, url: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(state) = self.context.get().and_then(|state| state()) else { return Ok(None) };
        if let Some(table) = self.versions.get(url) {
            return Ok(Some(table));
        }
        if !looks_like_files(url) {
            return Ok(None);
        }
        let external =
            |error: crate::Error| DataFusionError::External(Box::new(Unopened { name: url.to_string(), error }));
        let location = Location::parse_in(url, self.directory.as_deref()).map_err(|error| external(error.into()))?;
        let source = TableSource { locations: vec![location], ..TableSource::default() };
        let table = open(&state, &self.stores, &self.planned, source).await.map_err(external)?;
        Ok(Some(table))
    }
}

/// Why a name gives no table of files. Whoever has the statement's text can say where the name is.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Unopened {
    pub(crate) name: String,
    pub(crate) error: crate::Error,
}

/// A path, a URL, or a name that ends like a data file.
pub(crate) fn looks_like_files(name: &str) -> bool {
    let (stem, _) = Compression::strip(name);
    name.contains('/') || name.contains('*') || Format::of_name(stem).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_from_files() {
        for (name, expected) in [
            ("flights", false),
            ("flights.parquet", true),
            ("flights.csv.gz", true),
            ("data/", true),
            ("./data", true),
            ("*.csv", true),
            ("memory://x/y", true),
            ("v1.2", false),
        ] {
            assert_eq!(looks_like_files(name), expected, "{name}");
        }
    }
}
