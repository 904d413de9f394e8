//! What users get wrong about stores, and what they are told.

use std::process::Command;

use crate::program::{Place, finish};
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
        (format!("SELECT * FROM '{root}raw/2014-*/part-*.parquet'"), vec!["2014-*/part-*.parquet", "raw/"]),
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
