//! What stores are told: where they are, who asks, how patient to be. A setting comes from OPTIONS of a statement, from
//! the configuration, or from the environment variables that the vendors' own tools read, in this order.
//!
//! Values of secret settings are never shown: not by `Debug`, not in messages, not by `config show`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::location::Scheme;

/// A setting that stores know.
#[derive(Debug, Clone, Copy)]
pub struct StoreKey {
    /// `storage.s3.region`, or `storage.max_requests` for all stores.
    pub key: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
    /// Never shown.
    pub secret: bool,
    /// How the builder in `object_store` calls it; empty for our own.
    builder: &'static str,
    /// Other spellings of its last part, as people know them from other tools.
    also: &'static [&'static str],
}

const fn plain(key: &'static str, builder: &'static str, description: &'static str) -> StoreKey {
    StoreKey { key, description, secret: false, builder, also: &[] }
}

const fn secret(key: &'static str, builder: &'static str, description: &'static str) -> StoreKey {
    StoreKey { key, description, secret: true, builder, also: &[] }
}

const fn also(key: StoreKey, also: &'static [&'static str]) -> StoreKey {
    StoreKey { also, ..key }
}

/// All of them.
pub const STORE_KEYS: &[StoreKey] = &[
    plain("storage.max_requests", "", "Requests that one host is asked at a time."),
    plain("storage.request_timeout", "", "Seconds that a request may take, its answer included."),
    plain("storage.max_retries", "", "How often a request that failed for a passing reason is repeated."),
    plain("storage.retry_timeout", "", "Seconds after which a request is not repeated any more."),
    plain("storage.lease_timeout", "", "Seconds without a sign of life after which a writer counts as dead."),
    plain("storage.single_writer", "", "Nobody else writes: a store without conditional writes may be written to."),
    also(plain("storage.s3.endpoint", "endpoint", "Address of a store that speaks S3."), &["endpoint_url"]),
    plain("storage.s3.region", "region", "Region of the bucket."),
    plain("storage.s3.access_key_id", "access_key_id", "Access key."),
    secret("storage.s3.secret_access_key", "secret_access_key", "Secret of the access key."),
    also(secret("storage.s3.session_token", "session_token", "Token of a temporary key."), &["token"]),
    plain("storage.s3.profile", "", "Profile in ~/.aws/config and ~/.aws/credentials."),
    plain("storage.s3.role_arn", "", "Role to assume."),
    also(plain("storage.s3.anonymous", "skip_signature", "Ask without credentials."), &["skip_signature"]),
    plain("storage.s3.allow_http", "allow_http", "Allow an endpoint without TLS."),
    also(
        plain("storage.s3.virtual_hosted_style", "virtual_hosted_style_request", "The bucket is in the host's name."),
        &["virtual_hosted_style_request"],
    ),
    plain("storage.s3.request_payer", "request_payer", "Pay for requests to another's bucket."),
    plain("storage.s3.conditional_put", "conditional_put", "etag, or disabled for a store that has no If-None-Match."),
    plain("storage.s3.server_side_encryption", "server_side_encryption", "AES256, aws:kms, aws:kms:dsse or sse-c."),
    plain("storage.s3.sse_kms_key_id", "sse_kms_key_id", "Key for server-side encryption."),
    plain("storage.s3.unsigned_payload", "unsigned_payload", "Do not sign the bytes of uploads."),
    also(
        plain("storage.s3.sts_endpoint", "", "Address of the service that gives temporary keys."),
        &["endpoint_url_sts"],
    ),
    plain("storage.s3.metadata_endpoint", "metadata_endpoint", "Address of the instance metadata service."),
    also(
        plain("storage.gcs.service_account", "service_account", "File of a service account's key."),
        &["service_account_path"],
    ),
    secret("storage.gcs.service_account_key", "service_account_key", "A service account's key as JSON."),
    also(
        plain("storage.gcs.application_credentials", "application_credentials", "File of application credentials."),
        &["application_credentials_path"],
    ),
    also(plain("storage.gcs.endpoint", "base_url", "Address of a store that speaks GCS."), &["base_url"]),
    also(plain("storage.gcs.anonymous", "skip_signature", "Ask without credentials."), &["skip_signature"]),
    plain("storage.gcs.allow_http", "allow_http", "Allow an endpoint without TLS."),
    also(plain("storage.azure.account", "account_name", "Storage account."), &["account_name"]),
    also(secret("storage.azure.access_key", "access_key", "The account's key."), &["account_key"]),
    also(secret("storage.azure.sas_token", "sas_token", "Shared access signature."), &["sas_key"]),
    also(secret("storage.azure.bearer_token", "bearer_token", "Token that somebody else has got."), &["token"]),
    plain("storage.azure.client_id", "client_id", "Application or managed identity."),
    secret("storage.azure.client_secret", "client_secret", "The application's secret."),
    plain("storage.azure.tenant_id", "tenant_id", "Directory of the application."),
    plain("storage.azure.authority_host", "authority_host", "Address of the service that gives tokens."),
    plain("storage.azure.federated_token_file", "federated_token_file", "Token of a workload identity."),
    plain("storage.azure.msi_endpoint", "msi_endpoint", "Address of the managed identity's service."),
    plain("storage.azure.use_azure_cli", "use_azure_cli", "Ask the command az for a token."),
    plain("storage.azure.use_emulator", "use_emulator", "Talk to Azurite on this machine."),
    plain("storage.azure.endpoint", "endpoint", "Address of a store that speaks Azure Blob."),
    also(plain("storage.azure.anonymous", "skip_signature", "Ask without credentials."), &["skip_signature"]),
    plain("storage.azure.allow_http", "allow_http", "Allow an endpoint without TLS."),
];

