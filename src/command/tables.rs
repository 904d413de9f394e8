//! `gristmill tables`: the versions of a table of files, and the way back to an earlier one.

use engine::{Error, Result};
use storage::{Location, Stores, roll_back, versions};

use super::Console;
use crate::args::{CommonArgs, OutputArgs, TablesAction};
use crate::diagnostic::Exit;
use crate::format::plural;
use crate::progress::Voice;

pub(super) fn tables(common: &CommonArgs, action: TablesAction) -> Result<Exit> {
    let nothing = OutputArgs::default();
    let output = match &action {
        TablesAction::Versions { output, .. } => output,
        TablesAction::Rollback { .. } => &nothing,
    };
    let console = Console::new(common, output, Voice::Outcomes)?;
    let done = match &action {
        TablesAction::Versions { table, .. } => list(&console, table),
        TablesAction::Rollback { table, to } => go_back(&console, table, *to),
    };
    Ok(match done {
        Ok(()) => Exit::Ok,
        Err(error) => console.fail(&error),
    })
}

fn list(console: &Console, table: &str) -> Result<()> {
    let stores = Stores::with(console.config.options.stores.clone());
    let found = console.wait(versions::versions(&stores, &Location::parse(table)?))?;
    let rows: Vec<Vec<Option<String>>> = (found.into_iter())
        .map(|version| {
            let state = match (version.is_current, version.is_whole) {
                (true, true) => "current",
                (true, false) => "current, damaged",
                (false, true) => "kept",
                (false, false) => "files are gone",
            };
            vec![
                Some(version.version.to_string()),
                Some(state.to_string()),
                Some(version.published),
                Some(version.files.to_string()),
                version.rows.map(|rows| rows.to_string()),
                Some(version.bytes.to_string()),
            ]
        })
        .collect();
    let printer = console.printer()?;
    console.wait(printer.print_strings(&["version", "state", "published", "files", "rows", "bytes"], &rows))?;
    console.commit(printer)
}

fn go_back(console: &Console, table: &str, to: u64) -> Result<()> {
    let options = &console.config.options;
    let stores = Stores::with(options.stores.clone());
    let location = Location::parse(table)?;
    let done = console.wait(roll_back(&stores, &location, to, options.keep_versions)).map_err(Error::Storage)?;
    let files = plural(done.files as u64, "file");
    console.remark(&format!("{location}: version {} has the content of version {to} ({files})", done.version));
    Ok(())
}
