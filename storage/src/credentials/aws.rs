//! Credentials for S3: OPTIONS and configuration, environment, profile, web identity, container, instance metadata. Which
//! source it will be is known when the store is opened; it is asked when the first request needs it, and again before
//! what it gave expires.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use object_store::aws::{AmazonS3Builder, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{ClientOptions, CredentialProvider, RetryConfig};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::profile::Profiles;
use super::{Found, sts};
use crate::error::Error;
use crate::settings::StoreSettings;
use crate::transport::Connector;

/// Keys are fetched again when they have no longer to live than this.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// Where keys come from.
pub(super) enum Source {
    /// They are known.
    Static(AwsCredential),
    /// A command prints them.
    Process(String),
    /// A portal gives them for a token that `aws sso login` has left.
    SingleSignOn { profile: String, start_url: String, region: String, account: String, role: String, cache: PathBuf },
    /// STS gives them to whoever has other keys.
    AssumeRole {
        base: Box<Source>,
        role_arn: String,
        session: Option<String>,
        external_id: Option<String>,
        seconds: u32,
    },
    /// STS gives them for a token in a file.
    WebIdentity { token_file: PathBuf, role_arn: String, session: Option<String> },
    /// The container's agent gives them.
    Container { url: String, authorization: Option<Authorization> },
    /// The machine's metadata service gives them.
    Instance,
}

/// What the container's agent wants to see.
pub(super) enum Authorization {
    Text(String),
    File(PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what())
    }
}

impl Source {
    /// In words, without a secret.
    pub(super) fn what(&self) -> String {
        match self {
            Source::Static(keys) if keys.token.is_some() => "a temporary key".to_string(),
            Source::Static(_) => "a key".to_string(),
            // Its arguments may hold anything.
            Source::Process(command) => {
                format!("the command {}", command.split_whitespace().next().unwrap_or_default())
            }
            Source::SingleSignOn { start_url, account, role, .. } => {
                format!("single sign-on at {start_url} as {role} of account {account}")
            }
            Source::AssumeRole { base, role_arn, .. } => format!("the role {role_arn}, assumed with {}", base.what()),
            Source::WebIdentity { token_file, role_arn, .. } => {
                format!("the role {role_arn}, for the token in {}", token_file.display())
            }
            Source::Container { url, .. } => format!("the container's agent at {url}"),
            Source::Instance => "instance metadata".to_string(),
        }
    }
}

/// What a source gives.
pub(super) struct Temporary {
    pub(super) key_id: String,
    pub(super) secret_key: String,
    pub(super) token: Option<String>,
    /// RFC 3339; `None` for ever.
    pub(super) expires: Option<String>,
}

/// Keys in the environment.
pub(super) fn of_environment(settings: &StoreSettings) -> Option<Source> {
    let (id, secret) = (settings.variable("AWS_ACCESS_KEY_ID")?, settings.variable("AWS_SECRET_ACCESS_KEY")?);
    let token = settings.variable("AWS_SESSION_TOKEN").map(str::to_string);
    Some(Source::Static(AwsCredential { key_id: id.to_string(), secret_key: secret.to_string(), token }))
}

/// The agent of a container, where the environment names one.
pub(super) fn of_container(settings: &StoreSettings) -> Option<Source> {
    let relative = settings.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let url = match relative {
        Some(path) => format!("http://169.254.170.2{path}"),
        None => settings.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")?.to_string(),
    };
    let file = settings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Authorization::File(path.into()));
    let text =
        || settings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|text| Authorization::Text(text.to_string()));
    Some(Source::Container { url, authorization: file.or_else(text) })
}

