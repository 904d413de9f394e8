//! The fuzzer (`tests/fuzz`) with a fixed seed: random statements in one process and on a cluster, against DuckDB.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster_process;
use crate::program::{PROGRAM, REPOSITORY};
use crate::servers::python_program;

const SEED: &str = "19";
const LOCAL: usize = 300;
const CLUSTER: usize = 100;

/// Runs `count` cases of the place that `arguments` name; fails with what the fuzzer prints.
fn fuzz(arguments: &[&str]) {
    let python = match python_program("python") {
        Ok(python) => python,
        Err(reason) => return crate::servers::said(&format!("skipped: no Python packages ({reason})")),
    };
    let mut command = Command::new(python);
    command.arg(Path::new(REPOSITORY).join("tests/fuzz")).args(["--binary", PROGRAM, "--seed", SEED]).args(arguments);
    let output = command.stdin(Stdio::null()).output().expect("Python runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
}

#[test]
fn random_statements_have_the_answers_of_duckdb() {
    fuzz(&["-n", &LOCAL.to_string()]);
}

#[test]
fn random_statements_have_the_answers_of_duckdb_on_a_cluster() {
    let address = cluster_process::shared().address().to_string();
    fuzz(&["-n", "0", "--cluster", &CLUSTER.to_string(), "--address", &address]);
}
