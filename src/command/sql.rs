//! SQL that is not a job of its own: `-c`, `-f`, standard input, and the shell where none of them is given.

use std::io::IsTerminal;
use std::path::Path;

use engine::{Result, Script};

use super::Console;
use super::job::{Job, parameters, read_script};
use crate::args::{JobArgs, TextArgs};
use crate::diagnostic::Exit;
use crate::shell;

/// Runs what was given; `interactive` opens the shell when nothing was and a person sits there.
pub(super) fn sql(console: &Console, text: &TextArgs, job: &JobArgs, interactive: bool) -> Result<Exit> {
    let parameters = parameters(job)?;
    let script = match (&text.command[..], &text.file) {
        ([], None) if interactive && std::io::stdin().is_terminal() => return shell::open(console, parameters),
        ([], None) => read_script(Path::new("-")),
        ([], Some(file)) => read_script(file),
        (commands, _) => Script::parse("-c", commands.join(";\n")),
    };
    let script = match script {
        Ok(script) => script,
        Err(error) => return Ok(console.fail(&error)),
    };
    let printer = console.printer()?;
    let session = console.session()?;
    Ok(Job {
        console,
        session: &session,
        script: &script,
        parameters,
        with_report: console.verbose > 0,
        generated: false,
    }
    .run(printer))
}
