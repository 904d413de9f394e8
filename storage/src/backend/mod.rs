//! The one place where a store is built for a location. What differs from vendor to vendor ends here: above it there are
//! paths, bytes and errors that name the thing.

mod azure;
mod gcs;
mod hdfs;
mod s3;
mod web;

use std::sync::Arc;

use object_store::{ObjectStore, RetryConfig};

use crate::error::{Error, Result};
use crate::location::{Location, Scheme};
use crate::settings::StoreSettings;
use crate::steady::Steady;
use crate::transport::Connector;

/// What is known of a store before it is asked anything.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its address.
    pub endpoint: String,
    /// Where credentials come from, in words.
    pub credentials: String,
    /// The region that requests are signed for, and where it was found.
    pub region: Option<(String, String)>,
    /// How its writers decide who is first.
    pub condition: Condition,
}

/// How a store decides who is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It can put an object only where none is.
    Native,
    /// Its kind can, but this one is somebody's own: it must be tried.
    Untried,
    /// It cannot.
    None,
}

/// Builds the store that holds `location`.
pub(crate) fn build(
    location: &Location,
    settings: &StoreSettings,
    connector: &Connector,
) -> Result<(Arc<dyn ObjectStore>, Facts)> {
    let root = location.root();
    let built = match location.scheme() {
        Scheme::S3 => s3::build(&root, settings, connector),
        Scheme::Gcs => gcs::build(&root, settings, connector),
        Scheme::Azure => azure::build(&root, settings, connector),
        Scheme::Http | Scheme::Https => web::build(&root, settings, connector),
        Scheme::Hdfs | Scheme::Viewfs => hdfs::build(&root),
        Scheme::File | Scheme::Memory => unreachable!("files and memory are no back ends"),
    };
    let (store, facts) = built.map_err(|reason| Error::Location { location: root.to_string(), reason })?;
    let store = Arc::new(Steady::new(store, root, facts.clone()));
    Ok((store, facts))
}

/// How often and for how long requests are repeated.
fn retry(settings: &StoreSettings) -> RetryConfig {
    RetryConfig {
        max_retries: settings.max_retries(),
        retry_timeout: settings.retry_timeout(),
        ..RetryConfig::default()
    }
}

/// The text for the setting `timeout` of a builder.
fn timeout(settings: &StoreSettings) -> String {
    format!("{}ms", settings.request_timeout().as_millis())
}

/// Refuses an address without TLS that nobody has asked for.
fn refuse_plain_http(endpoint: &str, allowed: bool, section: &str, variable: &str) -> Result<(), String> {
    if !endpoint.starts_with("http://") || allowed {
        return Ok(());
    }
    Err(format!(
        "the endpoint {endpoint} has no TLS, so that everybody on the way can read what is sent; if that is meant, set \
         storage.{section}.allow_http = true, {variable}=true, or OPTIONS ('storage.{section}.allow_http' 'true')"
    ))
}

/// What a builder says, without the name of the store in front.
fn sentence(error: &object_store::Error) -> String {
    match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}