/// The region and the endpoint that the profile names.
#[derive(Debug, Default)]
pub(crate) struct ProfileFacts {
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// What the profile that is meant says beside its keys.
pub(crate) fn profile_facts(settings: &StoreSettings) -> Result<ProfileFacts, String> {
    let profiles = Profiles::read(settings)?;
    Ok(ProfileFacts { region: profiles.value("region"), endpoint: profiles.value("endpoint_url") })
}

/// Finds the source and makes a provider of it. `place` is for messages.
pub(crate) fn find(
    settings: &StoreSettings,
    region: &str,
    place: &str,
    connector: &Connector,
) -> Result<Found<AwsCredentialProvider>, String> {
    let (mut source, mut from) = choose(settings)?;
    if let Some(role_arn) = settings.get("storage.s3.role_arn") {
        from = format!("the role {role_arn} (storage.s3.role_arn), assumed with {from}");
        let (role_arn, base) = (role_arn.to_string(), Box::new(source));
        source = Source::AssumeRole { base, role_arn, session: None, external_id: None, seconds: 3600 };
    }
    let allow_http = settings.either("storage.s3.allow_http", "AWS_ALLOW_HTTP") == Some("true");
    let client = |allow_http: bool| {
        let options = ClientOptions::new().with_timeout(Duration::from_secs(10)).with_allow_http(allow_http);
        connector.connect(&options).map_err(|e| e.to_string())
    };
    let sts_endpoint = settings.either("storage.s3.sts_endpoint", "AWS_ENDPOINT_URL_STS").map(str::to_string);
    let provider = Chain {
        place: place.to_string(),
        from: from.clone(),
        source,
        region: region.to_string(),
        sts_endpoint: sts_endpoint.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com")),
        portal: settings.variable("AWS_ENDPOINT_URL_SSO").map(str::to_string),
        client: client(allow_http)?,
        agent: client(true)?,
        instance: instance(settings, connector)?,
        cache: Mutex::new(None),
    };
    Ok(Found { provider: Arc::new(provider), from })
}

/// The first source that is there, and where it was found.
fn choose(settings: &StoreSettings) -> Result<(Source, String), String> {
    let (id, secret) = (settings.get("storage.s3.access_key_id"), settings.get("storage.s3.secret_access_key"));
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let token = settings.get("storage.s3.session_token").map(str::to_string);
            let keys = AwsCredential { key_id: id.to_string(), secret_key: secret.to_string(), token };
            return Ok((Source::Static(keys), "OPTIONS or configuration (storage.s3.access_key_id)".to_string()));
        }
        (Some(_), None) => return Err("storage.s3.access_key_id is set and storage.s3.secret_access_key is not".into()),
        (None, Some(_)) => return Err("storage.s3.secret_access_key is set and storage.s3.access_key_id is not".into()),
        (None, None) => {}
    }
    let profiles = Profiles::read(settings)?;
    if settings.get("storage.s3.profile").is_none() {
        if let Some(source) = of_environment(settings) {
            return Ok((source, "environment (AWS_ACCESS_KEY_ID)".to_string()));
        }
        for (there, missing) in
            [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")]
        {
            if settings.variable(there).is_some() {
                return Err(format!("the environment has {there} and no {missing}"));
            }
        }
    }
    if let Some(found) = profiles.source(settings)? {
        return Ok(found);
    }
    if let (Some(file), Some(role)) =
        (settings.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), settings.variable("AWS_ROLE_ARN"))
    {
        let session = settings.variable("AWS_ROLE_SESSION_NAME").map(str::to_string);
        let source = Source::WebIdentity { token_file: file.into(), role_arn: role.to_string(), session };
        let from = format!("environment (AWS_WEB_IDENTITY_TOKEN_FILE): {}", source.what());
        return Ok((source, from));
    }
    if let Some(source) = of_container(settings) {
        let from = format!("environment (AWS_CONTAINER_CREDENTIALS_*): {}", source.what());
        return Ok((source, from));
    }
    if settings.variable("AWS_EC2_METADATA_DISABLED") == Some("true") {
        return Err(format!("{}, and AWS_EC2_METADATA_DISABLED is true; {HELP}", nowhere(&profiles)));
    }
    let from = format!("instance metadata ({})", nowhere(&profiles));
    Ok((Source::Instance, from))
}

const HELP: &str = "for data that is open to everybody set storage.s3.anonymous = true";

fn nowhere(profiles: &Profiles) -> String {
    format!("no credentials in OPTIONS, configuration, environment or profile {}", profiles.name)
}

/// The provider for the machine's own role; the one of `object_store`, told not to wait long where there is no such
/// service.
fn instance(settings: &StoreSettings, connector: &Connector) -> Result<AwsCredentialProvider, String> {
    let retry = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name("none").with_retry(retry);
    let endpoint = settings.either("storage.s3.metadata_endpoint", "AWS_METADATA_ENDPOINT");
    if let Some(endpoint) = endpoint.or_else(|| settings.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT")) {
        builder = builder.with_metadata_endpoint(endpoint.trim_end_matches('/'));
    }
    let store = builder.with_http_connector(connector.clone()).build().map_err(|e| e.to_string())?;
    Ok(Arc::clone(store.credentials()))
}

