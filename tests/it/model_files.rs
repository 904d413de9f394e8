//! The bytes of a published model: what two equal runs share.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::program::Place;

/// File -> SHA-256 of what two equal runs share.
pub(crate) type ModelFiles = BTreeMap<String, String>;

/// The directory of a version's files, which the version's manifest names.
pub(crate) fn directory(place: &Place, model: &str, version: u64) -> PathBuf {
    let version = place.path("warehouse/models").join(model).join(version.to_string());
    let manifest: Value = serde_json::from_slice(&fs::read(version.join("manifest.json")).unwrap()).unwrap();
    version.join(manifest["content"]["directory"].as_str().unwrap())
}

/// All files of a version, without the clocks: when it was made (`lineage.created`, `MLmodel`) and how long its epochs took
/// (`training.parquet`).
pub(crate) fn of_model(place: &Place, model: &str, version: u64) -> ModelFiles {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory(place, model, version)).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let timeless = match name.as_str() {
            "model.json" => without_lineage(&bytes),
            "MLmodel" => without_clock(&bytes),
            "training.parquet" => curve(place, model, version),
            _ => bytes,
        };
        files.insert(name, format!("{:x}", Sha256::digest(&timeless)));
    }
    assert!(files.len() >= 8, "a model has its files: {files:?}");
    files
}

/// Where a model comes from may differ between equal models; what it is may not.
fn without_lineage(bytes: &[u8]) -> Vec<u8> {
    let mut record: Value = serde_json::from_slice(bytes).unwrap();
    record.as_object_mut().unwrap().remove("lineage").expect("a model has a lineage");
    record.to_string().into_bytes()
}

fn without_clock(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("utc_time_created")).collect();
    lines.join("\n").into_bytes()
}

fn curve(place: &Place, model: &str, version: u64) -> Vec<u8> {
    let columns = "training_run, iteration, loss, eval_loss, learning_rate";
    place
        .rows(&format!("SELECT {columns} FROM ML.TRAINING_INFO(MODEL \"{model}@{version}\") ORDER BY iteration"))
        .into_bytes()
}
