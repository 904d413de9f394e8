//! Web servers: files by name, and lists where the server speaks WebDAV. Nothing is written to them.

use std::sync::Arc;

use object_store::http::HttpBuilder;
use object_store::{ClientOptions, ObjectStore};

use super::{Condition, Facts, retry, sentence};
use crate::location::Location;
use crate::settings::StoreSettings;
use crate::transport::Connector;

pub(super) fn build(
    root: &Location,
    settings: &StoreSettings,
    connector: &Connector,
) -> Result<(Arc<dyn ObjectStore>, Facts), String> {
    // Whoever writes http:// means it.
    let options = ClientOptions::new().with_allow_http(true).with_timeout(settings.request_timeout());
    let store = HttpBuilder::new()
        .with_url(root.url().as_str())
        .with_client_options(options)
        .with_retry(retry(settings))
        .with_http_connector(connector.clone())
        .build()
        .map_err(|e| sentence(&e))?;
    let facts = Facts {
        endpoint: root.url().to_string(),
        credentials: "none: web servers are asked anonymously".to_string(),
        region: None,
        condition: Condition::None,
    };
    Ok((Arc::new(store), facts))
}
