//! The main job with its data, its outputs and its model on a store; the outputs read back by DuckDB and pyarrow.

use std::fs;
use std::path::Path;

use crate::program::{Place, REPOSITORY};
use crate::servers::{Kind, Server, python};

/// Reads Parquet files of a directory of this machine.
const READ: &str = r#"
import sys, glob, duckdb, pyarrow.dataset
files = sorted(glob.glob(sys.argv[1] + "/**/part-*.parquet", recursive=True))
rows = sum(pyarrow.dataset.dataset(files, format="parquet").count_rows() for _ in [0])
print(rows, duckdb.sql(f"SELECT count(*) FROM read_parquet({files})").fetchall()[0][0])
"#;

/// The job in its small form: one month of flights, one epoch; the store's URL in all of its places.
fn on(kind: Kind) {
    let Some(server) = kind.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let original = fs::read_to_string(Path::new(REPOSITORY).join("examples/jobs/late_flights.sql")).unwrap();
    let small = original.replace("max_iterations = 5", "max_iterations = 1");
    assert_ne!(small, original, "the job says how many epochs it trains");
    place.write("late_flights.sql", small);
    put_data(server, &place, &root);

    let parameters = format!("data={root}data");
    let outputs = format!("out={root}out");
    let warehouse = format!("{root}models");
    let single_writer = format!("storage.single_writer={}", kind == Kind::RcloneS3);
    let ended = server.ok(
        &place,
        &[
            "--set",
            &single_writer,
            "run",
            "late_flights.sql",
            "-p",
            &parameters,
            "-p",
            &outputs,
            "-p",
            "min_auc=0.7",
            "-p",
            "min_logistic_auc=0.7",
            "--warehouse",
            &warehouse,
        ],
    );
    assert!(ended.stderr.contains("\nJob late_flights.sql: 24 statements in "), "{}", ended.stderr);
    assert!(!place.path("out").exists() && !place.path("warehouse").exists(), "nothing is written here");

    // What is there is what was said to be written, for us and for others.
    let scored = format!("{root}out/scored/");
    let rows = server.rows(&place, &format!("SELECT count(*) FROM '{scored}'"));
    assert_ne!(rows, "0\n");
    let models =
        server.ok(&place, &["models", "ls", "--warehouse", &warehouse, "--format", "csv", "--no-header"]).stdout;
    assert_eq!(models.lines().count(), 2, "{models}");
    let loaded = ["-q", "--warehouse", &warehouse, "--format", "csv", "--no-header", "-c"];
    let metrics = [&loaded[..], &["SELECT count(*) FROM ML.EVALUATE(MODEL late_flights)"]].concat();
    assert_eq!(server.ok(&place, &metrics).stdout, "1\n");
    server.ok(&place, &["-q", "-c", &format!("COPY (SELECT * FROM '{scored}') TO 'fetched/' STORED AS PARQUET")]);
    if let Some(read) = python(READ, &[place.path("fetched").to_str().unwrap()], &[]) {
        let count = rows.trim();
        assert_eq!(read, format!("{count} {count}\n"));
    }
}

/// Puts one month of flights and the other tables of the job there, through the program itself.
fn put_data(server: &Server, place: &Place, root: &str) {
    let data = Path::new(REPOSITORY).join("examples/data/nycflights13");
    let data = data.display();
    let sql = format!(
        "COPY (SELECT * FROM '{data}/flights.parquet' WHERE month = 1) TO '{root}data/flights.parquet' MODE OVERWRITE;
         COPY (SELECT * FROM '{data}/airlines.parquet') TO '{root}data/airlines.parquet' MODE OVERWRITE;
         CREATE EXTERNAL TABLE weather STORED AS CSV LOCATION '{data}/weather.csv';
         COPY weather TO '{root}data/weather.csv' MODE OVERWRITE;
         CREATE EXTERNAL TABLE planes STORED AS CSV LOCATION '{data}/planes.csv';
         COPY planes TO '{root}data/planes.csv' MODE OVERWRITE"
    );
    server.ok(place, &["-q", "-c", &sql]);
}

#[test]
fn moto() {
    on(Kind::Moto);
}

/// Which has no condition: it is said that there is no other writer.
#[test]
fn rclone_s3() {
    on(Kind::RcloneS3);
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
