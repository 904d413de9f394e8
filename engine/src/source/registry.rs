//! The query engine's way to our object stores: it asks by URL, storage answers with a store that hides what is not
//! committed and counts what readers hold of it.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::ObjectStore;
use storage::{Location, Stores};
use url::Url;

use super::accounted::Accounted;
use crate::memory::FairPool;

/// See the module.
#[derive(Debug)]
pub(crate) struct StoreRegistry {
    stores: Stores,
    memory: Arc<FairPool>,
}

impl StoreRegistry {
    pub(crate) fn new(stores: Stores, memory: Arc<FairPool>) -> Self {
        StoreRegistry { stores, memory }
    }
}

impl ObjectStoreRegistry for StoreRegistry {
    /// Storage owns the stores: nothing is registered from outside.
    fn register_store(&self, _url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        Some(store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let external = |error: storage::Error| DataFusionError::External(Box::new(crate::Error::Storage(error)));
        let location = Location::parse(url.as_str()).map_err(external)?;
        let (store, _) = self.stores.reader(&location).map_err(external)?;
        Ok(Arc::new(Accounted::new(store, Arc::clone(&self.memory))))
    }
}
