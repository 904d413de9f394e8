//! `gristmill completions`: a script that teaches a shell our verbs and flags.

use clap::CommandFactory;
use engine::Result;

use crate::args::Args;
use crate::diagnostic::Exit;
use crate::printer::print_text;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "gristmill", &mut script);
    print_text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
