//! Jobs that run on the scheduler: a script is handed over and outlives its submitter. What happens to a job is written
//! down as JSON lines before anybody is told, so that a scheduler that is started again knows its history: what waited
//! still waits, what ran is lost, and a lost job can go on after its last finished statement.
//!
//! ```text
//! <directory>/<job>/request.json    what was asked for
//! <directory>/<job>/events.jsonl    what happened: submitted, started, statements, log lines, ended
//! ```
//!
//! Jobs of one user run one after the other, in the order of submission; several users take turns: the next to begin is a
//! job of the user whose last one began longest ago.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::api::{JobInfo, JobRequest, JobState, LogLine, LogStream};
use super::journal::{Entry, History, Journal};
use super::{ClusterClient, Environment};
use crate::error::{Error, Result, near};
use crate::events::Event;
use crate::fault;
use crate::options::Options;
use crate::result::ResultSink;
use crate::runner::ClusterRunner;
use crate::script::{Resume, RunSettings, Script};
use crate::session::Session;
use crate::work::Work;

/// Jobs, of different users, that run at once.
const RUNNING_MAX: usize = 4;
/// How often to look whether there are executors, while a job waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a job's events, rows and errors read.
#[async_trait]
pub trait JobFace: Send + Sync {
    /// The lines for an event; `None` for one that nobody needs to see afterwards.
    fn event(&self, event: &Event) -> Option<(LogStream, String)>;
    /// The rows of a result as text, and how many there are.
    async fn rows(&self, rows: SendableRecordBatchStream) -> Result<(String, u64)>;
    /// An error with its place and hint, and the exit code that it asks for.
    fn failure(&self, error: &Error) -> (String, u8);
}

/// The jobs of a scheduler. Cloning shares them.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    client: ClusterClient,
    environment: Environment,
    /// Those of the scheduler; a job's own settings go on top.
    options: Options,
    face: Arc<dyn JobFace>,
    jobs: Mutex<BTreeMap<String, Job>>,
    /// Jobs taken in so far: tells those of one millisecond apart.
    taken: AtomicU32,
    /// Somebody should look whether a job can begin.
    changed: Notify,
}

struct Job {
    request: JobRequest,
    info: JobInfo,
    journal: Journal,
    cancel: CancellationToken,
    /// Wakes those who follow the log.
    grown: Arc<Notify>,
    /// The last line about progress: what is said again is no news.
    told: String,
}

impl Jobs {
    /// Reads the history in `directory`, and marks what was running as lost, and what cannot be read as damaged.
    ///
    /// # Errors
    /// A directory that cannot be made or read.
    pub fn open(
        directory: PathBuf,
        client: ClusterClient,
        environment: Environment,
        options: Options,
        face: Arc<dyn JobFace>,
    ) -> Result<Self> {
        let mut jobs = BTreeMap::new();
        for (id, request, mut journal) in Journal::all(&directory)? {
            let (request, unreadable) = match request {
                Ok(request) => (request, None),
                Err(damage) => (JobRequest::default(), Some(damage)),
            };
            let History { entries, damage } = journal.history();
            let mut info = fold(&id, &request, entries);
            if let Some(damage) = unreadable.or(damage) {
                (info.state, info.doing, info.error, info.exit_code) = (JobState::Damaged, None, Some(damage), None);
            } else if info.state == JobState::Running {
                let entry = Entry::Ended {
                    state: JobState::Lost,
                    error: Some("the scheduler ended while the job ran; `submit --resume` goes on".to_string()),
                    exit_code: 5,
                };
                record(&mut journal, &mut info, entry)?;
            }
            jobs.insert(id, Job::new(request, info, journal));
        }
        let (jobs, taken, changed) = (Mutex::new(jobs), AtomicU32::new(0), Notify::new());
        let inner = Inner { directory, client, environment, options, face, jobs, taken, changed };
        Ok(Jobs { inner: Arc::new(inner) })
    }

