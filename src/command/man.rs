//! `gristmill man`: the manual, one page for the whole or one for every verb.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use engine::{Error, Result};

use crate::args::Args;
use crate::diagnostic::Exit;
use crate::printer::print_text;

pub(super) fn man(directory: Option<&Path>) -> Result<Exit> {
    match directory {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command())
                .render(&mut page)
                .map_err(|error| Error::Usage(format!("cannot write the manual: {error}")))?;
            print_text(&String::from_utf8_lossy(&page))?;
        }
        Some(directory) => fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Args::command(), directory))
            .map_err(|error| Error::Usage(format!("cannot write the manual to {}: {error}", directory.display())))?,
    }
    Ok(Exit::Ok)
}
