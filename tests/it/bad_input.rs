//! Whatever is wrong with what the user gives: one message that names the thing, the exit code that belongs to it, and
//! nothing left behind.
//!
//! A case is what is wrong; `tests/golden/bad_input.txt` holds all that the program says about it on stderr.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::model_files;
use crate::program::{Ended, Place, REPOSITORY, before_exec, finish};

/// 100 people, of whom every fourth is late.
const PEOPLE: &str = "CREATE VIEW people AS SELECT value AS id, CAST(value % 40 AS DOUBLE) AS age, \
    CASE value % 3 WHEN 0 THEN 'Rome' WHEN 1 THEN 'Oslo' ELSE 'Lima' END AS city, value % 4 = 0 AS late \
    FROM generate_series(1, 100);\n";

/// A place with files of every kind of badness.
fn place() -> Place {
    let place = Place::new();
    place.write("good.csv", "id,age,city\n1,30,Rome\n2,41,Oslo\n3,25,Lima\n");
    place.write("bad_value.csv", "id,age,city\n1,30,Rome\n2,41,Oslo\n3,old,Lima\n4,1,Bonn\n");
    place.write("bad_width.csv", "id,age,city\n1,30,Rome\n2,41\n3,25,Lima\n");
    place.write("bad.jsonl", "{\"id\": 1, \"age\": 30}\n{\"id\": 2, \"age\": }\n");
    let whole = fs::read(format!("{REPOSITORY}/examples/data/nycflights13/airports.parquet")).unwrap();
    place.write("cut.parquet", &whole[..whole.len() / 2]);
    let mut holed = whole.clone();
    holed[whole.len() / 4..whole.len() / 2].fill(0);
    place.write("holed.parquet", &holed);
    place.write("empty.parquet", "");
    place.write("secret.csv", "id\n1\n");
    fs::set_permissions(place.path("secret.csv"), fs::Permissions::from_mode(0o0)).unwrap();
    symlink("circle.csv", place.path("circle.csv")).unwrap();
    fs::create_dir(place.path("folder")).unwrap();
    place
}

/// Even root is refused what the file's mode refuses.
fn without_privileges() -> std::io::Result<()> {
    const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
    const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;
    for capability in [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] {
        // SAFETY: takes a capability from what this process may hand on. Who has none fails here, and needs no less.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    Ok(())
}

fn run(place: &Place, arguments: &[&str]) -> Ended {
    let mut command = place.command(arguments);
    before_exec(&mut command, without_privileges);
    finish(command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()))
}

/// Runs what `arguments` say and compares with `tests/golden/bad_input.txt`; all that differs is told at once. To write what
/// is said now into a file of that form (in the target directory), set `BAD_INPUT_COMPLETE=1`; then read the difference.
fn compare(faults: &mut Vec<String>, place: &Place, arguments: &[&str], code: i32) {
    let before = place.contents();
    let ended = run(place, arguments);
    // Places are named in full, and the place is another one at every run.
    let said = without_chance(&ended.stderr.replace(place.path("").to_str().unwrap(), ""));
    let script = fs::read_to_string(place.path("job.sql")).unwrap_or_default();
    let what = format!("{}\n{}\n", arguments.join(" "), script.trim_end());
    if std::env::var_os("BAD_INPUT_COMPLETE").is_some() {
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bad_input.txt");
        let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        file.write_all(format!("=== {what}---\n{said}").as_bytes()).unwrap();
    } else {
        let golden = fs::read_to_string(format!("{REPOSITORY}/tests/golden/bad_input.txt")).unwrap();
        let expected = golden.split("=== ").find_map(|case| case.strip_prefix(&what)?.strip_prefix("---\n"));
        let expected = expected.unwrap_or("(nothing: the file has no such case)\n");
        if ended.code != code || said != expected {
            let got = ended.code;
            faults.push(format!("{what}exit {got}, expected {code}; it said\n{said}instead of\n{expected}"));
        }
    }
    let after = place.contents();
    if after != before {
        let left: Vec<_> = after.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
        faults.push(format!("{what}left {left:?}"));
    }
}

/// Files of a table are called something else at every run.
fn without_chance(said: &str) -> String {
    let mut parts = said.split("part-00000-");
    let mut text = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit() || c == '-');
        text.push_str("part-00000-*");
        text.push_str(rest);
    }
    text
}

/// Scripts that fail with exit code 1, and what is said.
fn fail(cases: &[&str]) {
    fail_with(1, cases);
}

