//! The program's own log, for those who look for a fault in it: nothing below `-v`, then more and more, on stderr.

use tracing_subscriber::EnvFilter;

/// Starts it; `verbose` counts the `-v`.
pub(crate) fn start(verbose: u8) {
    let filter = match verbose {
        // What the Delta library logs as an error it also returns, and it is told once, with its place.
        0 => "error,deltalake_core=off,buoyant_kernel=off",
        1 => "warn,gristmill=info,engine=info,ml=info,storage=info",
        2 => "info,gristmill=debug,engine=debug,ml=debug,storage=debug",
        _ => "debug,gristmill=trace,engine=trace,ml=trace,storage=trace",
    };
    // A second start (in tests) keeps the first log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(true)
        .try_init();
}
