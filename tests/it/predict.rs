//! `gristmill predict` through the real program: what becomes of probabilities in each format.

use std::path::Path;
use std::process::Command;

/// Runs the program in a directory of its own and gives what it says on stdout.
fn run(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.args(arguments).current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "gristmill {arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// A model of x >= 3, and a file to predict.
fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = "CREATE MODEL m TRANSFORM (x, late) OPTIONS (model_type = 'logistic_reg', input_label_cols = ['late'], l2_reg = 0.5) \
                  AS SELECT CAST(value AS DOUBLE) AS x, value >= 3 AS late FROM generate_series(0, 5)";
    run(directory.path(), &["-c", script]);
    std::fs::write(directory.path().join("new.csv"), "name,x\nanna,0.0\nbert,5.0\n").unwrap();
    directory
}

#[test]
fn separated_values_have_a_column_for_each_class() {
    let directory = place();
    for (file, separator) in [("out.csv", ','), ("out.tsv", '\t')] {
        run(directory.path(), &["predict", "m", "new.csv", "-o", file]);
        let written = std::fs::read_to_string(directory.path().join(file)).unwrap();
        let rows: Vec<Vec<&str>> = written.lines().map(|line| line.split(separator).collect()).collect();
        assert_eq!(rows[0], ["name", "x", "predicted_late", "predicted_late_probs_false", "predicted_late_probs_true"]);
        assert_eq!((rows[1][0], rows[1][2], rows[2][0], rows[2][2]), ("anna", "false", "bert", "true"));
        let number = |text: &str| text.parse::<f64>().unwrap();
        for row in &rows[1..] {
            assert!((number(row[3]) + number(row[4]) - 1.0).abs() < 1e-12, "{row:?}");
        }
    }
    run(directory.path(), &["predict", "m", "new.csv", "-o", "out.csv.gz"]);
    let query = "SELECT count(predicted_late_probs_true) FROM 'out.csv.gz'";
    assert_eq!(run(directory.path(), &["-c", query, "--format", "csv", "--no-header"]), "2\n");
    let printed = run(directory.path(), &["predict", "m", "new.csv", "--format", "csv"]);
    assert!(
        printed.starts_with("name,x,predicted_late,predicted_late_probs_false,predicted_late_probs_true\n"),
        "{printed}"
    );
}

#[test]
fn formats_that_hold_arrays_keep_the_array() {
    let directory = place();
    run(directory.path(), &["predict", "m", "new.csv", "-o", "out.parquet"]);
    let query = "SELECT name, predicted_late_probs[1].label FROM 'out.parquet' ORDER BY name";
    assert_eq!(run(directory.path(), &["-c", query, "--format", "csv", "--no-header"]), "anna,false\nbert,true\n");
}