fn fail_with(code: i32, cases: &[&str]) {
    let mut faults = Vec::new();
    for script in cases {
        let place = place();
        place.write("job.sql", script);
        compare(&mut faults, &place, &["run", "-q", "job.sql"], code);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn with_people(script: &str) -> String {
    format!("{PEOPLE}{script}")
}

#[test]
fn an_error_in_statement_7_of_9() {
    let place = place();
    let script = "\
DECLARE n BIGINT DEFAULT 3;
SET engine.batch_size = 100;
CREATE VIEW people AS SELECT * FROM 'good.csv';
SELECT 'four' AS said;
ASSERT (SELECT count(*) FROM people) = $n;
SELECT 'six' AS said;
SELECT max(agee) AS said
FROM people;
SELECT 'eight' AS said;
COPY people TO 'nine.csv';
";
    place.write("job.sql", script);
    let before = place.contents();
    let ended = run(&place, &["run", "job.sql", "--format", "csv", "--no-header"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, "four\nsix\n"));
    assert!(ended.stderr.contains("\nJob job.sql: 6 of 9 statements in "), "{}", ended.stderr);
    let expected = "\
error: there is no column `agee`
 --> job.sql:7:12
  |
7 | SELECT max(agee) AS said
  |            ^^^^
hint: did you mean `age`?
";
    assert!(ended.stderr.ends_with(expected), "{}", ended.stderr);
    assert_eq!(place.contents(), before);
}

#[test]
fn names_that_do_not_exist() {
    fail(&[
        "SELECT agee FROM 'good.csv'",
        "SELECT * FROM peple",
        "CREATE VIEW people AS SELECT 1 AS id; SELECT * FROM peple",
        "SELECT rund(age) FROM 'good.csv'",
        "SELECT ML.BUCKETISE(age, [20, 40]) FROM 'good.csv'",
        "SELECT * FROM ML.PREDIKT(MODEL m, TABLE t)",
        "SELECT * FROM ML.PREDICT(MODEL m, TABLE t)",
        "SELEC 1",
    ]);
}

#[test]
fn model_statements_that_do_not_fit() {
    let create = |options: &str| with_people(&format!("CREATE MODEL m OPTIONS ({options}) AS SELECT * FROM people"));
    fail(&[
        &create("model_type = 'logistic_regg', input_label_cols = ['late']"),
        &create("model_type = 'boosted_tree_classifier', input_label_cols = ['late']"),
        &create("model_type = 'logistic_reg', input_label_cols = ['lat']"),
        &create("model_type = 'logistic_reg'"),
        &create("model_type = 'dnn_classifier', input_label_cols = ['late'], hiden_units = [4]"),
        &create("model_type = 'dnn_classifier', input_label_cols = ['late'], hidden_units = 'many'"),
        &create("model_type = 'dnn_classifier', input_label_cols = ['late'], optimizer = 'ADAMM'"),
        &create("model_type = 'linear_reg', input_label_cols = ['city']"),
    ]);
}

#[test]
fn options_and_parameters() {
    fail_with(2, &["DECLARE day DATE; SELECT $day"]);
    fail(&[
        "SET engine.batchsize = 100",
        "SET engine.batch_size = 'many'",
        "SELECT $day",
        "DECLARE day DATE DEFAULT 'soon'; SELECT $day",
    ]);
    let mut faults = Vec::new();
    for (arguments, code) in [
        (&["run", "job.sql", "-p", "n=three"][..], 2),
        (&["run", "job.sql", "-p", "m=3"], 2),
        (&["run", "job.sql", "-p", "n"], 2),
        (&["run", "jobb.sql"], 2),
        (&["run", "folder"], 2),
        (&["run", "secret.csv"], 2),
        (&["run", "job.sql", "--set", "engine.thread=2"], 2),
        (&["run", "job.sql", "-m", "much"], 2),
        (&["-c", "SELECT 1", "-o", "result"], 2),
        (&["-c", "SELECT 1", "-o", "folder"], 2),
    ] {
        let place = place();
        place.write("job.sql", "DECLARE n BIGINT DEFAULT 1;\nSELECT $n AS n;\n");
        compare(&mut faults, &place, arguments, code);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn assertions_that_do_not_hold() {
    fail_with(
        3,
        &[
            "ASSERT (SELECT count(*) FROM 'good.csv') > 5 AS 'all people are there'",
            "ASSERT (SELECT avg(age) FROM 'good.csv') BETWEEN 50 AND 60",
            "ASSERT (SELECT max(age) FROM 'good.csv' WHERE id > 9) > 0",
        ],
    );
}

#[test]
fn files_that_cannot_be_read() {
    fail(&[
        "SELECT * FROM 'god.csv'",
        "SELECT * FROM 'nowhere/*.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'god.csv'",
        "SELECT * FROM 'folder/'",
        "SELECT * FROM 'secret.csv'",
        "SELECT * FROM 'circle.csv'",
        "SELECT * FROM 'empty.parquet'",
        "SELECT * FROM 'cut.parquet'",
        "SELECT max(name), sum(lat), max(tzone) FROM 'holed.parquet'",
        "CREATE EXTERNAL TABLE t (id BIGINT, age DOUBLE, city STRING) STORED AS CSV LOCATION 'bad_value.csv' OPTIONS ('format.has_header' 'true');\nSELECT sum(age) FROM t",
        "CREATE EXTERNAL TABLE t (id BIGINT, age DOUBLE, city STRING) STORED AS CSV LOCATION 'bad_value.csv' OPTIONS ('format.has_header' 'true');\nCOPY t TO 'out/' STORED AS PARQUET",
        "COPY (SELECT * FROM 'bad_width.csv') TO 'out.parquet'",
        "SELECT * FROM 'bad.jsonl'",
        "CREATE EXTERNAL TABLE t (id BIGINT, age BIGINT) STORED AS JSON LOCATION 'bad.jsonl'; COPY t TO 'out/' STORED AS PARQUET",
        "SELECT * FROM 'good.csv' AS g JOIN 's3://bucket/t.csv' AS s ON g.id = s.id",
    ]);
}

#[test]
fn labels_that_teach_nothing() {
    let create = |kind: &str, label: &str, from: &str| {
        with_people(&format!(
            "CREATE MODEL m OPTIONS (model_type = '{kind}', input_label_cols = ['y']) AS SELECT {label} AS y, age, city FROM {from}"
        ))
    };
    fail(&[
        &create("logistic_reg", "CAST(NULL AS BOOLEAN)", "people"),
        &create("dnn_classifier", "'a'", "people"),
        &create("linear_reg", "1.5", "people"),
        &create("dnn_regressor", "CASE WHEN id = 7 THEN CAST('NaN' AS DOUBLE) ELSE age END", "people"),
        &create("logistic_reg", "late", "people WHERE id > 100"),
        &create("logistic_reg", "value", "generate_series(1, 10000), (SELECT 1.0 AS age, 'x' AS city)"),
        &create(
            "dnn_classifier",
            "CAST(value AS STRING)",
            "generate_series(1, 10000), (SELECT 1.0 AS age, 'x' AS city)",
        ),
        &with_people(
            "CREATE MODEL m OPTIONS (model_type = 'logistic_reg', input_label_cols = ['late'], data_split_method = 'CUSTOM', \
                 data_split_col = 'held') AS SELECT late, age, TRUE AS held FROM people",
        ),
    ]);
}

#[test]
fn features_that_are_no_numbers() {
    let create = |kind: &str, value: &str| {
        with_people(&format!(
            "CREATE MODEL m OPTIONS (model_type = '{kind}', input_label_cols = ['late']) \
             AS SELECT late, city, CASE WHEN id = 7 THEN CAST('{value}' AS DOUBLE) ELSE age END AS age FROM people"
        ))
    };
    let mut cases = Vec::new();
    for kind in ["logistic_reg", "dnn_classifier"] {
        for value in ["NaN", "Infinity", "-Infinity", "1e300"] {
            cases.push(create(kind, value));
        }
    }
    fail(&cases.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn training_that_diverges() {
    let create = |options: &str| {
        with_people(&format!(
            "CREATE MODEL m OPTIONS ({options}, input_label_cols = ['y'], early_stop = FALSE, data_split_method = 'NO_SPLIT') \
             AS SELECT id * 1000.0 AS y, age, city FROM people"
        ))
    };
    fail(&[
        &create("model_type = 'dnn_regressor', optimizer = 'SGD', learn_rate = 1e6"),
        &create(
            "model_type = 'dnn_regressor', optimizer = 'SGD', learn_rate = 1e30, max_iterations = 1, batch_size = 100",
        ),
        &create(
            "model_type = 'linear_reg', optimize_strategy = 'BATCH_GRADIENT_DESCENT', learn_rate_strategy = 'CONSTANT', learn_rate = 1e6",
        ),
    ]);
}

#[test]
fn outputs_that_exist() {
    let mut faults = Vec::new();
    for script in [
        "COPY (SELECT 1 AS a) TO 'out/' STORED AS PARQUET",
        "COPY (SELECT 1 AS a) TO 'out/' STORED AS PARQUET MODE ERROR",
        "COPY (SELECT 1 AS a) TO 'good.csv'",
        "COPY (SELECT 1 AS a) TO 'good.csv/out/' STORED AS PARQUET",
        "COPY (SELECT 1 AS a, 2 AS b) TO 'out/' STORED AS PARQUET PARTITIONED BY (c) MODE OVERWRITE",
    ] {
        let place = place();
        place.ok(&["-q", "-c", "COPY (SELECT 0 AS a) TO 'out/' STORED AS PARQUET"]);
        place.write("job.sql", script);
        compare(&mut faults, &place, &["run", "-q", "job.sql"], 1);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_no_data_is_not_overwritten() {
    let mut faults = Vec::new();
    for script in [
        "COPY (SELECT 1 AS a) TO 'folder.csv' MODE OVERWRITE",
        "COPY (SELECT 1 AS a) TO 'folder.csv/' STORED AS CSV MODE OVERWRITE",
    ] {
        let place = place();
        place.write("folder.csv/notes.txt", "mine");
        place.write("job.sql", script);
        compare(&mut faults, &place, &["run", "-q", "job.sql"], 1);
        assert_eq!(fs::read_to_string(place.path("folder.csv/notes.txt")).unwrap(), "mine");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A model on people, and rows to predict.
fn place_with_model() -> Place {
    let place = place();
    let create = "CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', input_label_cols = ['late'], max_iterations = 2, \
                  data_split_method = 'RANDOM') AS SELECT late, age, city FROM people;";
    place.write("create.sql", with_people(create));
    place.ok(&["run", "-q", "create.sql"]);
    place.write("new.csv", "age,city\n30,Rome\n41,Oslo\n");
    place
}

#[test]
fn models_that_are_not_there_or_exist_already() {
    let mut faults = Vec::new();
    let place = place_with_model();
    for (arguments, code) in [
        (&["run", "-q", "create.sql"][..], 1),
        (&["predict", "n", "new.csv"], 1),
        (&["predict", "m@3", "new.csv"], 1),
        (&["predict", "m@best", "new.csv"], 1),
        (&["predict", "m", "neww.csv"], 1),
        (&["predict", "m", "bad.jsonl"], 1),
        (&["predict", "m", "secret.csv", "-o", "scored.parquet"], 1),
        (&["-c", "SELECT * FROM ML.PREDICT(MODEL m, (SELECT 1.0 AS age))"], 1),
        (&["-c", "SELECT * FROM ML.PREDICT(MODEL m, (SELECT 'x' AS age, 'Rome' AS city))"], 1),
        (&["-c", "SELECT * FROM ML.PREDICT(MODEL m, (SELECT CAST('NaN' AS DOUBLE) AS age, 'Rome' AS city))"], 1),
        (&["models", "show", "n"], 1),
        (&["models", "rm", "n"], 1),
        (&["models", "rm", "m@2"], 1),
        (&["models", "reproduce", "m@2"], 1),
    ] {
        compare(&mut faults, &place, arguments, code);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_flipped_byte_in_any_file_of_a_model_is_refused() {
    let place = place_with_model();
    let directory = model_files::directory(&place, "m", 1);
    let manifest = directory.parent().unwrap().join("manifest.json");
    let files: Vec<_> =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).chain([manifest]).collect();
    assert!(files.len() > 8, "{files:?}");
    // Whichever file is damaged, one of these reads it.
    let readers = [
        vec!["predict", "m", "new.csv"],
        vec!["models", "show", "m"],
        vec!["-q", "-c", "SELECT * FROM ML.EVALUATE(MODEL m)"],
    ];
    for file in files {
        let whole = fs::read(&file).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&file, &damaged).unwrap();
            let refused: Vec<Ended> =
                readers.iter().map(|reader| run(&place, reader)).filter(|ended| ended.code != 0).collect();
            assert!(!refused.is_empty(), "byte {at} of {} is flipped, and nobody minds", file.display());
            for ended in refused {
                assert_eq!(ended.code, 1, "{}", ended.stderr);
                assert!(
                    ended.stderr.contains(file.to_str().unwrap()),
                    "{} is not named in\n{}",
                    file.display(),
                    ended.stderr
                );
                assert_eq!(ended.stderr.matches("error:").count(), 1, "{}", ended.stderr);
                assert_eq!(ended.stdout, "");
            }
        }
        fs::write(&file, &whole).unwrap();
    }
    place.ok(&readers[0]);
}
