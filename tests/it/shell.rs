//! The shell at a terminal: what is typed, and what is seen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Stdio};

use crate::program::{Place, before_exec};

/// A terminal of 120 columns: what a person holds, and what the program is given.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both numbers are written before the call returns; name and settings may be absent.
    let done = unsafe { libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: openpty gave both, and nobody else has them.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// The terminal becomes the one of the program's own session.
fn take_terminal() -> std::io::Result<()> {
    // SAFETY: neither call refers to memory.
    let done = unsafe { libc::setsid() >= 0 && libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) == 0 };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A shell and the person in front of it.
struct Sitting {
    terminal: File,
    shell: Child,
    seen: String,
}

impl Sitting {
    fn begin(place: &Place) -> Sitting {
        let (ours, theirs) = terminal();
        let mut command = place.command(["sql"]);
        let theirs = || Stdio::from(theirs.try_clone().unwrap());
        command.env("TERM", "xterm").stdin(theirs()).stdout(theirs()).stderr(theirs());
        before_exec(&mut command, take_terminal);
        let mut sitting = Sitting { terminal: ours, shell: command.spawn().unwrap(), seen: String::new() };
        sitting.until("gristmill> ");
        sitting
    }

    /// Reads until `text` has appeared; fails when the shell ends before.
    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(self.read(), "{text:?} was never seen in {:?}", self.seen);
        }
    }

    /// False at the end. (A terminal that no program holds any more is an error to read from.)
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.terminal.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
                true
            }
        }
    }

    /// Types a line; gives all that is seen until `answer` is.
    fn type_line(&mut self, line: &str, answer: &str) -> String {
        self.seen.clear();
        self.terminal.write_all(format!("{line}\r").as_bytes()).unwrap();
        self.until(answer);
        self.seen.clone()
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn read_runs_a_file_in_the_session() {
    let place = Place::new();
    place.write("views.sql", "CREATE VIEW some AS SELECT value AS n FROM generate_series(1, 40) WHERE value > 37;\n");
    place.write("show.sql", "SELECT sum(n) + 1000 AS total FROM some;\nSELECT count(*) + 7000 AS many FROM some;\n");
    place.write("wrong.sql", "SELECT n\nFROM sme;\n");
    let mut sitting = Sitting::begin(&place);
    sitting.type_line(".read views.sql", "CREATE VIEW some");
    for line in ["\\i show.sql", ".read 'show.sql'"] {
        let seen = sitting.type_line(line, "7003");
        assert!(seen.contains("total") && seen.contains("1117"), "{line}: {seen}");
    }
    let seen = sitting.type_line("\\i wrong.sql", "did you mean `some`?");
    assert!(seen.contains("there is no table `sme`") && seen.contains("wrong.sql:2:6"), "{seen}");
    sitting.type_line(".read missing.sql", "missing.sql: no such file");
    sitting.type_line("\\i", "\\i: expected the name of a file");
    sitting.type_line("SELECT n + 100 AS more FROM some;", "140");
    sitting.seen.clear();
    sitting.terminal.write_all(b".quit\r").unwrap();
    while sitting.read() {}
    assert_eq!(sitting.shell.wait().unwrap().code(), Some(0), "{}", sitting.seen);
}
