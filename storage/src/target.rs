//! What a commit may write to: a table's directory or one file, and whether the mode allows it.
//!
//! These are early refusals, for a clear message before any work is done; what must hold at the commit point is checked
//! again there.

use std::path::PathBuf;

use crate::backend::Condition;
use crate::commit::CommitMode;
use crate::committed::{relative, table_of, visible};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::location::Location;
use crate::manifest;
use crate::store::Stores;

/// Last parts of a name by which a target without a `/` at its end is taken for one file.
const FILE_EXTENSIONS: &[&str] = &[
    "parquet", "csv", "tsv", "txt", "json", "jsonl", "ndjson", "arrow", "arrows", "ipc", "feather", "avro", "orc",
    "gz", "bz2", "xz", "zst", "zstd", "lz4", "snappy", "br",
];
/// Those of them that say how a file is compressed, and nothing of what is in it.
const COMPRESSIONS: &[&str] = &["gz", "bz2", "xz", "zst", "zstd", "lz4", "snappy", "br"];

/// What a location means to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// Files in a directory, named by manifests.
    Table,
    /// One file.
    File,
}

/// One file when something is a file there already, or the name has a data format's extension and no `/` at its end.
pub(crate) async fn find(stores: &Stores, table: &Location) -> Result<Target> {
    if table.is_directory_like() {
        return Ok(Target::Table);
    }
    let here = Directory::open(stores, table)?;
    if here.as_object().await?.is_some() {
        return Ok(Target::File);
    }
    let is_directory = match table.local_path() {
        Some(path) => path.is_dir(),
        None => {
            let entries = here.entries().await?;
            !entries.files.is_empty() || !entries.directories.is_empty()
        }
    };
    let is_file = !is_directory && table.file_name().is_some_and(looks_like_data);
    Ok(if is_file { Target::File } else { Target::Table })
}

/// Whether the mode may write to a directory.
pub(crate) async fn check_table(table: &Directory, mode: CommitMode) -> Result<()> {
    if table.as_object().await?.is_some() {
        return Err(Error::invalid(&table.location, "is a file, and a table needs a directory"));
    }
    match mode {
        CommitMode::Append | CommitMode::OverwritePartitions => Ok(()),
        CommitMode::ErrorIfExists => {
            let found = visible(table.store(), table.path()).await.map_err(|e| Error::at(&table.location, e))?;
            let Some(first) = found.first() else { return Ok(()) };
            let reason = format!(
                "exists already ({} {}, the first is {}); MODE OVERWRITE replaces it, MODE APPEND adds to it",
                found.len(),
                if found.len() == 1 { "file" } else { "files" },
                relative(table.path(), &first.location)
            );
            Err(Error::Exists { location: table.location.to_string(), reason })
        }
        CommitMode::Overwrite => {
            let newest = manifest::newest(table.store(), table.path()).await;
            if newest.map_err(|e| Error::at(&table.location, e))?.is_some_and(|manifest| manifest.is_committed()) {
                return Ok(());
            }
            // Never written by us: replacing "everything" must not mean somebody's home directory.
            let found = visible(table.store(), table.path()).await.map_err(|e| Error::at(&table.location, e))?;
            match found.iter().find(|meta| !meta.location.filename().is_some_and(is_table_file)) {
                None => Ok(()),
                Some(other) => {
                    let name = relative(table.path(), &other.location);
                    let reason =
                        format!("holds {name}, which is no data file: it is not overwritten, choose another directory");
                    Err(Error::Exists { location: table.location.to_string(), reason })
                }
            }
        }
    }
}

/// Whether the mode may write one file.
pub(crate) async fn check_file(parent: &Directory, file: &Location, mode: CommitMode) -> Result<()> {
    if let Some((table, _)) = table_of(parent.store(), parent.path()).await.map_err(|e| Error::at(file, e))? {
        let table = file.at_path(&format!("{table}/"));
        let reason =
            format!("is in the directory of the table {table}, which shows its own files only: write it elsewhere");
        return Err(Error::invalid(file, reason));
    }
    match mode {
        CommitMode::Overwrite => Ok(()),
        CommitMode::Append | CommitMode::OverwritePartitions => {
            let reason = "is one file: MODE APPEND and OVERWRITE PARTITIONS need a directory (end the name with /)";
            Err(Error::invalid(file, reason))
        }
        CommitMode::ErrorIfExists => match parent.size(file.file_name().unwrap_or_default()).await? {
            None => Ok(()),
            Some(bytes) => {
                let reason = format!("exists already ({bytes} bytes); MODE OVERWRITE replaces it");
                Err(Error::Exists { location: file.to_string(), reason })
            }
        },
    }
}

/// Whether the mode may write to a store that decides in this way who is first. Without a condition two writers could
/// both win, and what one of them wrote would be lost: only replacing everything does not promise otherwise, unless the
/// user says that there is no second writer.
pub(crate) fn check_condition(
    table: &Location,
    mode: CommitMode,
    condition: Condition,
    single_writer: bool,
) -> Result<()> {
    if condition != Condition::None || mode == CommitMode::Overwrite || single_writer {
        return Ok(());
    }
    let reason = "is on a store that cannot put an object only where none is, so that two writers at once could both win: \
                  MODE OVERWRITE, by one writer at a time, is all that is safe there (storage.single_writer = true says \
                  that there is no other)";
    Err(Error::invalid(table, reason))
}

/// The directories on the way to `meta` that do not exist yet, deepest first.
pub(crate) fn missing_directories(meta: &Directory) -> Vec<PathBuf> {
    let Some(path) = meta.location.local_path() else { return vec![] };
    path.ancestors().take_while(|directory| !directory.exists()).map(PathBuf::from).collect()
}

/// Whether a file that nobody of us wrote may be taken for a part of a table and replaced with it. Compressed or not, it
/// has a data format's name; `.txt` is what people call their notes.
pub(crate) fn is_table_file(name: &str) -> bool {
    let stem = match name.rsplit_once('.') {
        Some((stem, end)) if COMPRESSIONS.contains(&end.to_ascii_lowercase().as_str()) => stem,
        _ => name,
    };
    looks_like_data(stem) && !stem.to_ascii_lowercase().ends_with(".txt")
}

/// Whether a name ends like a file of a data format.
fn looks_like_data(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| FILE_EXTENSIONS.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_condition_one_writer_at_a_time_may_replace_everything() {
        use CommitMode::*;
        let at = Location::parse("s3://b/t/").unwrap();
        for (mode, condition, single, allowed) in [
            (Append, Condition::Native, false, true),
            (Append, Condition::None, false, false),
            (ErrorIfExists, Condition::None, false, false),
            (OverwritePartitions, Condition::None, false, false),
            (Overwrite, Condition::None, false, true),
            (Append, Condition::None, true, true),
        ] {
            assert_eq!(
                check_condition(&at, mode, condition, single).is_ok(),
                allowed,
                "{mode:?} {condition:?} {single}"
            );
        }
    }
}