/// Keys, and when they end.
#[derive(Debug)]
struct Cached {
    keys: Arc<AwsCredential>,
    expires: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Chain {
    place: String,
    from: String,
    source: Source,
    region: String,
    sts_endpoint: String,
    portal: Option<String>,
    client: HttpClient,
    /// For agents on this machine, which speak plain HTTP.
    agent: HttpClient,
    instance: AwsCredentialProvider,
    cache: Mutex<Option<Cached>>,
}

#[async_trait]
impl CredentialProvider for Chain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cache = self.cache.lock().await;
        if let Some(cached) = &*cache
            && cached.expires.is_none_or(|end| end > Utc::now() + RENEW_BEFORE)
        {
            return Ok(Arc::clone(&cached.keys));
        }
        match self.fetch(&self.source).await {
            Ok(fetched) => {
                let keys = Arc::clone(&fetched.keys);
                *cache = Some(fetched);
                Ok(keys)
            }
            // What is left of the old ones is better than nothing.
            Err(_) if cache.as_ref().is_some_and(|old| old.expires.is_some_and(|end| end > Utc::now())) => {
                Ok(cache.as_ref().map(|old| Arc::clone(&old.keys)).expect("is_some_and has just seen it"))
            }
            Err(reason) => Err(Error::Credentials {
                location: self.place.clone(),
                reason: format!("credentials from {}: {reason}", self.from),
            }
            .into_store_error()),
        }
    }
}

impl Chain {
    async fn fetch(&self, source: &Source) -> Result<Cached, String> {
        let fetched = match source {
            Source::Static(keys) => return Ok(Cached { keys: Arc::new(copy(keys)), expires: None }),
            Source::Instance => {
                let keys = self.instance.get_credential().await.map_err(|e| {
                    let reason = e.to_string();
                    tracing::debug!("instance metadata: {reason}");
                    format!("the metadata service does not answer; {HELP}")
                })?;
                // Its own cache renews it; it is asked again each minute at most.
                let expires = Some(Utc::now() + RENEW_BEFORE + Duration::from_secs(60));
                return Ok(Cached { keys, expires });
            }
            Source::Process(command) => process(command).await?,
            Source::SingleSignOn { profile, start_url, region, account, role, cache } => {
                let token = portal_token(cache, start_url, profile).await?;
                let portal =
                    self.portal.clone().unwrap_or_else(|| format!("https://portal.sso.{region}.amazonaws.com"));
                self.single_sign_on(&portal, &token, account, role, profile).await?
            }
            Source::AssumeRole { base, role_arn, session, external_id, seconds } => {
                let base = Box::pin(self.fetch(base)).await?;
                let seconds = seconds.to_string();
                let mut form = vec![
                    ("Action", "AssumeRole"),
                    ("RoleArn", role_arn.as_str()),
                    ("RoleSessionName", session.as_deref().unwrap_or("gristmill")),
                    ("DurationSeconds", &seconds),
                ];
                form.extend(external_id.as_deref().map(|id| ("ExternalId", id)));
                let signer = Some(base.keys.as_ref());
                sts::security_token(&self.client, &self.sts_endpoint, &self.region, signer, &form).await?
            }
            Source::WebIdentity { token_file, role_arn, session } => {
                let token = file(token_file).await?;
                let form = [
                    ("Action", "AssumeRoleWithWebIdentity"),
                    ("RoleArn", role_arn.as_str()),
                    ("RoleSessionName", session.as_deref().unwrap_or("gristmill")),
                    ("WebIdentityToken", token.trim()),
                ];
                sts::security_token(&self.client, &self.sts_endpoint, &self.region, None, &form).await?
            }
            Source::Container { url, authorization } => self.container(url, authorization.as_ref()).await?,
        };
        let expires = fetched.expires.as_deref().map(|text| {
            let end = DateTime::parse_from_rfc3339(text).map(|end| end.with_timezone(&Utc));
            end.map_err(|_| format!("`{text}` is no time at which keys could expire"))
        });
        let expires = expires.transpose()?;
        if expires.is_some_and(|end| end <= Utc::now()) {
            return Err("what they give has expired already; is this machine's clock right?".to_string());
        }
        let keys = AwsCredential { key_id: fetched.key_id, secret_key: fetched.secret_key, token: fetched.token };
        Ok(Cached { keys: Arc::new(keys), expires })
    }

