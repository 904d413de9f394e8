//! Amazon S3 and stores that speak its language.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3CopyIfNotExists};
use object_store::{ClientConfigKey, ObjectStore};

use super::{Condition, Facts, refuse_plain_http, retry, sentence, timeout};
use crate::credentials::aws;
use crate::location::{Location, Scheme};
use crate::settings::StoreSettings;
use crate::transport::Connector;

/// The region that AWS's own tools take for granted.
const REGION: &str = "us-east-1";

pub(super) fn build(
    root: &Location,
    settings: &StoreSettings,
    connector: &Connector,
) -> Result<(Arc<dyn ObjectStore>, Facts), String> {
    let profile = aws::profile_facts(settings)?;
    let endpoint = endpoint(settings).or(profile.endpoint);
    let allow_http = settings.either("storage.s3.allow_http", "AWS_ALLOW_HTTP") == Some("true");
    if let Some(endpoint) = &endpoint {
        refuse_plain_http(endpoint, allow_http, "s3", "AWS_ALLOW_HTTP")?;
    }
    let (region, region_from) = region(settings, profile.region);

    let mut builder = AmazonS3Builder::new();
    for (name, value, _) in settings.for_builder(Scheme::S3) {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>()
            && !is_ours(&key)
        {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(root.authority())
        .with_region(&region)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout(settings))
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), allow_http.to_string())
        .with_retry(retry(settings))
        .with_http_connector(connector.clone());
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    } else {
        // Somebody's own store rarely has it.
        builder = builder.with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    }
    let anonymous = settings.either("storage.s3.anonymous", "AWS_SKIP_SIGNATURE") == Some("true");
    let credentials = if anonymous {
        "none: anonymous, as asked for".to_string()
    } else {
        let found = aws::find(settings, &region, &root.to_string(), connector)?;
        builder = builder.with_credentials(found.provider);
        found.from
    };
    let condition = match settings.either("storage.s3.conditional_put", "AWS_CONDITIONAL_PUT") {
        Some("disabled") => Condition::None,
        _ if endpoint.as_deref().is_none_or(|endpoint| endpoint.contains(".amazonaws.com")) => Condition::Native,
        _ => Condition::Untried,
    };
    let store = builder.build().map_err(|e| sentence(&e))?;
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    Ok((Arc::new(store), Facts { endpoint, credentials, region: Some((region, region_from)), condition }))
}

/// Settled here, and not by the builder.
fn is_ours(key: &AmazonS3ConfigKey) -> bool {
    use AmazonS3ConfigKey as Key;
    matches!(
        key,
        Key::AccessKeyId
            | Key::SecretAccessKey
            | Key::Token
            | Key::Endpoint
            | Key::S3Endpoint
            | Key::Region
            | Key::DefaultRegion
            | Key::Bucket
            | Key::Client(ClientConfigKey::Timeout | ClientConfigKey::AllowHttp)
    )
}

fn endpoint(settings: &StoreSettings) -> Option<String> {
    let variables = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let found = settings.get("storage.s3.endpoint");
    found.or_else(|| variables.iter().find_map(|name| settings.variable(name))).map(str::to_string)
}

fn region(settings: &StoreSettings, profile: Option<String>) -> (String, String) {
    let settled = [
        (settings.get("storage.s3.region"), "storage.s3.region"),
        (settings.variable("AWS_REGION"), "AWS_REGION"),
        (settings.variable("AWS_DEFAULT_REGION"), "AWS_DEFAULT_REGION"),
        (profile.as_deref(), "profile"),
    ];
    match settled.into_iter().find_map(|(region, from)| Some((region?, from))) {
        Some((region, from)) => (region.to_string(), from.to_string()),
        None => (REGION.to_string(), "guessed: no storage.s3.region, AWS_REGION or profile says another".to_string()),
    }
}
