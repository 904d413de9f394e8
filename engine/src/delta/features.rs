//! What a table may ask of its readers and writers. A table says which features it uses; what we do not do is refused by
//! name, because reading past it would give wrong rows and writing past it would damage the table.

use deltalake_core::kernel::{StructTypeExt, Version};
use deltalake_core::table::state::DeltaTableState;
use serde::Deserialize;
use storage::Location;

use crate::error::{Error, Result};

/// Features that a reader honours here, or that change nothing for it. A deletion vector is refused where a file has one.
const READ: &[&str] = &[
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

/// Features that a writer of whole files honours here: some only as long as the table makes no use of them (see below).
const WRITE: &[&str] = &[
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "columnMapping",
    "deletionVectors",
    "generatedColumns",
    "invariants",
    "timestampNtz",
    "v2Checkpoint",
    "vacuumProtocolCheck",
];

/// The newest versions of the protocol: from these on, tables name their features.
const READER_MAX: i32 = 3;
const WRITER_MAX: i32 = 7;

/// The protocol action, as the log spells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    min_reader_version: i32,
    min_writer_version: i32,
    #[serde(default)]
    reader_features: Vec<String>,
    #[serde(default)]
    writer_features: Vec<String>,
}

impl Asked {
    fn of(location: &Location, state: &DeltaTableState) -> Result<Self> {
        serde_json::to_value(state.protocol())
            .and_then(serde_json::from_value)
            .map_err(|error| Error::invalid(format!("{location}: the table's protocol is damaged: {error}")))
    }
}

/// Refuses a table that cannot be read rightly.
///
/// # Errors
/// The feature, by its name.
pub(super) fn check_readable(location: &Location, state: &DeltaTableState) -> Result<()> {
    let asked = Asked::of(location, state)?;
    let version = state.version();
    if asked.min_reader_version > READER_MAX {
        return Err(refused(location, version, &format!("version {} of the protocol", asked.min_reader_version)));
    }
    if let Some(unknown) = asked.reader_features.iter().find(|name| !READ.contains(&name.as_str())) {
        return Err(refused(location, version, &format!("the feature {unknown}")));
    }
    if let Some(mode) = setting(state, "delta.columnMapping.mode").filter(|mode| *mode != "none") {
        return Err(refused(location, version, &format!("column mapping by {mode}")));
    }
    if state.log_data().iter().any(|file| file.deletion_vector_descriptor().is_some()) {
        return Err(refused(location, version, "deletion vectors")
            .with_hint("rewrite the table without them (Spark: REORG TABLE ... APPLY (PURGE))"));
    }
    Ok(())
}

/// Refuses a table whose rules for writers are not kept here; it can be read.
///
/// # Errors
/// The rule, by its name.
pub(super) fn check_writable(location: &Location, state: &DeltaTableState) -> Result<()> {
    let asked = Asked::of(location, state)?;
    let refused = |what: &str| Error::invalid(format!("{location}: the table has {what}, which COPY does not keep"));
    if asked.min_writer_version > WRITER_MAX {
        return Err(refused(&format!("version {} of the protocol for writers", asked.min_writer_version)));
    }
    if let Some(unknown) = asked.writer_features.iter().find(|name| !WRITE.contains(&name.as_str())) {
        return Err(refused(&format!("the feature {unknown}")));
    }
    let configuration = state.metadata().configuration();
    if let Some(constraint) = configuration.keys().find_map(|key| key.strip_prefix("delta.constraints.")) {
        return Err(refused(&format!("the CHECK constraint {constraint}")));
    }
    let schema = state.schema();
    if schema.get_invariants().map_or(true, |found| !found.is_empty()) {
        return Err(refused("invariants on its columns"));
    }
    for field in schema.fields() {
        for (key, what) in [("delta.generationExpression", "generated"), ("delta.identity.start", "an identity")] {
            if field.metadata.contains_key(key) {
                return Err(refused(&format!("the column {}, which is {what}", field.name)));
            }
        }
    }
    Ok(())
}

fn setting<'a>(state: &'a DeltaTableState, key: &str) -> Option<&'a str> {
    state.metadata().configuration().get(key).map(String::as_str)
}

fn refused(location: &Location, version: Version, what: &str) -> Error {
    Error::invalid(format!("{location}: version {version} of the table uses {what}, which this build does not read"))
}
