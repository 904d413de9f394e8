//! Versions of a model side by side, through the real program: lists, differences, what an alias protects.

use std::path::Path;
use std::process::{Command, Output};

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.args(arguments).current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory);
    command.output().unwrap()
}

fn ok(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert!(output.status.success(), "gristmill {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Two versions of one model: the second has another column and a penalty.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let model = |options: &str, columns: &str| {
        format!(
            "CREATE OR REPLACE MODEL m OPTIONS (model_type = 'linear_reg', input_label_cols = ['y']{options}) \
             AS SELECT {columns}, 3.0 + 0.5 * i AS y FROM generate_series(1, 50) AS s(i)"
        )
    };
    ok(directory.path(), &["-c", &model("", "i AS x")]);
    ok(directory.path(), &["-c", &model(", l2_reg = 10", "i AS x, sin(i * 1.0) AS z")]);
    directory
}

#[test]
fn lists_tell_how_good_a_version_is() {
    let place = place();
    let listed = ok(place.path(), &["models", "ls", "--format", "csv"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..8], ["model", "version", "aliases", "type", "label", "metric", "rows_trained", "seconds"]);
    assert_eq!((rows[1][5], rows[1][6]), ("r2_score 1.0000", "50"));
    assert!(rows[1][7].parse::<f64>().unwrap() > 0.0, "{listed}");
    let query = "SELECT version, metric, metric_value > 0.9, training_rows, duration_ms > 0 FROM INFORMATION_SCHEMA.MODELS ORDER BY 1";
    let table = ok(place.path(), &["-c", query, "--format", "csv", "--no-header"]);
    assert_eq!(table, "1,r2_score,true,50,true\n2,r2_score,true,50,true\n");
}

#[test]
fn differences_are_told_by_property() {
    let place = place();
    let told = ok(place.path(), &["models", "diff", "m@1", "m@2", "--format", "csv"]);
    let row = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(&format!("{name},")));
        line.unwrap_or_else(|| panic!("no {name} in {told}")).to_string()
    };
    assert!(told.starts_with("property,m@1,m@2,change\n"), "{told}");
    assert!(row("options.estimator.linear.l2").ends_with("+10"), "{told}");
    assert_eq!(row("inputs.z"), "inputs.z,,Float64,");
    let weights: Vec<f64> = row("weights.x").split(',').skip(1).take(2).map(|x| x.parse().unwrap()).collect();
    assert!((weights[0] - 0.5).abs() < 1e-6 && weights[1] < 0.4999, "in units of the column: {told}");
    assert!(row("metrics.mean_absolute_error").contains("+"), "{told}");
    assert!(!told.contains("options.label,"), "what is equal is left out: {told}");
    let same = run(place.path(), &["models", "diff", "m@2", "m@2", "--format", "csv"]);
    assert!(String::from_utf8_lossy(&same.stderr).contains("m@2 and m@2 do not differ"));
}

#[test]
fn what_an_alias_names_is_not_removed_in_passing() {
    let place = place();
    ok(place.path(), &["-c", "ALTER MODEL m SET ALIAS champion = 1"]);
    for name in ["m@1", "m", "m@champion"] {
        let refused = run(place.path(), &["models", "rm", name]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("m@1 is what the alias champion names") && told.contains("--force"), "{told}");
    }
    ok(place.path(), &["models", "rm", "m@2"]);
    ok(place.path(), &["models", "rm", "--force", "m@1"]);
    assert_eq!(ok(place.path(), &["models", "ls", "--format", "csv", "--no-header"]), "");
}

#[test]
fn a_model_that_is_not_good_enough_ends_as_an_assertion_does() {
    let place = place();
    let script = "CREATE OR REPLACE MODEL m OPTIONS (model_type = 'linear_reg', input_label_cols = ['y'], \
                  publish_if = 'r2_score > 2') AS SELECT i AS x, 2.0 * i AS y FROM generate_series(1, 50) AS s(i)";
    let ended = run(place.path(), &["-c", script]);
    assert_eq!(ended.status.code(), Some(3));
    assert_eq!(ok(place.path(), &["models", "ls", "--format", "csv", "--no-header"]).lines().count(), 2);
}
