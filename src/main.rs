//! The `gristmill` program: what was typed, what it becomes, how it ends. It holds no arithmetic and plans no queries.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

mod allocator;
mod args;
mod color;
mod command;
mod config;
mod diagnostic;
mod energy;
mod format;
mod interrupt;
mod log;
mod printer;
mod progress;
mod report;
mod serve;
mod shell;
mod terminal;

fn main() -> ExitCode {
    ml::kernel::use_one_thread();
    // Usage errors and --help end here, with exit codes 2 and 0.
    let args = args::Args::parse();
    ExitCode::from(command::dispatch(args) as u8)
}

/// What `--help` prints.
fn long_help() -> String {
    args::Args::command().render_long_help().to_string()
}
