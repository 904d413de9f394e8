//! When reading fails the query engine often does not say in which file. Here the files are asked one by one; it costs
//! another look at them, but only when a job is failing anyway.

use std::sync::Arc;

use datafusion::catalog::Session as CatalogSession;
use datafusion::datasource::file_format::FileFormat;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use object_store::{ObjectMeta, ObjectStore};

use crate::error::Error;
use crate::mistake::sentence;

/// The error of the first file whose columns cannot be found, with its name; the given error when each file alone can
/// be read (then they do not fit together).
pub(crate) async fn which_file(
    state: &SessionState,
    format: &Arc<dyn FileFormat>,
    store: &Arc<dyn ObjectStore>,
    objects: &[ObjectMeta],
    error: DataFusionError,
) -> Error {
    for object in objects {
        let alone = std::slice::from_ref(object);
        if let Err(error) = format.infer_schema(state as &dyn CatalogSession, store, alone).await {
            return unreadable(&object.location, format.as_ref(), &error);
        }
    }
    Error::invalid(format!("the files do not fit together: {}", sentence(&error.strip_backtrace())))
}

fn unreadable(path: &object_store::path::Path, format: &dyn FileFormat, error: &DataFusionError) -> Error {
    let reason = sentence(&error.find_root().strip_backtrace());
    let kind = format.get_ext().to_uppercase();
    Error::invalid(format!("/{path}: not readable as {kind}: {reason}"))
}
