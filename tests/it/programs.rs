//! The library as a Rust program has it: the example is run, then each call is looked at.

use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::util::display::array_value_to_string;
use gristmill::prelude::*;

/// Flights that arrived.
const FLIGHTS: &str = "327346";

#[test]
fn the_example_goes_from_raw_files_to_predictions() {
    let out = tempfile::tempdir().unwrap();
    let ran = Command::new(example("late_flights"))
        .args([&format!("{}/examples/data/nycflights13", env!("CARGO_MANIFEST_DIR")), out.path().to_str().unwrap()])
        .output()
        .expect("the example can be run");
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));

    assert!(said.starts_with(&format!("{FLIGHTS} flights\n")), "{said}");
    for (model, least) in [("late_flights@1", 0.92), ("late_flights_logistic@1", 0.905)] {
        let auc = metric(&said, model, "roc_auc");
        assert!((least..1.0).contains(&auc), "{model}: {auc}\n{said}");
    }
    assert!(said.contains(&format!("{FLIGHTS} rows in ")), "{said}");
    for month in 1..=12 {
        assert!(out.path().join(format!("scored/month={month}")).is_dir(), "month {month}");
    }
    // What a program trains, the command line can use.
    let models = |verb: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_gristmill"))
            .arg("models")
            .args(verb)
            .args(["--format", "csv", "--warehouse"])
            .arg(out.path().join("warehouse"))
            .output()
            .unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    let listed = models(&["ls"]);
    for model in ["late_flights,1,", "late_flights_logistic,1,"] {
        assert!(listed.lines().any(|line| line.starts_with(model)), "{listed}");
    }
    let shown = models(&["show", "late_flights"]);
    assert!(shown.lines().any(|line| line.starts_with("metrics.roc_auc,0.92")), "{shown}");
}

/// An example's program: cargo puts it beside the tests', and builds it whenever it builds all tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let profile = tests.ancestors().nth(2).expect("tests lie in PROFILE/deps");
    let program = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(Path::new(&program).exists(), "{} is missing: cargo build --example {name}", program.display());
    program
}

/// The number after a metric's name in the model's line.
fn metric(said: &str, model: &str, name: &str) -> f64 {
    let line = said.lines().find(|line| line.starts_with(&format!("{model}: "))).expect("a line for the model");
    let words: Vec<&str> = line.split([' ', ',']).collect();
    let place = words.iter().position(|word| *word == name).expect("the metric");
    words[place + 1].parse().expect("a number")
}

/// A session whose models live in the directory.
fn session(directory: &Path) -> Session {
    let warehouse = directory.join("models").display().to_string();
    gristmill::session(Options { warehouse, ..Options::default() }).unwrap()
}

/// A frame as text, a line a row: names first, columns with `|` between them.
async fn text(frame: DataFrame) -> String {
    let names = frame.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join("|");
    let mut lines = vec![names];
    for batch in frame.collect().await.unwrap() {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap());
            lines.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    lines.join("\n")
}

#[tokio::test]
async fn one_statement_is_done_or_becomes_a_frame() {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path());
    for definition in
        ["DECLARE least BIGINT DEFAULT 2", "CREATE VIEW few AS SELECT value AS x FROM generate_series(1, 4)"]
    {
        assert_eq!(session.sql(definition).await.unwrap().count().await.unwrap(), 0, "{definition}");
    }
    let frame = session.sql("SELECT x FROM few WHERE x >= $least ORDER BY x;").await.unwrap();
    assert_eq!(text(frame).await, "x\n2\n3\n4");
    session.sql("ASSERT (SELECT count(*) FROM few) = 4").await.unwrap();
    for (statement, message) in [
        ("ASSERT (SELECT count(*) FROM few) = 5", "sql:1:1: assertion failed: (SELECT count(*) FROM few) = 5"),
        ("SELECT y FROM few", "sql:1:8: "),
        ("SELECT 1; SELECT 2", "expected one statement, got 2"),
    ] {
        let error = session.sql(statement).await.unwrap_err().to_string();
        assert!(error.starts_with(message), "{statement}: {error}");
    }
}

