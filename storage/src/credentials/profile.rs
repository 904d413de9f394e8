//! Profiles of the AWS tools: what `~/.aws/config` and `~/.aws/credentials` say about a name, and which source of
//! credentials follows from it. Reads files, asks nobody.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use object_store::aws::AwsCredential;

use super::aws::Source;
use super::ini::{self, Sections};
use crate::settings::StoreSettings;

/// The profiles of this user, and the one that is meant.
#[derive(Debug)]
pub(super) struct Profiles {
    /// The one that is meant.
    pub(super) name: String,
    /// Somebody has named it; it is not the default.
    explicit: bool,
    config: Sections,
    credentials: Sections,
    config_file: PathBuf,
    credentials_file: PathBuf,
    home: Option<PathBuf>,
}

type Keys = BTreeMap<String, String>;

impl Profiles {
    /// Reads both files; a missing one is empty.
    pub(super) fn read(settings: &StoreSettings) -> Result<Self, String> {
        let home = settings.variable("HOME").map(PathBuf::from);
        let place = |variable: &str, name: &str| match (settings.variable(variable), &home) {
            (Some(path), _) => with_home(path, home.as_deref()),
            (None, Some(home)) => home.join(".aws").join(name),
            (None, None) => PathBuf::from(name),
        };
        let config_file = place("AWS_CONFIG_FILE", "config");
        let credentials_file = place("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        let named =
            settings.either("storage.s3.profile", "AWS_PROFILE").or_else(|| settings.variable("AWS_DEFAULT_PROFILE"));
        Ok(Self {
            name: named.unwrap_or("default").to_string(),
            explicit: named.is_some(),
            config: read(&config_file)?,
            credentials: read(&credentials_file)?,
            config_file,
            credentials_file,
            home,
        })
    }

    /// Everything that both files say about a profile; the credentials file wins.
    fn keys(&self, name: &str) -> Option<Keys> {
        let section = if name == "default" { "default".to_string() } else { format!("profile {name}") };
        let config = self.config.get(&section).or_else(|| self.config.get(&format!("profile {name}")));
        let credentials = self.credentials.get(name);
        if config.is_none() && credentials.is_none() {
            return None;
        }
        let mut keys = config.cloned().unwrap_or_default();
        keys.extend(credentials.cloned().unwrap_or_default());
        Some(keys)
    }

    /// A key of the profile that is meant, such as `region`.
    pub(super) fn value(&self, key: &str) -> Option<String> {
        self.keys(&self.name)?.get(key).cloned()
    }

    /// The source of credentials that the profile names; `Err` when it was asked for by name and is not there or is wrong.
    pub(super) fn source(&self, settings: &StoreSettings) -> Result<Option<(Source, String)>, String> {
        if self.keys(&self.name).is_none() {
            return if self.explicit { Err(self.unknown(&self.name)) } else { Ok(None) };
        }
        let found = self.source_of(&self.name, settings, &mut Vec::new())?;
        match found {
            None if self.explicit => {
                Err(format!("profile {} has no credentials and names no source of them", self.name))
            }
            None => Ok(None),
            Some(source) => {
                let what = source.what();
                Ok(Some((source, format!("profile {} ({}): {what}", self.name, self.place(&self.name)))))
            }
        }
    }

    fn place(&self, name: &str) -> String {
        let file = if self.credentials.contains_key(name) { &self.credentials_file } else { &self.config_file };
        file.display().to_string()
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = (self.config.keys())
            .filter_map(|section| section.strip_prefix("profile ").or((section == "default").then_some("default")))
            .chain(self.credentials.keys().map(String::as_str))
            .collect();
        let near = known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(name, known), *known))
            .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
            .min();
        let files = format!("{} and {}", self.config_file.display(), self.credentials_file.display());
        match near {
            Some((_, near)) => format!("there is no profile {name} in {files}; did you mean {near}?"),
            None if known.is_empty() => format!("there is no profile {name}: {files} hold none"),
            None => format!("there is no profile {name} in {files} (there is {})", known.join(", ")),
        }
    }

    fn source_of(
        &self,
        name: &str,
        settings: &StoreSettings,
        seen: &mut Vec<String>,
    ) -> Result<Option<Source>, String> {
        if seen.iter().any(|before| before == name) {
            return Err(format!("profiles name each other in a circle: {}, {name}", seen.join(", ")));
        }
        seen.push(name.to_string());
        let keys = self.keys(name).ok_or_else(|| self.unknown(name))?;
        if let Some(role_arn) = keys.get("role_arn") {
            let session = keys.get("role_session_name").cloned();
            if let Some(file) = keys.get("web_identity_token_file") {
                let token_file = with_home(file, self.home.as_deref());
                return Ok(Some(Source::WebIdentity { token_file, role_arn: role_arn.clone(), session }));
            }
            let base = match (keys.get("source_profile"), keys.get("credential_source").map(String::as_str)) {
                (Some(base), _) if base == name => static_keys(&keys, name)?,
                (Some(base), _) => self.source_of(base, settings, seen)?,
                (None, Some("Environment")) => super::aws::of_environment(settings),
                (None, Some("Ec2InstanceMetadata")) => Some(Source::Instance),
                (None, Some("EcsContainer")) => super::aws::of_container(settings),
                (None, Some(other)) => {
                    return Err(format!(
                        "profile {name}: credential_source {other} is none of Environment, Ec2InstanceMetadata, EcsContainer"
                    ));
                }
                (None, None) => return Err(format!("profile {name} has a role_arn and no source_profile")),
            };
            let base =
                base.ok_or_else(|| format!("profile {name}: its source has no credentials to assume the role with"))?;
            return Ok(Some(Source::AssumeRole {
                base: Box::new(base),
                role_arn: role_arn.clone(),
                session,
                external_id: keys.get("external_id").cloned(),
                seconds: keys.get("duration_seconds").and_then(|text| text.parse().ok()).unwrap_or(3600),
            }));
        }
        if let Some(source) = static_keys(&keys, name)? {
            return Ok(Some(source));
        }
        if keys.contains_key("sso_account_id") || keys.contains_key("sso_start_url") || keys.contains_key("sso_session")
        {
            return self.single_sign_on(name, &keys).map(Some);
        }
        Ok(keys.get("credential_process").map(|command| Source::Process(command.clone())))
    }

    fn single_sign_on(&self, name: &str, keys: &Keys) -> Result<Source, String> {
        let empty = Keys::new();
        let session = match keys.get("sso_session") {
            Some(session) => self.config.get(&format!("sso-session {session}")).ok_or_else(|| {
                format!("profile {name}: there is no [sso-session {session}] in {}", self.config_file.display())
            })?,
            None => &empty,
        };
        let key = |wanted: &str| {
            let found = keys.get(wanted).or_else(|| session.get(wanted));
            found.cloned().ok_or_else(|| format!("profile {name} signs on at an AWS portal and has no {wanted}"))
        };
        let home =
            self.home.as_deref().ok_or_else(|| format!("profile {name}: HOME is not set, so there is no SSO cache"))?;
        Ok(Source::SingleSignOn {
            profile: name.to_string(),
            start_url: key("sso_start_url")?,
            region: key("sso_region")?,
            account: key("sso_account_id")?,
            role: key("sso_role_name")?,
            cache: home.join(".aws/sso/cache"),
        })
    }
}

