//! The one-way rule: storage -> engine -> ml -> src, and what each must not know. Reads `cargo metadata`, the sources and
//! `Cargo.lock`, so a forbidden dependency fails here and not in a review.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// Package, its sources, and the crates (by prefix) that it must not name.
const RULES: [(&str, &str, &[&str]); 4] = [
    ("gristmill-storage", "storage/src", &["datafusion", "ballista", "ndarray", "axum", "clap", "engine", "ml"]),
    ("gristmill-engine", "engine/src", &["ndarray", "blas", "openblas", "cblas", "gemm", "axum", "clap", "ml"]),
    ("gristmill-ml", "ml/src", &["ballista", "object_store", "axum", "clap"]),
    ("gristmill", "src", &["ndarray", "gemm", "cblas", "datafusion_optimizer", "datafusion_physical_optimizer"]),
];

/// Crates of which two versions in one binary would not understand each other.
const SINGLE: [&str; 6] = ["arrow", "parquet", "datafusion", "object_store", "sqlparser", "tonic"];

#[test]
fn no_crate_depends_on_what_it_must_not_know() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(REPOSITORY)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), RULES.len(), "a crate was added: give it its rule");
    for (name, _, forbidden) in RULES {
        let package = packages.iter().find(|package| package["name"] == name).expect("the package exists");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["kind"] == "dev" {
                continue;
            }
            let known =
                dependency["rename"].as_str().or(dependency["name"].as_str()).expect("a name").replace('-', "_");
            let broken = forbidden.iter().find(|word| names(&known, word));
            assert!(broken.is_none(), "{name} must not depend on {known}");
        }
    }
}

#[test]
fn no_source_names_what_it_must_not_know() {
    let mut broken = Vec::new();
    for (_, sources, forbidden) in RULES {
        for file in rust_files(&Path::new(REPOSITORY).join(sources)) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for segment in path_segments(code) {
                    if forbidden.iter().any(|word| names(segment, word)) {
                        broken.push(format!("{}:{}: {segment}::", file.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "sources name crates that their layer must not know:\n{}", broken.join("\n"));
}

#[test]
fn one_version_of_each_crate_whose_types_cross_borders() {
    let lock = fs::read_to_string(Path::new(REPOSITORY).join("Cargo.lock")).unwrap();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.trim_start_matches(" = ").trim_matches('"')
        };
        versions.entry(field("name")).or_default().insert(field("version"));
    }
    assert!(versions.contains_key("datafusion"), "Cargo.lock was understood");
    for (name, versions) in versions {
        let family = name.split('-').next().expect("split gives one");
        if SINGLE.contains(&name) || family == "arrow" || family == "datafusion" {
            assert_eq!(versions.len(), 1, "two versions of {name}: {versions:?}");
        }
    }
}

/// `word` itself or a crate of its family: `datafusion` names `datafusion_expr`; `ml` names only itself.
fn names(segment: &str, word: &str) -> bool {
    segment == word || (word.len() > 3 && segment.strip_prefix(word).is_some_and(|rest| rest.starts_with(['_', '-'])))
}

/// Identifiers that stand before `::` in a line of code, or alone after `use` or `extern crate`.
fn path_segments(code: &str) -> Vec<&str> {
    let identifier = |c: char| c.is_alphanumeric() || c == '_';
    let mut segments: Vec<&str> = code
        .match_indices("::")
        .map(|(at, _)| {
            let start = code[..at].rfind(|c| !identifier(c)).map_or(0, |before| before + 1);
            &code[start..at]
        })
        .collect();
    if let Some(rest) = code.trim_start().strip_prefix("use ") {
        segments.push(rest.trim_end_matches(';').split_whitespace().next().unwrap_or_default());
    }
    segments
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
