//! A job's history on disk: one JSON object a line, appended and flushed before it counts. A line that a crash has cut
//! short did not count. A history that holds anything else is damaged: the job is listed as that, and is not run again,
//! since nobody knows what it has done.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::api::{JobRequest, JobState, LogLine, LogStream};
use crate::error::{Error, Result};

const REQUEST: &str = "request.json";
const EVENTS: &str = "events.jsonl";

/// One thing that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Entry {
    /// It came into the queue, for the first time or again.
    Submitted,
    /// It began to run.
    Started,
    /// A statement began.
    Statement { count: usize, title: String },
    /// A statement ended well.
    Done { number: usize },
    /// A line of the log.
    Log { stream: LogStream, text: String },
    /// It ended.
    Ended { state: JobState, error: Option<String>, exit_code: u8 },
}

#[derive(Serialize, Deserialize)]
struct Line {
    at_ms: u64,
    #[serde(flatten)]
    entry: Entry,
}

/// What is known of a job.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What happened, and when, in milliseconds since 1970.
    pub(super) entries: Vec<(u64, Entry)>,
    /// What is wrong with the file.
    pub(super) damage: Option<String>,
}

/// The history of one job. Its file is open while the job runs: a scheduler knows more jobs than a process may have files
/// open.
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
}

impl Journal {
    /// Begins the history of a new job.
    pub(super) fn create(directory: &Path, id: &str, request: &JobRequest) -> Result<Self> {
        let own = directory.join(id);
        let unusable = |error: std::io::Error| failed(&own, "cannot be written", &error);
        fs::create_dir_all(directory).and_then(|()| fs::create_dir(&own)).map_err(unusable)?;
        let text = serde_json::to_vec_pretty(request).map_err(|error| unusable(error.into()))?;
        let staged = own.join(".request.json");
        let mut file = File::create(&staged).map_err(unusable)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(unusable)?;
        fs::rename(&staged, own.join(REQUEST)).map_err(unusable)?;
        Ok(Journal { path: own.join(EVENTS), file: None })
    }