/// How OPTIONS begin for each section.
const PREFIXES: &[(&str, &str)] = &[
    ("storage.", "storage."),
    ("aws.", "storage.s3."),
    ("s3.", "storage.s3."),
    ("gcp.", "storage.gcs."),
    ("gcs.", "storage.gcs."),
    ("google.", "storage.gcs."),
    ("azure.", "storage.azure."),
    ("abfs.", "storage.azure."),
];

/// The setting that an option of a statement names (`aws.region`, `storage.s3.region`); `None` when it names no store at all.
///
/// # Errors
/// The near name of an option that begins like one of a store and is none.
pub fn store_option(written: &str) -> Option<Result<&'static StoreKey, String>> {
    let lower = written.to_lowercase();
    let (prefix, section) = PREFIXES.iter().find(|(prefix, _)| lower.starts_with(prefix))?;
    let name = &lower[prefix.len()..];
    let vendor = section.rsplit('.').nth(1).unwrap_or_default();
    let name = name.strip_prefix("aws_").or_else(|| name.strip_prefix("azure_storage_")).unwrap_or(name);
    let full = format!("{section}{name}");
    let is_it = |key: &&StoreKey| {
        let (base, _) = key.key.rsplit_once('.').unwrap_or_default();
        key.key == full || key.also.iter().any(|also| format!("{base}.{also}") == full)
    };
    Some(STORE_KEYS.iter().find(is_it).ok_or_else(|| {
        let near = STORE_KEYS
            .iter()
            .map(|key| (strsim::damerau_levenshtein(&full, key.key), key.key))
            .filter(|(distance, _)| *distance <= 4)
            .min();
        match near {
            Some((_, near)) => format!("there is no option `{written}`; did you mean `{near}`?"),
            None => format!("there is no option `{written}` of {vendor} stores"),
        }
    }))
}

/// The settings of all stores of a session, and the environment they were made in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreSettings {
    values: BTreeMap<&'static str, String>,
    environment: BTreeMap<String, String>,
}

impl fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Whether the stores want to know this variable.
pub fn is_store_variable(name: &str) -> bool {
    const NAMES: &[&str] = &["HOME", "STORAGE_EMULATOR_HOST", "CLOUDSDK_CONFIG", "MSI_ENDPOINT", "IDENTITY_ENDPOINT"];
    NAMES.contains(&name) || ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
}

