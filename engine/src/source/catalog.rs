//! The session's catalogs, whose schemas also know files by name (`FROM 'a.parquet'`). The query engine's own wrapper
//! does the same and cannot drop schemas.

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, DynamicFileSchemaProvider, SchemaProvider, UrlTableFactory,
};
use datafusion::error::Result;

/// A list of catalogs with files in each of their schemas.
#[derive(Debug)]
pub(crate) struct FileCatalogs {
    inner: Arc<dyn CatalogProviderList>,
    files: Arc<dyn UrlTableFactory>,
}

impl FileCatalogs {
    pub(crate) fn new(inner: Arc<dyn CatalogProviderList>, files: Arc<dyn UrlTableFactory>) -> Self {
        FileCatalogs { inner, files }
    }

    fn with_files(&self, inner: Arc<dyn CatalogProvider>) -> Arc<dyn CatalogProvider> {
        Arc::new(FileCatalog { inner, files: Arc::clone(&self.files) })
    }
}

impl CatalogProviderList for FileCatalogs {
    fn register_catalog(&self, name: String, catalog: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        self.inner.register_catalog(name, catalog)
    }

    fn catalog_names(&self) -> Vec<String> {
        self.inner.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        self.inner.catalog(name).map(|catalog| self.with_files(catalog))
    }
}

#[derive(Debug)]
struct FileCatalog {
    inner: Arc<dyn CatalogProvider>,
    files: Arc<dyn UrlTableFactory>,
}

impl CatalogProvider for FileCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.inner.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = self.inner.schema(name)?;
        Some(Arc::new(DynamicFileSchemaProvider::new(schema, Arc::clone(&self.files))))
    }

    fn register_schema(&self, name: &str, schema: Arc<dyn SchemaProvider>) -> Result<Option<Arc<dyn SchemaProvider>>> {
        self.inner.register_schema(name, schema)
    }

    fn deregister_schema(&self, name: &str, cascade: bool) -> Result<Option<Arc<dyn SchemaProvider>>> {
        self.inner.deregister_schema(name, cascade)
    }
}