    fn open(&self) -> Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        let mut file = file.map_err(|error| self.unwritable(&error))?;
        // A line that was cut short must not run into the next one.
        let bytes = fs::read(&self.path).map_err(|error| failed(&self.path, "cannot be read", &error))?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n").map_err(|error| self.unwritable(&error))?;
        }
        Ok(file)
    }

    /// The histories below a directory, in the order of their ids; of those whose request is damaged what is wrong.
    pub(super) fn all(directory: &Path) -> Result<Vec<(String, std::result::Result<JobRequest, String>, Journal)>> {
        fs::create_dir_all(directory).map_err(|error| failed(directory, "cannot be made", &error))?;
        let entries = fs::read_dir(directory).map_err(|error| failed(directory, "cannot be read", &error))?;
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let request = entry.path().join(REQUEST);
            let parsed = match fs::read(&request) {
                Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(&request, &error)),
                // A job whose request was never written whole was never accepted.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => Err(wrong(&request, &error)),
            };
            let id = entry.file_name().to_string_lossy().into_owned();
            all.push((id, parsed, Journal { path: entry.path().join(EVENTS), file: None }));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Adds an entry; it is with the operating system when this returns, and on disk when it changes the job's state.
    pub(super) fn append(&mut self, at_ms: u64, entry: &Entry) -> Result<()> {
        let line = Line { at_ms, entry: entry.clone() };
        let mut text = serde_json::to_vec(&line).map_err(|error| self.unwritable(&error.into()))?;
        text.push(b'\n');
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        file.write_all(&text).map_err(|error| self.unwritable(&error))?;
        if !matches!(entry, Entry::Log { .. }) {
            file.sync_data().map_err(|error| self.unwritable(&error))?;
        }
        self.file = (!matches!(entry, Entry::Submitted | Entry::Ended { .. })).then_some(file);
        Ok(())
    }

    fn unwritable(&self, error: &std::io::Error) -> Error {
        failed(&self.path, "cannot be written", error)
    }

    /// All of it that can be read.
    pub(super) fn history(&self) -> History {
        let bytes = match fs::read(&self.path) {
            // The scheduler ended between taking the job in and its first entry.
            Err(error) if error.kind() == ErrorKind::NotFound => return History::default(),
            Err(error) => return History { entries: Vec::new(), damage: Some(wrong(&self.path, &error)) },
            Ok(bytes) => bytes,
        };
        let mut history = History::default();
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            match serde_json::from_slice(line) {
                Ok(Line { at_ms, entry }) => history.entries.push((at_ms, entry)),
                // It was cut short, or is the nothing behind the last line's end.
                Err(error) if error.is_eof() => {}
                Err(error) => {
                    history.damage.get_or_insert_with(|| format!("{}, line {number}", wrong(&self.path, &error)));
                }
            }
        }
        history
    }

    /// The log's lines after the first `after`.
    pub(super) fn log(&self, after: u64) -> Vec<LogLine> {
        let lines = self.history().entries.into_iter().filter_map(|(at_ms, entry)| match entry {
            Entry::Log { stream, text } => Some((at_ms, stream, text)),
            _ => None,
        });
        let numbered = (1..).zip(lines).filter(|(number, _)| *number > after);
        numbered.map(|(number, (at_ms, stream, text))| LogLine { number, at_ms, stream, text }).collect()
    }
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{} is damaged: {error}", path.display())
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> Error {
    Error::Usage(format!("{} {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_short_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let request = JobRequest { script: "SELECT 1".into(), ..JobRequest::default() };
        let mut journal = Journal::create(directory.path(), "j1", &request).unwrap();
        journal.append(1, &Entry::Submitted).unwrap();
        journal.append(2, &Entry::Done { number: 3 }).unwrap();
        let path = directory.path().join("j1/events.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        drop(journal);
        let mut all = Journal::all(directory.path()).unwrap();
        let (id, read, mut journal) = all.remove(0);
        assert_eq!((id.as_str(), &read), ("j1", &Ok(request)));
        let history = journal.history();
        assert_eq!((history.entries, history.damage), (vec![(1, Entry::Submitted)], None));
        journal.append(3, &Entry::Log { stream: LogStream::Result, text: "a\nb".into() }).unwrap();
        let log = journal.log(0);
        assert_eq!((log.len(), log[0].number, log[0].text.as_str()), (1, 1, "a\nb"));
        assert!(journal.log(1).is_empty());
        // The line that was cut short lies between two whole ones now, and still is no damage.
        assert_eq!(journal.history().damage, None);
    }

    #[test]
    fn damage_names_its_file_and_keeps_nothing_else_from_being_read() {
        let directory = tempfile::tempdir().unwrap();
        let request = JobRequest { script: "SELECT 1".into(), ..JobRequest::default() };
        for id in ["j1", "j2", "j3"] {
            Journal::create(directory.path(), id, &request).unwrap().append(1, &Entry::Submitted).unwrap();
        }
        fs::write(directory.path().join("j1/request.json"), "{").unwrap();
        let events = directory.path().join("j2/events.jsonl");
        for damage in [&b"\xff\xfe\n"[..], b"{\"at_ms\": 1, \"event\": \"done\", 7}\n", b"\0\0\0\0"] {
            let whole = fs::read(&events).unwrap();
            fs::write(&events, [&whole, damage].concat()).unwrap();
            let all = Journal::all(directory.path()).unwrap();
            let [(_, first, _), (_, second, journal), (_, third, whole_journal)] = &all[..] else {
                panic!("three jobs")
            };
            assert!(first.as_ref().unwrap_err().contains("j1/request.json is damaged"), "{first:?}");
            assert_eq!((second, third), (&Ok(request.clone()), &Ok(request.clone())));
            let history = journal.history();
            assert_eq!(history.entries, [(1, Entry::Submitted)]);
            let damage = history.damage.unwrap();
            assert!(damage.contains("j2/events.jsonl is damaged") && damage.ends_with("line 2"), "{damage}");
            assert_eq!(whole_journal.history().damage, None);
            fs::write(&events, whole).unwrap();
        }
    }
}