fn static_keys(keys: &Keys, name: &str) -> Result<Option<Source>, String> {
    match (keys.get("aws_access_key_id"), keys.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok(Some(Source::Static(AwsCredential {
            key_id: id.clone(),
            secret_key: secret.clone(),
            token: keys.get("aws_session_token").cloned(),
        }))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("profile {name} has an aws_access_key_id and no aws_secret_access_key")),
        (None, Some(_)) => Err(format!("profile {name} has an aws_secret_access_key and no aws_access_key_id")),
    }
}

fn read(path: &Path) -> Result<Sections, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(ini::parse(&text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Sections::new()),
        Err(e) => Err(format!("cannot read {}: {e}", path.display())),
    }
}

fn with_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(home: &Path, more: &[(&str, &str)]) -> StoreSettings {
        let home = [("HOME".to_string(), home.display().to_string())];
        StoreSettings::new(home.into_iter().chain(more.iter().map(|(k, v)| (k.to_string(), v.to_string()))))
    }

    #[test]
    fn profiles_lead_to_sources() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let config = "[default]\nregion = eu-west-1\n[profile role]\nrole_arn = arn:r\nsource_profile = keys\n\
                      [profile process]\ncredential_process = /bin/get key\n\
                      [profile sso]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = dev\n\
                      [sso-session corp]\nsso_start_url = https://corp\nsso_region = eu-west-1\n\
                      [profile a]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = r\nsource_profile = a\n\
                      [profile web]\nrole_arn = r\nweb_identity_token_file = ~/token\n[profile half]\nregion = x\n";
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        let credentials =
            "[keys]\naws_access_key_id = AK\naws_secret_access_key = hush\n[odd]\naws_access_key_id = AK\n";
        std::fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        for (profile, expected) in [
            ("keys", "a key"),
            ("role", "the role arn:r, assumed with a key"),
            ("process", "the command /bin/get"),
            ("sso", "single sign-on at https://corp as dev of account 1"),
            ("web", "the role r, for the token in "),
            ("a", "profiles name each other in a circle: a, b, a"),
            ("half", "profile half has no credentials and names no source of them"),
            ("odd", "profile odd has an aws_access_key_id and no aws_secret_access_key"),
            ("key", "did you mean keys?"),
            ("zzzzzz", "(there is default, a, b, half, process, role, sso, web, keys, odd)"),
        ] {
            let settings = settings(home.path(), &[("AWS_PROFILE", profile)]);
            let got = Profiles::read(&settings).unwrap().source(&settings);
            let text = match &got {
                Ok(found) => found.as_ref().map(|(_, from)| from.clone()).unwrap_or_default(),
                Err(reason) => reason.clone(),
            };
            assert!(text.contains(expected), "{profile}: {text}");
            assert!(!format!("{got:?}").contains("hush"), "{profile}");
        }
        let settings = settings(home.path(), &[]);
        let profiles = Profiles::read(&settings).unwrap();
        assert_eq!(profiles.value("region").as_deref(), Some("eu-west-1"));
        assert!(profiles.source(&settings).unwrap().is_none(), "the default profile has no keys, which is no mistake");
    }
}
