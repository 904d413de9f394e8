//! The chain without servers: which source is chosen, and what a command or a cache gives.

use super::*;
use crate::instrument::Meter;
use crate::transport::Transport;

fn settings(environment: &[(&str, &str)], values: &[(&str, &str)]) -> StoreSettings {
    let mut settings = StoreSettings::new(environment.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    for (key, value) in values {
        settings.set(key, value).unwrap();
    }
    settings
}

#[test]
fn the_first_that_is_there_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let text = "[default]\naws_access_key_id = P\naws_secret_access_key = hush\n[other]\naws_access_key_id = O\naws_secret_access_key = hush\n";
    std::fs::write(aws.join("credentials"), text).unwrap();
    let (with, without) = (home.path().to_str().unwrap(), "/nowhere");
    let key = ("AWS_ACCESS_KEY_ID", "E");
    let secret = ("AWS_SECRET_ACCESS_KEY", "hush");
    let own = [("storage.s3.access_key_id", "C"), ("storage.s3.secret_access_key", "hush")];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:r")];
    let agent = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/c");
    let cases: &[(&str, &[(&str, &str)], &[(&str, &str)], &str)] = &[
        (with, &[key, secret], &own, "OPTIONS or configuration (storage.s3.access_key_id)"),
        (with, &[key, secret], &[], "environment (AWS_ACCESS_KEY_ID)"),
        (with, &[key, secret], &[("storage.s3.profile", "other")], "profile other ("),
        (with, &[web[0], web[1]], &[], "profile default ("),
        (without, &[web[0], web[1], agent], &[], "environment (AWS_WEB_IDENTITY_TOKEN_FILE): the role arn:r"),
        (
            without,
            &[agent],
            &[],
            "environment (AWS_CONTAINER_CREDENTIALS_*): the container's agent at http://127.0.0.1:1/c",
        ),
        (
            without,
            &[],
            &[],
            "instance metadata (no credentials in OPTIONS, configuration, environment or profile default)",
        ),
        (without, &[("AWS_EC2_METADATA_DISABLED", "true")], &[], "storage.s3.anonymous = true"),
        (without, &[key], &[], "the environment has AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY"),
        (without, &[], &own[..1], "storage.s3.access_key_id is set and storage.s3.secret_access_key is not"),
        (without, &[("AWS_PROFILE", "no")], &[], "there is no profile no"),
    ];
    for (home, environment, values, expected) in cases {
        let mut all = vec![("HOME", *home)];
        all.extend_from_slice(environment);
        let chosen = choose(&settings(&all, values));
        let text = match &chosen {
            Ok((_, from)) => from.clone(),
            Err(reason) => reason.clone(),
        };
        assert!(text.contains(expected), "{all:?} {values:?}: {text}");
        assert!(!format!("{chosen:?}").contains("hush"));
    }
}

async fn asked(settings: &StoreSettings) -> Result<Arc<AwsCredential>, String> {
    let connector = Connector(Arc::new(Transport::new(Arc::new(Meter::default()), 4)));
    let found = find(settings, "us-east-1", "s3://b/", &connector)?;
    let keys = found.provider.get_credential().await;
    keys.map_err(|e| Error::named(String::new(), e).to_string())
}

#[tokio::test]
async fn a_command_gives_keys() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let printed = |text: &str| {
        let config = format!("[default]\ncredential_process = printf '%s' '{text}'\n");
        std::fs::write(home.path().join(".aws/config"), config).unwrap();
        settings(&[("HOME", home.path().to_str().unwrap())], &[])
    };
    let keys = r#"{"Version":1,"AccessKeyId":"AK","SecretAccessKey":"hush","SessionToken":"t","Expiration":"2099-01-01T00:00:00Z"}"#;
    let got = asked(&printed(keys)).await.unwrap();
    assert_eq!((got.key_id.as_str(), got.token.as_deref()), ("AK", Some("t")));
    for (text, expected) in [
        ("hush", "printf printed no JSON with AccessKeyId and SecretAccessKey"),
        (&keys.replace("2099", "2001"), "has expired already"),
        (&keys.replace("2099-01-01T00:00:00Z", "soon"), "`soon` is no time"),
    ] {
        let error = asked(&printed(text)).await.unwrap_err();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        assert!(error.starts_with("s3://b/: credentials from profile default ("), "{error}");
    }
}