    /// Runs jobs until `stop`; those that run then are left as they are, to be found lost. While the cluster has no
    /// executors none begins.
    pub async fn work(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.executors() => {}
            }
            while let Some(id) = self.next() {
                let jobs = self.clone();
                tokio::spawn(async move { jobs.run(&id).await });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.inner.changed.notified() => {}
            }
        }
    }

    /// Waits for executors when a job does.
    async fn executors(&self) {
        let waits = || next_of(self.jobs().values().map(|job| &job.info));
        let mut told = None;
        while let Some(id) = waits() {
            if self.inner.client.executors().await.is_ok_and(|executors| !executors.is_empty()) {
                return;
            }
            if told.as_ref() != Some(&id) {
                let text = "the job waits: the cluster has no executors".to_string();
                self.write(&id, Entry::Log { stream: LogStream::Progress, text });
                told = Some(id);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes a job in; gives its id.
    ///
    /// # Errors
    /// A script that cannot be cut into statements, parameters that it does not declare, unknown settings: all found
    /// before the job exists. A disk that does not take it.
    pub fn submit(&self, request: JobRequest) -> Result<JobInfo> {
        let script = Script::parse(name_of(&request), request.script.as_str())?;
        self.settings_of(&request)?;
        script.check_parameters(&parameters(&request))?;
        let id = self.new_id();
        let mut journal = Journal::create(&self.inner.directory, &id, &request)?;
        let mut info = fold(&id, &request, Vec::new());
        record(&mut journal, &mut info, Entry::Submitted)?;
        self.jobs().insert(id, Job::new(request, info.clone(), journal));
        self.inner.changed.notify_one();
        Ok(info)
    }

    /// A name that sorts by the time of submission.
    fn new_id(&self) -> String {
        let number = self.inner.taken.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        format!("{:012x}{number:05x}", now_ms())
    }

    /// Puts a job that has ended back into the queue; it will go on after its last finished statement.
    ///
    /// # Errors
    /// No such job; a job that waits, runs, or has succeeded.
    pub fn resume(&self, id: &str) -> Result<JobInfo> {
        let mut jobs = self.jobs();
        let job = found(&mut jobs, id)?;
        match job.info.state {
            JobState::Failed | JobState::Cancelled | JobState::Lost => {}
            JobState::Damaged => {
                let damage = job.info.error.clone().unwrap_or_default();
                return Err(Error::invalid(format!("the job {id} cannot be resumed: {damage}")));
            }
            state => {
                return Err(Error::invalid(format!("the job {id} is {}: there is nothing to resume", state.name())));
            }
        }
        job.cancel = CancellationToken::new();
        job.record(Entry::Submitted)?;
        let info = job.info.clone();
        drop(jobs);
        self.inner.changed.notify_one();
        Ok(info)
    }

    /// What is wrong with the histories of jobs that are damaged.
    pub fn damages(&self) -> Vec<String> {
        let jobs = self.jobs();
        let damaged = jobs.values().filter(|job| job.info.state == JobState::Damaged);
        damaged.filter_map(|job| job.info.error.clone()).collect()
    }

    /// All jobs, the newest first.
    pub fn list(&self) -> Vec<JobInfo> {
        self.jobs().values().rev().map(|job| job.info.clone()).collect()
    }

    /// One job.
    ///
    /// # Errors
    /// No such job; names the near one.
    pub fn status(&self, id: &str) -> Result<JobInfo> {
        Ok(found(&mut self.jobs(), id)?.info.clone())
    }

    /// Stops a job. What it has committed stays.
    ///
    /// # Errors
    /// No such job, or one that has ended.
    pub fn cancel(&self, id: &str) -> Result<JobInfo> {
        let mut jobs = self.jobs();
        let job = found(&mut jobs, id)?;
        match job.info.state {
            JobState::Queued => {
                job.record(Entry::Ended { state: JobState::Cancelled, error: None, exit_code: 4 })?;
            }
            JobState::Running => job.cancel.cancel(),
            state => return Err(Error::invalid(format!("the job {id} is {} already", state.name()))),
        }
        Ok(job.info.clone())
    }

    /// The log's lines after `after`. When there are none and the job may still write some, waits for them.
    ///
    /// # Errors
    /// No such job.
    pub async fn log(&self, id: &str, after: u64, wait: bool) -> Result<Vec<LogLine>> {
        loop {
            let (lines, ended, grown) = {
                let mut jobs = self.jobs();
                let job = found(&mut jobs, id)?;
                (job.journal.log(after), job.info.state.is_final(), Arc::clone(&job.grown))
            };
            if !lines.is_empty() || ended || !wait {
                return Ok(lines);
            }
            // A line that is written between looking and waiting is seen by the look that follows the pause.
            let _ = tokio::time::timeout(Duration::from_millis(500), grown.notified()).await;
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        // Every change is whole when the lock is given back, so a poisoned one is still good.
        self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the next job that may begin as running.
    fn next(&self) -> Option<String> {
        let mut jobs = self.jobs();
        let id = next_of(jobs.values().map(|job| &job.info))?;
        match found(&mut jobs, &id).and_then(|job| job.record(Entry::Started)) {
            Ok(()) => Some(id),
            Err(error) => {
                tracing::error!(job = id, %error, "the job cannot begin");
                None
            }
        }
    }

    async fn run(&self, id: &str) {
        let ended = self.worked(id).await;
        let (state, error, exit_code) = match ended {
            Ok(()) => (JobState::Succeeded, None, 0),
            Err(error) => {
                let (text, code) = self.inner.face.failure(&error);
                match error.innermost() {
                    Error::Cancelled => (JobState::Cancelled, None, code),
                    _ => (JobState::Failed, Some(text), code),
                }
            }
        };
        if let Some(text) = &error {
            self.write(id, Entry::Log { stream: LogStream::Error, text: text.trim_end().to_string() });
        }
        self.write(id, Entry::Ended { state, error, exit_code });
        self.inner.changed.notify_one();
    }

    /// The job on a thread of its own: its planning holds up nobody, and a kill is final.
    async fn worked(&self, id: &str) -> Result<()> {
        let cancel = found(&mut self.jobs(), id)?.cancel.clone();
        let (jobs, own) = (self.clone(), id.to_string());
        let work = Work::begin(&tokio::runtime::Handle::current(), async move { jobs.attempt(&own).await })?;
        let waiting = tokio::task::spawn_blocking(move || work.wait(&cancel)).await;
        waiting.unwrap_or_else(|error| Err(fault::of_text(&error.to_string())))
    }

    async fn attempt(&self, id: &str) -> Result<()> {
        let (request, done, cancel) = {
            let mut jobs = self.jobs();
            let job = found(&mut jobs, id)?;
            (job.request.clone(), job.info.statements_done, job.cancel.clone())
        };
        let environment = self.inner.environment.clone();
        let runner = ClusterRunner::connect(self.inner.client.clone(), environment.clone()).await?;
        let session = Session::builder(environment.stores().clone(), self.settings_of(&request)?)
            .extension(environment.extension().clone())
            .runner(Arc::new(runner))
            .build()?;
        let script = Script::parse(name_of(&request), request.script.as_str())?;
        let (jobs, own) = (self.clone(), id.to_string());
        let settings = RunSettings {
            events: Arc::new(move |event| jobs.tell(&own, &event)),
            results: Arc::new(Results { jobs: self.clone(), id: id.to_string() }),
            cancel,
            parameters: parameters(&request),
            resume: Some(Resume { job: id.to_string(), statements_done: done }),
        };
        Box::pin(session.run_script(&script, &settings)).await.map(|_| ())
    }

    fn settings_of(&self, request: &JobRequest) -> Result<Options> {
        let mut options = self.inner.options.clone();
        let own: Vec<&str> = self.inner.environment.extension().settings.iter().map(|setting| setting.key).collect();
        for (key, value) in &request.settings {
            options.set(key, value, &own)?;
        }
        if !request.directory.is_empty() {
            if !request.directory.starts_with('/') {
                let written = &request.directory;
                return Err(Error::invalid(format!("directory: expected an absolute path, got `{written}`")));
            }
            options.directory = Some(request.directory.clone());
        }
        Ok(options)
    }

    /// Writes down what an event means for the job, and its lines.
    fn tell(&self, id: &str, event: &Event) {
        match event {
            Event::StatementStarted { count, title, .. } => {
                self.write(id, Entry::Statement { count: *count, title: title.clone() });
            }
            Event::StatementFinished { number, .. } => self.write(id, Entry::Done { number: *number }),
            _ => {}
        }
        if let Some((stream, text)) = self.inner.face.event(event) {
            let is_news =
                found(&mut self.jobs(), id).is_ok_and(|job| std::mem::replace(&mut job.told, text.clone()) != text);
            if is_news {
                self.write(id, Entry::Log { stream, text });
            }
        }
    }

    fn write(&self, id: &str, entry: Entry) {
        let mut jobs = self.jobs();
        let Ok(job) = found(&mut jobs, id) else { return };
        if let Err(error) = job.record(entry) {
            tracing::error!(job = id, %error, "the job's history cannot be written");
        }
    }
}

impl Job {
    fn new(request: JobRequest, info: JobInfo, journal: Journal) -> Self {
        Job { request, info, journal, cancel: CancellationToken::new(), grown: Arc::default(), told: String::new() }
    }

    fn record(&mut self, entry: Entry) -> Result<()> {
        record(&mut self.journal, &mut self.info, entry)?;
        self.grown.notify_waiters();
        Ok(())
    }
}

/// Writes an entry down, then lets it count.
fn record(journal: &mut Journal, info: &mut JobInfo, entry: Entry) -> Result<()> {
    let at_ms = now_ms();
    journal.append(at_ms, &entry)?;
    apply(info, at_ms, &entry);
    Ok(())
}

/// What a job has come to, from its history.
fn fold(id: &str, request: &JobRequest, entries: Vec<(u64, Entry)>) -> JobInfo {
    let mut info = JobInfo {
        id: id.to_string(),
        name: name_of(request),
        user: request.user.clone(),
        state: JobState::Queued,
        submitted_ms: 0,
        started_ms: None,
        ended_ms: None,
        statements_done: 0,
        statements: None,
        doing: None,
        error: None,
        exit_code: None,
    };
    for (at_ms, entry) in &entries {
        apply(&mut info, *at_ms, entry);
    }
    info
}

fn apply(info: &mut JobInfo, at_ms: u64, entry: &Entry) {
    match entry {
        Entry::Submitted => {
            info.state = JobState::Queued;
            info.submitted_ms = at_ms;
            (info.ended_ms, info.error, info.exit_code) = (None, None, None);
        }
        Entry::Started => {
            info.state = JobState::Running;
            info.started_ms = Some(at_ms);
        }
        Entry::Statement { count, title } => {
            info.statements = Some(*count);
            info.doing = Some(title.clone());
        }
        Entry::Done { number } => info.statements_done = info.statements_done.max(*number),
        Entry::Ended { state, error, exit_code } => {
            info.state = *state;
            info.ended_ms = Some(at_ms);
            info.doing = None;
            info.error.clone_from(error);
            info.exit_code = Some(*exit_code);
        }
        Entry::Log { .. } => {}
    }
}

/// The job that may begin: of the users who have none running the one whose last began longest ago, of theirs the oldest.
fn next_of<'a>(jobs: impl Iterator<Item = &'a JobInfo> + Clone) -> Option<String> {
    let running: Vec<&str> =
        jobs.clone().filter(|job| job.state == JobState::Running).map(|job| job.user.as_str()).collect();
    if running.len() >= RUNNING_MAX {
        return None;
    }
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for job in jobs.clone() {
        let began = last.entry(&job.user).or_default();
        *began = (*began).max(job.started_ms.unwrap_or(0));
    }
    let waiting = jobs.filter(|job| job.state == JobState::Queued && !running.contains(&job.user.as_str()));
    waiting.min_by_key(|job| (last[job.user.as_str()], job.submitted_ms, &job.id)).map(|job| job.id.clone())
}

#[allow(clippy::disallowed_methods, reason = "a job's history tells when things happened")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn name_of(request: &JobRequest) -> String {
    if request.name.is_empty() { "job".to_string() } else { request.name.clone() }
}

fn parameters(request: &JobRequest) -> Vec<(String, String)> {
    request.params.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A job by its id or by the only beginning of one.
fn found<'a>(jobs: &'a mut BTreeMap<String, Job>, id: &str) -> Result<&'a mut Job> {
    let matching: Vec<String> = jobs.keys().filter(|known| known.starts_with(id)).cloned().collect();
    if let ([only], false) = (matching.as_slice(), id.is_empty()) {
        return Ok(jobs.get_mut(only).expect("its key was found in the map"));
    }
    if matching.len() > 1 {
        return Err(Error::invalid(format!("`{id}` begins the ids of {} jobs", matching.len())));
    }
    let error = Error::invalid(format!("there is no job `{id}`"));
    Err(match near(id, jobs.keys().map(String::as_str)) {
        Some(known) => error.with_hint(format!("did you mean `{known}`?")),
        None => error,
    })
}

/// Puts the rows of SELECTs into the log.
struct Results {
    jobs: Jobs,
    id: String,
}

#[async_trait]
impl ResultSink for Results {
    async fn accept(&self, _number: usize, rows: SendableRecordBatchStream) -> Result<u64> {
        let (text, count) = self.jobs.inner.face.rows(rows).await?;
        self.jobs.write(&self.id, Entry::Log { stream: LogStream::Result, text });
        Ok(count)
    }
}

/// Where the histories lie below a scheduler's state directory.
pub fn jobs_directory(state: &Path) -> PathBuf {
    state.join("jobs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(user: &str, number: u64) -> JobInfo {
        let request = JobRequest { user: user.to_string(), ..JobRequest::default() };
        let id = format!("{user}{number:03}");
        fold(&id, &request, vec![(number, Entry::Submitted)])
    }

    /// A user who submits many jobs first does not keep the others waiting until all of them are done.
    #[test]
    fn users_take_turns() {
        let users = ["a", "b", "c", "d", "e", "f"];
        let mut jobs: Vec<JobInfo> = users
            .iter()
            .enumerate()
            .flat_map(|(at, user)| (0..10).map(move |n| job(user, 10 * at as u64 + n)))
            .collect();
        let mut began: Vec<String> = Vec::new();
        // How many jobs had begun when a user's last one ended: since then that user waits.
        let mut waits_since = [0; 6];
        let mut clock = 1000;
        while jobs.iter().any(|job| !job.state.is_final()) {
            while let Some(id) = next_of(jobs.iter()) {
                clock += 1;
                apply(jobs.iter_mut().find(|job| job.id == id).unwrap(), clock, &Entry::Started);
                let user = users.iter().position(|user| id.starts_with(user)).unwrap();
                let meanwhile = &began[waits_since[user]..];
                let turns = users.map(|other| meanwhile.iter().filter(|id| id.starts_with(other)).count());
                assert!(turns.iter().all(|turns| *turns <= 1), "{id} waited for {meanwhile:?}");
                began.push(id);
            }
            let running: Vec<usize> = (0..jobs.len()).filter(|at| jobs[*at].state == JobState::Running).collect();
            let mut of: Vec<&str> = running.iter().map(|at| jobs[*at].user.as_str()).collect();
            of.dedup();
            assert_eq!(of.len(), running.len(), "two jobs of one user run at once");
            // Jobs are of different lengths.
            let ends = running[clock as usize % running.len()];
            apply(&mut jobs[ends], clock, &Entry::Ended { state: JobState::Succeeded, error: None, exit_code: 0 });
            waits_since[users.iter().position(|user| *user == jobs[ends].user).unwrap()] = began.len();
        }
        for user in users {
            let own: Vec<&String> = began.iter().filter(|id| id.starts_with(user)).collect();
            assert_eq!(own.len(), 10);
            assert!(own.is_sorted(), "{own:?}");
        }
    }
}
