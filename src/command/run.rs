//! `gristmill run SCRIPT`: the whole job, with a report at the end.

use engine::Result;

use super::Console;
use super::job::{Job, parameters, read_script};
use crate::args::RunArgs;
use crate::diagnostic::Exit;
use crate::progress::Voice;

pub(super) fn run(console: &Console, args: &RunArgs) -> Result<Exit> {
    let script = match read_script(&args.script) {
        Ok(script) => script,
        Err(error) => return Ok(console.fail(&error)),
    };
    let parameters = parameters(&args.job)?;
    let printer = console.printer()?;
    let session = console.session()?;
    let with_report = console.voice != Voice::Quiet;
    Ok(Job { console, session: &session, script: &script, parameters, with_report, generated: false }.run(printer))
}
