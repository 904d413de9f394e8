//! Ten writers at once to one table: with APPEND every commit is whole and none is lost, with ERROR exactly one wins. A
//! store on which nobody can be first refuses instead of losing rows.

use crate::program::{Ended, Place, Running};
use crate::servers::{Kind, Server};

const WRITERS: usize = 10;

fn at_once(server: &Server, place: &Place, table: &str, clauses: &str) -> Vec<Ended> {
    let start = |n: usize| {
        let rows = "SELECT value AS a FROM generate_series(1, 100)";
        let sql = format!("COPY (SELECT {n} AS n, a FROM ({rows})) TO '{table}' {clauses}");
        Running::start(place, server.command(place, &["-q", "-c", &sql]))
    };
    let running: Vec<Running> = (0..WRITERS).map(start).collect();
    running.into_iter().map(Running::end).collect()
}

fn on(kind: Kind, stored: &str) {
    let Some(server) = kind.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    let count = |table: &str| server.rows(&place, &format!("SELECT count(*), count(DISTINCT n) FROM '{table}'"));

    let table = format!("{root}appended/");
    let ended = at_once(server, &place, &table, &format!("STORED AS {stored} MODE APPEND"));
    assert!(ended.iter().all(|ended| ended.code == 0), "{ended:?}");
    assert_eq!(count(&table), "1000,10\n");

    let table = format!("{root}once/");
    let ended = at_once(server, &place, &table, &format!("STORED AS {stored} MODE ERROR"));
    assert_eq!(ended.iter().filter(|ended| ended.code == 0).count(), 1, "{ended:?}");
    for loser in ended.iter().filter(|ended| ended.code != 0) {
        assert_eq!(loser.code, 1, "{loser:?}");
        let told = ["exists already", "another process has written it meanwhile"];
        assert!(told.iter().any(|text| loser.stderr.contains(text)), "{}", loser.stderr);
    }
    assert_eq!(count(&table), "100,1\n");
}

/// `rclone serve s3` takes `If-None-Match` and does not heed it: found out by trying, and said.
#[test]
fn a_store_without_a_condition_refuses() {
    let Some(server) = Kind::RcloneS3.server() else { return };
    let (place, root) = (Place::new(), server.fresh());
    for stored in ["PARQUET", "DELTA"] {
        let table = format!("{root}{stored}/");
        for mode in ["APPEND", "ERROR"] {
            let sql = format!("COPY (SELECT 1 AS a) TO '{table}' STORED AS {stored} MODE {mode}");
            let ended = server.run(&place, &["-q", "-c", &sql]);
            assert_eq!(ended.code, 1, "{sql}");
            assert!(ended.stderr.contains("cannot put an object only where none is"), "{}", ended.stderr);
        }
    }
    let table = format!("{root}t/");
    server.ok(&place, &["-q", "-c", &format!("COPY (SELECT 1 AS a) TO '{table}' STORED AS PARQUET MODE OVERWRITE")]);
    assert_eq!(server.rows(&place, &format!("SELECT * FROM '{table}'")), "1\n");
    let train = "CREATE MODEL m OPTIONS (model_type = 'linear_reg', input_label_cols = ['a']) AS SELECT value AS x, 2.0 * value AS a FROM generate_series(1, 100)";
    let ended = server.run(&place, &["-q", "--warehouse", &format!("{root}models"), "-c", train]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("cannot put an object only where none is"), "{}", ended.stderr);
}

macro_rules! servers {
    ($($name:ident: $kind:expr,)*) => {
        mod files { $( #[test] fn $name() { super::on($kind, "PARQUET"); } )* }
        mod delta { $( #[test] fn $name() { super::on($kind, "DELTA"); } )* }
    };
}

servers! {
    moto: crate::servers::Kind::Moto,
    google_cloud_storage: crate::servers::Kind::Gcs,
    azurite: crate::servers::Kind::Azurite,
    hdfs: crate::servers::Kind::Hdfs,
}
