//! Google Cloud Storage. Credentials are found by `object_store`: a service account, application default credentials (the
//! variable, then the file that `gcloud auth application-default login` writes), the metadata server.

use std::path::Path;
use std::sync::Arc;

use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ObjectStore, RetryConfig, StaticCredentialProvider};

use super::{Condition, Facts, refuse_plain_http, retry, sentence, timeout};
use crate::location::{Location, Scheme};
use crate::settings::StoreSettings;
use crate::transport::Connector;

const ENDPOINT: &str = "https://storage.googleapis.com";
/// What `gcloud auth application-default login` writes.
const DEFAULTS: &str = "application_default_credentials.json";
const SERVICE_ACCOUNT: [&str; 2] = ["storage.gcs.service_account", "storage.gcs.service_account_key"];

pub(super) fn build(
    root: &Location,
    settings: &StoreSettings,
    connector: &Connector,
) -> Result<(Arc<dyn ObjectStore>, Facts), String> {
    let own = settings.any(&SERVICE_ACCOUNT) || settings.any(&["storage.gcs.application_credentials"]);
    let mut builder = GoogleCloudStorageBuilder::new();
    for (name, value, is_setting) in settings.for_builder(Scheme::Gcs) {
        let Ok(key) = name.parse::<GoogleConfigKey>() else { continue };
        let is_credential = matches!(
            key,
            GoogleConfigKey::ServiceAccount
                | GoogleConfigKey::ServiceAccountKey
                | GoogleConfigKey::ApplicationCredentials
        );
        // Credentials of the environment would be mixed with those that were set.
        if is_setting || !(own && is_credential) {
            builder = builder.with_config(key, value);
        }
    }
    let emulator = settings.variable("STORAGE_EMULATOR_HOST").map(|host| match host.split_once("://") {
        Some(_) => host.to_string(),
        None => format!("http://{host}"),
    });
    let endpoint = settings.either("storage.gcs.endpoint", "GOOGLE_BASE_URL").map(str::to_string);
    // An emulator is plain HTTP, and naming it is asking for it.
    let allow_http = settings.either("storage.gcs.allow_http", "GOOGLE_ALLOW_HTTP") == Some("true")
        || (endpoint.is_none() && emulator.is_some());
    let endpoint = endpoint.or_else(|| emulator.clone());
    if let Some(endpoint) = &endpoint {
        refuse_plain_http(endpoint, allow_http, "gcs", "GOOGLE_ALLOW_HTTP")?;
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    // Where `gcloud` keeps its files when it was told; without that `object_store` looks in the home directory.
    let elsewhere = settings
        .variable("CLOUDSDK_CONFIG")
        .map(|directory| Path::new(directory).join(DEFAULTS))
        .filter(|path| !own && settings.variable("GOOGLE_APPLICATION_CREDENTIALS").is_none() && path.exists());
    if let Some(path) = &elsewhere {
        builder = builder.with_application_credentials(path.display().to_string());
    }
    let credentials = credentials(settings, own, emulator.is_some());
    if emulator.is_some() && !own && settings.variable("GOOGLE_APPLICATION_CREDENTIALS").is_none() {
        let nobody = GcpCredential { bearer: String::new() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody))).with_skip_signature(true);
    }
    let retry = if credentials.starts_with(METADATA) {
        // Where there is no metadata server it would be asked for minutes.
        RetryConfig { max_retries: settings.max_retries().min(4), ..retry(settings) }
    } else {
        retry(settings)
    };
    let store = builder
        .with_bucket_name(root.authority())
        .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), timeout(settings))
        .with_retry(retry)
        .with_http_connector(connector.clone())
        .build()
        .map_err(|e| sentence(&e))?;
    let condition = if endpoint.is_none() { Condition::Native } else { Condition::Untried };
    let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.to_string());
    Ok((Arc::new(store), Facts { endpoint, credentials, region: None, condition }))
}

const METADATA: &str = "metadata server";

fn credentials(settings: &StoreSettings, own: bool, emulator: bool) -> String {
    if settings.either("storage.gcs.anonymous", "GOOGLE_SKIP_SIGNATURE") == Some("true") {
        return "none: anonymous, as asked for".to_string();
    }
    if own {
        return "OPTIONS or configuration (storage.gcs.service_account)".to_string();
    }
    for name in ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"] {
        if settings.variable(name).is_some() {
            return format!("environment ({name})");
        }
    }
    if let Some(path) = settings.variable("GOOGLE_APPLICATION_CREDENTIALS") {
        return format!("environment (GOOGLE_APPLICATION_CREDENTIALS: {path})");
    }
    if emulator {
        return "none: STORAGE_EMULATOR_HOST names an emulator".to_string();
    }
    let home = Path::new(settings.variable("HOME").unwrap_or_default()).join(".config/gcloud");
    let defaults = settings.variable("CLOUDSDK_CONFIG").map_or(home, |directory| Path::new(directory).to_path_buf());
    let defaults = defaults.join(DEFAULTS);
    if defaults.exists() {
        return format!("application default credentials ({})", defaults.display());
    }
    format!("{METADATA} (no credentials in OPTIONS, configuration, environment or {})", defaults.display())
}
