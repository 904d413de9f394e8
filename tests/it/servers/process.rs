//! A server as a child process that ends when this one does.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster_process::spawn;

/// How long a server may take to be ready on a machine that does much else.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// See the module.
pub(super) struct ServerProcess {
    child: Child,
    /// Its files, and what it says (`log`).
    directory: tempfile::TempDir,
}

impl ServerProcess {
    /// Starts a server; `directory` is kept as long as it runs.
    ///
    /// # Errors
    /// A program that is not there.
    pub(super) fn start(directory: tempfile::TempDir, mut command: Command) -> Result<Self, String> {
        let log = fs::File::create(directory.path().join("log")).map_err(|error| error.to_string())?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors).current_dir(directory.path());
        Ok(ServerProcess { child: spawn(command), directory })
    }

    /// Waits until it listens at the port.
    pub(super) fn until_listening(self, port: u16) -> Result<Self, String> {
        self.until(|_| TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())).map(|(process, ())| process)
    }

    /// Waits until `ready` gives something.
    pub(super) fn until<T>(mut self, ready: impl Fn(&std::path::Path) -> Option<T>) -> Result<(Self, T), String> {
        let begun = Instant::now();
        loop {
            if let Some(found) = ready(self.directory.path()) {
                return Ok((self, found));
            }
            let ended = matches!(self.child.try_wait(), Ok(Some(_)) | Err(_));
            if ended || begun.elapsed() > READY_WITHIN {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                let state = if ended { "it ended" } else { "it was not ready in time" };
                return Err(format!("{state}: {}", log.lines().last().unwrap_or("it said nothing")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a line for whoever reads the test run, past the harness's capture of what tests that pass print.
pub(crate) fn said(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
