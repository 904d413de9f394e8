//! Places that cannot be read or written, as far as that shows without a server: what is said, and that no secret is.

use std::process::Stdio;

use crate::program::{Ended, Place, finish};

fn run(place: &Place, environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    command.envs(environment.iter().copied());
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "hush")];

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    // Nobody listens at the port for "discard".
    let nobody = [("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("GRISTMILL_STORAGE__MAX_RETRIES", "1")];
    let allowed = [KEYS[0], KEYS[1], nobody[0], nobody[1], ("AWS_ALLOW_HTTP", "true")];
    let cases: &[(&[(&str, &str)], &str, &str)] = &[
        (&[], "SELECT * FROM 's3://gs://b/x.csv'", "s3://gs://b/x.csv: has two schemes, s3:// and gs://"),
        (&[], "SELECT * FROM 's3://user:hush@b/x.csv'", "s3://...@b: keys and passwords do not belong in a location"),
        (&[], "SELECT * FROM 'https://h/x.csv?sig=hush'", "https://h/x.csv?...: web servers are read by path"),
        (&[], "SELECT * FROM 'az://c/x.csv'", "az://c/: which storage account?"),
        (
            &KEYS[..1],
            "SELECT * FROM 's3://b/x.csv'",
            "s3://b/: the environment has AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY",
        ),
        (&[("AWS_PROFILE", "dev")], "SELECT * FROM 's3://b/x.csv'", "s3://b/: there is no profile dev"),
        (
            &[KEYS[0], KEYS[1], nobody[0]],
            "SELECT * FROM 's3://b/x.csv'",
            "s3://b/: the endpoint http://127.0.0.1:9 has no TLS, so that everybody on the way can read what is sent; if that \
             is meant, set storage.s3.allow_http = true, AWS_ALLOW_HTTP=true, or OPTIONS",
        ),
        (
            &allowed,
            "SELECT * FROM 's3://b/x.csv'",
            "s3://b/x.csv: http://127.0.0.1:9 cannot be asked: nobody listens there",
        ),
        (
            &allowed,
            "COPY (SELECT 1 AS a) TO 's3://b/out/' STORED AS CSV",
            "http://127.0.0.1:9 cannot be asked: nobody listens there",
        ),
        (&[], "COPY (SELECT 1 AS a) TO 'https://h/out/' STORED AS CSV", "https://h/out/: web servers are only read"),
        (
            &[],
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/x.csv' OPTIONS ('aws.regoin' 'x')",
            "there is no option `aws.regoin`; did you mean `storage.s3.region`?",
        ),
        (
            &[],
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'x.csv' OPTIONS ('aws.secret_access_key' 'hush')",
            "x.csv: is no store with keys and endpoints",
        ),
    ];
    for (environment, sql, expected) in cases {
        let ended = run(&place, environment, &["-q", "-c", sql]);
        assert_eq!(ended.code, 1, "{sql}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{sql}: {}", ended.stderr);
        // The place is shown as it was typed, but for what follows the name of a secret.
        let said = ended.stderr.lines().next().unwrap();
        assert!(!said.contains("hush"), "{sql}: {said}");
    }
}

#[test]
fn secrets_stay_where_they_were_typed() {
    let place = Place::new();
    let secret = "storage.s3.secret_access_key=hush";
    let shown = place.ok(&["--set", secret, "config", "show", "--format", "csv"]).stdout;
    assert!(shown.contains("storage.s3.secret_access_key,...,flag --set"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
    let script = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/' OPTIONS ('aws.access_key_id' 'AK', 'aws.secret_access_key' 'hush') oops;";
    place.write("job.sql", script);
    let ended = place.run(&["run", "job.sql"]);
    assert!(ended.code != 0 && ended.stderr.contains("aws.secret_access_key"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hush") && !ended.stdout.contains("hush"), "{}", ended.stderr);
    let ended = place.run(&["submit", "job.sql", "--cluster", "gristmill://127.0.0.1:9"]);
    assert!(ended.stderr.contains("job.sql: holds a secret in its OPTIONS"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);
}

#[test]
fn lists_and_amounts_of_local_places() {
    let place = Place::new();
    for name in ["d/a.csv", "d/m=1/b.csv", "d/_hidden/c.csv"] {
        place.write(name, "x\n");
    }
    let listed = place.ok(&["ls", "d/", "--format", "csv", "--no-header"]).stdout;
    let names: Vec<&str> = listed.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(names, ["a.csv", "m=1/"]);
    assert_eq!(place.ok(&["du", "d/", "--format", "csv"]).stdout, "name,files,bytes\na.csv,1,2\nm=1/,1,2\ntotal,2,4\n");
    let ended = place.run(&["ls", "dd/"]);
    assert!(ended.code == 1 && ended.stderr.contains("did you mean"), "{}", ended.stderr);
    let examined = place.ok(&["doctor", "d/", "--format", "csv"]).stdout;
    assert!(examined.contains("conditional write,ok") && examined.contains("delete,ok"), "{examined}");
    assert_eq!(place.names("d"), ["_hidden/", "_hidden/c.csv", "a.csv", "m=1/", "m=1/b.csv"]);
}
