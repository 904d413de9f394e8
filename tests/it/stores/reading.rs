//! What others have put on servers: objects that Google's emulator was given by its own interface, and files of plain web
//! servers, which are only read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Place;
use crate::servers::{Kind, gcs};

/// Files of two months, of which one name is hidden.
fn files(place: &Place) -> Vec<(String, PathBuf)> {
    let sql = "COPY (SELECT value AS a, value % 2 + 1 AS month FROM generate_series(1, 1000)) TO 'all.parquet'; \
               COPY (SELECT a FROM 'all.parquet' WHERE month = 1) TO 'one.parquet'; \
               COPY (SELECT a FROM 'all.parquet' WHERE month = 2) TO 'two.parquet'; \
               COPY (SELECT 1 AS a) TO 'x.csv'";
    place.ok(&["-q", "-c", sql]);
    let names = [
        ("t/month=1/one.parquet", "one.parquet"),
        ("t/month=2/two.parquet", "two.parquet"),
        ("t/month=2/_hidden.parquet", "two.parquet"),
        ("t b/ü x.csv", "x.csv"),
    ];
    names.map(|(name, file)| (name.to_string(), place.path(file))).into()
}

const SUMS: &str = "1,250500\n2,250000\n";

fn sums(from: &str) -> String {
    format!("SELECT month, sum(a) FROM {from} GROUP BY month ORDER BY month")
}

#[test]
fn google_cloud_storage() {
    let Some(server) = Kind::Gcs.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let directory = root.strip_prefix("gs://lake/").unwrap();
    for (name, file) in files(&place) {
        gcs::put(server, &format!("{directory}{name}"), &fs::read(file).unwrap());
    }
    assert_eq!(server.rows(&place, &sums(&format!("'{root}t/'"))), SUMS);
    assert_eq!(server.rows(&place, &sums(&format!("'{root}t/month=*/*.parquet'"))), SUMS);
    assert_eq!(server.rows(&place, &format!("SELECT a FROM '{root}t b/ü x.csv'")), "1\n");
    assert_eq!(
        server.rows(&place, &format!("SELECT count(*) FROM '{}t/month=1/one.*'", root.replace("gs:", "gcs:"))),
        "500\n"
    );
}

#[test]
fn plain_web_server() {
    let Some(server) = Kind::Http.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let directory = server.served().join(Path::new(&root).file_name().unwrap());
    for (name, file) in files(&place) {
        let to = directory.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    let both = format!(
        "SELECT (SELECT sum(a) FROM '{root}t/month=1/one.parquet'), (SELECT sum(a) FROM '{root}t/month=2/two.parquet')"
    );
    assert_eq!(server.rows(&place, &both), "250500,250000\n");
    assert_eq!(server.rows(&place, &format!("SELECT a FROM '{root}t%20b/%C3%BC%20x.csv'")), "1\n");
    let ended = server.run(&place, &["-q", "-c", &format!("SELECT * FROM '{root}t/month=1/two.parquet'")]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("two.parquet"), "{}", ended.stderr);
}

#[test]
fn webdav_lists_directories() {
    let Some(server) = Kind::WebDav.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let directory = server.served().join(Path::new(&root).file_name().unwrap());
    for (name, file) in files(&place) {
        let to = directory.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    assert_eq!(server.rows(&place, &sums(&format!("'{root}t/'"))), SUMS);
}
