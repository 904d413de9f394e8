//! What users get wrong about stores, and what they are told.

use std::process::Command;

use crate::program::{Place, finish};
use crate::servers::proxy::Proxy;
use crate::servers::{Kind, python};

fn sql(command: &mut Command, text: &str) -> (i32, String) {
    let ended = finish(command.args(["-q", "--format", "csv", "--no-header", "-c", text]));
    (ended.code, format!("{}{}", ended.stdout, ended.stderr))
}

#[test]
fn names_that_are_not_there() {
    let Some(server) = Kind::Moto.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    server.ok(&place, &["-q", "-c", &format!("COPY (SELECT 1 AS a) TO '{root}raw/2013-01/part-0.parquet'")]);
    for (text, parts) in [
        (format!("SELECT * FROM '{root}raw/2013-01/part-1.parquet'"), vec!["part-1.parquet", "part-0.parquet"]),
        (
            format!("SELECT * FROM '{root}raw/2014-*/part-*.parquet'"),
            vec!["raw/2014-*/part-*.parquet: no file matches (1 visible file below s3://lake/", "raw/)"],
        ),
        (
            format!("SELECT * FROM '{root}raw/2014/q1/part-*.parquet'"),
            vec![
                "raw/2014/q1/part-*.parquet: no file matches: there is no s3://lake/",
                "the way to it ends at s3://lake/",
                "raw/",
            ],
        ),
        (
            format!("SELECT * FROM '{root}rwa/part-*.parquet'"),
            vec!["rwa/part-*.parquet: no file matches", "did you mean s3://lake/", "raw?"],
        ),
        ("SELECT * FROM 's3://nowhere/raw/'".to_string(), vec!["s3://nowhere/"]),
        ("COPY (SELECT 1 AS a) TO 's3://nowhere/t/' STORED AS PARQUET".to_string(), vec!["s3://nowhere/"]),
    ] {
        let (code, said) = sql(&mut server.command(&place, &[]), &text);
        assert_eq!(code, 1, "{text}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{text}: {said}");
    }
}

#[test]
fn credentials_that_are_wrong() {
    let Some(server) = Kind::RcloneS3.server() else { return };
    let place = Place::new();
    let mut command = server.command(&place, &[]);
    command.env("AWS_SECRET_ACCESS_KEY", "another-secret");
    let (code, said) = sql(&mut command, &format!("SELECT * FROM '{}t/'", server.fresh()));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("s3://lake/") && !said.contains("another-secret"), "{said}");
    let mut command = server.command(&place, &[]);
    command.env_remove("AWS_ALLOW_HTTP");
    let (code, said) = sql(&mut command, &format!("SELECT * FROM '{}t/'", server.fresh()));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("http"), "{said}");
}

/// Containers and buckets that are not there, on the stores whose emulators say so.
#[test]
fn containers_that_are_not_there() {
    let place = Place::new();
    for (kind, place_of, expected) in [
        (Kind::Moto, "s3://nowhere/t/", "there is no bucket nowhere at http://"),
        (Kind::Azurite, "az://nowhere/t/", "there is no container nowhere at http://"),
    ] {
        let Some(server) = kind.server() else { continue };
        for text in
            [format!("SELECT * FROM '{place_of}'"), format!("COPY (SELECT 1 AS a) TO '{place_of}' STORED AS PARQUET")]
        {
            let (code, said) = sql(&mut server.command(&place, &[]), &text);
            assert_eq!(code, 1, "{text}: {said}");
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}

/// Keys that Azure's emulator knows to be wrong, and a directory that is another user's in HDFS.
#[test]
fn what_is_not_allowed() {
    let place = Place::new();
    if let Some(server) = Kind::Azurite.server() {
        let mut command = server.command(&place, &[]);
        command.env("AZURE_STORAGE_ACCOUNT_KEY", "YW5vdGhlci1zZWNyZXQ=");
        let (code, said) = sql(&mut command, &format!("SELECT * FROM '{}t/'", server.fresh()));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("az://lake/") && said.contains("environment: the account's key"), "{said}");
        assert!(!said.contains("YW5vdGhlci1zZWNyZXQ="), "{said}");
    }
    if let Some(server) = Kind::Hdfs.server() {
        let table = format!("{}t/", server.fresh());
        let copy = format!("COPY (SELECT 1 AS a) TO '{table}' STORED AS PARQUET MODE APPEND");
        server.ok(&place, &["-q", "-c", &copy]);
        let mut command = server.command(&place, &[]);
        command.env("HADOOP_USER_NAME", "stranger");
        let (code, said) = sql(&mut command, &copy);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&table) && said.contains("permission denied"), "{said}");
        assert_eq!(server.rows(&place, &format!("SELECT count(*) FROM '{table}'")), "1\n");
    }
}

