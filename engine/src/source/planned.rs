//! Files that a script will have written by the time a later statement reads them: while a script is only checked they
//! are not there, but their columns are known.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use storage::Location;

/// Places and the columns that will be found there. Empty unless a script is being checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planned {
    outputs: Arc<Mutex<Vec<(Location, SchemaRef)>>>,
}

impl Planned {
    /// From here on the place has these columns.
    pub(crate) fn expect(&self, location: &Location, columns: SchemaRef) {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner).push((location.clone(), columns));
    }

    /// The columns of a place that a checked statement would have written; of a glob, when the place matches its fixed
    /// part.
    pub(crate) fn columns(&self, location: &Location) -> Option<SchemaRef> {
        let wanted = if location.is_glob() { super::split_glob(location).0 } else { location.clone() };
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = outputs.iter().rev().find(|(known, _)| {
            known.path() == wanted.path()
                || known.is_directory_like() && wanted.path().prefix_matches(known.path())
                || location.is_glob() && known.path().prefix_matches(wanted.path())
        });
        found.map(|(_, columns)| Arc::clone(columns))
    }
}
