//! `gristmill config show`: every setting, its value and where the value came from.

use engine::Result;

use super::Console;
use crate::args::{CommonArgs, ConfigAction};
use crate::diagnostic::Exit;
use crate::progress::Voice;

pub(super) fn config(common: &CommonArgs, action: ConfigAction) -> Result<Exit> {
    let ConfigAction::Show { output } = action;
    let console = Console::new(common, &output, Voice::Outcomes)?;
    let rows: Vec<Vec<Option<String>>> = console
        .config
        .show()
        .into_iter()
        .map(|shown| {
            let value = shown.value.unwrap_or_else(|| "unset".to_string());
            [shown.key, value, shown.origin.to_string(), shown.description].map(Some).to_vec()
        })
        .collect();
    let printer = console.printer()?;
    let printed = console.wait(printer.print_strings(&["key", "value", "origin", "description"], &rows));
    Ok(match printed.and_then(|()| console.commit(printer)) {
        Ok(()) => Exit::Ok,
        Err(error) => console.fail(&error),
    })
}
