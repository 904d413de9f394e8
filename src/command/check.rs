//! `gristmill check SCRIPT`: plans every statement, reads nothing but schemas.

use engine::{Error, Result, RunSettings};

use super::Console;
use super::job::{parameters, read_script};
use crate::args::CheckArgs;
use crate::diagnostic::Exit;
use crate::format::plural;

pub(super) fn check(console: &Console, args: &CheckArgs) -> Result<Exit> {
    let parameters = parameters(&args.job)?;
    let session = console.session()?;
    let checked = read_script(&args.script).and_then(|script| {
        let cancel = console.interrupt.token();
        let settings = RunSettings {
            events: console.display.sink(),
            cancel: cancel.clone(),
            parameters,
            ..RunSettings::default()
        };
        console.wait(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(Error::Cancelled),
                checked = session.check_script(&script, &settings) => checked,
            }
        })?;
        Ok(script)
    });
    Ok(match checked {
        Ok(script) => {
            let statements = plural(script.len() as u64, "statement");
            console.remark(&format!("{}: {statements} planned, no mistakes found", script.name()));
            Exit::Ok
        }
        Err(error) => console.fail(&error),
    })
}