impl StoreSettings {
    /// From the variables of an environment; those that are of no concern are left out.
    pub fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let environment = environment.into_iter().filter(|(name, value)| is_store_variable(name) && !value.is_empty());
        Self { values: BTreeMap::new(), environment: environment.collect() }
    }

    /// Sets a `storage.*` setting.
    ///
    /// # Errors
    /// A sentence with the near name of a key that does not exist, or with what is wrong about the value (which is not
    /// repeated when the setting is secret).
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let known = store_option(key).ok_or_else(|| format!("there is no option `{key}`"))??;
        const SWITCHES: &[&str] =
            &["anonymous", "allow_http", "virtual_hosted_style", "request_payer", "use_azure_cli", "single_writer"];
        let is_switch = SWITCHES.iter().any(|switch| known.key.ends_with(switch));
        if known.builder.is_empty() && known.key.matches('.').count() == 1 && !is_switch {
            match value.parse::<f64>() {
                Ok(number) if number > 0.0 && number.is_finite() => {}
                _ => return Err(format!("expected a number above 0, got `{value}`")),
            }
        }
        if is_switch && value.parse::<bool>().is_err() {
            return Err(format!("expected true or false, got `{value}`"));
        }
        self.values.insert(known.key, value.to_string());
        Ok(())
    }

    /// These with others above them.
    pub(crate) fn overlaid(&self, above: &BTreeMap<&'static str, String>) -> Self {
        let mut both = self.clone();
        both.values.extend(above.iter().map(|(key, value)| (*key, value.clone())));
        both
    }

    /// A setting's value.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        debug_assert!(STORE_KEYS.iter().any(|known| known.key == key), "{key} is a setting");
        self.values.get(key).map(String::as_str)
    }

    /// A setting's value as it may be shown: that of a secret is dots.
    pub fn shown(&self, key: &str) -> Option<String> {
        let known = STORE_KEYS.iter().find(|known| known.key == key)?;
        let value = self.values.get(known.key)?;
        Some(if known.secret { "...".to_string() } else { value.clone() })
    }

    /// The variables of an environment below the settings that are there already.
    #[must_use]
    pub fn in_environment(self, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { values: self.values, ..Self::new(environment) }
    }

    /// A variable's value.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// A setting, or else a variable.
    pub(crate) fn either(&self, key: &str, variable: &str) -> Option<&str> {
        self.get(key).or_else(|| self.variable(variable))
    }

    /// Whether any of these settings is set.
    pub(crate) fn any(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.values.contains_key(key))
    }

    /// What a builder of `object_store` is told: the environment's variables first, then the settings, each under the
    /// builder's own name.
    pub(crate) fn for_builder(&self, scheme: Scheme) -> impl Iterator<Item = (String, String, bool)> + '_ {
        let (prefix, section) = match scheme {
            Scheme::S3 => ("AWS_", "storage.s3."),
            Scheme::Gcs => ("GOOGLE_", "storage.gcs."),
            _ => ("AZURE_", "storage.azure."),
        };
        let variables = self.environment.iter().filter(move |(name, _)| name.starts_with(prefix));
        let variables = variables.map(|(name, value)| (name.to_lowercase(), value.clone(), false));
        let settings = STORE_KEYS.iter().filter(move |key| key.key.starts_with(section) && !key.builder.is_empty());
        let settings = settings.filter_map(|key| Some((key.builder.to_string(), self.get(key.key)?.to_string(), true)));
        variables.chain(settings)
    }

    fn number(&self, key: &str, default: f64) -> f64 {
        self.get(key).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn max_requests(&self) -> usize {
        self.number("storage.max_requests", 64.0).max(1.0) as usize
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.number("storage.request_timeout", 30.0))
    }

    pub(crate) fn retry_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.number("storage.retry_timeout", 180.0))
    }

    pub(crate) fn max_retries(&self) -> usize {
        self.number("storage.max_retries", 10.0) as usize
    }

    pub(crate) fn single_writer(&self) -> bool {
        self.get("storage.single_writer") == Some("true")
    }

    /// How long a writer on a store without locks may be silent.
    pub(crate) fn lease_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.number("storage.lease_timeout", 60.0))
    }
}

/// Settings given by OPTIONS of one statement.
///
/// # Errors
/// [`Error::Invalid`] for a key or a value that is none.
pub(crate) fn parsed<'a>(
    location: &str,
    options: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<&'static str, String>> {
    let mut settings = StoreSettings::default();
    for (key, value) in options {
        settings.set(key, value).map_err(|reason| Error::invalid(location, format!("OPTIONS: {key}: {reason}")))?;
    }
    Ok(settings.values)
}

/// A text in which the values of secret options are dots, for messages, logs and journals:
/// `'aws.secret_access_key' 'x'` becomes `'aws.secret_access_key' '...'`.
pub fn redacted(text: &str) -> String {
    without_secrets(text, |_| "...".to_string())
}

/// As [`redacted`], with a dot for each letter, so that what follows stays in its place.
pub fn masked(text: &str) -> String {
    without_secrets(text, |secret| secret.chars().map(|_| '.').collect())
}

