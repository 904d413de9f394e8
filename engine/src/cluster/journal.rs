//! A job's history on disk: one JSON object a line, appended and flushed before it counts. A line that a crash has cut
//! short is the last one, and did not count.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
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

    /// The histories below a directory, in the order of their ids.
    pub(super) fn all(directory: &Path) -> Result<Vec<(String, JobRequest, Journal)>> {
        fs::create_dir_all(directory).map_err(|error| failed(directory, "cannot be made", &error))?;
        let entries = fs::read_dir(directory).map_err(|error| failed(directory, "cannot be read", &error))?;
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let request = entry.path().join(REQUEST);
            // A job whose request was never written whole was never accepted.
            let Ok(bytes) = fs::read(&request) else { continue };
            let parsed = serde_json::from_slice(&bytes);
            let parsed = parsed.map_err(|error| failed(&request, "is damaged", &error.into()))?;
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

    /// All of it.
    pub(super) fn entries(&self) -> Result<Vec<(u64, Entry)>> {
        let file = match File::open(&self.path) {
            // The scheduler ended between taking the job in and its first entry.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.map_err(|error| failed(&self.path, "cannot be read", &error))?,
        };
        let mut entries = Vec::new();
        for line in BufReader::new(file).lines() {
            let line = line.map_err(|error| failed(&self.path, "cannot be read", &error))?;
            if let Ok(Line { at_ms, entry }) = serde_json::from_str(&line) {
                entries.push((at_ms, entry));
            }
        }
        Ok(entries)
    }

    /// The log's lines after the first `after`.
    pub(super) fn log(&self, after: u64) -> Result<Vec<LogLine>> {
        let lines = self.entries()?.into_iter().filter_map(|(at_ms, entry)| match entry {
            Entry::Log { stream, text } => Some((at_ms, stream, text)),
            _ => None,
        });
        let numbered = (1..).zip(lines).filter(|(number, _)| *number > after);
        Ok(numbered.map(|(number, (at_ms, stream, text))| LogLine { number, at_ms, stream, text }).collect())
    }
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
        assert_eq!((id.as_str(), &read), ("j1", &request));
        assert_eq!(journal.entries().unwrap(), [(1, Entry::Submitted)]);
        journal.append(3, &Entry::Log { stream: LogStream::Result, text: "a\nb".into() }).unwrap();
        let log = journal.log(0).unwrap();
        assert_eq!((log.len(), log[0].number, log[0].text.as_str()), (1, 1, "a\nb"));
        assert!(journal.log(1).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_request_names_its_file() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("j1")).unwrap();
        fs::write(directory.path().join("j1/request.json"), "{").unwrap();
        let error = Journal::all(directory.path()).err().expect("the request is damaged").to_string();
        assert!(error.contains("j1/request.json is damaged"), "{error}");
    }
}
