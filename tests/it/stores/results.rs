//! `-o` names a file in a store: rows in any format, predictions among them, in one request or in several.

use crate::program::Place;
use crate::servers::Kind;

fn on(kind: Kind) {
    let Some(server) = kind.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let warehouse = format!("{root}models");
    let train = format!(
        "CREATE MODEL m OPTIONS (model_type = 'linear_reg', input_label_cols = ['y']) \
         AS SELECT value AS x, 2.0 * value AS y FROM generate_series(1, 100); \
         COPY (SELECT value AS x FROM generate_series(1, 3)) TO '{root}new.csv'"
    );
    server.ok(&place, &["-q", "--warehouse", &warehouse, "-c", &train]);
    // What the engine writes itself, and what is printed.
    for (name, more) in [("a.parquet", &[][..]), ("b.jsonl", &[]), ("c.csv", &["--null", "NA"])] {
        let (data, output) = (format!("{root}new.csv"), format!("{root}{name}"));
        let arguments = ["-q", "--warehouse", &warehouse, "predict", "m", &data, "-o", &output];
        server.ok(&place, &[&arguments[..], more].concat());
        let sum = format!("SELECT count(*), round(sum(predicted_y)) FROM '{output}'");
        assert_eq!(server.rows(&place, &sum), "3,12.0\n", "{name}");
    }
    let output = format!("{root}table.md");
    server.ok(&place, &["-q", "-c", "SELECT 1 AS a", "-o", &output]);
    let listed = server.ok(&place, &["ls", &root, "--format", "csv", "--no-header"]).stdout;
    let bytes = listed.lines().find_map(|line| line.strip_prefix("table.md,")?.split(',').next()?.parse::<u64>().ok());
    assert!(bytes.is_some_and(|bytes| bytes > 5), "{listed}");

    let output = format!("{root}big.tsv");
    let sql = "SELECT value AS n, repeat('x', 100) AS text FROM generate_series(1, 200000)";
    server.ok(&place, &["-q", "-c", sql, "-o", &output]);
    let sum = format!("SELECT count(*), sum(n), min(length(text)) FROM '{output}'");
    assert_eq!(server.rows(&place, &sum), "200000,20000100000,100\n");
    // A job that fails leaves what was there.
    let ended = server.run(&place, &["-q", "-c", "SELECT 1 AS n; SELECT 1 / 0", "-o", &output]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(server.rows(&place, &sum), "200000,20000100000,100\n");
    assert_eq!(place.temporary(), Vec::<String>::new());
}

#[test]
fn moto() {
    on(Kind::Moto);
}

#[test]
fn google_cloud_storage() {
    on(Kind::Gcs);
}

#[test]
fn azurite() {
    on(Kind::Azurite);
}

#[test]
fn hdfs() {
    on(Kind::Hdfs);
}

#[test]
fn places_that_take_no_file() {
    let place = Place::new();
    for (output, expected) in [
        ("memory://m/x.csv", "-o memory://m/x.csv: memory is gone when the program ends"),
        ("https://h/x.csv", "-o https://h/x.csv: web servers are only read"),
        ("s3://b/x.csv/", "-o s3://b/x.csv/: is a directory; COPY (query) TO writes one"),
    ] {
        let ended = place.run(&["-q", "-c", "SELECT 1", "--format", "csv", "-o", output]);
        assert_eq!(ended.code, 2, "{output}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{output}: {}", ended.stderr);
    }
}