fn without_secrets(text: &str, instead: impl Fn(&str) -> String) -> String {
    let lower = text.to_ascii_lowercase();
    let mut hidden: Vec<(usize, usize)> = Vec::new();
    let names = STORE_KEYS.iter().filter(|key| key.secret).flat_map(|key| {
        let last = key.key.rsplit('.').next().unwrap_or_default();
        std::iter::once(last).chain(key.also.iter().copied())
    });
    // A word as common as this one is a secret only where it is an option of a store.
    let names = names.filter(|name| *name != "token").chain(["aws.token", "s3.token", "azure.token"]);
    for name in names {
        for (at, _) in lower.match_indices(name) {
            hidden.extend(value_after(text, at + name.len()));
        }
    }
    hidden.sort_unstable();
    let (mut shown, mut from) = (String::new(), 0);
    for (start, end) in hidden {
        if start >= from {
            shown.push_str(&text[from..start]);
            shown.push_str(&instead(&text[start..end]));
            from = end;
        }
    }
    shown.push_str(&text[from..]);
    shown
}

/// The range of the value that follows an option's name: `' 'VALUE'`, `"= "VALUE"`, `=VALUE`, ` VALUE`.
fn value_after(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &text[from..];
    let begins = rest.trim_start_matches(['\'', '"']).trim_start_matches([' ', '\t', '\n', '=', ':']);
    // The name is the beginning of a longer word, or stands alone.
    let gap = rest.len() - begins.len();
    if gap == 0 || begins.is_empty() {
        return None;
    }
    let start = from + gap;
    match begins.chars().next() {
        Some(quote @ ('\'' | '"')) => {
            let end = begins[1..].find(quote).map_or(begins.len(), |at| at + 1);
            Some((start + 1, start + end))
        }
        _ => {
            let end = begins.find([' ', '\t', '\n', ',', ')', '\'', '"', ';']).unwrap_or(begins.len());
            (end > 0).then_some((start, start + end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_by_several_names() {
        for (written, expected) in [
            ("aws.access_key_id", Some(Ok("storage.s3.access_key_id"))),
            ("AWS.SKIP_SIGNATURE", Some(Ok("storage.s3.anonymous"))),
            ("storage.s3.endpoint", Some(Ok("storage.s3.endpoint"))),
            ("s3.endpoint_url", Some(Ok("storage.s3.endpoint"))),
            ("gcp.service_account_path", Some(Ok("storage.gcs.service_account"))),
            ("azure.account_name", Some(Ok("storage.azure.account"))),
            ("storage.max_requests", Some(Ok("storage.max_requests"))),
            ("aws.regoin", Some(Err("there is no option `aws.regoin`; did you mean `storage.s3.region`?"))),
            ("format.delimiter", None),
            ("header", None),
        ] {
            let got = store_option(written).map(|found| found.map(|key| key.key));
            let expected = expected.map(|expected: Result<&str, &str>| expected.map_err(str::to_string));
            assert_eq!(got, expected, "{written}");
        }
    }

    #[test]
    fn values_are_checked_and_secrets_stay_secret() {
        let mut settings = StoreSettings::default();
        settings.set("storage.s3.secret_access_key", "hush").unwrap();
        settings.set("aws.region", "eu-central-1").unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("storage.s3.secret_access_key") && !shown.contains("hush"), "{shown}");
        assert_eq!(settings.set("storage.max_requests", "none").unwrap_err(), "expected a number above 0, got `none`");
        assert_eq!(settings.set("aws.allow_http", "yes").unwrap_err(), "expected true or false, got `yes`");
    }

    #[test]
    fn secrets_in_texts_are_dots() {
        for (text, expected) in [
            (
                "OPTIONS ('aws.secret_access_key' 'hush', 'aws.region' 'x')",
                "OPTIONS ('aws.secret_access_key' '...', 'aws.region' 'x')",
            ),
            ("OPTIONS (aws.session_token = hush)", "OPTIONS (aws.session_token = ...)"),
            ("--set storage.azure.access_key=hush -q", "--set storage.azure.access_key=... -q"),
            ("secret_access_key = \"hush\"", "secret_access_key = \"...\""),
            ("'azure.sas_token' 'a=b&c=d'", "'azure.sas_token' '...'"),
            ("SELECT 'access_keys' FROM t", "SELECT 'access_keys' FROM t"),
            ("OPTIONS ('aws.token' 'hush')", "OPTIONS ('aws.token' '...')"),
            ("nothing to hide", "nothing to hide"),
        ] {
            assert_eq!(redacted(text), expected);
        }
        assert_eq!(masked("'access_key' 'hush', x"), "'access_key' '....', x");
    }
}
