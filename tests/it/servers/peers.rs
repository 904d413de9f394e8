//! Where `.ci/peers/install` has put what tests run against.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A part of it: `python`, `node` or `java`.
///
/// # Errors
/// It is not installed, as text.
pub(super) fn part(name: &str) -> Result<PathBuf, String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let peers = variable("GRISTMILL_PEERS").or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        Some(cache?.join("gristmill/peers"))
    });
    let part = peers.ok_or("there is no home directory")?.join(name);
    if part.join("installed").is_file() {
        Ok(part)
    } else {
        Err(format!("{} is not installed; run .ci/peers/install", part.display()))
    }
}

/// A program that Python's packages brought.
pub(crate) fn python_program(name: &str) -> Result<PathBuf, String> {
    let program = part("python")?.join("bin").join(name);
    program.is_file().then_some(program).ok_or_else(|| format!("{name} is not installed"))
}

/// A program on the PATH.
pub(super) fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
}

/// Runs a Python script with duckdb, pyarrow and deltalake at hand and gives what it prints; `None` where they cannot be
/// had, which has been said. Panics when the script fails.
pub(crate) fn python(script: &str, arguments: &[&str], environment: &[(&str, String)]) -> Option<String> {
    let program = match python_program("python") {
        Ok(program) => program,
        Err(reason) => {
            super::said(&format!("skipped: no Python packages ({reason})"));
            return None;
        }
    };
    let output = run(&program, script, arguments, environment);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{stdout}{stderr}");
    Some(stdout.into_owned())
}

fn run(program: &Path, script: &str, arguments: &[&str], environment: &[(&str, String)]) -> std::process::Output {
    let mut command = Command::new(program);
    // Without the interpreter's own end, at which threads of the packages sometimes abort it.
    let script = format!("{script}\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n");
    command.arg("-c").arg(script).args(arguments).envs(environment.iter().map(|(key, value)| (key, value)));
    command.output().expect("Python runs")
}
