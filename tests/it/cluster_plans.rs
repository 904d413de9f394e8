//! What runs on executors rather than in the driver, told by EXPLAIN ANALYZE: a driver has no stages.

use std::path::Path;
use std::process::{Command, Output};

use crate::cluster_process::shared;

const FLIGHTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/nycflights13/flights.parquet");

fn on_cluster(warehouse: &Path, sql: &str) -> Output {
    let address = shared().address().to_string();
    Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["-q", "--format", "csv", "--no-header", "--cluster", &address, "--warehouse"])
        .arg(warehouse)
        .args(["-c", sql])
        .output()
        .unwrap()
}

fn answer(warehouse: &Path, sql: &str) -> String {
    let output = on_cluster(warehouse, sql);
    assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn explain_analyze_shows_every_stage() {
    let directory = tempfile::tempdir().unwrap();
    let warehouse = directory.path().join("warehouse");
    let sql = format!("EXPLAIN ANALYZE SELECT carrier, count(*) FROM '{FLIGHTS}' GROUP BY 1 ORDER BY 2");
    let told = answer(&warehouse, &sql);
    for part in [
        "Plan with Metrics",
        "stage 1, ",
        "stage 2, ",
        "stage 3, ",
        "SortExec",
        "mode=Partial",
        "mode=FinalPartitioned",
    ] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    // Both tasks of the scan, together.
    let scan = told.lines().find(|line| line.contains("DataSourceExec")).unwrap();
    assert!(scan.contains("output_rows=336.8 K") || scan.contains("output_rows=336776"), "{scan}");
    assert!(!told.contains("Full Metrics"), "{told}");
    let verbose = answer(&warehouse, &sql.replace("ANALYZE", "ANALYZE VERBOSE"));
    assert!(verbose.contains("Plan with Full Metrics") && verbose.contains("Output Rows,16"), "{verbose}");
    // What has no files has no stages.
    let told = answer(&warehouse, "EXPLAIN ANALYZE SELECT sum(value) FROM generate_series(1, 5)");
    assert!(!told.contains("stage 1, "), "{told}");
}

#[test]
fn a_large_table_made_from_a_query_is_read_by_executors() {
    let directory = tempfile::tempdir().unwrap();
    let warehouse = directory.path().join("warehouse");
    let make = format!("CREATE TABLE kept AS SELECT *, flight AS copy FROM '{FLIGHTS}'");
    let told = answer(&warehouse, &format!("{make}; EXPLAIN ANALYZE SELECT sum(copy - flight), count(*) FROM kept"));
    assert!(told.contains("stage 1, ") && told.contains("_temporary"), "{told}");
    let sql = format!(
        "{make}; INSERT INTO kept SELECT *, 0 FROM '{FLIGHTS}' WHERE month = 1; CREATE TABLE kept2 AS SELECT * FROM kept; \
         SELECT count(*), sum(copy - flight) < 0 FROM kept2 WHERE month <= 1; SELECT max(copy) FROM kept2;"
    );
    assert_eq!(answer(&warehouse, &sql), "54008,true\n8500\n");
    // A small one travels inside the plans that need it.
    let sql = format!(
        "CREATE TABLE small AS SELECT carrier, count(*) AS n FROM '{FLIGHTS}' GROUP BY 1; \
         DELETE FROM small WHERE n < 1000; SELECT count(*), sum(n) FROM small; \
         EXPLAIN ANALYZE SELECT count(*) FROM '{FLIGHTS}' f JOIN small s ON f.carrier = s.carrier"
    );
    let told = answer(&warehouse, &sql);
    assert!(told.contains("stage 1, ") && !told.contains("_temporary"), "{told}");
    assert!(!warehouse.exists(), "temporary tables stay after their sessions");
}

/// A join that must not be collected does not have the others' large sides shuffled.
#[test]
fn each_join_is_planned_for_tasks_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let warehouse = directory.path().join("warehouse");
    let data = Path::new(FLIGHTS).parent().unwrap().display();
    let joined = format!(
        "FROM '{data}/airlines.parquet' a LEFT JOIN \
         (SELECT f.carrier, f.month FROM '{FLIGHTS}' f JOIN '{data}/airports.parquet' o ON f.origin = o.faa) c \
         ON a.carrier = c.carrier AND c.month > 12"
    );
    // Rows without a partner come once, and not once a task.
    assert_eq!(answer(&warehouse, &format!("SELECT count(*), count(c.carrier) {joined}")), "16,0\n");
    let told = answer(&warehouse, &format!("EXPLAIN ANALYZE SELECT count(*), count(c.carrier) {joined}"));
    let inner = told.lines().find(|line| line.contains("join_type=Inner")).unwrap();
    assert!(inner.contains("mode=CollectLeft"), "{told}");
    let scan = told.split("stage ").find(|stage| stage.contains("flights.parquet")).unwrap();
    assert!(scan.contains("join_type=Inner"), "the scan is in the stage of its join:\n{told}");
}

