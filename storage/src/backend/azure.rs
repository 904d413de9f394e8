//! Azure Blob Storage and Data Lake Gen2. Credentials are found by `object_store`: key, token or signature, workload
//! identity, an application's secret, the command `az`, a managed identity.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::{ClientConfigKey, ObjectStore};

use super::{Condition, Facts, refuse_plain_http, retry, sentence, timeout};
use crate::location::{Location, Scheme};
use crate::settings::StoreSettings;
use crate::transport::Connector;

const CREDENTIALS: &[&str] = &[
    "storage.azure.access_key",
    "storage.azure.sas_token",
    "storage.azure.bearer_token",
    "storage.azure.client_secret",
    "storage.azure.federated_token_file",
];

pub(super) fn build(
    root: &Location,
    settings: &StoreSettings,
    connector: &Connector,
) -> Result<(Arc<dyn ObjectStore>, Facts), String> {
    let own = settings.any(CREDENTIALS);
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value, is_setting) in settings.for_builder(Scheme::Azure) {
        let Ok(key) = name.parse::<AzureConfigKey>() else { continue };
        // Credentials of the environment would be mixed with those that were set.
        if is_setting || !(own && is_credential(&key)) {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = settings.variable("IDENTITY_ENDPOINT").or_else(|| settings.variable("MSI_ENDPOINT"))
        && settings.get("storage.azure.msi_endpoint").is_none()
    {
        builder = builder.with_msi_endpoint(endpoint);
    }
    let (container, account) = match root.authority().split_once('@') {
        Some((container, host)) => (container, host.split('.').next().map(str::to_string)),
        None => (root.authority(), None),
    };
    if root.authority().ends_with(".fabric.microsoft.com") {
        builder = builder.with_use_fabric_endpoint(true);
    }
    builder = builder.with_container_name(container);
    if let Some(account) = &account {
        builder = builder.with_account(account);
    }
    let emulator = builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|text| text == "true");
    let account = builder.get_config_value(&AzureConfigKey::AccountName);
    if account.is_none() && !emulator {
        return Err("which storage account? write abfss://container@account.dfs.core.windows.net/path, or set \
                    storage.azure.account or AZURE_STORAGE_ACCOUNT_NAME"
            .to_string());
    }
    let own_endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    let allow_http = settings.either("storage.azure.allow_http", "AZURE_ALLOW_HTTP") == Some("true");
    if let Some(endpoint) = &own_endpoint {
        refuse_plain_http(endpoint, allow_http, "azure", "AZURE_ALLOW_HTTP")?;
    }
    let credentials = credentials(&builder, own, emulator);
    let store = builder
        .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), timeout(settings))
        .with_retry(retry(settings))
        .with_http_connector(connector.clone())
        .build()
        .map_err(|e| sentence(&e))?;
    let condition = if own_endpoint.is_some() || emulator { Condition::Untried } else { Condition::Native };
    let endpoint = own_endpoint.unwrap_or_else(|| match emulator {
        true => "the emulator on this machine".to_string(),
        false => format!("https://{}.blob.core.windows.net", account.unwrap_or_default()),
    });
    Ok((Arc::new(store), Facts { endpoint, credentials, region: None, condition }))
}

fn is_credential(key: &AzureConfigKey) -> bool {
    use AzureConfigKey as Key;
    matches!(
        key,
        Key::AccessKey
            | Key::SasKey
            | Key::Token
            | Key::ClientId
            | Key::ClientSecret
            | Key::AuthorityId
            | Key::FederatedTokenFile
    )
}

/// What the builder will use, in its own order.
fn credentials(builder: &MicrosoftAzureBuilder, own: bool, emulator: bool) -> String {
    use AzureConfigKey as Key;
    let has = |key: Key| builder.get_config_value(&key).is_some();
    let is_true = |key: Key| builder.get_config_value(&key).is_some_and(|text| text == "true");
    let place = if own { "OPTIONS or configuration" } else { "environment" };
    if is_true(Key::SkipSignature) {
        return "none: anonymous, as asked for".to_string();
    }
    if has(Key::Token) {
        format!("{place}: a token")
    } else if has(Key::AccessKey) {
        format!("{place}: the account's key")
    } else if has(Key::ClientId) && has(Key::AuthorityId) && has(Key::FederatedTokenFile) {
        format!("{place}: workload identity")
    } else if has(Key::ClientId) && has(Key::ClientSecret) && has(Key::AuthorityId) {
        format!("{place}: an application and its secret")
    } else if has(Key::SasKey) {
        format!("{place}: a shared access signature")
    } else if emulator {
        "the emulator's well-known key".to_string()
    } else if is_true(Key::UseAzureCli) {
        "the command az".to_string()
    } else {
        "managed identity (nothing in OPTIONS, configuration or environment; for the command az set \
         storage.azure.use_azure_cli = true)"
            .to_string()
    }
}
