//! Delta tables between programs: what we write is read by others' libraries, and what they write by us; writers at the
//! same time; tables that ask for what we do not do.

use std::fs;

use crate::program::{Place, Running};
use crate::servers::python;

/// Prints the rows of a Delta table as CSV.
const READ: &str = r#"
import sys, deltalake
table = deltalake.DeltaTable(sys.argv[1])
rows = sorted((row['a'], row['k'], row['at']) for row in table.to_pyarrow_table().to_pylist())
for row in rows:
    print(*("" if value is None else value for value in row), sep=",")
"#;

#[test]
fn others_read_what_we_write() {
    let place = Place::new();
    place.ok(&[
        "-q",
        "-c",
        "COPY (SELECT value AS a, CASE WHEN value = 2 THEN NULL ELSE 'v ' || value END AS k, \
                      CAST('2013-01-01T05:00:00' AS TIMESTAMP) AS at FROM generate_series(1, 4)) \
         TO 'out/' STORED AS DELTA PARTITIONED BY (k); \
         COPY (SELECT 5 AS a, 'v 1' AS k) TO 'out/' STORED AS DELTA MODE APPEND; \
         COPY (SELECT 6 AS a, 'v 4' AS k) TO 'out/' STORED AS DELTA MODE OVERWRITE PARTITIONS",
    ]);
    let table = place.path("out");
    let Some(read) = python(READ, &[table.to_str().unwrap()], &[]) else { return };
    let expected = "1,v 1,2013-01-01 05:00:00\n2,,2013-01-01 05:00:00\n3,v 3,2013-01-01 05:00:00\n5,v 1,\n6,v 4,\n";
    assert_eq!(read, expected);
    let statistics = python(
        "import sys, deltalake, pyarrow as pa\n\
         rows = pa.table(deltalake.DeltaTable(sys.argv[1]).get_add_actions(flatten=True)).to_pylist()\n\
         print(sum(row['num_records'] for row in rows), min(row['min.a'] for row in rows), max(row['max.a'] for row in rows))",
        &[table.to_str().unwrap()],
        &[],
    );
    assert_eq!(statistics.unwrap(), "5 1 6\n");
}

#[test]
fn we_read_what_others_write() {
    let place = Place::new();
    let table = place.path("theirs");
    let write = r#"
import sys, datetime, pyarrow as pa, deltalake
at = datetime.datetime(2013, 1, 1, 5, tzinfo=datetime.timezone.utc)
rows = lambda first: pa.table({"a": pa.array([first, first + 1], pa.int32()), "k": ["x y", None], "d": [at.date()] * 2, "at": [at] * 2})
deltalake.write_deltalake(sys.argv[1], rows(1), partition_by=["k", "d"])
deltalake.write_deltalake(sys.argv[1], rows(3), mode="append")
deltalake.DeltaTable(sys.argv[1]).delete("a = 1")
deltalake.DeltaTable(sys.argv[1]).create_checkpoint()
more = rows(5).append_column("more", pa.array([0.5, 1.5]))
deltalake.write_deltalake(sys.argv[1], more, mode="append", schema_mode="merge")
"#;
    if python(write, &[table.to_str().unwrap()], &[]).is_none() {
        return;
    }
    let rows = place.rows("SELECT a, k, d, at, more FROM 'theirs/' ORDER BY a");
    let expected = "2,,2013-01-01,2013-01-01T05:00:00Z,\n3,x y,2013-01-01,2013-01-01T05:00:00Z,\n\
                    4,,2013-01-01,2013-01-01T05:00:00Z,\n5,x y,2013-01-01,2013-01-01T05:00:00Z,0.5\n\
                    6,,2013-01-01,2013-01-01T05:00:00Z,1.5\n";
    assert_eq!(rows, expected);
    let first = "CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION 'theirs/' OPTIONS (version 0); SELECT sum(a) FROM t";
    assert_eq!(place.rows(first), "3\n");

    place.ok(&[
        "-q",
        "-c",
        "COPY (SELECT CAST(7 AS INT) AS a, 'x y' AS k, DATE '2013-01-02' AS d) TO 'theirs/' STORED AS DELTA MODE APPEND",
    ]);
    let read =
        "import sys, deltalake; print(sorted(deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table()['a'].to_pylist()))";
    assert_eq!(python(read, &[table.to_str().unwrap()], &[]).unwrap(), "[2, 3, 4, 5, 6, 7]\n");
}

#[test]
fn duckdb_reads_the_files_that_the_log_names() {
    let place = Place::new();
    place.ok(&[
        "-q",
        "-c",
        "COPY (SELECT value AS a FROM generate_series(1, 1000)) TO 'out/' STORED AS DELTA; \
         COPY (SELECT value AS a FROM generate_series(1, 10)) TO 'out/' STORED AS DELTA MODE OVERWRITE",
    ]);
    let read = "import sys, duckdb, deltalake; t = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_dataset(); \
                print(duckdb.sql('SELECT sum(a) FROM t').fetchall()[0][0])";
    if let Some(sum) = python(read, &[place.path("out").to_str().unwrap()], &[]) {
        assert_eq!(sum, "55\n");
    }
}