#[tokio::test]
async fn a_sign_on_is_looked_up_by_its_portal() {
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let expired = r#"{"startUrl":"https://corp/start","accessToken":"hush","expiresAt":"2020-01-01T00:00:00UTC"}"#;
    std::fs::write(cache.join("a.json"), expired).unwrap();
    let error = portal_token(&cache, "https://corp/start/", "p").await.unwrap_err();
    assert_eq!(error, "the sign-on has expired: run aws sso login --profile p");
    let valid = r#"{"startUrl":"https://corp/start","accessToken":"new","expiresAt":"2099-01-01T00:00:00Z"}"#;
    std::fs::write(cache.join("b.json"), valid).unwrap();
    std::fs::write(cache.join("c.json"), "no json").unwrap();
    assert_eq!(portal_token(&cache, "https://corp/start", "p").await.unwrap(), "new");
    let error = portal_token(&cache, "https://other", "p").await.unwrap_err();
    assert_eq!(error, "nobody has signed on at https://other yet: run aws sso login --profile p");
}

/// A server for a few answers: what was asked (head and body) goes in, status and body come out.
async fn serve(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let (mut asked, mut piece) = (Vec::new(), [0; 4096]);
                loop {
                    let text = String::from_utf8_lossy(&asked).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                        if body.len() >= length.unwrap_or(0) {
                            let (status, body) = answer(&text);
                            let head =
                                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close", body.len());
                            stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
                            return;
                        }
                    }
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => return,
                        Ok(count) => asked.extend_from_slice(&piece[..count]),
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_agent_gives_keys_to_whoever_shows_the_token() {
    let address = serve(|asked| match asked.contains("authorization: hush-token") {
        true => (
            200,
            r#"{"AccessKeyId":"AK","SecretAccessKey":"hush","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#.into(),
        ),
        false => (401, "hush".into()),
    })
    .await;
    let url = format!("{address}/c");
    let agent = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str());
    let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "hush-token");
    let home = ("HOME", "/nowhere");
    let got = asked(&settings(&[home, agent, token], &[])).await.unwrap();
    assert_eq!((got.key_id.as_str(), got.token.as_deref()), ("AK", Some("t")));
    let error = asked(&settings(&[home, agent], &[])).await.unwrap_err();
    assert!(error.ends_with("/c answers with status 401"), "{error}");
}

#[tokio::test]
async fn roles_are_assumed_by_keys_and_by_tokens() {
    let address = serve(|asked| {
        let signed = asked.contains("/us-east-1/sts/aws4_request");
        let by_keys = asked.contains("Action=AssumeRole&RoleArn=arn%3Ar") && signed;
        let by_token =
            asked.contains("Action=AssumeRoleWithWebIdentity") && asked.contains("WebIdentityToken=web") && !signed;
        if by_keys || by_token {
            let keys = "<AccessKeyId>AR</AccessKeyId><SecretAccessKey>hush</SecretAccessKey>\
                        <SessionToken>s</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>";
            (200, format!("<R><Credentials>{keys}</Credentials></R>"))
        } else {
            (403, "<R><Error><Code>AccessDenied</Code><Message>not you</Message></Error></R>".into())
        }
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "web\n").unwrap();
    let config = "[profile keys]\naws_access_key_id = AK\naws_secret_access_key = hush\n\
                  [profile good]\nrole_arn = arn:r\nsource_profile = keys\n\
                  [profile bad]\nrole_arn = arn:other\nsource_profile = keys\n";
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let base =
        [("HOME", home.path().to_str().unwrap()), ("AWS_ENDPOINT_URL_STS", &address), ("AWS_ALLOW_HTTP", "true")];
    let with = |more: &[(&str, &str)]| settings(&[&base[..], more].concat(), &[]);
    let got = asked(&with(&[("AWS_PROFILE", "good")])).await.unwrap();
    assert_eq!((got.key_id.as_str(), got.token.as_deref()), ("AR", Some("s")));
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()), ("AWS_ROLE_ARN", "arn:r")];
    assert_eq!(asked(&with(&web)).await.unwrap().key_id, "AR");
    let error = asked(&with(&[("AWS_PROFILE", "bad")])).await.unwrap_err();
    assert!(error.ends_with("refused: 403 AccessDenied not you"), "{error}");
    assert!(error.contains("the role arn:other, assumed with a key"), "{error}");
}
