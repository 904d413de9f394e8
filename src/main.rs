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

/// Stack of each thread. A query's expressions may be thousands of levels deep, and are walked level by level; what is not
/// used of it takes no memory.
const THREAD_STACK: &str = "67108864";
const MAIN_STACK: usize = 256 << 20;

fn main() -> ExitCode {
    // SAFETY: no other thread has been started that could read the environment meanwhile.
    unsafe { std::env::set_var("RUST_MIN_STACK", THREAD_STACK) };
    ml::kernel::use_one_thread();
    // Usage errors and --help end here, with exit codes 2 and 0.
    let args = args::Args::parse();
    engine::fault::remember();
    let work = std::thread::Builder::new().name("main".to_string()).stack_size(MAIN_STACK);
    let ended = work.spawn(|| command::dispatch(args)).map(std::thread::JoinHandle::join);
    ExitCode::from(match ended {
        Ok(Ok(exit)) => exit as u8,
        Ok(Err(panic)) => command::fail_early(&engine::fault::of_panic(panic.as_ref())) as u8,
        Err(error) => command::fail_early(&engine::Error::Usage(format!("cannot start a thread: {error}"))) as u8,
    })
}

/// What `--help` prints.
fn long_help() -> String {
    args::Args::command().render_long_help().to_string()
}