/// Avro as its specification says, uncompressed: rows of a whole number and a text.
fn avro(rows: &[(i64, &str)]) -> Vec<u8> {
    fn long(bytes: &mut Vec<u8>, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest > 0x7f {
            bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    }
    fn text(bytes: &mut Vec<u8>, text: &str) {
        long(bytes, text.len() as i64);
        bytes.extend_from_slice(text.as_bytes());
    }
    const SCHEMA: &str = r#"{"type": "record", "name": "row", "fields": [{"name": "n", "type": "long"}, {"name": "t", "type": "string"}]}"#;
    const SYNC: &[u8; 16] = b"sixteen of these";
    let mut file = b"Obj\x01".to_vec();
    long(&mut file, 2);
    for (key, value) in [("avro.schema", SCHEMA), ("avro.codec", "null")] {
        text(&mut file, key);
        text(&mut file, value);
    }
    long(&mut file, 0);
    file.extend_from_slice(SYNC);
    let mut block = Vec::new();
    for (number, word) in rows {
        long(&mut block, *number);
        text(&mut block, word);
    }
    long(&mut file, rows.len() as i64);
    long(&mut file, block.len() as i64);
    file.extend_from_slice(&block);
    file.extend_from_slice(SYNC);
    file
}

#[test]
fn avro_is_read_by_executors() {
    let directory = tempfile::tempdir().unwrap();
    let warehouse = directory.path().join("warehouse");
    std::fs::create_dir(directory.path().join("in")).unwrap();
    std::fs::write(directory.path().join("in/a.avro"), avro(&[(1, "x"), (-200, "y")])).unwrap();
    std::fs::write(directory.path().join("in/b.avro"), avro(&[(300, "x")])).unwrap();
    let from = format!("SELECT t, sum(n) FROM '{}/in/' GROUP BY 1 ORDER BY 1", directory.path().display());
    assert_eq!(answer(&warehouse, &from), "x,301\ny,-200\n");
    let told = answer(&warehouse, &format!("EXPLAIN ANALYZE {from}"));
    assert!(told.contains("stage 1, ") && told.contains("avro"), "{told}");
}

/// Two directories of two files each: a few names, and many numbers.
fn few_and_many(warehouse: &Path, directory: &Path) -> (String, String) {
    let (few, many) = (directory.join("few"), directory.join("many"));
    let mut sql = String::new();
    for (table, part, rows) in [
        (&few, 1, "SELECT * FROM (VALUES (1, 'ash'), (2, 'beech')) v(k, name)"),
        (&few, 2, "SELECT * FROM (VALUES (3, 'cedar'), (CAST(NULL AS BIGINT), 'none')) v(k, name)"),
        (&many, 1, "SELECT value AS k, value % 3 AS g, 7 AS c FROM generate_series(0, 24)"),
        (&many, 2, "SELECT value AS k, value % 3 AS g, 7 AS c FROM generate_series(15, 39)"),
    ] {
        sql += &format!("COPY ({rows}) TO '{}/{part}.parquet';\n", table.display());
    }
    answer(warehouse, &sql);
    (format!("'{}/'", few.display()), format!("'{}/'", many.display()))
}

/// Joins that one task must see whole, and windows over a column of one value, are run by executors nonetheless.
#[test]
fn what_is_gathered_for_one_task_runs_on_executors() {
    let directory = tempfile::tempdir().unwrap();
    let warehouse = directory.path().join("warehouse");
    let (few, many) = few_and_many(&warehouse, directory.path());
    for (query, expected) in [
        (format!("SELECT count(*), count(b.k) FROM {few} a LEFT JOIN {many} b ON a.k > b.k + 100"), "4,0\n"),
        (format!("SELECT count(*), count(a.name) FROM {few} a FULL JOIN {many} b ON a.k > b.k + 100"), "54,4\n"),
        (format!("SELECT count(*) FROM {few} a WHERE NOT EXISTS (SELECT 1 FROM {many} b WHERE b.k > a.k + 36)"), "2\n"),
        (format!("SELECT count(*) FROM {few} a WHERE EXISTS (SELECT 1 FROM {many} b WHERE b.k > a.k)"), "3\n"),
        (format!("SELECT count(*) FROM {many} WHERE k NOT IN (SELECT k FROM {few} WHERE k > 1)"), "48\n"),
        (format!("SELECT count(*) FROM {many} WHERE k NOT IN (SELECT k FROM {few})"), "0\n"),
        (
            format!(
                "SELECT count(*), sum(n) FROM (SELECT count(*) OVER (PARTITION BY g, c) AS n FROM {many} WHERE c = 7)"
            ),
            "50,836\n",
        ),
        (format!("SELECT g, sum(k) FROM {many} GROUP BY ROLLUP (g) ORDER BY 1 NULLS LAST LIMIT 1"), "0,351\n"),
    ] {
        assert_eq!(answer(&warehouse, &query), expected, "{query}");
        let told = answer(&warehouse, &format!("EXPLAIN ANALYZE {query}"));
        assert!(told.contains("stage 1, "), "{query}\n{told}");
        let told = answer(&warehouse, &format!("EXPLAIN {query}"));
        assert!(!told.contains("runs in the driver"), "{query}\n{told}");
    }
}

/// What cannot be told to executors is not told otherwise: it runs in the driver, and EXPLAIN says why.
#[test]
fn a_plan_that_does_not_survive_its_way_stays_at_home() {
    let directory = tempfile::tempdir().unwrap();
    let warehouse = directory.path().join("warehouse");
    let (few, many) = few_and_many(&warehouse, directory.path());
    for (query, expected) in [
        (format!("SELECT max(n) FROM (SELECT count(*) FILTER (WHERE k > 30) OVER () AS n FROM {many})"), "9\n"),
        (format!("SELECT max(b) FROM (SELECT lag(k) IGNORE NULLS OVER (ORDER BY name) AS b FROM {few})"), "3\n"),
        (format!("SELECT count(*), sum(k) FROM {many} GROUP BY GROUPING SETS (())"), "50,975\n"),
        (format!("SELECT name FROM {few} WHERE k = (SELECT k FROM {few} WHERE name = 'ash')"), "ash\n"),
    ] {
        assert_eq!(answer(&warehouse, &query), expected, "{query}");
        let told = answer(&warehouse, &format!("EXPLAIN {query}"));
        assert!(told.contains("runs in the driver: "), "{query}\n{told}");
        let told = answer(&warehouse, &format!("EXPLAIN ANALYZE {query}"));
        assert!(!told.contains("stage 1, ") && told.contains("runs in the driver: "), "{query}\n{told}");
    }
}
