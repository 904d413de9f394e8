//! Running a script for a person: events to the display, rows to the printer, errors with their place, a report.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use engine::events::{Event, StatementReport};
use engine::metrics::Usage;
use engine::{Error, Result, RunSettings, Script, Session, near};

use super::Console;
use crate::args::JobArgs;
use crate::diagnostic::Exit;
use crate::energy::{Energy, Meter};
use crate::printer::Printer;
use crate::report;

/// Reads a script from a file, or from standard input for `-`.
///
/// # Errors
/// A file that is not there (names the near one), cannot be read or is not UTF-8; a literal that never ends.
pub(crate) fn read_script(path: &Path) -> Result<Script> {
    if path == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin())
            .map_err(|error| Error::Usage(format!("cannot read standard input: {error}")))?;
        return Script::parse("<stdin>", text);
    }
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|error| {
                Error::Usage(format!("{name}: not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
            })?;
            Script::parse(name, text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Usage(match neighbour(path) {
            Some(neighbour) => format!("{name}: no such file; did you mean {neighbour}?"),
            None => format!("{name}: no such file"),
        })),
        Err(error) => Err(Error::Usage(format!("{name}: cannot read it: {error}"))),
    }
}

/// The file in the same directory whose name is near.
fn neighbour(path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> =
        directory.read_dir().ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = near(wanted, names.iter().map(String::as_str))?;
    Some(path.with_file_name(near).display().to_string())
}

/// `-p name=value` as pairs.
///
/// # Errors
/// Text without `=`.
pub(super) fn parameters(job: &JobArgs) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| {
        let (name, value) =
            text.split_once('=').ok_or_else(|| Error::Usage(format!("-p {text}: expected NAME=VALUE")))?;
        Ok((name.trim().to_string(), value.to_string()))
    };
    job.parameters.iter().map(pair).collect()
}

/// What one run of a script needs.
pub(crate) struct Job<'a> {
    pub(crate) console: &'a Console,
    pub(crate) session: &'a Session,
    pub(crate) script: &'a Script,
    pub(crate) parameters: Vec<(String, String)>,
    /// Whether a report is shown at the end.
    pub(crate) with_report: bool,
    /// Whether the script's text is ours, so that a place in it means nothing to the user.
    pub(crate) generated: bool,
}

impl Job<'_> {
    /// Runs to the end or to the first error, which it shows.
    pub(crate) fn run(self, printer: Printer) -> Exit {
        let meter = Meter::start();
        let (begun, usage) = (Instant::now(), Usage::now());
        let reports: Arc<Mutex<Vec<StatementReport>>> = Arc::default();
        let printer = Arc::new(printer);
        let (sink, kept) = (self.console.display.sink(), Arc::clone(&reports));
        let settings = RunSettings {
            events: Arc::new(move |event| {
                if let Event::StatementFinished { report, .. } = &event {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(report.clone());
                }
                sink(event);
            }),
            results: Arc::clone(&printer) as _,
            cancel: self.console.interrupt.token(),
            parameters: self.parameters,
            resume: None,
        };
        let (session, script, running) = (self.session.clone(), self.script.clone(), settings.clone());
        let ended = self.console.work(async move { session.run_script(&script, &running).await });
        self.console.display.close();
        drop(settings);
        let ended = ended.and_then(|report| match Arc::into_inner(printer) {
            Some(printer) => self.console.wait(printer.commit(self.session.stores())).map(|()| report),
            None => Err(Error::invalid("the output is still being written at the end of the job")),
        });
        let statements = std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner));
        if self.with_report && !statements.is_empty() {
            let usage = Usage::now().since(usage);
            let watts = self.console.config.settings.watts_per_core;
            let energy =
                meter.joules().map_or_else(|| Energy::estimate(usage.cpu, watts), |joules| Energy::Rapl { joules });
            let job = report::Job {
                name: self.script.name(),
                statements: &statements,
                planned: self.script.len(),
                elapsed: begun.elapsed(),
                usage,
                energy,
            };
            self.console.display.line(report::render(&job, self.console.paint).trim_end());
        }
        match ended {
            Ok(_) => Exit::Ok,
            Err(error) if self.generated => self.console.fail(error.innermost()),
            Err(error) => self.console.fail(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_pairs() {
        let parse = |texts: &[&str]| parameters(&JobArgs { parameters: texts.iter().map(|t| t.to_string()).collect() });
        let expected = [("a", "1"), ("b", "x=y"), ("c", "")].map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(parse(&["a=1", "b=x=y", "c="]).unwrap(), expected);
        assert_eq!(parse(&["a"]).unwrap_err().to_string(), "-p a: expected NAME=VALUE");
    }

    #[test]
    fn a_script_that_is_not_there_names_its_neighbour() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().join("late_flights.sql");
        std::fs::write(&there, "SELECT 1").unwrap();
        let error = read_script(&directory.path().join("late_flight.sql")).unwrap_err().to_string();
        assert!(error.ends_with(&format!("no such file; did you mean {}?", there.display())), "{error}");
        assert_eq!(read_script(&there).unwrap().len(), 1);
        std::fs::write(&there, b"SELECT '\xff'").unwrap();
        assert!(read_script(&there).unwrap_err().to_string().ends_with("not UTF-8 at byte 8"));
    }
}
