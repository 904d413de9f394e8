//! Files that DataFusion publishes with its packages: its SQL tests, the TPC-H queries with their answers, small data
//! files. They are read where cargo keeps the sources of packages, and are neither copied into this repository nor built.
//!
//! The packages are those of the versions in `Cargo.lock`: an upgrade brings the tests of the new version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of this repository.
pub(crate) const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The directory of a package's sources.
pub(crate) fn package(name: &str) -> &'static Path {
    static PACKAGES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let packages = PACKAGES.get_or_init(fetch);
    packages.get(name).unwrap_or_else(|| panic!("cargo knows no package {name}"))
}

/// Lets cargo fetch the packages, and says where all that they need lies. A manifest of its own, with our lock file as a
/// beginning, keeps them out of what is built here.
fn fetch() -> BTreeMap<String, PathBuf> {
    let directory = tempfile::tempdir().unwrap();
    let lock = std::fs::read_to_string(Path::new(REPOSITORY).join("Cargo.lock")).unwrap();
    let dependencies: String = [("datafusion-sqllogictest", "datafusion"), ("ballista", "ballista-core")]
        .iter()
        .map(|(wanted, like)| {
            format!("{wanted} = {{ version = \"={}\", default-features = false }}\n", version(&lock, like))
        })
        .collect();
    let manifest = format!(
        "[package]\nname = \"upstream\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{dependencies}"
    );
    std::fs::write(directory.path().join("Cargo.toml"), manifest).unwrap();
    std::fs::write(directory.path().join("Cargo.lock"), lock).unwrap();
    std::fs::create_dir(directory.path().join("src")).unwrap();
    std::fs::write(directory.path().join("src/lib.rs"), "").unwrap();
    let metadata = |network: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version", "1"]).args(network).current_dir(directory.path()).output().unwrap()
    };
    let mut output = metadata(&["--offline"]);
    if !output.status.success() {
        output = metadata(&[]);
    }
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (metadata["packages"].as_array().unwrap().iter())
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            (package["name"].as_str().unwrap().to_string(), manifest.parent().unwrap().to_path_buf())
        })
        .collect()
}

fn version<'a>(lock: &'a str, name: &str) -> &'a str {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let at = lock.find(&entry).unwrap_or_else(|| panic!("Cargo.lock has no {name}")) + entry.len();
    lock[at..].split('"').next().unwrap()
}
