//! The real program at a place of its own: what it is given, what it says, how it ends, and what it leaves behind.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

/// The root of the repository.
pub(crate) const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_gristmill");

/// A directory with room for work, temporary files and a home, none of which anybody else sees.
#[derive(Debug)]
pub(crate) struct Place {
    root: tempfile::TempDir,
}

/// How a run ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// 128 and the signal's number when a signal ended it, as shells count.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        for directory in ["work", "tmp", "home"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        Place { root }
    }

    /// The working directory, or something in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    /// Makes a file in the working directory.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The program with these arguments, ready to start: in the working directory, with an environment of its own, with
    /// every signal at its default whatever the caller of the tests ignores, and with an empty standard input.
    pub(crate) fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.command_of(PROGRAM, arguments)
    }

    /// Another program, in the same surroundings.
    pub(crate) fn command_of(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let home = self.root.path().join("home");
        let programs = Path::new(PROGRAM).parent().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.path("")).stdin(Stdio::null());
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", programs.display())).env("HOME", &home);
        command.env("XDG_CONFIG_HOME", home.join("config")).env("XDG_STATE_HOME", home.join("state"));
        command.env("TMPDIR", self.root.path().join("tmp"));
        // No test asks the machine that it runs on who it is.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        before_exec(&mut command, default_signals);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// As [`Place::run`]; panics unless all went well.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}\n{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// The rows of a query as CSV without a header.
    pub(crate) fn rows(&self, sql: &str) -> String {
        self.ok(&["-q", "--format", "csv", "--no-header", "-c", sql]).stdout
    }

    /// Starts the program with its output kept in files of the place, which no reader has to empty.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self, self.command(arguments))
    }

    /// Every file and directory but the home's, with the size of files: what is left behind shows here.
    pub(crate) fn contents(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for directory in ["work", "tmp"] {
            list(self.root.path(), &self.root.path().join(directory), &mut found);
        }
        found
    }

    /// Names below a directory of the working directory, hidden ones included; directories end in `/`.
    pub(crate) fn names(&self, directory: &str) -> Vec<String> {
        let mut found = BTreeMap::new();
        list(&self.path(directory), &self.path(directory), &mut found);
        found.into_keys().filter(|name| !name.is_empty()).collect()
    }

    /// Names in the directory for temporary files.
    pub(crate) fn temporary(&self) -> Vec<String> {
        let tmp = self.root.path().join("tmp");
        let mut found = BTreeMap::new();
        list(&tmp, &tmp, &mut found);
        found.into_keys().filter(|name| !name.is_empty()).collect()
    }
}

fn list(root: &Path, directory: &Path, found: &mut BTreeMap<String, u64>) {
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.insert(format!("{}/", name(&entry.path())), 0);
            list(root, &entry.path(), found);
        } else {
            found.insert(name(&entry.path()), entry.metadata().map_or(0, |meta| meta.len()));
        }
    }
}

/// A run that is under way.
pub(crate) struct Running {
    child: Child,
    stdout: fs::File,
    stderr: fs::File,
}

impl Running {
    pub(crate) fn start(place: &Place, mut command: Command) -> Running {
        // Outside of work and tmp, so that they are nobody's leftovers.
        let file = || tempfile::tempfile_in(place.root.path()).unwrap();
        let (stdout, stderr) = (file(), file());
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        Running { child: command.spawn().unwrap(), stdout, stderr }
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so its number is nobody else's.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// What it has said on stderr so far.
    pub(crate) fn said(&self) -> String {
        text_of(&self.stderr)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has said `text` on stderr, or has ended.
    pub(crate) fn until_said(&mut self, text: &str) {
        while !self.said().contains(text) && !self.has_ended() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    pub(crate) fn end(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        Ended { code: code(status), stdout: text_of(&self.stdout), stderr: text_of(&self.stderr) }
    }
}

/// The whole file, wherever its writer is.
fn text_of(file: &fs::File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    let read = file.read_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

pub(crate) fn finish(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command with text on its standard input.
pub(crate) fn finish_with_input(command: &mut Command, input: &str) -> Ended {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ended { code: code(child.wait().unwrap()), stdout, stderr }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).expect("it has ended")
}

/// Calls `prepare` in the child before it becomes the program. It may make system calls and nothing else.
pub(crate) fn before_exec(command: &mut Command, prepare: fn() -> std::io::Result<()>) {
    // SAFETY: the functions given here only make system calls.
    unsafe { command.pre_exec(prepare) };
}

fn default_signals() -> std::io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGXFSZ] {
        // SAFETY: restores a default, which refers to no memory.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(())
}

/// The flights of January 2013 with the weather of their hour: 26,000 rows in one Parquet file, made once by the program
/// itself.
pub(crate) fn january() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("january.parquet");
        let data = Path::new(REPOSITORY).join("examples/data/nycflights13");
        let sql = format!(
            "CREATE EXTERNAL TABLE weather STORED AS CSV LOCATION '{data}/weather.csv' \
             OPTIONS ('format.has_header' 'true', 'format.null_regex' '^NA$');
             COPY (SELECT f.arr_delay > 15 AS late, f.carrier, f.origin, f.dest, f.flight, f.day, f.hour, \
                          CAST(f.distance AS DOUBLE) AS distance, CAST(f.dep_delay AS DOUBLE) AS dep_delay, \
                          CAST(f.arr_delay AS DOUBLE) AS arr_delay, w.temp \
                   FROM '{data}/flights.parquet' f LEFT JOIN weather w \
                     ON f.origin = w.origin AND f.month = w.month AND f.day = w.day AND f.hour = w.hour \
                   WHERE f.month = 1 AND f.arr_delay IS NOT NULL) \
             TO '{file}' STORED AS PARQUET MODE OVERWRITE",
            data = data.display(),
            file = file.display()
        );
        Place::new().ok(&["-q", "-c", &sql]);
        file
    })
}
