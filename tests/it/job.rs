//! The main job through the real program: what a newcomer types, what is printed where, and how it ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::program::{Ended, Place, REPOSITORY, finish_with_input};

/// A place with the flights job in its small form: two months of flights, two epochs.
fn place() -> Place {
    let place = Place::new();
    let original = fs::read_to_string(Path::new(REPOSITORY).join("examples/jobs/late_flights.sql")).unwrap();
    let small = original.replace("max_iterations = 5", "max_iterations = 2");
    assert_ne!(small, original, "the job says how many epochs it trains");
    place.write("late_flights.sql", small);
    let data = Path::new(REPOSITORY).join("examples/data/nycflights13");
    fs::create_dir(place.path("data")).unwrap();
    for file in ["airlines.parquet", "weather.csv", "planes.csv"] {
        symlink(data.join(file), place.path("data").join(file)).unwrap();
    }
    flights_until(&place, 2);
    place
}

/// Takes the flights up to this month.
fn flights_until(place: &Place, month: usize) {
    let flights = Path::new(REPOSITORY).join("examples/data/nycflights13/flights.parquet");
    place.ok(&[
        "-q",
        "-c",
        &format!(
            "COPY (SELECT * FROM '{}' WHERE month <= {month}) TO 'data/flights.parquet' MODE OVERWRITE",
            flights.display()
        ),
    ]);
}

const RUN: [&str; 8] =
    ["run", "late_flights.sql", "-p", "data=data", "-p", "min_auc=0.80", "-p", "min_logistic_auc=0.80"];

#[test]
fn from_raw_files_to_a_model_that_predicts() {
    let place = place();

    let ended = place.ok(&["check", "late_flights.sql", "-p", "data=data"]);
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.stderr, "late_flights.sql: 24 statements planned, no mistakes found\n");
    assert!(!place.path("warehouse").exists() && !place.path("out").exists(), "check writes nothing");

    let ended = place.ok(&RUN);
    results_are_on_stdout(&ended);
    progress_is_plain_lines_on_stderr(&ended);
    the_report_has_its_parts(&ended);
    assert_eq!(place.temporary(), [""; 0]);

    let listed = place.ok(&["models", "ls", "--format", "csv", "--no-header"]).stdout;
    let fields: Vec<Vec<&str>> = listed.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(fields[0][..5], ["late_flights", "1", "", "dnn_classifier", "late"]);
    assert_eq!(fields[1][..5], ["late_flights_logistic", "1", "", "logistic_reg", "late"]);
    let shown = place.ok(&["models", "show", "late_flights", "--format", "json"]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((&shown["name"], &shown["version"]), (&"late_flights".into(), &1.into()));
    assert_eq!(shown["model"]["lineage"]["inputs"].as_array().unwrap().len(), 3, "flights, weather, planes: {shown:#}");

    predictions(&place);

    let again = place.ok(&["models", "reproduce", "late_flights@1"]);
    assert!(again.stdout.starts_with("late_flights@1: the same bytes again (sha256 "), "{}", again.stdout);
    let removed = place.ok(&["models", "rm", "late_flights_logistic"]);
    assert_eq!(
        (removed.stdout.as_str(), removed.stderr.as_str()),
        ("", "removed 1 version of late_flights_logistic\n")
    );
    assert_eq!(place.ok(&["models", "ls", "--format", "csv", "--no-header"]).stdout.lines().count(), 1);
    flights_until(&place, 1);
    let changed = place.run(&["models", "reproduce", "late_flights"]);
    assert_eq!((changed.code, changed.stdout.as_str()), (1, ""), "{}", changed.stderr);
    let message = "error: late_flights: cannot be reproduced, its inputs are not what they were\n";
    assert!(changed.stderr.starts_with(message), "{}", changed.stderr);
    assert!(changed.stderr.contains("/data/flights.parquet has changed: "), "{}", changed.stderr);

    // Far from the model's figures: the job fails at its assertion, and what it has made until there stays.
    let demanding = [&RUN[..4], &["-p", "min_auc=0.9999"]].concat();
    flights_until(&place, 2);
    let ended = place.run(&demanding);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    assert!(ended.stderr.contains("error: assertion failed: the network tells late flights"), "{}", ended.stderr);
    assert!(ended.stderr.contains(">= $min_auc (got 0."), "{}", ended.stderr);
    assert!(ended.stderr.contains("\nJob late_flights.sql: 18 of 24 statements in "), "{}", ended.stderr);
}