#[test]
fn ten_writers_at_once() {
    let place = Place::new();
    let copy = |n: usize, mode: &str| {
        let sql = format!(
            "COPY (SELECT {n} AS n, value AS a FROM generate_series(1, 100)) TO 't/' STORED AS DELTA MODE {mode}"
        );
        place.start(&["-q", "-c", &sql])
    };
    let ended = |running: Vec<Running>| running.into_iter().map(Running::end).collect::<Vec<_>>();

    // Nobody has made the table yet: one of them does, and no row of the others is lost.
    let all = ended((0..10).map(|n| copy(n, "APPEND")).collect());
    assert!(all.iter().all(|ended| ended.code == 0), "{all:?}");
    assert_eq!(place.rows("SELECT count(*), count(DISTINCT n) FROM 't/'"), "1000,10\n");
    let commits = place.names("t/_delta_log").into_iter().filter(|name| name.ends_with(".json")).count();
    assert_eq!(commits, 10);

    fs::remove_dir_all(place.path("t")).unwrap();
    let all = ended((0..10).map(|n| copy(n, "ERROR")).collect());
    assert_eq!(all.iter().filter(|ended| ended.code == 0).count(), 1, "{all:?}");
    for loser in all.iter().filter(|ended| ended.code != 0) {
        assert!(loser.stderr.contains("a Delta table exists already (version 0)"), "{}", loser.stderr);
    }
    assert_eq!(place.rows("SELECT count(*), count(DISTINCT n) FROM 't/'"), "100,1\n");
    let files = place.names("t").into_iter().filter(|name| name.ends_with(".parquet"));
    let all_rows = place.rows("SELECT count(*) FROM 't/part-*.parquet'");
    assert_eq!(all_rows, "100\n", "the losers' files are gone: {:?}", files.collect::<Vec<_>>());
}

#[test]
fn what_a_table_asks_for_is_done_or_refused() {
    let place = Place::new();
    for (name, change, read, write) in [
        ("plain", "{}", None, None),
        (
            "readers",
            r#"{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["variantType"], "writerFeatures": ["variantType"]}}"#,
            Some("version 0 of the table uses the feature variantType, which this build does not read"),
            Some("the feature variantType"),
        ),
        (
            "columns",
            r#"{"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}, "configuration": {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"},
                "field": {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "a"}}"#,
            Some("column mapping by name"),
            Some("column mapping by name"),
        ),
        (
            "rows",
            r#"{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": ["rowTracking", "domainMetadata"]}}"#,
            None,
            Some("the table has the feature rowTracking, which COPY does not keep"),
        ),
        (
            "checked",
            r#"{"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}, "configuration": {"delta.constraints.positive": "a > 0"}}"#,
            None,
            Some("the table has the CHECK constraint positive, which COPY does not keep"),
        ),
    ] {
        place.ok(&["-q", "-c", &format!("COPY (SELECT 1 AS a) TO '{name}/' STORED AS DELTA")]);
        let log = place.path(&format!("{name}/_delta_log/00000000000000000000.json"));
        change_log(&log, &serde_json::from_str(change).unwrap());
        let ended = place.run(&["-q", "-c", &format!("SELECT * FROM '{name}/'")]);
        match read {
            None => assert_eq!(ended.code, 0, "{name}: {}", ended.stderr),
            Some(message) => assert!(ended.code == 1 && ended.stderr.contains(message), "{name}: {}", ended.stderr),
        }
        let ended = place.run(&["-q", "-c", &format!("COPY (SELECT 2 AS a) TO '{name}/' STORED AS DELTA MODE APPEND")]);
        match write {
            None => assert_eq!(ended.code, 0, "{name}: {}", ended.stderr),
            Some(message) => assert!(ended.code == 1 && ended.stderr.contains(message), "{name}: {}", ended.stderr),
        }
    }
}

/// Gives a log's first commit another protocol, other settings, or its first column other metadata.
fn change_log(log: &std::path::Path, change: &serde_json::Value) {
    let changed = |line: &str| {
        let mut action: serde_json::Value = serde_json::from_str(line).unwrap();
        if let (Some(_), Some(protocol)) = (action.get("protocol"), change.get("protocol")) {
            action["protocol"] = protocol.clone();
        }
        if let (Some(_), Some(settings)) = (action.get("metaData"), change.get("configuration")) {
            action["metaData"]["configuration"] = settings.clone();
        }
        if let (Some(metadata), Some(field)) = (action.get("metaData"), change.get("field")) {
            let mut schema: serde_json::Value =
                serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
            schema["fields"][0]["metadata"] = field.clone();
            action["metaData"]["schemaString"] = schema.to_string().into();
        }
        action.to_string()
    };
    let text = fs::read_to_string(log).unwrap();
    fs::write(log, text.lines().map(changed).collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn deletion_vectors_are_refused_by_name() {
    let place = Place::new();
    place.ok(&["-q", "-c", "COPY (SELECT value AS a FROM generate_series(1, 3)) TO 't/' STORED AS DELTA"]);
    let log = place.path("t/_delta_log/00000000000000000000.json");
    let text = fs::read_to_string(&log).unwrap();
    let vector = serde_json::json!({"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 4, "sizeInBytes": 40, "cardinality": 1});
    let changed = |line: &str| {
        let mut action: serde_json::Value = serde_json::from_str(line).unwrap();
        if action.get("add").is_some() {
            action["add"]["deletionVector"] = vector.clone();
        }
        action.to_string()
    };
    fs::write(&log, text.lines().map(changed).collect::<Vec<_>>().join("\n")).unwrap();
    let features = serde_json::json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}});
    change_log(&log, &features);
    let ended = place.run(&["-q", "-c", "SELECT * FROM 't/'"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("version 0 of the table uses deletion vectors, which this build does not read"),
        "{}",
        ended.stderr
    );
}