    async fn single_sign_on(
        &self,
        portal: &str,
        token: &str,
        account: &str,
        role: &str,
        profile: &str,
    ) -> Result<Temporary, String> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("role_name", role)
            .append_pair("account_id", account)
            .finish();
        let url = format!("{}/federation/credentials?{query}", portal.trim_end_matches('/'));
        let mut request = sts::request("GET", &url, String::new())?;
        let header = token.parse().map_err(|_| "the cached token is no header".to_string())?;
        request.headers_mut().insert("x-amz-sso_bearer_token", header);
        let (status, text) = sts::ask(&self.client, request).await?;
        if status == 401 {
            return Err(format!("the sign-on has expired: run aws sso login --profile {profile}"));
        }
        if status != 200 {
            return Err(format!("{portal} refused with status {status} (role {role}, account {account})"));
        }
        let answer: PortalAnswer =
            serde_json::from_str(&text).map_err(|_| format!("{portal}: its answer has no roleCredentials"))?;
        let keys = answer.role_credentials;
        let expires = DateTime::from_timestamp_millis(keys.expiration).map(|end| end.to_rfc3339());
        Ok(Temporary {
            key_id: keys.access_key_id,
            secret_key: keys.secret_access_key,
            token: Some(keys.session_token),
            expires,
        })
    }

    async fn container(&self, url: &str, authorization: Option<&Authorization>) -> Result<Temporary, String> {
        let mut request = sts::request("GET", url, String::new())?;
        let token = match authorization {
            Some(Authorization::File(path)) => Some(file(path).await?),
            Some(Authorization::Text(text)) => Some(text.clone()),
            None => None,
        };
        if let Some(token) = token {
            let header = token.trim().parse().map_err(|_| "the agent's token is no header".to_string())?;
            request.headers_mut().insert("authorization", header);
        }
        let (status, text) = sts::ask(&self.agent, request).await?;
        if status != 200 {
            return Err(format!("{url} answers with status {status}"));
        }
        let keys: PrintedKeys = serde_json::from_str(&text).map_err(|_| format!("{url}: its answer holds no keys"))?;
        Ok(keys.into())
    }
}

fn copy(keys: &AwsCredential) -> AwsCredential {
    AwsCredential { key_id: keys.key_id.clone(), secret_key: keys.secret_key.clone(), token: keys.token.clone() }
}

async fn file(path: &std::path::Path) -> Result<String, String> {
    tokio::fs::read_to_string(path).await.map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// What a command or a container's agent prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PrintedKeys {
    access_key_id: String,
    secret_access_key: String,
    #[serde(alias = "Token")]
    session_token: Option<String>,
    expiration: Option<String>,
}

impl From<PrintedKeys> for Temporary {
    fn from(keys: PrintedKeys) -> Self {
        let PrintedKeys { access_key_id, secret_access_key, session_token, expiration } = keys;
        Temporary { key_id: access_key_id, secret_key: secret_access_key, token: session_token, expires: expiration }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortalAnswer {
    role_credentials: PortalKeys,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortalKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    /// Milliseconds since 1970.
    expiration: i64,
}

/// Runs a command that prints keys as JSON. What it says on stderr goes to ours: it may ask the user something.
async fn process(command: &str) -> Result<Temporary, String> {
    let name = command.split_whitespace().next().unwrap_or_default().to_string();
    let output = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await;
    let output = output.map_err(|_| format!("{name} has not ended after 60 s"))?;
    let output = output.map_err(|e| format!("{name} cannot be run: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    // The parser's own message would show what was printed.
    let keys: PrintedKeys = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{name} printed no JSON with AccessKeyId and SecretAccessKey"))?;
    Ok(keys.into())
}

/// The token that `aws sso login` has left for a portal.
async fn portal_token(cache: &std::path::Path, start_url: &str, profile: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Token {
        start_url: Option<String>,
        access_token: Option<String>,
        expires_at: Option<String>,
    }
    let login = format!("run aws sso login --profile {profile}");
    let mut entries = tokio::fs::read_dir(cache).await.map_err(|_| format!("nobody has signed on yet: {login}"))?;
    let mut newest: Option<(DateTime<Utc>, String)> = None;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let Ok(text) = tokio::fs::read_to_string(entry.path()).await else { continue };
        let Ok(token) = serde_json::from_str::<Token>(&text) else { continue };
        let same = token
            .start_url
            .is_some_and(|url| url.trim_end_matches(['/', '#']) == start_url.trim_end_matches(['/', '#']));
        let (true, Some(access), Some(end)) = (same, token.access_token, token.expires_at) else { continue };
        // Older tools wrote 2020-01-01T00:00:00UTC.
        let Ok(end) = DateTime::parse_from_rfc3339(&end.replace("UTC", "Z")) else { continue };
        let end = end.with_timezone(&Utc);
        if newest.as_ref().is_none_or(|(before, _)| end > *before) {
            newest = Some((end, access));
        }
    }
    match newest {
        None => Err(format!("nobody has signed on at {start_url} yet: {login}")),
        Some((end, _)) if end <= Utc::now() => Err(format!("the sign-on has expired: {login}")),
        Some((_, token)) => Ok(token),
    }
}

#[cfg(test)]
#[path = "aws_tests.rs"]
mod tests;