#[tokio::test]
async fn frames_are_read_joined_and_written() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("stations.csv"), "id,temp\n1,10.5\n2,NA\n").unwrap();
    std::fs::write(at("places.jsonl"), "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":\"b\"}\n").unwrap();
    let session = session(directory.path());
    let stations = session.read(at("stations.csv")).option("null_value", "NA").await.unwrap();
    let places = session.read(at("places.jsonl")).await.unwrap();
    // Both have an `id`: the files' names tell them apart.
    let joined = stations.join(places, JoinType::Inner, &["id"], &["id"], None).unwrap();
    let rows = joined.select(vec![col("stations.id").alias("id"), col("temp"), col("name")]).unwrap();
    let rows = rows.sort_by(vec![col("id")]).unwrap();
    assert_eq!(text(rows.clone()).await, "id|temp|name\n1|10.5|a\n2||b");

    let written = session.write(rows.clone(), at("out/")).partitioned_by(["name"]).await.unwrap();
    assert_eq!((written.files, written.rows), (2, 2));
    let again = session.write(rows.clone(), at("out/")).partitioned_by(["name"]).await.unwrap_err().to_string();
    assert!(again.contains("out"), "{again}");
    session.write(rows.clone(), at("out/")).partitioned_by(["name"]).append().await.unwrap();
    let only_b = rows.clone().filter(col("id").eq(lit(2))).unwrap();
    session.write(only_b, at("out/")).partitioned_by(["name"]).overwrite_partitions().await.unwrap();
    let back = session.read(at("out/")).await.unwrap().sort_by(vec![col("id")]).unwrap();
    assert_eq!(text(back).await, "id|temp|name\n1|10.5|a\n1|10.5|a\n2||b");

    session.write(rows.clone(), at("one.csv.gz")).await.unwrap();
    assert_eq!(session.read(at("one.csv.gz")).await.unwrap().count().await.unwrap(), 2);
    for (error, message) in [
        (session.read(at("station.csv")).await.unwrap_err(), "station.csv"),
        (session.read(at("stations.csv")).format("parket").await.unwrap_err(), "unknown file format `parket`"),
        (session.write(rows.clone(), at("x")).await.unwrap_err(), "the format cannot be told from the name"),
        (
            session.write(rows, at("x/")).partitioned_by(["nam"]).await.unwrap_err(),
            "PARTITIONED BY: there is no column `nam` in what is copied",
        ),
    ] {
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_model_is_trained_opened_and_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path());
    let query = "SELECT value AS x, CASE WHEN value % 3 = 0 THEN 'r' ELSE 's' END AS kind,
                        CASE WHEN value > 300 THEN 'large' ELSE 'small' END AS size FROM generate_series(1, 600)";
    let rows = session.sql(query).await.unwrap();
    let transform = Transform::new().keep(["size"]).standard_scaler(["x"]).one_hot_encoder(["kind"]);
    let spec = ModelSpec::logistic_reg("sizes").label("size").transform(transform).option("seed", 1);
    let model = train(&session, &spec, rows.clone()).await.unwrap();
    assert_eq!(model.to_string(), "sizes@1");
    assert!(model.evaluate().await.unwrap()["accuracy"] > 0.9);
    assert_eq!(model.evaluate_on(rows.clone()).await.unwrap()["roc_auc"], 1.0);

    // The same model through its name; the threshold is a probability of the second class, `small`.
    let model = Model::open(&session, "sizes").await.unwrap();
    let sizes =
        |frame: DataFrame| async { frame.filter(col("predicted_size").eq(lit("small"))).unwrap().count().await };
    let usual = sizes(model.predict(rows.clone()).await.unwrap()).await.unwrap();
    let careful = sizes(model.predict_at(1.0, rows.clone()).await.unwrap()).await.unwrap();
    assert!(careful < usual && (250..350).contains(&usual), "{careful} {usual}");
    let probabilities = model.predict(rows.clone()).await.unwrap().limit(0, Some(1)).unwrap();
    assert!(text(probabilities).await.starts_with("x|kind|size|predicted_size|predicted_size_probs\n"));

    let seen = text(model.transform(rows.clone()).await.unwrap().limit(0, Some(1)).unwrap()).await;
    assert!(seen.lines().next().unwrap().contains('x'), "{seen}");
    assert_eq!(model.confusion_matrix(Some(rows.clone())).await.unwrap().count().await.unwrap(), 2);
    assert!(model.roc_curve(None).await.unwrap().count().await.unwrap() > 1);
    let told =
        [model.training_info().await.unwrap(), model.feature_info().await.unwrap(), model.weights().await.unwrap()];
    for frame in told {
        assert!(frame.count().await.unwrap() > 0);
    }

    let taken = train(&session, &spec, rows.clone()).await.unwrap_err();
    assert_eq!(taken.to_string(), "the model sizes exists already");
    assert_eq!(train(&session, &spec.or_replace(), rows.clone()).await.unwrap().to_string(), "sizes@2");
    let error = Model::open(&session, "size").await.unwrap_err();
    assert!(matches!(&error, Error::Invalid { hint: Some(hint), .. } if hint == "did you mean sizes?"), "{error:?}");
    let error = model.predict(rows.drop_columns(&["x"]).unwrap()).await.unwrap_err();
    assert!(error.to_string().contains('x'), "{error}");
}