/// `predict` writes what its output's name says, and what it says is what ML.PREDICT says.
fn predictions(place: &Place) {
    let job = fs::read_to_string(place.path("late_flights.sql")).unwrap();
    let (tables, _) = job.split_once("-- 3.").expect("the job has a third part");
    place.write("new.sql", format!("{tables}\nCOPY (SELECT * FROM trips WHERE day = 24) TO 'new.csv';"));
    place.ok(&["-q", "-f", "new.sql", "-p", "data=data"]);
    let rows = place.rows("SELECT count(*) FROM 'new.csv'");
    for output in ["scored.parquet", "scored.csv", "scored.jsonl", "scored/"] {
        let ended = place.ok(&["predict", "late_flights", "new.csv", "-o", output]);
        assert_eq!(ended.stdout, "");
        assert_eq!(place.rows(&format!("SELECT count(*) FROM '{output}'")), rows, "{output}");
    }
    let count = |from: &str| place.rows(&format!("SELECT predicted_late, count(*) FROM {from} GROUP BY 1 ORDER BY 1"));
    let expected = count("ML.PREDICT(MODEL late_flights, TABLE 'new.csv')");
    assert_eq!(expected.lines().count(), 2, "{expected}");
    for output in ["scored.parquet", "scored.csv", "scored.jsonl", "scored/"] {
        assert_eq!(count(&format!("'{output}'")), expected, "{output}");
    }
    let printed = place.ok(&["predict", "late_flights", "new.csv", "--threshold", "0.0", "--format", "csv"]).stdout;
    assert_eq!(printed.lines().count().to_string(), (rows.trim().parse::<usize>().unwrap() + 1).to_string());
    assert!(
        printed
            .lines()
            .next()
            .unwrap()
            .ends_with(",predicted_late,predicted_late_probs_false,predicted_late_probs_true"),
        "{printed}"
    );
    assert!(printed.lines().skip(1).all(|line| line.contains(",true,")), "from 0 on all are late: {printed}");
}

#[test]
fn sql_from_everywhere_and_how_it_ends() {
    let place = Place::new();
    place.write("one.sql", "DECLARE n BIGINT DEFAULT 1;\nSELECT $n AS n;\n");
    let csv = ["-q", "--format", "csv"];
    for (arguments, input, code, stdout) in [
        (&["-c", "SELECT 1 AS n"][..], "", 0, "n\n1\n"),
        (&["-c", "SELECT 1 AS n", "-c", "SELECT 2 AS m"], "", 0, "n\n1\nm\n2\n"),
        (&["-f", "one.sql"], "", 0, "n\n1\n"),
        (&["-f", "one.sql", "-p", "n=7"], "", 0, "n\n7\n"),
        (&["-f", "-"], "SELECT 3 AS n;", 0, "n\n3\n"),
        (&[], "SELECT 4 AS n", 0, "n\n4\n"),
        (&["sql"], "SELECT 5 AS n;\nSELECT ';' AS m", 0, "n\n5\nm\n;\n"),
        (&["run", "-"], "SELECT 6 AS n", 0, "n\n6\n"),
        (&["-c", "SELECT 1 AS n; SELECT x"], "", 1, "n\n1\n"),
        (&["run", "two.sql"], "", 2, ""),
        (&["-c", "SELECT 1", "--colour"], "", 2, ""),
        (&["-c", "SELECT 1 AS n; ASSERT 1 > 2; SELECT 2"], "", 3, "n\n1\n"),
    ] {
        let arguments = match arguments.first() {
            Some(&verb) if !verb.starts_with('-') => [&[verb][..], &csv, &arguments[1..]].concat(),
            _ => [&csv[..], arguments].concat(),
        };
        let ended = finish_with_input(&mut place.command(&arguments), input);
        assert_eq!((ended.code, ended.stdout.as_str()), (code, stdout), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.is_empty(), code == 0, "{arguments:?}: {}", ended.stderr);
    }
}

fn results_are_on_stdout(ended: &Ended) {
    let out = &ended.stdout;
    for part in ["network 64-64", "logistic regression", "roc_auc", "airline", "United Air Lines Inc."] {
        assert!(out.contains(part), "{part} is missing in\n{out}");
    }
    for other in ["epoch", "done ", "Job ", "error", "warning"] {
        assert!(!out.contains(other), "{other} is no result:\n{out}");
    }
}

fn progress_is_plain_lines_on_stderr(ended: &Ended) {
    let err = &ended.stderr;
    assert!(!err.contains(['\x1b', '\r']), "no terminal, no control characters: {err:?}");
    for line in [
        "  epoch 1/2: ",
        "  epoch 2/2: ",
        "done CREATE VIEW trips (",
        "done CREATE MODEL late_flights (",
        "done CREATE MODEL late_flights_logistic (",
        "done COPY TO out/late_flights/scored/ (",
    ] {
        assert!(err.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{err}");
    }
    let epoch = err.lines().find(|line| line.starts_with("  epoch 2/2: ")).unwrap();
    for part in [" steps, loss 0.", ", eval loss 0.", ", samples/s "] {
        assert!(epoch.contains(part), "{part} is missing in {epoch}");
    }
}

fn the_report_has_its_parts(ended: &Ended) {
    let (_, report) = ended.stderr.split_once("\nJob late_flights.sql: 24 statements in ").expect("a report");
    let mut rest = report;
    for part in [
        "  #  statement",
        "time",
        "rows",
        "read",
        "written",
        "CREATE MODEL late_flights",
        "\nParameters\n",
        "late_minutes",
        "\nOutputs\n  ",
        "/out/late_flights/scored/  2 files, ",
        " rows, ",
        "\nAssertions\n  ok    the joins neither lose nor multiply flights  (",
        "\n  warn  the plane is known for 9 of 10 flights  (",
        "\n  ok    the network tells late flights from punctual ones  (0.",
        "\nFacts\n  model       late_flights@1\n  evaluation  roc_auc 0.",
        "kernel",
        " GFLOP/s a core)",
        "\nCost\n  CPU ",
        ", peak memory ",
        "\n  energy ",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing, or not in its place, in\n{report}"));
        rest = &rest[at + part.len()..];
    }
    let estimate =
        rest.contains("low") && rest.contains("mid") && rest.contains("high") && rest.contains("cputime_estimate");
    assert!(estimate || rest.contains("rapl"), "energy says how it was found: {rest}");
}
