//! What `deploy/` tells a machine to run is what the program understands.

use std::fs;
use std::path::Path;

use crate::program::{Place, REPOSITORY};

/// The `args: [...]` of every container in a manifest; each is one line of JSON.
fn container_arguments(manifest: &str) -> Vec<Vec<String>> {
    let lists = manifest.lines().filter_map(|line| line.trim().strip_prefix("args: "));
    lists.map(|list| serde_json::from_str(list).unwrap()).collect()
}

#[test]
fn kubernetes_gives_each_role_flags_that_it_knows() {
    let manifest = fs::read_to_string(Path::new(REPOSITORY).join("deploy/kubernetes.yaml")).unwrap();
    let containers = container_arguments(&manifest);
    let roles: Vec<&str> = containers.iter().map(|arguments| arguments[0].as_str()).collect();
    assert_eq!(roles, ["scheduler", "executor"]);
    for arguments in &containers {
        // With --help behind them flags are read and nothing is begun.
        let with = |more: &[&'static str]| {
            let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
            Place::new().run(&all)
        };
        let ended = with(&["--help"]);
        assert_eq!(ended.code, 0, "{arguments:?}: {}", ended.stderr);
        assert_eq!(with(&["--no-such-flag", "--help"]).code, 2, "a flag that does not exist must be noticed");
    }
}