/// How S3 is asked at an address, with a temporary key.
const S3: &[(&str, &str)] = &[
    ("AWS_ENDPOINT_URL", "http://<address>"),
    ("AWS_ALLOW_HTTP", "true"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "ASIATESTS"),
    ("AWS_SECRET_ACCESS_KEY", "hush-secret"),
    ("AWS_SESSION_TOKEN", "hush-token"),
];
const AZURE: &[(&str, &str)] = &[
    ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
    ("AZURE_STORAGE_SAS_TOKEN", "sv=2021-08-06&se=2013-01-01T00%3A00%3A00Z&sr=c&sp=rwdl&sig=hush-signature"),
    ("AZURE_STORAGE_ENDPOINT", "http://<address>"),
    ("AZURE_ALLOW_HTTP", "true"),
];
const GOOGLE: &[(&str, &str)] = &[("STORAGE_EMULATOR_HOST", "http://<address>")];

/// What emulators never say, because they check no clock and have no regions: the vendors' documented answers, and what
/// the user is told of them when reading and when writing. Nothing is asked again: it would be refused again.
#[test]
fn refusals_say_what_to_do() {
    let place = Place::new();
    let expired = r#"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message><Token-0>hush-token</Token-0><RequestId>4442587FB7D0A2F9</RequestId></Error>"#;
    let skewed = r#"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message><RequestTime>20131101T000000Z</RequestTime><ServerTime>2013-11-01T01:00:00Z</ServerTime><MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds></Error>"#;
    let region = r#"<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>"#;
    let redirect = r#"<Error><Code>PermanentRedirect</Code><Message>The bucket you are attempting to access must be addressed using the specified endpoint.</Message><Endpoint>lake.s3-eu-west-1.amazonaws.com</Endpoint><Bucket>lake</Bucket></Error>"#;
    let denied = r#"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"#;
    let signature = "<Error><Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.\nRequestId:0\nTime:2013-11-01T00:00:00Z</Message><AuthenticationErrorDetail>Signature not valid in the specified time frame: Start [Sat, 01 Jan 2011 00:00:00 GMT] - Expiry [Tue, 01 Jan 2013 00:00:00 GMT] - Current [Fri, 01 Nov 2013 00:00:00 GMT]</AuthenticationErrorDetail></Error>";
    let nobody = r#"<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>Anonymous caller does not have storage.objects.list access to the Google Cloud Storage bucket.</Details></Error>"#;
    for (environment, bucket, status, body, expected) in [
        (
            S3,
            "s3://lake/",
            "400 Bad Request",
            expired,
            "the token has expired: get a new one (400 ExpiredToken: The provided token has expired); credentials: environment (AWS_ACCESS_KEY_ID",
        ),
        (
            S3,
            "s3://lake/",
            "403 Forbidden",
            skewed,
            "this machine's clock differs too much from the store's: set it right (403 RequestTimeTooSkewed",
        ),
        (
            S3,
            "s3://lake/",
            "400 Bad Request",
            region,
            "the bucket is in another region than the one that was asked, us-east-1 (AWS_REGION): set storage.s3.region or AWS_REGION (400 AuthorizationHeaderMalformed: The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1')",
        ),
        (
            S3,
            "s3://lake/",
            "301 Moved Permanently",
            redirect,
            "the bucket is in another region than the one that was asked, us-east-1 (AWS_REGION): set storage.s3.region or AWS_REGION (301 PermanentRedirect)",
        ),
        (
            S3,
            "s3://lake/",
            "403 Forbidden",
            denied,
            "access is denied (403 AccessDenied: Access Denied); credentials: environment (AWS_ACCESS_KEY_ID",
        ),
        (
            AZURE,
            "az://lake/",
            "403 Forbidden",
            signature,
            "the signature is not valid at this time: Start [Sat, 01 Jan 2011 00:00:00 GMT] - Expiry [Tue, 01 Jan 2013 00:00:00 GMT] - Current [Fri, 01 Nov 2013 00:00:00 GMT]; credentials: environment: a shared access signature",
        ),
        (
            GOOGLE,
            "gs://lake/",
            "403 Forbidden",
            nobody,
            "access is denied (403 AccessDenied: Access denied); credentials: none: STORAGE_EMULATOR_HOST names an emulator",
        ),
    ] {
        let proxy = Proxy::refusing(status, &format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"));
        for text in [
            format!("SELECT * FROM '{bucket}raw/x.csv'"),
            format!("SELECT * FROM '{bucket}raw/2013-*/x.csv'"),
            format!("COPY (SELECT 1 AS a) TO '{bucket}out/' STORED AS CSV MODE APPEND"),
        ] {
            let mut command = place.command([] as [&str; 0]);
            let address = |(name, value): &(&'static str, &str)| (*name, value.replace("<address>", proxy.address()));
            command.envs(environment.iter().map(address));
            let (code, said) = sql(&mut command, &text);
            assert_eq!(code, 1, "{text}: {said}");
            assert!(said.contains(bucket) && said.contains(expected), "{text}: expected {expected}, got {said}");
            assert!(!said.contains("hush"), "{text}: {said}");
        }
        assert!(proxy.seen().len() < 60, "{status} {body}: asked {} times", proxy.seen().len());
    }
}

/// A role's temporary key from moto's instance metadata, as on a machine of Amazon's.
#[test]
fn keys_from_instance_metadata_and_sts() {
    let Some(server) = Kind::Moto.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let copy = format!("COPY (SELECT 1 AS a) TO '{root}t/' STORED AS PARQUET; SELECT count(*) FROM '{root}t/'");
    let without_keys = || {
        let mut command = server.command(&place, &[]);
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .env_remove("AWS_EC2_METADATA_DISABLED");
        command
    };
    let mut command = without_keys();
    command.env("AWS_METADATA_ENDPOINT", format!("http://{}", server.address()));
    let (code, said) = sql(&mut command, &copy);
    assert_eq!((code, said.as_str()), (0, "1\n"), "instance metadata");

    let copy = copy.replace("t/", "u/");
    place.write("token", "a-web-identity-token");
    let mut command = without_keys();
    command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/lake").env("AWS_ROLE_SESSION_NAME", "tests");
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", place.path("token"));
    command.env("AWS_ENDPOINT_URL_STS", format!("http://{}", server.address()));
    let (code, said) = sql(&mut command, &copy);
    assert_eq!((code, said.as_str()), (0, "1\n"), "a web identity: {said}");
}

/// Others' clients see the same bytes: what COPY put on the server, read by pyarrow's own S3 client.
#[test]
fn others_see_the_same_objects() {
    let Some(server) = Kind::Moto.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    server.ok(
        &place,
        &[
            "-q",
            "-c",
            &format!("COPY (SELECT value AS a FROM generate_series(1, 1000)) TO '{root}t/' STORED AS PARQUET"),
        ],
    );
    let read = r#"
import sys, pyarrow.fs, pyarrow.dataset
endpoint, path = sys.argv[1], sys.argv[2].removeprefix("s3://")
s3 = pyarrow.fs.S3FileSystem(access_key="GRISTMILLTESTS", secret_key="gristmill-secret", region="us-east-1",
                             endpoint_override=endpoint, scheme="http")
print(sum(pyarrow.dataset.dataset(path, filesystem=s3, format="parquet").to_table()["a"].to_pylist()))
"#;
    if let Some(sum) = python(read, &[server.address(), &format!("{root}t")], &[]) {
        assert_eq!(sum, "500500\n");
    }
}
