//! Tests of the whole path, as scripts: what a user types, and what comes out.

use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use engine::{Collected, Error, Options, RunSettings, Script, Session};
use storage::Stores;

/// A session over a warehouse of its own.
fn session(warehouse: &str) -> Session {
    let options = Options { warehouse: warehouse.into(), threads: 2, ..Options::default() };
    Session::builder(Stores::new(), options).extension(crate::extension()).build().unwrap()
}

fn place() -> (tempfile::TempDir, Session) {
    let directory = tempfile::tempdir().unwrap();
    let session = session(directory.path().join("warehouse").to_str().unwrap());
    (directory, session)
}

/// Runs a script and gives each result as a table.
async fn run(session: &Session, text: &str) -> engine::Result<Vec<String>> {
    let results = Arc::new(Collected::default());
    let settings = RunSettings { results: results.clone(), ..RunSettings::default() };
    session.run_script(&Script::parse("test.sql", text)?, &settings).await?;
    Ok(results.take().iter().map(|batches| pretty_format_batches(batches).unwrap().to_string()).collect())
}

async fn last(session: &Session, text: &str) -> String {
    run(session, text).await.unwrap_or_else(|error| panic!("{error}\n{text}")).pop().unwrap_or_default()
}

/// The message and hint of a script that fails.
async fn failure(session: &Session, text: &str) -> String {
    let error = run(session, text).await.expect_err(text);
    match error.innermost() {
        Error::Invalid { message, hint, .. } => format!("{message} | {}", hint.as_deref().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// 1,000 rows: x counts up, `label` is a threshold on it, z is noise of both signs, c a category.
const ROWS: &str = "CREATE VIEW rows AS SELECT CAST(value AS DOUBLE) AS x, (value * 7919) % 13 - 6 AS z, \
                    CASE value % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END AS c, \
                    value > 500 AS label FROM generate_series(1, 1000);\n";

#[tokio::test]
async fn a_network_is_made_evaluated_and_predicts() {
    let (_directory, session) = place();
    let script = format!(
        "{ROWS} CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [16], max_iterations = 20, \
         learn_rate = 0.01, early_stop = FALSE) AS SELECT * FROM rows;\n\
         ASSERT (SELECT roc_auc FROM ML.EVALUATE(MODEL m)) > 0.98;\n\
         ASSERT (SELECT roc_auc FROM ML.EVALUATE(MODEL m, TABLE rows, STRUCT(0.4 AS threshold))) > 0.98;\n\
         SELECT count(*) AS n, sum(CASE WHEN label = predicted_label THEN 1 ELSE 0 END) > 950 AS good, \
                min(predicted_label_probs[1]['prob']) >= 0.5 AS sorted, max(x) AS x \
         FROM ML.PREDICT(MODEL m, (SELECT x, z, c, label FROM rows))"
    );
    let expected = "\
+------+------+--------+--------+
| n    | good | sorted | x      |
+------+------+--------+--------+
| 1000 | true | true   | 1000.0 |
+------+------+--------+--------+";
    assert_eq!(last(&session, &script).await, expected);
    let info = last(&session, "SELECT count(*) AS n, max(iteration) AS i FROM ML.TRAINING_INFO(MODEL m)").await;
    assert!(info.contains("| 20 | 20 |"), "{info}");
    let matrix =
        last(&session, "SELECT expected_label, \"true\" + \"false\" > 0 AS rows FROM ML.CONFUSION_MATRIX(MODEL m)")
            .await;
    assert!(matrix.contains("| false          | true |"), "{matrix}");
    let curve = last(&session, "SELECT max(recall) AS r FROM ML.ROC_CURVE(MODEL m, TABLE rows)").await;
    assert!(curve.contains("| 1.0 |"), "{curve}");
    let features =
        last(&session, "SELECT input, max, category_count FROM ML.FEATURE_INFO(MODEL m) ORDER BY input").await;
    assert!(features.contains("| c     |") && features.contains("| 3 "), "{features}");
    let seen = last(&session, "SELECT * FROM ML.TRANSFORM(MODEL m, (SELECT * FROM rows LIMIT 1))").await;
    assert!(seen.contains("| x ") && seen.contains("| c "), "{seen}");
    let models = last(&session, "SELECT model_name, model_type, version FROM INFORMATION_SCHEMA.MODELS").await;
    assert!(models.contains("| m          | DNN_CLASSIFIER | 1       |"), "{models}");
    assert!(last(&session, "SHOW MODELS").await.contains("DNN_CLASSIFIER"));
}

#[tokio::test]
async fn linear_models_and_their_weights() {
    let (_directory, session) = place();
    let script = format!(
        "{ROWS} CREATE MODEL line TRANSFORM (y, x, z) OPTIONS (model_type = 'linear_reg', input_label_cols = ['y'], \
         data_split_method = 'NO_SPLIT') AS SELECT 3 * x - 2 * z + 5 AS y, x, z FROM rows;\n\
         SELECT processed_input, round(weight, 5) AS weight FROM ML.WEIGHTS(MODEL line) ORDER BY 1"
    );
    let weights = last(&session, &script).await;
    for row in ["| __INTERCEPT__   | 5.0    |", "| x               | 3.0    |", "| z               | -2.0   |"] {
        assert!(weights.contains(row), "{weights}");
    }
    let metrics = last(&session, "SELECT round(r2_score, 9) AS r2 FROM ML.EVALUATE(MODEL line)").await;
    assert!(metrics.contains("| 1.0 |"), "{metrics}");
    let script = "CREATE MODEL three OPTIONS (model_type = 'logistic_reg', input_label_cols = ['c']) AS \
                  SELECT c, CASE c WHEN 'a' THEN 1.0 WHEN 'b' THEN 2.0 ELSE 3.0 END + z / 100.0 AS x FROM rows;\n\
                  SELECT predicted_c, count(*) AS n FROM ML.PREDICT(MODEL three, \
                  (SELECT 1.0 AS x UNION ALL SELECT 2.0 UNION ALL SELECT 3.0)) GROUP BY 1 ORDER BY 1";
    let classes = last(&session, script).await;
    assert!(classes.contains("| a           | 1 |") && classes.contains("| c           | 1 |"), "{classes}");
}

#[tokio::test]
async fn check_plans_what_no_model_exists_for_yet() {
    let (directory, session) = place();
    let script = format!(
        "{ROWS} CREATE MODEL m OPTIONS (model_type = 'logistic_reg') AS SELECT * FROM rows;\n\
         SELECT predicted_label, predicted_label_probs[1]['prob'] FROM ML.PREDICT(MODEL m, TABLE rows);\n\
         ASSERT (SELECT roc_auc FROM ML.EVALUATE(MODEL m)) > 0.5;\n\
         SELECT * FROM ML.CONFUSION_MATRIX(MODEL m, TABLE rows);\n\
         DROP MODEL m;"
    );
    session.check_script(&Script::parse("t.sql", script).unwrap(), &RunSettings::default()).await.unwrap();
    assert!(!directory.path().join("warehouse").exists(), "check writes nothing");
}

#[tokio::test]
async fn names_that_are_taken_versions_and_aliases() {
    let (_directory, session) = place();
    let create = |head: &str| format!("{head} OPTIONS (model_type = 'logistic_reg') AS SELECT * FROM rows;");
    last(&session, &format!("{ROWS}{}", create("CREATE MODEL m"))).await;
    assert!(failure(&session, &create("CREATE MODEL m")).await.starts_with("the model m exists already"));
    last(&session, &create("CREATE MODEL IF NOT EXISTS m")).await;
    last(&session, &create("CREATE OR REPLACE MODEL m")).await;
    last(&session, "ALTER MODEL m SET ALIAS champion = 1").await;
    let shown = async |text: &str| last(&session, text).await.matches("LOGISTIC_REG").count();
    assert_eq!((shown("SHOW MODELS").await, shown("SHOW MODEL m").await, shown("SHOW MODEL m@2").await), (2, 2, 1));
    let versions = last(&session, "SELECT version, aliases FROM INFORMATION_SCHEMA.MODELS ORDER BY 1").await;
    assert!(versions.contains("| 1       | champion |") && versions.contains("| 2       |"), "{versions}");
    last(&session, "SELECT * FROM ML.EVALUATE(MODEL m@champion)").await;
    let gone = failure(&session, "SELECT * FROM ML.EVALUATE(MODEL m@7)").await;
    assert_eq!(gone, "the model m has no version 7 | its versions are 1, 2");
    last(&session, "DROP MODEL m; DROP MODEL IF EXISTS m").await;
    assert!(failure(&session, "DROP MODEL m").await.starts_with("there is no model m in "));
}

/// Other partitions, other input files, other workers: the same bytes; and again from the lineage.
#[tokio::test]
async fn the_same_bytes_whatever_the_partitions_and_workers() {
    let mut weights = Vec::new();
    for (partitions, workers) in [(1, 1), (3, 2), (7, 3)] {
        let (_directory, session) = place();
        session.set("engine.target_partitions", &partitions.to_string()).unwrap();
        let script = format!(
            "{ROWS} CREATE MODEL m OPTIONS (model_type = 'dnn_classifier', hidden_units = [8], max_iterations = 2, \
             seed = 3, num_workers = {workers}, dropout = 0.1) AS SELECT * FROM rows;"
        );
        last(&session, &script).await;
        let name = crate::ModelName::latest("m");
        weights.push(crate::registry::show(&session, &name).await.unwrap().files);
        if partitions == 7 {
            let fresh = Session::builder(session.stores().clone(), session.options().as_ref().clone())
                .extension(crate::extension())
                .build()
                .unwrap();
            let again = crate::reproduce(&fresh, &name, &RunSettings::default()).await.unwrap();
            assert!(matches!(again, crate::Reproduction::Same { .. }), "{again:?}");
        }
    }
    let of = |files: &[(String, u64, String)]| {
        files.iter().find(|(name, _, _)| name == "model.safetensors").map(|(_, _, sha)| sha.clone()).unwrap()
    };
    assert_eq!(of(&weights[0]), of(&weights[1]));
    assert_eq!(of(&weights[0]), of(&weights[2]));
}

/// What is wrong, and nothing is left behind.
#[tokio::test]
async fn data_that_cannot_be_learned_from() {
    let (directory, session) = place();
    last(&session, ROWS).await;
    let create = |options: &str, query: &str| format!("CREATE MODEL m OPTIONS ({options}) AS {query}");
    let logistic = "model_type = 'logistic_reg'";
    let cases = [
        (create(logistic, "SELECT x, CAST(NULL AS BOOLEAN) AS label FROM rows"), vec!["label", "NULL", "1000 rows"]),
        (create(logistic, "SELECT x, 'same' AS label FROM rows"), vec!["label", "same"]),
        (create(logistic, "SELECT * FROM rows WHERE x < 0"), vec!["no rows"]),
        (create(logistic, "SELECT label FROM rows"), vec!["feature"]),
        (
            create(logistic, "SELECT label, CASE WHEN x = 7 THEN CAST('NaN' AS DOUBLE) ELSE x END AS x FROM rows"),
            vec!["x", "NaN"],
        ),
        (
            create("model_type = 'linear_reg'", "SELECT x, 'a' || c AS label FROM rows"),
            vec!["label", "Utf8", "numbers"],
        ),
        (
            create(
                "model_type = 'dnn_regressor', hidden_units = [4], optimizer = 'SGD', learn_rate = 1e30, input_label_cols = ['x']",
                "SELECT x, z FROM rows",
            ),
            vec!["step", "1e30"],
        ),
        ("SELECT * FROM ML.PREDCIT(MODEL m, TABLE rows)".into(), vec!["ML.PREDCIT", "ML.PREDICT"]),
        ("SELECT * FROM ML.EVALUATE(MODEL nobody)".into(), vec!["there is no model nobody"]),
    ];
    for (script, fragments) in cases {
        let message = failure(&session, &script).await;
        for fragment in fragments {
            assert!(message.to_lowercase().contains(&fragment.to_lowercase()), "{script}\n{message}");
        }
    }
    assert!(!directory.path().join("warehouse").exists(), "something was left behind");
}

/// Trains a model that would take for ever, until it is cancelled; gives what `look` sees of its curve meanwhile.
async fn while_training(trainer: &Session, create: &str, look: impl AsyncFn() -> engine::Result<String>) -> String {
    let script = Script::parse(
        "test.sql",
        format!(
            "SET ml.checkpoint_seconds = 0; {create} OPTIONS (model_type = 'dnn_classifier', hidden_units = [4], \
             max_iterations = 1000000, early_stop = FALSE) AS SELECT * FROM rows;"
        ),
    )
    .unwrap();
    let settings = RunSettings::default();
    let cancel = settings.cancel.clone();
    let session = trainer.clone();
    let training = tokio::spawn(async move { session.run_script(&script, &settings).await.map(drop) });
    let seen = loop {
        assert!(!training.is_finished(), "{:?}", training.await);
        match look().await {
            Ok(seen) if seen.contains("running") => break seen,
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    cancel.cancel();
    assert!(matches!(training.await.unwrap().unwrap_err().innermost(), Error::Cancelled));
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_curve_is_readable_while_training_runs() {
    let (directory, trainer) = place();
    last(&trainer, ROWS).await;
    let warehouse = directory.path().join("warehouse");
    let watching = session(warehouse.to_str().unwrap());
    let look = async |model: &str| {
        let query = format!(
            "SELECT status, version, min(iteration) AS first, max(iteration) = count(*) AS whole \
             FROM ML.TRAINING_INFO(MODEL {model}) GROUP BY ALL"
        );
        run(&watching, &query).await.map(|mut results| results.pop().unwrap_or_default())
    };
    let row = |status: &str, version: u64| format!("| {status} | {version}       | 1     | true  |");
    let seen = while_training(&trainer, "CREATE MODEL m", async || look("m").await).await;
    assert!(seen.contains(&row("running", 1)), "{seen}");
    // What was cancelled leaves neither a curve nor a model.
    assert!(failure(&watching, "SELECT * FROM ML.TRAINING_INFO(MODEL m)").await.starts_with("there is no model m"));
    assert!(!warehouse.exists(), "something was left behind");

    // While version 2 trains, it is what the name alone means; version 1 is still there under its number.
    last(&trainer, "CREATE MODEL m OPTIONS (model_type = 'logistic_reg') AS SELECT * FROM rows").await;
    let seen = while_training(&trainer, "CREATE OR REPLACE MODEL m", async || {
        let finished = look("m@1").await?;
        assert!(finished.contains(&row("finished", 1)), "{finished}");
        look("m").await
    })
    .await;
    assert!(seen.contains(&row("running", 2)), "{seen}");
    let seen = look("m").await.unwrap();
    assert!(seen.contains(&row("finished", 1)), "{seen}");
}
