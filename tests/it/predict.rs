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

/// A model of a code, a whole number and a truth value, and files that look otherwise.
fn rents() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let rows = "zone,rooms,new,rent\nA1,2,true,700\nB2,3,false,900\n30,2,false,650\n30,4,true,1200\nA1,3,true,950\n";
    std::fs::write(directory.path().join("rents.csv"), rows).unwrap();
    let script = "CREATE MODEL m OPTIONS (model_type = 'linear_reg', input_label_cols = ['rent'], l2_reg = 0.1) \
                  AS SELECT * FROM 'rents.csv'";
    run(directory.path(), &["-c", script]);
    directory
}

/// The program with a text as its standard input: code, stdout, stderr.
fn told(directory: &Path, arguments: &[&str], input: &str) -> (bool, String, String) {
    use std::io::Write;
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command.args(arguments).current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn text_is_read_with_the_types_of_the_model() {
    let directory = rents();
    let predict = ["predict", "m", "-", "--format", "csv"];
    let line = |input: &str, row: usize| {
        let (ok, out, err) = told(directory.path(), &predict, input);
        assert!(ok, "{input}: {err}");
        out.lines().nth(row).unwrap().to_string()
    };
    // All codes look like numbers, all rooms are fractions, columns stand in another order, more columns are there.
    assert!(line("zone,rooms,new\n30,3,true\n30,2,false\n", 1).starts_with("30,3"));
    assert!(line("rooms,new,zone,name\n2.5,true,A1,anna\n3,false,30,bert\n", 1).starts_with("2.5,true,A1,anna,"));
    assert!(line("zone,rooms,new\n007,3,true\n", 1).starts_with("007,3"));
    assert!(line("zone\trooms\tnew\n30\t3\ttrue\n", 1).starts_with("30,3"));
    // A number of JSON is written out where the model has text.
    let of_json =
        line("{\"zone\": 30, \"rooms\": 3, \"new\": true}\n{\"zone\": 30, \"rooms\": 2.5, \"new\": false}\n", 1);
    let of_text = line("zone,rooms,new\n30,3,true\n", 1);
    let predicted = |line: &str| line.rsplit(',').next().unwrap().parse::<f64>().unwrap();
    assert!((predicted(&of_json) - predicted(&of_text)).abs() < 1e-9, "{of_json}, {of_text}");
    // A file of that name is no different.
    std::fs::write(directory.path().join("new.csv"), "zone,rooms,new\n30,3,true\n").unwrap();
    let printed = run(directory.path(), &["predict", "m", "new.csv", "--format", "csv", "--no-header"]);
    assert_eq!(printed.trim_end(), of_text);
}

#[test]
fn what_is_no_value_is_told_with_row_and_value() {
    let directory = rents();
    let predict = ["predict", "m", "-", "--format", "csv"];
    for (input, message) in [
        ("zone,rooms,new\nA1,2,true\nA1,NA,true\n", "row 2 (line 3), column `rooms`: `NA` is no DOUBLE"),
        ("zone,rooms,new\nA1,2,maybe\n", "row 1 (line 2), column `new`: `maybe` is no BOOLEAN"),
        ("zone,size\nA1,2\n", "the data has no columns rooms, new, which the model m reads"),
        ("", "standard input is empty"),
    ] {
        let (ok, out, err) = told(directory.path(), &predict, input);
        assert!(!ok && out.is_empty(), "{input}: {out}");
        assert!(err.contains(message), "{input}: {err}");
    }
}
